//! Products where ours has no vectors to run on: those of the `matrixmultiply` crate, with our epilogues and our threads.

use super::engine::Product;
use crate::{Scalar, par};

/// Rows or columns of C that stay together when threads share a product: a multiple of the sides of every tile that
/// `matrixmultiply` has, so that an element is in a tile of the same size however many threads there are.
const UNIT: usize = 64;

/// Computes a product with n, m > 0 of `work` multiply-adds.
///
/// # Safety
/// All elements that `p` names are valid, and those of C are disjoint and borrowed exclusively.
pub(super) unsafe fn run<T: Scalar>(p: &Product<T>, work: usize) {
    let by_rows = p.m >= p.n;
    let all = if by_rows { p.m } else { p.n };
    let pieces = if work < super::engine::SERIAL { 1 } else { par::threads() };
    let step = all.div_ceil(pieces).next_multiple_of(UNIT);
    par::for_each(all.div_ceil(step), |i| {
        let part = i * step..all.min(i * step + step);
        // SAFETY: a range of rows or of columns of C, which no other piece has.
        unsafe {
            let part = if by_rows { p.part(part, 0..p.n, p.k) } else { p.part(0..p.m, part, p.k) };
            multiply(&part);
            finish(&part);
        }
    });
}

/// C = act(C + bias)
///
/// # Safety
/// As [`run`].
unsafe fn finish<T: Scalar>(p: &Product<T>) {
    let e = &p.epilogue;
    if e.row.is_null() && e.col.is_null() && !e.relu {
        return;
    }
    for i in 0..p.m {
        for j in 0..p.n {
            // SAFETY: (i, j) lies in C, and the bias vectors are as long as C's sides.
            unsafe {
                let c = p.c.add(i * p.c_row + j * p.c_col);
                e.add_bias(*c, i, j, c);
            }
        }
    }
}

/// `sgemm` or `dgemm`: (m, k, n, α, A and its strides, B and its strides, β, C and its strides).
#[rustfmt::skip]
pub type Gemm<T> = unsafe fn(
    usize, usize, usize, T, *const T, isize, isize, *const T, isize, isize, T, *mut T, isize, isize,
);

/// C = α A B + β C
///
/// # Safety
/// As [`run`].
unsafe fn multiply<T: Scalar>(p: &Product<T>) {
    // A stride that is used leads to an element, so that it fits; that of an axis of one element may be anything.
    let stride = |s: usize| isize::try_from(s).unwrap_or(1);
    let (a, b) = (&p.a, &p.b);
    // SAFETY: the elements that `p` names are valid, and those of C are disjoint and borrowed exclusively.
    unsafe {
        (T::GEMM)(
            p.m,
            p.k,
            p.n,
            p.epilogue.alpha,
            a.data,
            stride(a.side),
            stride(a.inner),
            b.data,
            stride(b.inner),
            stride(b.side),
            p.epilogue.beta,
            p.c,
            stride(p.c_row),
            stride(p.c_col),
        );
    }
}
