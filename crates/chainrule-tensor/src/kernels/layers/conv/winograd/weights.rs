//! Filters to transformed filters, and transformed gradients back.

use super::{
    lines,
    tiles::{load, store},
};
use crate::{
    Scalar,
    kernels::{
        dispatch::{Kernel, Set},
        lanes::Lanes,
    },
};
use std::ops::Range;

/// A panel of filters, to be transformed: column k of row c is, tap by tap, at `w[k·column + c·row ..][..9]`, and its
/// position p goes to `u[p·plane + c·width + k]`.
pub(super) struct Weights<T> {
    pub w: *const T,
    /// Elements from `w` on.
    pub len: usize,
    pub columns: usize,
    pub column: usize,
    pub row: usize,
    /// Whether the taps are flipped along both axes.
    pub flipped: bool,
    /// Rows to be transformed.
    pub range: Range<usize>,
    pub u: *mut T,
    pub plane: usize,
    pub width: usize,
    /// Becomes the sum of the squares of their elements.
    pub squares: *mut T,
}

impl<T: Scalar> Kernel for Weights<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { spread::<S::Of<T>>(self) }
    }
}

/// G g Gᵀ
///
/// # Safety
/// The memory of `j` is valid, and what it writes is borrowed exclusively.
#[inline(always)]
unsafe fn spread<L: Lanes>(j: &Weights<L::T>) {
    // SAFETY: the filters and their places lie in the memory that the caller vouches for; `taps` holds 9·N vectors.
    unsafe {
        let mut taps = [L::splat(L::T::ZERO); 16 * 9];
        let taps = taps.as_mut_ptr().cast::<L::T>();
        let mut squares = [L::splat(L::T::ZERO); 3];
        for k in (0..j.columns).step_by(L::N) {
            let columns = L::N.min(j.columns - k);
            let group = if j.row == 9 { L::N } else { 1 };
            for row in j.range.clone().step_by(group) {
                let rows = group.min(j.range.end - row);
                let first = k * j.column + row * j.row;
                transpose::<L>(j.w.add(first), j.len - first, j.column, columns, 9 * rows, taps);
                for i in 0..rows {
                    let mut g = load::<L, 9>(taps.add(9 * i * L::N), L::N);
                    for (i, &g) in g.iter().enumerate() {
                        squares[i % 3] = g.mul_add(g, squares[i % 3]);
                    }
                    if j.flipped {
                        g.reverse();
                    }
                    let (a, b) = (lines::g([g[0], g[3], g[6]]), lines::g([g[1], g[4], g[7]]));
                    let c = lines::g([g[2], g[5], g[8]]);
                    let to = j.u.add((row + i) * j.width + k);
                    for p in 0..6 {
                        let line = lines::g([a[p], b[p], c[p]]);
                        for (q, v) in line.into_iter().enumerate() {
                            v.store(to.add((6 * p + q) * j.plane));
                        }
                    }
                }
            }
        }
        let [a, b, c] = squares;
        *j.squares = a.add(b).add(c).sum();
    }
}

/// to[e·N + k] = from[k·column + e] for e < len, k < columns; `from` has `readable` elements, `to` room for N·N at least.
#[inline(always)]
unsafe fn transpose<L: Lanes>(
    from: *const L::T,
    readable: usize,
    column: usize,
    columns: usize,
    len: usize,
    to: *mut L::T,
) {
    // SAFETY: N elements are read of a column only where they are in it, or readable.
    unsafe {
        if len >= L::N {
            for e in (0..len).step_by(L::N) {
                let e = e.min(len - L::N);
                L::transpose(from.add(e), column, columns, to.add(e * L::N), L::N);
            }
        } else if (columns - 1) * column + L::N <= readable {
            L::transpose(from, column, columns, to, L::N);
        } else {
            for e in 0..len {
                for k in 0..columns {
                    *to.add(e * L::N + k) = *from.add(k * column + e);
                }
            }
        }
    }
}

/// The gradient of one filter, to be transformed back: position p of channel c at `u[p·plane + c]`, added to `dw[9·c ..][..9]`.
pub(super) struct Gradient<T> {
    pub u: *const T,
    pub plane: usize,
    pub channels: usize,
    pub dw: *mut T,
}

impl<T: Scalar> Kernel for Gradient<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { gather::<S::Of<T>>(self) }
    }
}

/// Gᵀ U G
///
/// # Safety
/// The memory of `j` is valid, what it writes is borrowed exclusively; up to N − 1 elements after the channels may be read.
#[inline(always)]
unsafe fn gather<L: Lanes>(j: &Gradient<L::T>) {
    // SAFETY: the positions and taps lie in the memory that the caller vouches for; `taps` and `flat` contain 9·N elements.
    unsafe {
        let zero = L::splat(L::T::ZERO);
        let (mut taps, mut flat) = ([zero; 16], [zero; 16]);
        let (taps, flat) = (taps.as_mut_ptr().cast::<L::T>(), flat.as_mut_ptr().cast::<L::T>());
        for c in (0..j.channels).step_by(L::N) {
            let mut rows = [[zero; 6]; 3];
            for q in 0..6 {
                let column = lines::gt(load::<L, 6>(j.u.add(q * j.plane + c), 6 * j.plane));
                for (row, v) in rows.iter_mut().zip(column) {
                    row[q] = v;
                }
            }
            for (r, row) in rows.into_iter().enumerate() {
                store(lines::gt(row), taps.add(3 * r * L::N), L::N);
            }
            for e in (0..9).step_by(L::N) {
                L::transpose(taps.add(e * L::N), L::N, L::N.min(9 - e), flat.add(e), 9);
            }
            let len = 9 * L::N.min(j.channels - c);
            let dw = j.dw.add(9 * c);
            for i in 0..len {
                *dw.add(i) += *flat.add(i);
            }
        }
    }
}
