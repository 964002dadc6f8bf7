//! Sums, maxima and lengths along the middle axis of (outer, n, inner).

use crate::{
    Scalar, compiled,
    kernels::reduce::{Columns, dot, exceeds, sum},
    par,
};

/// Elements of a piece: 64 KiB of f32.
const PIECE: usize = 1 << 14;
/// Columns that are walked together.
const COLUMNS: usize = 256;

/// Checks the sizes and calls `f(o, c, part)` for parts of y (outer, inner) that begin at column c of line o.
fn by_columns<T: Scalar>(
    x: usize,
    y: &mut [T],
    n: usize,
    inner: usize,
    f: impl Fn(usize, usize, &mut [T]) + Sync,
) {
    assert_eq!(y.len().checked_mul(n), Some(x), "x has {n} elements for each of y");
    if y.is_empty() {
        return;
    }
    assert!(inner > 0 && y.len().is_multiple_of(inner), "y has whole rows of {inner}");
    if y.len() == inner {
        return par::for_chunks(y, COLUMNS, |piece, y| f(0, piece * COLUMNS, y));
    }
    let per = (PIECE / (n * inner).max(1)).max(1);
    par::for_chunks(y, per * inner, |piece, y| {
        for (i, y) in y.chunks_exact_mut(inner).enumerate() {
            for (y, c) in y.chunks_mut(COLUMNS).zip((0..).step_by(COLUMNS)) {
                f(piece * per + i, c, y);
            }
        }
    });
}

/// Σ f(x, z) of the columns `c` to `c + width` of line o, in f64.
#[inline(always)]
fn column_sums<T: Scalar, R>(
    (x, z): (&[T], &[T]),
    (n, inner): (usize, usize),
    (o, c, width): (usize, usize, usize),
    f: impl Fn(T, T) -> T,
    then: impl FnOnce(&[f64]) -> R,
) -> R {
    let mut columns = Columns::<T, COLUMNS>::new();
    for i in 0..n {
        let at = (o * n + i) * inner + c;
        let (x, z) = (&x[at..][..width], &z[at..][..width]);
        columns.row(width).iter_mut().zip(x).zip(z).for_each(|((sum, &x), &z)| *sum += f(x, z));
    }
    then(columns.sums(width))
}

compiled! {
    /// `y[o, c] = scale Σᵢ x[o, i, c]`
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn sum_along[T](x: &[T], y: &mut [T], n: usize, inner: usize, scale: f64) {
        by_columns(x.len(), y, n, inner, |o, c, y| {
            if inner == 1 {
                y[0] = T::from_f64(sum(&x[o * n..][..n]) * scale);
                return;
            }
            column_sums((x, x), (n, inner), (o, c, y.len()), |x, _| x, |sums| {
                y.iter_mut().zip(sums).for_each(|(y, sum)| *y = T::from_f64(sum * scale));
            });
        });
    }
}

compiled! {
    /// `x[o, i, c] = scale y[o, c]`
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn spread_along[T](y: &[T], x: &mut [T], n: usize, inner: usize, scale: T) {
        assert_eq!(y.len().checked_mul(n), Some(x.len()), "x has {n} elements for each of y");
        if x.is_empty() {
            return;
        }
        assert!(inner > 0 && y.len().is_multiple_of(inner), "y has whole rows of {inner}");
        let per = (PIECE / inner).max(1);
        par::for_chunks(x, per * inner, |piece, x| {
            for (i, x) in x.chunks_exact_mut(inner).enumerate() {
                let o = (piece * per + i) / n;
                x.iter_mut().zip(&y[o * inner..][..inner]).for_each(|(x, &y)| *x = scale * y);
            }
        });
    }
}

