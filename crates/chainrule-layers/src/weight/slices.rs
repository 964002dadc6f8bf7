//! The slices of a weight along one axis, and loops over them.

use chainrule_core::Scalar;
use chainrule_tensor::{
    compiled,
    kernels::layers::axis::{dot_along, sum_along},
    par,
};

/// A weight (outer, n, inner) as n slices.
#[derive(Clone, Copy)]
pub(super) struct Slices {
    pub(super) outer: usize,
    pub(super) n: usize,
    pub(super) inner: usize,
}

impl Slices {
    /// The slices along an axis, which must exist, or the whole as one.
    pub(super) fn new(shape: &[usize], dim: Option<usize>) -> Self {
        let product = |axes: &[usize]| axes.iter().product();
        match dim {
            Some(dim) => {
                Self { outer: product(&shape[..dim]), n: shape[dim], inner: product(&shape[dim + 1..]) }
            }
            None => Self { outer: 1, n: 1, inner: product(shape) },
        }
    }

    /// `out[i] = Σ x z` over slice i.
    pub(super) fn dots<T: Scalar>(self, x: &[T], z: &[T], parts: &mut Vec<T>, out: &mut Vec<T>) {
        let Self { outer, n, inner } = self;
        out.resize(n, T::ZERO);
        if inner == 1 {
            return dot_along(x, z, out, outer, n);
        }
        if outer == 1 {
            return dot_along(x, z, out, inner, 1);
        }
        parts.resize(outer * n, T::ZERO);
        dot_along(x, z, parts, inner, 1);
        sum_along(parts, out, outer, n, 1.0);
    }
}

/// Elements of a piece.
pub(super) const PIECE: usize = 1 << 14;

/// Calls `whole(at, y)` for rows of n slices of one element each, `one(at, i, y)` for parts of slice i; `at` is where y begins.
#[inline(always)]
fn by_slices<T: Scalar>(
    y: &mut [T],
    (n, inner): (usize, usize),
    whole: impl Fn(usize, &mut [T]) + Sync,
    one: impl Fn(usize, usize, &mut [T]) + Sync,
) {
    let row = if inner == 1 { n } else { inner };
    if y.is_empty() {
        return;
    }
    let per = (PIECE / row).max(1);
    par::for_chunks(y, per * row, |piece, y| {
        for (k, y) in y.chunks_exact_mut(row).enumerate() {
            let row_at = piece * per + k;
            if inner == 1 { whole(row_at * row, y) } else { one(row_at * row, row_at % n, y) }
        }
    });
}

compiled! {
    /// `y[o, i, k] = a[i] x[o, i, k]`
    pub(super) fn scale_slices[T](x: &[T], a: &[T], y: &mut [T], inner: usize) {
        by_slices(
            y,
            (a.len(), inner),
            |at, y| {
                let x = &x[at..][..y.len()];
                y.iter_mut().zip(x).zip(a).for_each(|((y, &x), &a)| *y = a * x);
            },
            |at, i, y| {
                let (x, a) = (&x[at..][..y.len()], a[i]);
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = a * x);
            },
        );
    }
}

compiled! {
    /// `y[o, i, k] += a[i] x[o, i, k] + b[i] z[o, i, k]`
    pub(super) fn add_slices[T](x_and_z: (&[T], &[T]), a_and_b: (&[T], &[T]), y: &mut [T], inner: usize) {
        let ((x, z), (a, b)) = (x_and_z, a_and_b);
        by_slices(
            y,
            (a.len(), inner),
            |at, y| {
                let (x, z) = (&x[at..][..y.len()], &z[at..][..y.len()]);
                for ((((y, &x), &z), &a), &b) in y.iter_mut().zip(x).zip(z).zip(a).zip(b) {
                    *y += a * x + b * z;
                }
            },
            |at, i, y| {
                let (x, z, a, b) = (&x[at..][..y.len()], &z[at..][..y.len()], a[i], b[i]);
                y.iter_mut().zip(x).zip(z).for_each(|((y, &x), &z)| *y += a * x + b * z);
            },
        );
    }
}
