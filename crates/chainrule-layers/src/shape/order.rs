//! The way back from another order of axes.

use chainrule_core::{Scalar, Shape};
use chainrule_tensor::kernels::layers::permute::permute;

/// The inverse of `permute`: x of this shape from y, whose axis i is axis `order[i]` of x.
pub(super) fn permute_back<T: Scalar>(y: &[T], x: &mut [T], shape: &[usize], order: &[usize]) {
    let (mut lengths, mut inverse) = ([0; Shape::MAX_RANK], [0; Shape::MAX_RANK]);
    for (i, &axis) in order.iter().enumerate() {
        (lengths[i], inverse[axis]) = (shape[axis], i);
    }
    permute(y, x, &lengths[..order.len()], &inverse[..order.len()]);
}
