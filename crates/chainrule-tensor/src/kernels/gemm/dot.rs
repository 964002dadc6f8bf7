//! Products whose inner dimension adjoins in both operands, x Wᵀ: tiles of dot products, nothing packed.

use super::{lanes::Lanes, tile::Finish};
use crate::Scalar;

/// C (m × n) = A Bᵀ: row i of A at `a[i·a_row ..]`, row j of Bᵀ at `b[j·b_row ..]`, k elements each.
#[derive(Clone, Copy)]
pub(super) struct Dots<T> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const T,
    pub a_row: usize,
    pub b: *const T,
    pub b_row: usize,
    pub c: *mut T,
    pub c_row: usize,
    pub c_col: usize,
    pub finish: Finish<T>,
}

/// All of C.
///
/// # Safety
/// All elements that `d` names are valid, and C is nobody else's.
#[inline(always)]
pub(super) unsafe fn dots<L: Lanes>(d: &Dots<L::T>) {
    let mut i = 0;
    while i < d.m {
        // SAFETY: rows i.. exist, as many as are asked for.
        unsafe {
            i += match d.m - i {
                4.. => rows::<L, 4, 4>(d, i),
                3 => rows::<L, 3, 4>(d, i),
                2 => rows::<L, 2, 8>(d, i),
                _ => rows::<L, 1, 8>(d, i),
            }
        };
    }
}

/// Rows i..i + R of C, J columns at a time; returns R.
#[inline(always)]
unsafe fn rows<L: Lanes, const R: usize, const J: usize>(d: &Dots<L::T>, i: usize) -> usize {
    let mut j = 0;
    // SAFETY: the columns j.. exist.
    unsafe {
        while j + J <= d.n {
            cell::<L, R, J>(d, i, j);
            j += J;
        }
        while j < d.n {
            cell::<L, R, 1>(d, i, j);
            j += 1;
        }
    }
    R
}

/// R × J dot products, in N lanes each.
#[inline(always)]
unsafe fn cell<L: Lanes, const R: usize, const J: usize>(d: &Dots<L::T>, i: usize, j: usize) {
    // SAFETY: rows i..i + R of A and j..j + J of Bᵀ have k elements, C these rows and columns.
    unsafe {
        let (a, b) = (d.a.add(i * d.a_row), d.b.add(j * d.b_row));
        let mut acc = [[L::splat(L::T::ZERO); R]; J];
        let whole = d.k / L::N * L::N;
        let mut k = 0;
        while k < whole {
            let mut xs = [acc[0][0]; R];
            for (r, x) in xs.iter_mut().enumerate() {
                *x = L::load(a.add(r * d.a_row + k));
            }
            for (c, ys) in acc.iter_mut().enumerate() {
                let y = L::load(b.add(c * d.b_row + k));
                for (acc, x) in ys.iter_mut().zip(&xs) {
                    *acc = x.mul_add(y, *acc);
                }
            }
            k += L::N;
        }
        if k < d.k {
            let mask = L::mask(d.k - k);
            let mut xs = [acc[0][0]; R];
            for (r, x) in xs.iter_mut().enumerate() {
                *x = L::load_masked(a.add(r * d.a_row + k), mask);
            }
            for (c, ys) in acc.iter_mut().enumerate() {
                let y = L::load_masked(b.add(c * d.b_row + k), mask);
                for (acc, x) in ys.iter_mut().zip(&xs) {
                    *acc = x.mul_add(y, *acc);
                }
            }
        }
        let f = &d.finish;
        for (c, acc) in acc.iter().enumerate() {
            for (r, acc) in acc.iter().enumerate() {
                let out = d.c.add((i + r) * d.c_row + (j + c) * d.c_col);
                let mut v = f.alpha * acc.sum();
                if f.beta != L::T::ZERO {
                    v += f.beta * *out;
                }
                if !f.row.is_null() {
                    v += *f.row.add(j + c);
                }
                if !f.col.is_null() {
                    v += *f.col.add(i + r);
                }
                *out = if f.relu && v < L::T::ZERO { L::T::ZERO } else { v };
            }
        }
    }
}
