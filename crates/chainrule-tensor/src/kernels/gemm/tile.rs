//! The innermost loops: a tile of C in registers, and blocks made of tiles.

use super::{super::lanes::Lanes, finish::Finish};
use crate::Scalar;
use std::ptr;

/// A block of C: m × n. Element (i, k) of A stands at `a[(i / mr)·a_panel + (i % mr)·a_row + k·a_col]`, row k of the
/// columns j.. of B at `b[(j / nr)·b_panel + j % nr + k·b_row]`.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Block<T> {
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
    /// Where the first tile of a panel of two vectors leaves the panel for the others, k rows of nr, or null.
    pub keep: *mut T,
    pub c: *mut T,
    pub c_row: usize,
    pub c_col: usize,
    pub finish: Finish<T>,
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
    /// Where rows of B are left for the next tile, or null.
    pub keep: *mut T,
    pub c: *mut T,
    pub c_row: usize,
    pub c_col: usize,
    pub finish: Finish<T>,
    /// `write` for the instruction set.
    pub write: unsafe fn(*const T, usize, usize, &Tile<T>),
}

/// All tiles of a block; `tile(t, rows, vectors)` computes one of `rows` ≤ mr and `vectors` ∈ {1, 2, 4, 8}.
///
/// # Safety
/// All elements that the block names are valid, and C is nobody else's.
#[inline(always)]
pub(super) unsafe fn block<L: Lanes>(
    b: &Block<L::T>,
    write: unsafe fn(*const L::T, usize, usize, &Tile<L::T>),
    tile: impl Fn(&Tile<L::T>, usize, usize),
) {
    let mut panel = b.b;
    for first in (0..b.n).step_by(b.nr) {
        let end = b.n.min(first + b.nr);
        let mut j = first;
        while j < end {
            let vectors = match (end - j).div_ceil(L::N) {
                8.. => 8,
                4..8 => 4,
                2..4 => 2,
                _ => 1,
            };
            let cols = (vectors * L::N).min(end - j);
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
                        finish: b.finish.at(i, j),
                        write,
                    }
                };
                tile(&t, b.mr.min(b.m - i), vectors);
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

/// R rows and V vectors of C. With `ROWS_ADJOIN`, a_row is 1.
///
/// # Safety
/// As `block`; t.n ≤ V·N and t.n > (V − 1)·N.
#[inline(always)]
pub(super) unsafe fn tile<L: Lanes, const R: usize, const V: usize, const ROWS_ADJOIN: bool>(t: &Tile<L::T>) {
    // SAFETY: A is read at R rows and k columns, B and C at the tile's n columns.
    unsafe {
        let mask = L::mask(t.n - (V - 1) * L::N);
        if t.c_col == 1 {
            for i in 0..R {
                let row = t.c.add(i * t.c_row);
                for v in 0..V {
                    L::prefetch(row.wrapping_add(v * L::N));
                }
            }
        }
        let acc = if V == 2 && !t.keep.is_null() {
            sums::<L, R, V, ROWS_ADJOIN, false, true>(t, mask)
        } else if t.n == V * L::N {
            sums::<L, R, V, ROWS_ADJOIN, true, false>(t, mask)
        } else {
            sums::<L, R, V, ROWS_ADJOIN, false, false>(t, mask)
        };
        if t.c_col == 1 && t.finish.row.is_null() && t.finish.col.is_null() && !t.finish.relu {
            let (alpha, beta) = (L::splat(t.finish.alpha), L::splat(t.finish.beta));
            for (i, acc) in acc.iter().enumerate() {
                for (v, acc) in acc.iter().enumerate() {
                    let c = t.c.add(i * t.c_row + v * L::N);
                    let mut out = acc.mul(alpha);
                    if t.finish.beta != L::T::ZERO {
                        out = part::<L>(c, v + 1 == V, mask).mul_add(beta, out);
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
            (t.write)(flat.as_ptr().cast(), R, V * L::N, t);
        }
    }
}

/// Rows of B that are asked for ahead, where they are not packed and so may stand in a page each.
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
    const ADJOIN: bool,
    const WHOLE: bool,
    const KEEP: bool,
>(
    t: &Tile<L::T>,
    mask: L::Mask,
) -> [[L; V]; R] {
    // SAFETY: A is read at R rows and k columns, B at the tile's n columns; `keep` has room for k rows of V vectors.
    unsafe {
        let mut acc = [[L::splat(L::T::ZERO); V]; R];
        let a_row = if ADJOIN { 1 } else { t.a_row };
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
/// The elements are valid.
#[inline(always)]
unsafe fn part<L: Lanes>(from: *const L::T, last: bool, mask: L::Mask) -> L {
    // SAFETY: the caller's.
    unsafe { if last { L::load_masked(from, mask) } else { L::load(from) } }
}