compiled! {
    /// `y[o, c] = maxᵢ x[o, i, c]`; NaN if one is.
    ///
    /// # Panics
    /// If the lengths do not fit together, or n is 0.
    pub fn max_along[T](x: &[T], y: &mut [T], n: usize, inner: usize) {
        assert!(n > 0, "a maximum of one element at least");
        by_columns(x.len(), y, n, inner, |o, c, y| {
            if inner == 1 {
                let x = &x[o * n..][..n];
                y[0] = x[1..].iter().fold(x[0], |m, &v| if exceeds(v, m) { v } else { m });
                return;
            }
            let rows = |i: usize| &x[(o * n + i) * inner + c..][..y.len()];
            let first = rows(0);
            let mut largest = [T::ZERO; COLUMNS];
            let largest = &mut largest[..first.len()];
            largest.copy_from_slice(first);
            for i in 1..n {
                for (m, &v) in largest.iter_mut().zip(rows(i)) {
                    *m = if exceeds(v, *m) { v } else { *m };
                }
            }
            y.copy_from_slice(largest);
        });
    }
}

/// Whether an element is the maximum.
#[inline(always)]
fn is_max<T: Scalar>(x: T, y: T) -> bool {
    x == y || (x.is_nan() && y.is_nan())
}

compiled! {
    /// The gradient of [`max_along`]: `dy[o, c]`, in equal parts, to the elements that are the maximum. `shares` is as long as y.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn max_along_gradient[T](
        x_and_y: (&[T], &[T]),
        dy: &[T],
        dx: &mut [T],
        shares: &mut [T],
        n: usize,
        inner: usize,
    ) {
        let (x, y) = x_and_y;
        assert!(dx.len() == x.len() && dy.len() == y.len() && shares.len() == y.len(), "one length for all");
        by_columns(x.len(), shares, n, inner, |o, c, shares| {
            let width = shares.len();
            let (y, dy) = (&y[o * inner + c..][..width], &dy[o * inner + c..][..width]);
            if inner == 1 {
                let count = x[o * n..][..n].iter().filter(|&&x| is_max(x, y[0])).count();
                shares[0] = dy[0] / T::from_usize(count);
                return;
            }
            let mut counts = [0.0; COLUMNS];
            for i in 0..n {
                let x = &x[(o * n + i) * inner + c..][..width];
                for ((count, &x), &y) in counts.iter_mut().zip(x).zip(y) {
                    *count += f64::from(u8::from(is_max(x, y)));
                }
            }
            shares.iter_mut().zip(dy).zip(&counts).for_each(|((s, &dy), &n)| *s = dy / T::from_f64(n));
        });
        if x.is_empty() {
            return;
        }
        let shares = &*shares;
        let per = (PIECE / inner).max(1);
        par::for_chunks(dx, per * inner, |piece, dx| {
            for (i, dx) in dx.chunks_exact_mut(inner).enumerate() {
                let row = piece * per + i;
                let (o, x) = (row / n, &x[row * inner..][..inner]);
                let (y, shares) = (&y[o * inner..][..inner], &shares[o * inner..][..inner]);
                for (((dx, &x), &y), &share) in dx.iter_mut().zip(x).zip(y).zip(shares) {
                    *dx = if is_max(x, y) { share } else { T::ZERO };
                }
            }
        });
    }
}

compiled! {
    /// `norm[o, c] = √(Σᵢ x[o, i, c]²)`
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn norm_along[T](x: &[T], norm: &mut [T], n: usize, inner: usize) {
        dot_along(x, x, norm, n, inner);
        norm.iter_mut().for_each(|v| *v = v.sqrt());
    }
}

compiled! {
    /// `out[o, c] = Σᵢ x[o, i, c] z[o, i, c]`
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn dot_along[T](x: &[T], z: &[T], out: &mut [T], n: usize, inner: usize) {
        assert_eq!(x.len(), z.len());
        by_columns(x.len(), out, n, inner, |o, c, out| {
            if inner == 1 {
                out[0] = T::from_f64(dot(&x[o * n..][..n], &z[o * n..][..n]));
                return;
            }
            column_sums((x, z), (n, inner), (o, c, out.len()), |x, z| x * z, |sums| {
                out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = T::from_f64(sum));
            });
        });
    }
}

