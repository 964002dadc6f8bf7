//! Softmax and its logarithm along one axis of (outer, n, inner).
//!
//! The axis is walked in rows when it is the innermost, and in columns of `inner` neighbours otherwise, so that both vectorise.

use crate::{
    Scalar, compiled,
    kernels::{
        kernel, prefetch,
        reduce::{self, Columns, blocked},
    },
    par,
};

/// Elements of a piece of work: at 0.35 ns each (softmax of 4096 × 1024), they take twenty times what a piece costs to hand out.
const PIECE: usize = 1 << 14;

/// Lanes of a row that are handled together, and those for what is left at its end.
const LANES: usize = 64;
const FEW: usize = 8;
/// How far ahead elements are prefetched at most, a page of f32: the processor's own prefetching ends with the page. Measured:
/// forward 1.29 times as fast in one thread.
const AHEAD: usize = 1024;

/// Prefetches the elements a row behind x and y, which are N elements long from `at` on in a row of n.
#[inline(always)]
fn prefetch_next<T, const N: usize>(x: &[T; N], y: &[T; N], n: usize) {
    prefetch(x.as_ptr().wrapping_add(n.min(AHEAD)), N);
    prefetch(y.as_ptr().wrapping_add(n.min(AHEAD)), N);
}

/// y = exp(x − max), added to the lanes; of −x if `NEG`, whose largest value is −max.
#[inline(always)]
fn exp_lanes<T: Scalar, const N: usize, const FMA: bool, const NEG: bool>(
    x: &[T; N],
    y: &mut [T; N],
    max: T,
    lanes: &mut [T; N],
) {
    for i in 0..N {
        let below = if NEG { x[i] - max } else { max - x[i] };
        y[i] = below.v_exp_neg::<FMA>();
        lanes[i] += y[i];
    }
}

/// y = exp(x − max); returns Σ y.
#[inline(always)]
pub(super) fn exp_sum<T: Scalar, const FMA: bool>(x: &[T], y: &mut [T], max: T) -> T {
    signed_exp_sum::<T, FMA, false>(x, y, max)
}

/// y = exp(x − max), or exp(max − x) if `NEG`, where `max` is the smallest of x; returns Σ y.
#[inline(always)]
fn signed_exp_sum<T: Scalar, const FMA: bool, const NEG: bool>(x: &[T], y: &mut [T], max: T) -> T {
    let n = x.len();
    let ((xs, x), (ys, y)) = (x.as_chunks::<LANES>(), y.as_chunks_mut::<LANES>());
    let total = blocked::<T, LANES>(xs.len(), |i, lanes| {
        prefetch_next(&xs[i], &ys[i], n);
        exp_lanes::<T, LANES, FMA, NEG>(&xs[i], &mut ys[i], max, lanes);
    });
    let ((xs, x), (ys, y)) = (x.as_chunks::<FEW>(), y.as_chunks_mut::<FEW>());
    let mut total = total
        + blocked::<T, FEW>(xs.len(), |i, lanes| {
            exp_lanes::<T, FEW, FMA, NEG>(&xs[i], &mut ys[i], max, lanes);
        });
    for (y, &x) in y.iter_mut().zip(x) {
        let below = if NEG { x - max } else { max - x };
        *y = below.v_exp_neg::<FMA>();
        total += y.to_f64();
    }
    T::from_f64(total)
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Probabilities.
    Softmax,
    /// Probabilities of −x.
    Softmin,
    /// Their logarithms.
    LogSoftmax,
}

/// The smallest element; NaN is ignored.
#[inline(always)]
fn min<T: Scalar>(x: &[T]) -> T {
    let mut lanes = [T::INFINITY; FEW];
    let (chunks, rest) = x.as_chunks::<FEW>();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = if v < *lane { v } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(T::INFINITY, |m, &v| if v < m { v } else { m })
}

kernel! {
    /// One row: y = exp(x − max)/Σ exp(x − max), or (x − max) − ln Σ exp(x − max). A row of −∞ alone gives NaN.
    fn forward_row[T: Scalar](kind: Kind, x: &[T], y: &mut [T]) {
        let max = if kind == Kind::Softmin { min(x) } else { reduce::max(x) };
        let sum = match kind {
            Kind::Softmin => signed_exp_sum::<T, FMA, true>(x, y, max),
            _ => exp_sum::<T, FMA>(x, y, max),
        };
        match kind {
            Kind::Softmax | Kind::Softmin => {
                let scale = T::ONE / sum;
                for y in y.iter_mut() {
                    *y *= scale;
                }
            }
            Kind::LogSoftmax => {
                let log = sum.v_ln::<false>();
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = (x - max) - log;
                }
            }
        }
    }
}

