//! Parameters of the last axes of a tensor.

use crate::rank::check_shape;
use chainrule_core::{Error, Result, Scalar, Shape};
use chainrule_tensor::{
    kernels::{layers::axis::sum_along, reduce::add_rows_to},
    par,
};

/// Elements of a piece of work.
const PIECE: usize = 1 << 14;

/// The shape of a parameter that stands for the last axes of x, those of length 1 at its end for any length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features(pub(super) Shape);

impl Features {
    pub(super) fn check(&self, layer: &str) -> Result<()> {
        if self.0.is_empty() || self.0.contains(&0) {
            return Err(Error::value(format!("{layer}: expected sizes of at least 1, got {}", self.0)));
        }
        check_shape(layer, Shape::new(&self.0))
    }

    /// How many axes at the end are of length 1, of those behind the first.
    fn open(&self) -> usize {
        self.0[1..].iter().rev().take_while(|&&n| n == 1).count()
    }

    /// The product of the axes of x that the axes of length 1 stand for.
    pub(super) fn inner(&self, layer: &str, input: &[usize]) -> Result<usize> {
        self.check(layer)?;
        let shape = Shape::new(input)?;
        let open = self.open();
        let closed = &self.0[..self.0.len() - open];
        if input.len() < self.0.len() || !input[..input.len() - open].ends_with(closed) {
            let axes: Vec<String> = closed.iter().map(usize::to_string).collect();
            let expected = axes.into_iter().chain(std::iter::repeat_n("*".to_owned(), open));
            let expected = expected.collect::<Vec<_>>().join(", ");
            return Err(Error::shape(format!("{layer}: expected input (.., {expected}), got {input:?}")));
        }
        Ok(shape[input.len() - open..].iter().product())
    }

    /// grad += Σ x over rows and over the `inner` elements of each feature.
    pub(super) fn add_sums<T: Scalar>(&self, x: &[T], inner: usize, sums: &mut Vec<T>, grad: &mut [T]) {
        if inner == 1 || x.is_empty() {
            return add_rows_to(x, grad);
        }
        sums.resize(x.len() / inner, T::ZERO);
        sum_along(x, sums, inner, 1, 1.0);
        add_rows_to(sums, grad);
    }

    pub(super) fn cache_bytes<T>(&self, input: &[usize]) -> usize {
        input.iter().fold(size_of::<T>(), |n, &axis| n.saturating_mul(axis))
    }
}

/// y = f(x, v) with the value v of each feature, which has `inner` elements of x side by side.
pub(super) fn combine<T: Scalar>(
    x: &[T],
    values: &[T],
    y: &mut [T],
    inner: usize,
    f: impl Fn(T, T) -> T + Copy + Sync,
) {
    let row = values.len() * inner;
    if x.is_empty() || row == 0 {
        return;
    }
    let per = PIECE.div_ceil(row);
    par::for_chunks(y, per * row, |piece, y| {
        let x = x[piece * per * row..].chunks_exact(row);
        for (y, x) in y.chunks_exact_mut(row).zip(x) {
            if inner == 1 {
                y.iter_mut().zip(x).zip(values).for_each(|((y, &x), &v)| *y = f(x, v));
                continue;
            }
            for ((y, x), &v) in y.chunks_exact_mut(inner).zip(x.chunks_exact(inner)).zip(values) {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x, v));
            }
        }
    });
}