compiled! {
    /// `y[o, i, c] = a[o, c] x[o, i, c] + b[o, c] z[o, i, c]`
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn combine_along[T](
        x_and_z: (&[T], &[T]),
        a_and_b: (&[T], &[T]),
        y: &mut [T],
        n: usize,
        inner: usize,
    ) {
        let ((x, z), (a, b)) = (x_and_z, a_and_b);
        assert!(x.len() == y.len() && z.len() == y.len() && a.len() == b.len(), "one length for all");
        assert_eq!(a.len().checked_mul(n), Some(x.len()), "x has {n} elements for each of a");
        if x.is_empty() {
            return;
        }
        if inner == 1 {
            let per = (PIECE / n).max(1);
            return par::for_chunks(y, per * n, |piece, y| {
                for (i, y) in y.chunks_exact_mut(n).enumerate() {
                    let o = piece * per + i;
                    let (x, z, a, b) = (&x[o * n..][..n], &z[o * n..][..n], a[o], b[o]);
                    y.iter_mut().zip(x).zip(z).for_each(|((y, &x), &z)| *y = a * x + b * z);
                }
            });
        }
        let per = (PIECE / inner).max(1);
        par::for_chunks(y, per * inner, |piece, y| {
            for (i, y) in y.chunks_exact_mut(inner).enumerate() {
                let row = piece * per + i;
                let (x, z) = (&x[row * inner..][..inner], &z[row * inner..][..inner]);
                let (a, b) = (&a[row / n * inner..][..inner], &b[row / n * inner..][..inner]);
                for ((((y, &x), &z), &a), &b) in y.iter_mut().zip(x).zip(z).zip(a).zip(b) {
                    *y = a * x + b * z;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sizes_agree_with_the_naive_loop() {
        for (outer, n, inner) in [(1, 1, 1), (3, 5, 1), (1, 70, 300), (4, 40, 3), (300, 3, 257), (1, 9, 1)] {
            let x: Vec<f64> = (0..outer * n * inner).map(|i| (i * 37 % 101) as f64 - 50.0).collect();
            let z: Vec<f64> = x.iter().map(|v| 1.0 - 0.5 * v).collect();
            let mut got = vec![vec![f64::NAN; outer * inner]; 3];
            let [sums, largest, dots] = &mut got[..] else { unreachable!() };
            sum_along(&x, sums, n, inner, 0.5);
            max_along(&x, largest, n, inner);
            dot_along(&x, &z, dots, n, inner);
            let mut dx = vec![f64::NAN; x.len()];
            let mut shares = vec![0.0; outer * inner];
            max_along_gradient((&x, largest), sums, &mut dx, &mut shares, n, inner);
            let (mut spread, mut both) = (dx.clone(), dx.clone());
            spread_along(sums, &mut spread, n, inner, 2.0);
            combine_along((&x, &z), (sums, dots), &mut both, n, inner);
            for o in 0..outer {
                for c in 0..inner {
                    let at = |i: usize| (o * n + i) * inner + c;
                    let line = || (0..n).map(|i| x[at(i)]);
                    let largest = line().fold(f64::NEG_INFINITY, f64::max);
                    let count = line().filter(|&v| v == largest).count() as f64;
                    let want =
                        [0.5 * line().sum::<f64>(), largest, (0..n).map(|i| x[at(i)] * z[at(i)]).sum()];
                    want.iter()
                        .zip(&got)
                        .for_each(|(want, got)| assert!((got[o * inner + c] - want).abs() < 1e-9));
                    for i in 0..n {
                        let share = if x[at(i)] == largest { want[0] / count } else { 0.0 };
                        assert!((dx[at(i)] - share).abs() < 1e-9);
                        assert_eq!(spread[at(i)], 2.0 * got[0][o * inner + c]);
                        let sum = got[0][o * inner + c] * x[at(i)] + got[2][o * inner + c] * z[at(i)];
                        assert!((both[at(i)] - sum).abs() < 1e-6);
                    }
                }
            }
        }
    }
}