kernel! {
    /// One row: dx = y (dy − Σ dy y), its negative, or dy − exp(y) Σ dy.
    fn backward_row[T: Scalar](kind: Kind, y: &[T], dy: &[T], dx: &mut [T]) {
        match kind {
            Kind::Softmax | Kind::Softmin => {
                let sign = sign::<T>(kind);
                let n = y.len();
                let ((ys, y_rest), (dys, dy_rest)) = (y.as_chunks::<LANES>(), dy.as_chunks::<LANES>());
                let dxs = dx.as_chunks::<LANES>().0;
                let total = blocked::<T, LANES>(ys.len().min(dys.len()).min(dxs.len()), |i, lanes| {
                    let (y, dy) = (&ys[i], &dys[i]);
                    prefetch_next(y, dy, n);
                    prefetch_next(&dxs[i], &dxs[i], n);
                    for i in 0..LANES {
                        lanes[i] += dy[i] * y[i];
                    }
                });
                let dot = T::from_f64(total + reduce::dot(dy_rest, y_rest));
                for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
                    *dx = sign * y * (dy - dot);
                }
            }
            Kind::LogSoftmax => {
                let sum = T::from_f64(reduce::sum(dy));
                for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
                    *dx = dy - (-y).v_exp_neg::<FMA>() * sum;
                }
            }
        }
    }
}

/// −1 for functions of −x.
#[inline(always)]
fn sign<T: Scalar>(kind: Kind) -> T {
    if kind == Kind::Softmin { -T::ONE } else { T::ONE }
}

/// Columns that are walked together: their maxima and sums stay in registers and on the stack.
const COLUMNS: usize = 64;

kernel! {
    /// All lines along the first axis of one (n, inner) block.
    fn forward_columns[T: Scalar](kind: Kind, x: &[T], y: &mut [T], inner: usize) {
        let (log, sign) = (kind == Kind::LogSoftmax, sign::<T>(kind));
        for start in (0..inner).step_by(COLUMNS) {
            let width = COLUMNS.min(inner - start);
            let mut max = [T::NEG_INFINITY; COLUMNS];
            for row in x.chunks_exact(inner) {
                for (m, &v) in max.iter_mut().zip(&row[start..start + width]) {
                    let v = sign * v;
                    *m = if v > *m { v } else { *m };
                }
            }
            let mut sums = Columns::<T, COLUMNS>::new();
            for (y, x) in y.chunks_exact_mut(inner).zip(x.chunks_exact(inner)) {
                let (y, x) = (&mut y[start..start + width], &x[start..start + width]);
                for ((y, &x), (&m, s)) in y.iter_mut().zip(x).zip(max.iter().zip(sums.row(width))) {
                    *y = (m - sign * x).v_exp_neg::<FMA>();
                    *s += *y;
                }
            }
            let (mut ln, mut scale) = ([T::ZERO; COLUMNS], [T::ZERO; COLUMNS]);
            for ((ln, scale), &sum) in ln.iter_mut().zip(&mut scale).zip(sums.sums(width)) {
                let sum = T::from_f64(sum);
                (*ln, *scale) = (sum.v_ln::<false>(), T::ONE / sum);
            }
            for (y, x) in y.chunks_exact_mut(inner).zip(x.chunks_exact(inner)) {
                let (y, x) = (&mut y[start..start + width], &x[start..start + width]);
                for (((y, &x), &m), (&ln, &s)) in y.iter_mut().zip(x).zip(&max).zip(ln.iter().zip(&scale)) {
                    *y = if log { (x - m) - ln } else { *y * s };
                }
            }
        }
    }
}

