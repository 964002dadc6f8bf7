//! Gradients of few filters: dot products along the rows of an image.

use crate::{
    Scalar,
    kernels::{
        dispatch::{Kernel, Set},
        lanes::Lanes,
    },
};

/// acc[f][t] += Σ over vectors p of dy[f][y_p ..] ⊙ x[x_p + off[t] ..], lane by lane.
#[derive(Clone, Copy)]
pub(super) struct Taps<T> {
    pub x: *const T,
    pub off: *const usize,
    pub taps: usize,
    /// Filter f at `dy[f·plane ..]`.
    pub dy: *const T,
    pub plane: usize,
    pub filters: usize,
    /// Where each whole vector begins in x, and in the plane of dy.
    pub whole: *const [usize; 2],
    pub wholes: usize,
    /// The same of the ends of rows, of `width` elements each.
    pub ends: *const [usize; 2],
    pub end_count: usize,
    pub width: usize,
    /// filters × taps vectors
    pub acc: *mut T,
}

impl<T: Scalar> Kernel for Taps<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { tiles::<S::Of<T>>(self) }
    }
}

/// Most filters of a tile.
const fn most_filters<L: Lanes>() -> usize {
    if size_of::<L>() == 64 { 6 } else { 3 }
}

/// The taps of a tile of so many filters, widest first. The widest one keeps the multipliers busy, and the rest is
/// done by the next ones: each size that is omitted is one less to compile.
const fn widths<L: Lanes>(filters: usize) -> [usize; 3] {
    match (size_of::<L>() == 64, filters) {
        (_, 1) | (true, 2) => [9, 3, 1],
        (true, 3 | 4) => [6, 3, 1],
        (true, 5) => [5, 1, 1],
        (_, 2) | (true, _) => [4, 1, 1],
        (false, _) => [3, 1, 1],
    }
}

#[inline(always)]
unsafe fn tiles<L: Lanes>(job: &Taps<L::T>) {
    let blocks = job.filters.div_ceil(const { most_filters::<L>() });
    let mut f = 0;
    for block in 0..blocks {
        let filters = job.filters * (block + 1) / blocks - f;
        // SAFETY: the filters exist.
        unsafe {
            match filters {
                1 => row::<L, 1>(job, f),
                2 => row::<L, 2>(job, f),
                3 => row::<L, 3>(job, f),
                4 => row::<L, 4>(job, f),
                5 => row::<L, 5>(job, f),
                6 => row::<L, 6>(job, f),
                _ => unreachable!("a tile of {filters} filters"),
            }
        }
        f += filters;
    }
}

/// All taps of R filters.
#[inline(always)]
unsafe fn row<L: Lanes, const R: usize>(job: &Taps<L::T>, f: usize) {
    let mut t = 0;
    while t < job.taps {
        let now = const { widths::<L>(R) }.into_iter().find(|&w| w <= job.taps - t).unwrap_or(1);
        // SAFETY: the taps exist.
        unsafe {
            match now {
                1 => tile::<L, R, 1>(job, f, t),
                3 => tile::<L, R, 3>(job, f, t),
                4 => tile::<L, R, 4>(job, f, t),
                5 => tile::<L, R, 5>(job, f, t),
                6 => tile::<L, R, 6>(job, f, t),
                9 => tile::<L, R, 9>(job, f, t),
                _ => unreachable!("a tile of {now} taps"),
            }
        }
        t += now;
    }
}

const fn offered(widths: [usize; 3], taps: usize) -> bool {
    widths[0] == taps || widths[1] == taps || widths[2] == taps
}

/// R filters from f on, K taps from t on.
#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize, const K: usize>(job: &Taps<L::T>, f: usize, t: usize) {
    if const { R > most_filters::<L>() || !offered(widths::<L>(R), K) } {
        unreachable!("a tile of {R} filters and {K} taps");
    }
    // SAFETY: the filters and taps exist, and each vector lies in dy and, at every offset, in x.
    unsafe {
        let acc_at = |r: usize, k: usize| job.acc.add(((f + r) * job.taps + t + k) * L::N);
        let (mut x, mut dy) = ([job.x; K], [job.dy; R]);
        let mut acc = [[L::splat(L::T::ZERO); K]; R];
        for (k, x) in x.iter_mut().enumerate() {
            *x = job.x.add(*job.off.add(t + k));
        }
        for (r, dy) in dy.iter_mut().enumerate() {
            *dy = job.dy.add((f + r) * job.plane);
            for (k, acc) in acc[r].iter_mut().enumerate() {
                *acc = L::load(acc_at(r, k));
            }
        }
        for i in 0..job.wholes {
            let [from, to] = *job.whole.add(i);
            let mut ys = [acc[0][0]; R];
            for (y, dy) in ys.iter_mut().zip(&dy) {
                *y = L::load(dy.add(to));
            }
            for (k, x) in x.iter().enumerate() {
                let x = L::load(x.add(from));
                for (acc, &y) in acc.iter_mut().zip(&ys) {
                    acc[k] = y.mul_add(x, acc[k]);
                }
            }
        }
        let mask = L::mask(job.width);
        for i in 0..job.end_count {
            let [from, to] = *job.ends.add(i);
            let mut ys = [acc[0][0]; R];
            for (y, dy) in ys.iter_mut().zip(&dy) {
                *y = L::load_masked(dy.add(to), mask);
            }
            for (k, x) in x.iter().enumerate() {
                let x = L::load_masked(x.add(from), mask);
                for (acc, &y) in acc.iter_mut().zip(&ys) {
                    acc[k] = y.mul_add(x, acc[k]);
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (k, acc) in acc.iter().enumerate() {
                acc.store(acc_at(r, k));
            }
        }
    }
}
