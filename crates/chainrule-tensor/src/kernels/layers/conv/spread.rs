//! Products whose vectors run along the filters: any pixels, any taps.

use crate::{
    Scalar,
    kernels::{
        dispatch::{Kernel, Set},
        lanes::Lanes,
    },
};

/// C (rows × a panel of filters) = start + A B, with A[i][k] = `x[at[i] + off[k]]`: a window of an image is a row of A
/// without being copied out. The panel is one or two vectors wide.
#[derive(Clone, Copy)]
pub(super) struct Spread<T> {
    pub x: *const T,
    /// Of each row.
    pub at: *const usize,
    pub rows: usize,
    /// Of each element of the sum.
    pub off: *const usize,
    pub depth: usize,
    /// B, depth × panel.
    pub b: *const T,
    /// Vectors of the panel, 1 or 2.
    pub vectors: usize,
    /// What the sums begin with: row i at `start[i·start_row ..]`.
    pub start: *const T,
    pub start_row: usize,
    /// Row i at `c[i·c_row ..]`; may be where `start` is.
    pub c: *mut T,
    pub c_row: usize,
}

impl<T: Scalar> Kernel for Spread<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { rows::<S::Of<T>>(self) }
    }
}

/// Most rows of a tile of one or two vectors: sums, a row of B and an element of A fill the registers.
const fn most<L: Lanes>(vectors: usize) -> usize {
    match (size_of::<L>() == 64, vectors) {
        (true, _) => 11,
        (false, 1) => 10,
        (false, _) => 6,
    }
}

#[inline(always)]
unsafe fn rows<L: Lanes>(s: &Spread<L::T>) {
    let tiles = s.rows.div_ceil(const { most::<L>(1) }.min(if s.vectors == 2 { most::<L>(2) } else { 99 }));
    let mut i = 0;
    for t in 0..tiles {
        let next = s.rows * (t + 1) / tiles;
        // SAFETY: rows i..next exist, and the caller vouches for their elements.
        unsafe {
            match s.vectors {
                1 => height::<L, 1>(s, i, next - i),
                _ => height::<L, 2>(s, i, next - i),
            }
        }
        i = next;
    }
}

#[inline(always)]
unsafe fn height<L: Lanes, const V: usize>(s: &Spread<L::T>, i: usize, rows: usize) {
    // SAFETY: the caller vouches for the job.
    unsafe {
        match rows {
            1 => tile::<L, 1, V>(s, i),
            2 => tile::<L, 2, V>(s, i),
            3 => tile::<L, 3, V>(s, i),
            4 => tile::<L, 4, V>(s, i),
            5 => tile::<L, 5, V>(s, i),
            6 => tile::<L, 6, V>(s, i),
            7 => tile::<L, 7, V>(s, i),
            8 => tile::<L, 8, V>(s, i),
            9 => tile::<L, 9, V>(s, i),
            10 => tile::<L, 10, V>(s, i),
            11 => tile::<L, 11, V>(s, i),
            _ => unreachable!("a tile of {rows} rows"),
        }
    }
}

/// P rows from row i on.
#[inline(always)]
unsafe fn tile<L: Lanes, const P: usize, const V: usize>(s: &Spread<L::T>, i: usize) {
    if const { P > most::<L>(V) } {
        unreachable!("a tile of {P} rows");
    }
    // SAFETY: the rows exist, with `depth` elements each; B has `depth` rows of V vectors.
    unsafe {
        let mut x = [s.x; P];
        let mut acc = [[L::splat(L::T::ZERO); V]; P];
        for p in 0..P {
            x[p] = s.x.add(*s.at.add(i + p));
            for (v, acc) in acc[p].iter_mut().enumerate() {
                *acc = L::load(s.start.add((i + p) * s.start_row + v * L::N));
            }
        }
        let (mut off, mut b) = (s.off, s.b);
        for _ in 0..s.depth {
            let o = *off;
            let mut y = [acc[0][0]; V];
            for (v, y) in y.iter_mut().enumerate() {
                *y = L::load(b.add(v * L::N));
            }
            for (acc, x) in acc.iter_mut().zip(&x) {
                let x = L::splat(*x.add(o));
                for (acc, &y) in acc.iter_mut().zip(&y) {
                    *acc = x.mul_add(y, *acc);
                }
            }
            (off, b) = (off.add(1), b.add(V * L::N));
        }
        for (p, acc) in acc.iter().enumerate() {
            for (v, acc) in acc.iter().enumerate() {
                acc.store(s.c.add((i + p) * s.c_row + v * L::N));
            }
        }
    }
}