kernel! {
    /// All lines along the first axis of one (n, inner) block.
    fn backward_columns[T: Scalar](kind: Kind, y: &[T], dy: &[T], dx: &mut [T], inner: usize) {
        let (log, sign) = (kind == Kind::LogSoftmax, sign::<T>(kind));
        for start in (0..inner).step_by(COLUMNS) {
            let columns = start..inner.min(start + COLUMNS);
            let mut sums = Columns::<T, COLUMNS>::new();
            for (y, dy) in y.chunks_exact(inner).zip(dy.chunks_exact(inner)) {
                let row = sums.row(columns.len());
                for ((s, &y), &dy) in row.iter_mut().zip(&y[columns.clone()]).zip(&dy[columns.clone()]) {
                    *s += if log { dy } else { dy * y };
                }
            }
            let mut sum = [T::ZERO; COLUMNS];
            sum.iter_mut().zip(sums.sums(columns.len())).for_each(|(s, &v)| *s = T::from_f64(v));
            for ((dx, y), dy) in dx.chunks_exact_mut(inner).zip(y.chunks_exact(inner)).zip(dy.chunks_exact(inner)) {
                let lines = dx[columns.clone()].iter_mut().zip(&y[columns.clone()]).zip(&dy[columns.clone()]);
                for (((dx, &y), &dy), &s) in lines.zip(&sum) {
                    *dx = if log { dy - (-y).v_exp_neg::<FMA>() * s } else { sign * y * (dy - s) };
                }
            }
        }
    }
}

compiled! {
    /// y along the middle axis of (outer, n, inner).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn forward[T](kind: Kind, x: &[T], y: &mut [T], n: usize, inner: usize) {
        assert_eq!(x.len(), y.len());
        let block = (n * inner).max(1);
        let blocks = (PIECE / block).max(1);
        par::for_chunks(y, blocks * block, |piece, y| {
            let x = &x[piece * blocks * block..][..y.len()];
            for (x, y) in x.chunks_exact(block).zip(y.chunks_exact_mut(block)) {
                if inner == 1 {
                    forward_row(kind, x, y);
                } else {
                    forward_columns(kind, x, y, inner);
                }
            }
        });
    }
}

compiled! {
    /// dx from y and dy along the middle axis of (outer, n, inner).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn backward[T](kind: Kind, y: &[T], dy: &[T], dx: &mut [T], n: usize, inner: usize) {
        assert!(y.len() == dx.len() && dy.len() == dx.len());
        let block = (n * inner).max(1);
        let blocks = (PIECE / block).max(1);
        par::for_chunks(dx, blocks * block, |piece, dx| {
            let at = piece * blocks * block..piece * blocks * block + dx.len();
            let lines = y[at.clone()].chunks_exact(block).zip(dy[at].chunks_exact(block));
            for ((y, dy), dx) in lines.zip(dx.chunks_exact_mut(block)) {
                if inner == 1 {
                    backward_row(kind, y, dy, dx);
                } else {
                    backward_columns(kind, y, dy, dx, inner);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain formula, one line at a time.
    fn naive(kind: Kind, x: &[f64], n: usize, inner: usize) -> Vec<f64> {
        let mut y = vec![0.0; x.len()];
        for outer in 0..x.len() / (n * inner) {
            for i in 0..inner {
                let at = |j: usize| (outer * n + j) * inner + i;
                let sign = sign::<f64>(kind);
                let sum: f64 = (0..n).map(|j| (sign * x[at(j)]).exp()).sum();
                for j in 0..n {
                    let v = (sign * x[at(j)]).exp() / sum;
                    y[at(j)] = if kind == Kind::LogSoftmax { v.ln() } else { v };
                }
            }
        }
        y
    }

    #[test]
    fn softmax_agrees_with_the_plain_formula_along_any_axis() {
        for (outer, n, inner) in [(3, 5, 1), (2, 17, 3), (1, 4, 65), (2, 3, 130), (1, 1, 1), (40, 1000, 1)] {
            let x: Vec<f64> = (0..outer * n * inner).map(|i| ((i * 37) % 19) as f64 * 0.3 - 2.0).collect();
            for kind in [Kind::Softmax, Kind::Softmin, Kind::LogSoftmax] {
                let mut y = vec![f64::NAN; x.len()];
                forward(kind, &x, &mut y, n, inner);
                for (got, want) in y.iter().zip(naive(kind, &x, n, inner)) {
                    assert!((got - want).abs() < 1e-13, "{kind:?} {outer} {n} {inner}: {got} for {want}");
                }
            }
        }
    }

    #[test]
    fn large_inputs_do_not_overflow() {
        let mut y = [0.0f32; 3];
        forward(Kind::Softmax, &[1000.0, 1000.0, -1000.0], &mut y, 3, 1);
        assert_eq!(y, [0.5, 0.5, 0.0]);
        forward(Kind::Softmin, &[-1000.0, -1000.0, 1000.0], &mut y, 3, 1);
        assert_eq!(y, [0.5, 0.5, 0.0]);
        forward(Kind::LogSoftmax, &[1000.0, 0.0, 1000.0], &mut y, 3, 1);
        assert!((y[1] + 1000.0).abs() < 1.0);
    }
}
