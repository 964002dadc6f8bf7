//! The innermost loops: a tile of C in registers, and blocks made of tiles.

use super::epilogue::{RawEpilogue, Write};
use crate::{
    Scalar,
    kernels::{
        Isa,
        dispatch::{Kernel, Set},
        lanes::{Lanes, lanes},
    },
};
use std::ptr;

/// A block of C: m × n. Element (i, k) of A is `a[(i / mr)·a_panel + (i % mr)·a_row + k·a_col]`, row k of the
/// columns j.. of B at `b[(j / nr)·b_panel + j % nr + k·b_row]`.
#[derive(Clone, Copy)]
pub struct Block<T> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const T,
    pub a_row: usize,
    pub a_col: usize,
    pub a_panel: usize,
    pub mr: usize,
    pub b: *const T,
    pub b_row: usize,
    pub b_panel: usize,
    pub nr: usize,
    /// Where the first tile of a panel of two vectors copies the panel to for the others, k rows of nr, or null.
    pub keep: *mut T,
    pub c: *mut T,
    pub c_row: usize,
    pub c_col: usize,
    pub epilogue: RawEpilogue<T>,
}

/// `block` cut down to one tile: m rows, n columns.
#[derive(Clone, Copy)]
pub(super) struct Tile<T> {
    pub n: usize,
    pub k: usize,
    pub a: *const T,
    pub a_row: usize,
    pub a_col: usize,
    pub b: *const T,
    pub b_row: usize,
    /// Where rows of B are copied to for the next tile, or null.
    pub keep: *mut T,
    pub c: *mut T,
    pub c_row: usize,
    pub c_col: usize,
    pub epilogue: RawEpilogue<T>,
}

/// Most rows of a tile of 1, 2, 4 and 8 vectors, for vectors of so many bytes: sums, a row of B and an element of A fill the 32
/// registers of AVX-512, or 16.
const fn rows(bytes: usize) -> [usize; 4] {
    match bytes {
        64 => [14, 14, 6, 3],
        32 => [8, 5, 2, 1],
        _ => [6, 6, 3, 1],
    }
}

/// Most rows of a tile of 1, 2, 4 and 8 vectors.
pub(in crate::kernels) fn most_rows<T: Scalar>(isa: Isa) -> [usize; 4] {
    rows(lanes::<T>(isa) * size_of::<T>())
}

impl<T: Scalar> Kernel for Block<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { block::<S, T>(self) }
    }
}

/// All tiles of a block.
///
/// # Safety
/// All elements that the block names are valid, C is borrowed exclusively, and the processor has the set.
#[inline(always)]
unsafe fn block<S: Set, T: Scalar>(b: &Block<T>) {
    let (n, mut panel) = (S::Of::<T>::N, b.b);
    for first in (0..b.n).step_by(b.nr) {
        let end = b.n.min(first + b.nr);
        let mut j = first;
        while j < end {
            let vectors = match (end - j).div_ceil(n) {
                8.. => 8,
                4..8 => 4,
                2..4 => 2,
                _ => 1,
            };
            let cols = (vectors * n).min(end - j);
            let mut keep = if vectors == 2 { b.keep } else { ptr::null_mut() };
            let (mut at, mut b_row) = (panel.wrapping_add(j - first), b.b_row);
            let mut a = b.a;
            for i in (0..b.m).step_by(b.mr) {
                // SAFETY: (i, j) lies in the block.
                let t = unsafe {
                    Tile {
                        n: cols,
                        k: b.k,
                        a,
                        a_row: b.a_row,
                        a_col: b.a_col,
                        b: at,
                        b_row,
                        keep,
                        c: b.c.add(i * b.c_row + j * b.c_col),
                        c_row: b.c_row,
                        c_col: b.c_col,
                        epilogue: b.epilogue.at(i, j),
                    }
                };
                // SAFETY: the tile lies in the block, whose rows and columns the caller vouches for.
                unsafe { sized::<S, T>(&t, b.mr.min(b.m - i), vectors) };
                a = a.wrapping_add(b.a_panel);
                if !keep.is_null() {
                    (at, b_row, keep) = (keep, b.nr, ptr::null_mut());
                }
            }
            j += cols;
        }
        panel = panel.wrapping_add(b.b_panel);
    }
}

/// A tile of R rows and V vectors, in a function of its own. It is the tile and not a reference to it: what is written to C cannot
/// change what a kernel is, so that no field is read twice.
#[repr(transparent)]
struct Sized<T, const R: usize, const V: usize>(Tile<T>);

impl<T, const R: usize, const V: usize> Sized<T, R, V> {
    #[inline(always)]
    fn of(tile: &Tile<T>) -> &Self {
        // SAFETY: the types have the same layout.
        unsafe { &*ptr::from_ref(tile).cast() }
    }
}

impl<T: Scalar, const R: usize, const V: usize> Kernel for Sized<T, R, V> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // Packed rows of A are contiguous, which is worth a loop of its own where the vectors are wide.
        let contiguous = S::Of::<T>::N >= 8 && self.0.a_row == 1;
        // SAFETY: the caller's promises, see `Kernel::run`, are those of `tile`.
        unsafe {
            if contiguous { tile::<S, T, R, V, true>(&self.0) } else { tile::<S, T, R, V, false>(&self.0) }
        }
    }
}

