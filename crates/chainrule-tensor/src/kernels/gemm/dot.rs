//! Products whose inner dimension is contiguous in both operands, x Wᵀ: tiles of dot products, nothing packed.

use super::epilogue::{self, RawEpilogue};
use crate::{
    Scalar,
    kernels::{
        dispatch::{Kernel, Set},
        lanes::{Lanes, Vectors},
    },
};

/// C (m × n) = A Bᵀ: row i of A at `a[i·a_row ..]`, row j of Bᵀ at `b[j·b_row ..]`, k elements each.
#[derive(Clone, Copy)]
pub struct Dots<T> {
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
    pub epilogue: RawEpilogue<T>,
}

impl<T: Scalar> Kernel for Dots<T> {
    type T = T;
    const PORTABLE: bool = false;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { dots::<S::Of<T>>(self) }
    }
}

/// All of C, in cells of up to four rows.
///
/// # Safety
/// All elements that `d` names are valid, C is borrowed exclusively, and the processor has the instruction set.
#[inline(always)]
unsafe fn dots<L: Lanes>(d: &Dots<L::T>) {
    let mut i = 0;
    while i < d.m {
        // SAFETY: the rows exist, and a row of cells is as wide as C at most.
        unsafe {
            // A single row is read from memory more often than it is computed with: it takes both halves at once.
            let halves = const { L::T::LANES > L::N };
            i += match (d.m - i, d.n) {
                (4.., 4..) => cells::<L, 4, 4, 1, 1>(d, i),
                (2.., 8..) => cells::<L, 2, 8, 1, 1>(d, i),
                (_, 16..) if halves => cells::<L, 1, 4, 4, 2>(d, i),
                (_, 8..) if halves => cells::<L, 1, 4, 2, 2>(d, i),
                (_, 4..) if halves => cells::<L, 1, 4, 1, 2>(d, i),
                (_, 16..) => cells::<L, 1, 8, 2, 1>(d, i),
                (_, 8..) => cells::<L, 1, 8, 1, 1>(d, i),
                (_, 4..) => cells::<L, 1, 4, 1, 1>(d, i),
                _ => cells::<L, 1, 1, 1, 1>(d, i),
            };
        }
    }
}

/// Rows i..i + R of C, G groups of J columns at a time, H parts of their lanes at once; returns R. The last cell ends with C, so that it may cover columns
/// that are written already.
#[inline(always)]
unsafe fn cells<L: Lanes, const R: usize, const J: usize, const G: usize, const H: usize>(
    d: &Dots<L::T>,
    i: usize,
) -> usize {
    for j in (0..d.n).step_by(J * G) {
        let first = j.min(d.n - J * G);
        // SAFETY: the rows and the columns first..first + J·G exist.
        unsafe { cell::<L, R, J, G, H>(d, i, first, j - first) };
    }
    R
}

/// R × J·G dot products; the first `written` columns are not written again.
#[inline(always)]
unsafe fn cell<L: Lanes, const R: usize, const J: usize, const G: usize, const H: usize>(
    d: &Dots<L::T>,
    i: usize,
    j: usize,
    written: usize,
) {
    // SAFETY: rows i..i + R of A and j..j + J·G of Bᵀ have k elements, C these rows and columns; R·J·G ≤ 16.
    unsafe {
        let mut flat = [L::splat(L::T::ZERO); 16];
        for first in (0..L::T::LANES / L::N).step_by(H) {
            for g in 0..G {
                let (a, b) = (d.a.add(i * d.a_row), d.b.add((j + g * J) * d.b_row));
                let acc = group::<L, R, J, H>(d, first * L::N, a, b);
                for c in 0..J {
                    for r in 0..R {
                        let flat = &mut flat[(g * J + c) * R + r];
                        let sum = if H == 2 { acc[0][c][r].add(acc[H - 1][c][r]) } else { acc[0][c][r] };
                        *flat = if first == 0 { sum } else { flat.add(sum) };
                    }
                }
            }
        }
        if R == 1 && d.c_col == 1 && written == 0 {
            let c = d.c.add(i * d.c_row + j);
            L::sums(&flat, |col, sum| {
                if col < J * G {
                    let n = (J * G - col).min(L::N);
                    epilogue::write_vector::<L>(sum, c.add(col), n, &d.epilogue.at(i, j + col));
                }
            });
            return;
        }
        let mut sums = [L::T::ZERO; 16];
        let to = sums.as_mut_ptr();
        L::sums(&flat, |first, sum| sum.store(to.add(first)));
        for col in written..J * G {
            for r in 0..R {
                let out = d.c.add((i + r) * d.c_row + (j + col) * d.c_col);
                d.epilogue.write(sums[col * R + r], i + r, j + col, out);
            }
        }
    }
}

/// How far ahead the rows of B are prefetched by cells of two parts, which read four rows at a time and not eight: 0.8 of the time at (1, 784, 128)
/// on AVX2. Eight rows of AVX-512 would be a quarter slower for it.
const AHEAD: usize = 128;

/// R × J dot products in [`Vectors::LANES`] lanes each, H vectors of them from lane `first` on. R + J addresses fit in the registers of
/// any processor.
#[inline(always)]
unsafe fn group<L: Lanes, const R: usize, const J: usize, const H: usize>(
    d: &Dots<L::T>,
    first: usize,
    a: *const L::T,
    b: *const L::T,
) -> [[[L; R]; J]; H] {
    // SAFETY: the caller vouches for R rows at `a` and J at `b`, of k elements each.
    unsafe {
        let zero = L::splat(L::T::ZERO);
        let (mut acc, mut xs) = ([[[zero; R]; J]; H], [[zero; R]; H]);
        let mut k = first;
        while k + H * L::N <= d.k {
            for (h, xs) in xs.iter_mut().enumerate() {
                for (r, x) in xs.iter_mut().enumerate() {
                    *x = L::load(a.add(r * d.a_row + h * L::N + k));
                }
            }
            for c in 0..J {
                if H == 2 {
                    L::prefetch(b.wrapping_add(c * d.b_row + k + AHEAD));
                }
                for (h, (acc, xs)) in acc.iter_mut().zip(&xs).enumerate() {
                    let y = L::load(b.add(c * d.b_row + h * L::N + k));
                    for (acc, x) in acc[c].iter_mut().zip(xs) {
                        *acc = x.mul_add(y, *acc);
                    }
                }
            }
            k += L::T::LANES;
        }
        for (h, (acc, xs)) in acc.iter_mut().zip(&mut xs).enumerate() {
            let k = k + h * L::N;
            if k >= d.k {
                break;
            }
            let mask = L::mask((d.k - k).min(L::N));
            for (r, x) in xs.iter_mut().enumerate() {
                *x = L::load_masked(a.add(r * d.a_row + k), mask);
            }
            for (c, acc) in acc.iter_mut().enumerate() {
                let y = L::load_masked(b.add(c * d.b_row + k), mask);
                for (acc, x) in acc.iter_mut().zip(&*xs) {
                    *acc = x.mul_add(y, *acc);
                }
            }
        }
        acc
    }
}
