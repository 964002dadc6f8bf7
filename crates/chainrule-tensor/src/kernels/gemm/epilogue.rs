//! What is done to sums on their way to C.

use super::tile::Tile;
use crate::{
    Scalar,
    kernels::{
        dispatch::{Kernel, Set},
        lanes::Lanes,
    },
};

/// What a product does as C is written for the last time, besides α A B + β C.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T> {
    /// Added to every row of C: one element a column, as the bias of a dense layer.
    pub row: Option<&'a [T]>,
    /// Added to every column of C: one element a row, as the bias of a convolution with its channels in rows.
    pub col: Option<&'a [T]>,
    /// Whether negative elements become 0 at the end.
    pub relu: bool,
}

impl<T> Default for Epilogue<'_, T> {
    #[inline]
    fn default() -> Self {
        Self { row: None, col: None, relu: false }
    }
}

/// An [`Epilogue`] with α and β as the kernels take it: C = act(α A B + β C + bias).
#[derive(Clone, Copy)]
pub struct RawEpilogue<T> {
    pub alpha: T,
    pub beta: T,
    /// One element a column, or null.
    pub row: *const T,
    /// One element a row, or null.
    pub col: *const T,
    pub relu: bool,
}

impl<T: Scalar> RawEpilogue<T> {
    /// Writes one element of C.
    ///
    /// # Safety
    /// (i, j) lies in C and is at `c`.
    #[inline(always)]
    pub(super) unsafe fn write(&self, sum: T, i: usize, j: usize, c: *mut T) {
        let v = self.alpha * sum;
        // SAFETY: (i, j) lies in C, at `c`.
        unsafe {
            let v = if self.beta != T::ZERO { v + self.beta * *c } else { v };
            self.add_bias(v, i, j, c);
        }
    }

    /// Writes act(v + bias) to element (i, j) of C.
    ///
    /// # Safety
    /// (i, j) lies in C and is at `c`.
    #[inline(always)]
    pub(super) unsafe fn add_bias(&self, mut v: T, i: usize, j: usize, c: *mut T) {
        // SAFETY: (i, j) lies in C, and the bias vectors are as long as C's sides.
        unsafe {
            if !self.row.is_null() {
                v += *self.row.add(j);
            }
            if !self.col.is_null() {
                v += *self.col.add(i);
            }
            *c = if self.relu && v < T::ZERO { T::ZERO } else { v };
        }
    }

    /// The epilogue of the part of C that begins at (i, j).
    ///
    /// # Safety
    /// (i, j) lies in C.
    pub(super) unsafe fn at(self, i: usize, j: usize) -> Self {
        let step = |p: *const T, by: usize| {
            // SAFETY: the bias vectors are as long as C's sides, and (i, j) lies in C.
            if p.is_null() { p } else { unsafe { p.add(by) } }
        };
        Self { row: step(self.row, j), col: step(self.col, i), ..self }
    }

    /// The epilogue of Cᵀ.
    pub(super) fn t(self) -> Self {
        Self { row: self.col, col: self.row, ..self }
    }
}

/// The sums of a tile, to be written to C: `rows` rows at `from[i·stride ..]`.
pub(super) struct Write<'a, T> {
    pub from: *const T,
    pub rows: usize,
    pub stride: usize,
    pub tile: &'a Tile<T>,
}

impl<T: Scalar> Kernel for Write<'_, T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { write::<S::Of<T>>(self.from, self.rows, self.stride, self.tile) }
    }
}

/// # Safety
/// C has the tile's rows and columns, `from` as many sums, and the processor has the instruction set.
#[inline(always)]
unsafe fn write<L: Lanes>(from: *const L::T, rows: usize, stride: usize, t: &Tile<L::T>) {
    // SAFETY: C is touched at (i, j) with i < rows, j < n only; `transposed` holds N rows of N.
    unsafe {
        if t.c_col == 1 {
            for i in 0..rows {
                let (from, to) = (from.add(i * stride), t.c.add(i * t.c_row));
                for j in (0..t.n).step_by(L::N) {
                    write_vector::<L>(
                        L::load(from.add(j)),
                        to.add(j),
                        (t.n - j).min(L::N),
                        &t.epilogue.at(i, j),
                    );
                }
            }
            return;
        }
        for j in (0..t.n).step_by(L::N) {
            for i in (0..rows).step_by(L::N) {
                let rows = (rows - i).min(L::N);
                let mut transposed = [L::splat(L::T::ZERO); 16];
                let transposed = transposed.as_mut_ptr().cast::<L::T>();
                L::transpose(from.add(i * stride + j), stride, rows, transposed, L::N);
                for c in 0..(t.n - j).min(L::N) {
                    let out = t.c.add(i * t.c_row + (j + c) * t.c_col);
                    let column = transposed.add(c * L::N);
                    if t.c_row == 1 {
                        write_vector::<L>(L::load(column), out, rows, &t.epilogue.at(i, j + c).t());
                    } else {
                        for r in 0..rows {
                            let epilogue = t.epilogue.at(i + r, j + c);
                            write_vector::<L>(L::splat(*column.add(r)), out.add(r * t.c_row), 1, &epilogue);
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
/// C and the row of the epilogue have n elements, its column one.
#[inline(always)]
pub(super) unsafe fn write_vector<L: Lanes>(sum: L, c: *mut L::T, n: usize, f: &RawEpilogue<L::T>) {
    // SAFETY: the mask keeps to n elements of C and of the row; the column has one.
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