/// The tile of `rows` rows and `vectors` ∈ {1, 2, 4, 8} vectors.
///
/// # Safety
/// As `block`; t.n ≤ V·N and t.n > (V − 1)·N for so many vectors V.
#[inline(always)]
unsafe fn sized<S: Set, T: Scalar>(t: &Tile<T>, r: usize, vectors: usize) {
    macro_rules! sizes {
        ($($v:literal: $($r:literal)*;)*) => {
            match (vectors, r) {
                $($(($v, $r) if const { $r <= rows(size_of::<S::Of<T>>())[($v as usize).ilog2() as usize] } => {
                    S::call(Sized::<T, $r, $v>::of(t));
                })*)*
                _ => unreachable!("a tile of {r} rows and {vectors} vectors"),
            }
        };
    }
    // SAFETY: the caller's promises are those of the tiles.
    unsafe {
        sizes! {
            1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
            2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
            4: 1 2 3 4 5 6;
            8: 1 2 3;
        }
    }
}

/// R rows and V vectors of C. With `CONTIGUOUS_ROWS`, a_row is 1.
///
/// # Safety
/// As `block`; t.n ≤ V·N and t.n > (V − 1)·N.
#[inline(always)]
unsafe fn tile<S: Set, T: Scalar, const R: usize, const V: usize, const CONTIGUOUS_ROWS: bool>(t: &Tile<T>) {
    let lanes = S::Of::<T>::N;
    // SAFETY: A is read at R rows and k columns, B and C at the tile's n columns.
    unsafe {
        let mask = S::Of::<T>::mask(t.n - (V - 1) * lanes);
        if t.c_col == 1 {
            for i in 0..R {
                let row = t.c.add(i * t.c_row);
                for v in 0..V {
                    S::Of::<T>::prefetch(row.wrapping_add(v * lanes));
                }
            }
        }
        let acc = if V == 2 && !t.keep.is_null() {
            sums::<S::Of<T>, R, V, CONTIGUOUS_ROWS, false, true>(t, mask)
        } else if t.n == V * lanes {
            sums::<S::Of<T>, R, V, CONTIGUOUS_ROWS, true, false>(t, mask)
        } else {
            sums::<S::Of<T>, R, V, CONTIGUOUS_ROWS, false, false>(t, mask)
        };
        if t.c_col == 1 && t.epilogue.row.is_null() && t.epilogue.col.is_null() && !t.epilogue.relu {
            let (alpha, beta) = (S::Of::<T>::splat(t.epilogue.alpha), S::Of::<T>::splat(t.epilogue.beta));
            for (i, acc) in acc.iter().enumerate() {
                for (v, acc) in acc.iter().enumerate() {
                    let c = t.c.add(i * t.c_row + v * lanes);
                    let mut out = acc.mul(alpha);
                    if t.epilogue.beta != T::ZERO {
                        out = part::<S::Of<T>>(c, v + 1 == V, mask).mul_add(beta, out);
                    }
                    if v + 1 == V { out.store_masked(c, mask) } else { out.store(c) }
                }
            }
        } else {
            let mut flat = [[acc[0][0]; V]; R];
            for (flat, acc) in flat.iter_mut().zip(&acc) {
                for (flat, acc) in flat.iter_mut().zip(acc) {
                    acc.store(ptr::from_mut(flat).cast());
                }
            }
            S::call(&Write { from: flat.as_ptr().cast(), rows: R, stride: V * lanes, tile: t });
        }
    }
}

/// How many rows ahead B is prefetched where it is not packed: each row may lie in a page of its own, where the processor does not
/// prefetch by itself. Measured: (128, 784, 512) goes from 78 to 84 % of the peak.
const AHEAD: usize = 8;

/// The sums of a tile. `WHOLE` tiles have V whole vectors in a row: some processors mask in the units that multiply.
/// With `KEEP`, the rows of B are also written to `t.keep`.
///
/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn sums<
    L: Lanes,
    const R: usize,
    const V: usize,
    const CONTIGUOUS_ROWS: bool,
    const WHOLE: bool,
    const KEEP: bool,
>(
    t: &Tile<L::T>,
    mask: L::Mask,
) -> [[L; V]; R] {
    // SAFETY: A is read at R rows and k columns, B at the tile's n columns; `keep` has room for k rows of V vectors.
    unsafe {
        let mut acc = [[L::splat(L::T::ZERO); V]; R];
        let a_row = if CONTIGUOUS_ROWS { 1 } else { t.a_row };
        let (mut a, mut b, mut keep) = (t.a, t.b, t.keep);
        for _ in 0..t.k {
            let mut row = [acc[0][0]; V];
            for (v, row) in row.iter_mut().enumerate() {
                *row = part::<L>(b.add(v * L::N), !WHOLE && v + 1 == V, mask);
                if KEEP {
                    L::prefetch(b.wrapping_add(AHEAD * t.b_row + v * L::N));
                    row.store(keep.add(v * L::N));
                }
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = L::splat(*a.add(i * a_row));
                for (acc, &y) in acc.iter_mut().zip(&row) {
                    *acc = x.mul_add(y, *acc);
                }
            }
            (a, b) = (a.wrapping_add(t.a_col), b.wrapping_add(t.b_row));
            if KEEP {
                keep = keep.wrapping_add(V * L::N);
            }
        }
        acc
    }
}

/// A vector; the last of a row is masked.
///
/// # Safety
/// The elements are valid, those that the mask leaves out excepted.
#[inline(always)]
unsafe fn part<L: Lanes>(from: *const L::T, last: bool, mask: L::Mask) -> L {
    // SAFETY: a masked load touches the masked lanes alone.
    unsafe { if last { L::load_masked(from, mask) } else { L::load(from) } }
}
