//! Products whose vectors run along the rows of an image: few filters, or rows that fill vectors.

use crate::{
    Scalar,
    kernels::{
        dispatch::{Kernel, Set},
        lanes::Lanes,
    },
};

/// y[f][p ..] = bias[f] + Σ over k of w[k][f] · x[x_p + off[k] ..], for vectors p of pixels.
#[derive(Clone, Copy)]
pub(super) struct Along<T> {
    pub x: *const T,
    /// Where each vector begins in x, and in the plane of y.
    pub at: *const [usize; 2],
    pub vectors: usize,
    /// Elements of each vector: N, or fewer when rows are shorter.
    pub width: usize,
    pub off: *const usize,
    pub depth: usize,
    /// depth × filters
    pub w: *const T,
    pub filters: usize,
    /// One a filter, or null.
    pub bias: *const T,
    /// Filter f at `y[f·y_plane ..]`.
    pub y: *mut T,
    pub y_plane: usize,
}

impl<T: Scalar> Kernel for Along<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { vectors::<S::Of<T>>(self) }
    }
}

/// Most filters of a tile of 1, 2, 4, 8 vectors.
pub(super) const fn most(wide: bool, vectors: usize) -> usize {
    match (wide, vectors) {
        (true, 1 | 2) => 14,
        (true, 4) => 6,
        (true, _) => 3,
        (false, 1) => 10,
        (false, 2) => 5,
        (false, 4) => 2,
        (false, _) => 1,
    }
}

const fn wide<L: Lanes>() -> bool {
    size_of::<L>() == 64
}

#[inline(always)]
unsafe fn vectors<L: Lanes>(a: &Along<L::T>) {
    // SAFETY: the caller vouches for the job.
    unsafe { if a.width < L::N { masked::<L, true>(a) } else { masked::<L, false>(a) } }
}

#[inline(always)]
unsafe fn masked<L: Lanes, const MASK: bool>(a: &Along<L::T>) {
    let fits = |vectors| a.filters <= most(const { wide::<L>() }, vectors);
    // Wide tiles are for whole vectors of few filters; the rest is done two vectors and one at a time. Each tile
    // size that is omitted is one less to compile.
    let widest = match a.filters {
        _ if MASK => 2,
        ..=3 if fits(8) => 8,
        4.. if fits(4) => 4,
        _ => 2,
    };
    let mut i = 0;
    while i < a.vectors {
        let now = [widest, 2].into_iter().find(|&v| v <= a.vectors - i && fits(v)).unwrap_or(1);
        // SAFETY: vectors i..i + now exist.
        unsafe {
            match now {
                8 => few::<L, 8>(a, i),
                4 => some::<L, 4>(a, i),
                2 => many::<L, 2, MASK>(a, i),
                // The mask of a whole vector is full.
                _ => many::<L, 1, true>(a, i),
            }
        }
        i += now;
    }
}

macro_rules! heights {
    ($name:ident [$(const $mask:ident: bool)?] $masked:expr, $($r:literal)*) => {
        #[inline(always)]
        unsafe fn $name<L: Lanes, const V: usize $(, const $mask: bool)?>(a: &Along<L::T>, i: usize) {
            // SAFETY: the caller vouches for the job.
            unsafe {
                match a.filters {
                    $($r => tile::<L, $r, V, { $masked }>(a, i),)*
                    more => unreachable!("a tile of {more} filters"),
                }
            }
        }
    };
}
heights!(few [] false, 1 2 3);
heights!(some [] false, 4 5 6);
heights!(many [const MASK: bool] MASK, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

/// R filters at the vectors i..i + V.
#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize, const V: usize, const MASK: bool>(a: &Along<L::T>, i: usize) {
    if const { R > most(wide::<L>(), V) } {
        unreachable!("a tile of {R} filters");
    }
    // SAFETY: the vectors lie in x at every offset and in y; w has `depth` rows of R.
    unsafe {
        let mask = L::mask(if MASK { a.width } else { L::N });
        let (mut x, mut y) = ([a.x; V], [0; V]);
        for v in 0..V {
            let [from, to] = *a.at.add(i + v);
            (x[v], y[v]) = (a.x.add(from), to);
        }
        let mut acc = [[L::splat(L::T::ZERO); V]; R];
        if !a.bias.is_null() {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = [L::splat(*a.bias.add(r)); V];
            }
        }
        let (mut off, mut w) = (a.off, a.w);
        for _ in 0..a.depth {
            let o = *off;
            let mut row = [acc[0][0]; V];
            for (row, x) in row.iter_mut().zip(&x) {
                *row = if MASK { L::load_masked(x.add(o), mask) } else { L::load(x.add(o)) };
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let w = L::splat(*w.add(r));
                for (acc, &x) in acc.iter_mut().zip(&row) {
                    *acc = w.mul_add(x, *acc);
                }
            }
            (off, w) = (off.add(1), w.add(R));
        }
        for (r, acc) in acc.iter().enumerate() {
            for (acc, &y) in acc.iter().zip(&y) {
                let to = a.y.add(r * a.y_plane + y);
                if MASK { acc.store_masked(to, mask) } else { acc.store(to) }
            }
        }
    }
}
