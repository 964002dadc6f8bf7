//! Rows to columns.

use crate::{
    Scalar,
    kernels::{
        dispatch::{Kernel, Set, dispatch},
        isa,
        lanes::Lanes,
    },
};

/// `to[c·to_row + r] = from[r·from_row + c]` for r < rows, c < cols. With `padded`, rows of `from` can be read up to a
/// whole number of vectors.
#[derive(Clone, Copy)]
pub(super) struct Transpose<T> {
    pub from: *const T,
    pub from_row: usize,
    pub rows: usize,
    pub cols: usize,
    pub padded: bool,
    pub to: *mut T,
    pub to_row: usize,
}

impl<T: Scalar> Kernel for Transpose<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { transpose::<S::Of<T>>(self) }
    }
}

#[inline(always)]
unsafe fn transpose<L: Lanes>(t: &Transpose<L::T>) {
    for r in (0..t.rows).step_by(L::N) {
        let rows = (t.rows - r).min(L::N);
        let mut c = 0;
        while c < t.cols {
            let cols = t.cols - c;
            // SAFETY: the pieces lie in both matrices, or in the local one.
            unsafe {
                let from = t.from.add(r * t.from_row);
                if cols >= L::N || (t.cols >= L::N && !t.padded) {
                    // The last piece ends with the matrix, and overlaps the one before.
                    c = c.min(t.cols - L::N);
                    L::transpose(from.add(c), t.from_row, rows, t.to.add(c * t.to_row + r), t.to_row);
                } else if t.padded {
                    let mut local = [L::splat(L::T::ZERO); 16];
                    let local = local.as_mut_ptr().cast::<L::T>();
                    L::transpose(from.add(c), t.from_row, rows, local, L::N);
                    let mask = L::mask(rows);
                    for k in 0..cols {
                        L::load(local.add(k * L::N)).store_masked(t.to.add((c + k) * t.to_row + r), mask);
                    }
                } else {
                    for k in c..t.cols {
                        for i in 0..rows {
                            *t.to.add(k * t.to_row + r + i) = *from.add(i * t.from_row + k);
                        }
                    }
                }
            }
            c += L::N;
        }
    }
}

/// `to[c·to_row + r] = from[r·from_row + c]` for r < rows, c < cols.
///
/// # Panics
/// If the lengths do not fit together.
pub(super) fn transpose_to<T: Scalar>(
    (from, from_row): (&[T], usize),
    [rows, cols]: [usize; 2],
    (to, to_row): (&mut [T], usize),
) {
    if rows == 0 || cols == 0 {
        return;
    }
    let lies_in = |len: usize, count: usize, row: usize, width: usize| {
        let end = (count - 1).checked_mul(row).and_then(|last| last.checked_add(width));
        width <= row && end.is_some_and(|end| end <= len)
    };
    assert!(
        lies_in(from.len(), rows, from_row, cols) && lies_in(to.len(), cols, to_row, rows),
        "the lengths"
    );
    let (from, to) = (from.as_ptr(), to.as_mut_ptr());
    // SAFETY: both matrices lie in the slices, of which `to` is borrowed exclusively, and the set is the processor's.
    unsafe { dispatch(isa(), &Transpose { from, from_row, rows, cols, padded: false, to, to_row }) };
}
