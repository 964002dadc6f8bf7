//! What softmax and its logarithm share: the same loops along one axis.

use crate::rank::axis;
use chainrule_core::{Call, Error, Example, Layer, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::layers::softmax::{self, Kind};

/// (outer, n, inner): the product of the axes before `dim`, its length, and the product of the axes after it. A negative
/// `dim` counts from the end.
pub(super) fn around(layer: &str, dim: isize, shape: &[usize]) -> Result<(usize, usize, usize)> {
    let shape = Shape::new(shape)?;
    match axis(dim, shape.len()) {
        Some(at) => Ok((shape[..at].iter().product(), shape[at], shape[at + 1..].iter().product())),
        None => Err(Error::shape(format!("{layer}: expected an input with axis {dim}, got shape {shape}"))),
    }
}

/// Overwrites y with f(x) along the axis `dim`.
pub(super) fn forward<T: Scalar>(
    kind: Kind,
    layer: &str,
    dim: isize,
    x: &Tensor<T>,
    y: &mut Tensor<T>,
) -> Result<()> {
    let (_, n, inner) = around(layer, dim, x.shape())?;
    softmax::forward(kind, x.data(), y.reset(*x.shape()), n, inner);
    Ok(())
}

/// Overwrites dx with ∂E/∂x, if requested.
pub(super) fn backward<T: Scalar>(
    kind: Kind,
    layer: &str,
    dim: isize,
    call: Call<'_, T>,
    dx: Option<&mut Tensor<T>>,
) -> Result<()> {
    let (_, n, inner) = around(layer, dim, call.x.shape())?;
    if let Some(dx) = dx {
        softmax::backward(kind, call.y.data(), call.dy.data(), dx.reset(*call.x.shape()), n, inner);
    }
    Ok(())
}

/// Cases along the last axis and along an inner one.
pub(super) fn examples<L: Layer>(along: impl Fn(isize) -> L) -> Vec<Example> {
    vec![
        Example::new(along(-1).spec(), [[3, 5]]),
        Example::new(along(1).spec(), [[2, 3, 4]]),
        Example::bench(along(-1).spec(), [[256, 1024]]),
    ]
}
