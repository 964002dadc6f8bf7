//! What is done to sums on their way to C.

use super::{super::lanes::Lanes, tile::Tile};
use crate::Scalar;

/// What is done to C besides the product: C = act(α A B + β C + bias).
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Finish<T> {
    pub alpha: T,
    pub beta: T,
    /// One number a column, or null.
    pub row: *const T,
    /// One number a row, or null.
    pub col: *const T,
    pub relu: bool,
}

impl<T: Scalar> Finish<T> {
    /// Finishes one element of C.
    ///
    /// # Safety
    /// (i, j) lies in C and stands at `c`.
    #[inline(always)]
    pub(super) unsafe fn write(&self, sum: T, i: usize, j: usize, c: *mut T) {
        let mut v = self.alpha * sum;
        // SAFETY: the caller's; the vectors are as long as C's sides.
        unsafe {
            if self.beta != T::ZERO {
                v += self.beta * *c;
            }
            if !self.row.is_null() {
                v += *self.row.add(j);
            }
            if !self.col.is_null() {
                v += *self.col.add(i);
            }
            *c = if self.relu && v < T::ZERO { T::ZERO } else { v };
        }
    }

    /// The finish of a part of C that begins at (i, j).
    ///
    /// # Safety
    /// (i, j) lies in C.
    pub(super) unsafe fn at(self, i: usize, j: usize) -> Self {
        let step = |p: *const T, by: usize| {
            // SAFETY: the vectors are as long as C's sides.
            if p.is_null() { p } else { unsafe { p.add(by) } }
        };
        Self { row: step(self.row, j), col: step(self.col, i), ..self }
    }

    /// The finish of Cᵀ.
    pub(super) fn t(self) -> Self {
        Self { row: self.col, col: self.row, ..self }
    }
}

/// A tile to C with all that is to be done besides: `rows` rows of sums at `from[i·stride ..]`.
///
/// # Safety
/// As `tile`.
#[inline(always)]
pub(super) unsafe fn write<L: Lanes>(from: *const L::T, rows: usize, stride: usize, t: &Tile<L::T>) {
    // SAFETY: C is touched at (i, j) with i < rows, j < n only; `turned` holds N rows of N.
    unsafe {
        if t.c_col == 1 {
            for i in 0..rows {
                let (from, to) = (from.add(i * stride), t.c.add(i * t.c_row));
                for j in (0..t.n).step_by(L::N) {
                    write_vector::<L>(
                        L::load(from.add(j)),
                        to.add(j),
                        (t.n - j).min(L::N),
                        &t.finish.at(i, j),
                    );
                }
            }
            return;
        }
        for j in (0..t.n).step_by(L::N) {
            for i in (0..rows).step_by(L::N) {
                let rows = (rows - i).min(L::N);
                let mut turned = [L::splat(L::T::ZERO); 16];
                let turned = turned.as_mut_ptr().cast::<L::T>();
                L::transpose(from.add(i * stride + j), stride, rows, turned, L::N);
                for c in 0..(t.n - j).min(L::N) {
                    let out = t.c.add(i * t.c_row + (j + c) * t.c_col);
                    let line = turned.add(c * L::N);
                    if t.c_row == 1 {
                        write_vector::<L>(L::load(line), out, rows, &t.finish.at(i, j + c).t());
                    } else {
                        for r in 0..rows {
                            let finish = t.finish.at(i + r, j + c);
                            write_vector::<L>(L::splat(*line.add(r)), out.add(r * t.c_row), 1, &finish);
                        }
                    }
                }
            }
        }
    }
}

/// The first `n` sums of a vector to C.
///
/// # Safety
/// C and the row of the finish have n elements, its column one.
#[inline(always)]
pub(super) unsafe fn write_vector<L: Lanes>(sum: L, c: *mut L::T, n: usize, f: &Finish<L::T>) {
    // SAFETY: the caller's.
    unsafe {
        let mask = L::mask(n);
        let mut out = sum.mul(L::splat(f.alpha));
        if f.beta != L::T::ZERO {
            out = L::load_if(c, mask).mul_add(L::splat(f.beta), out);
        }
        if !f.row.is_null() {
            out = out.add(L::load_if(f.row, mask));
        }
        if !f.col.is_null() {
            out = out.add(L::splat(*f.col));
        }
        if f.relu {
            out = out.relu();
        }
        out.store_masked(c, mask);
    }
}
