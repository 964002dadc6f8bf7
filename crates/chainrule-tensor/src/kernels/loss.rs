//! Loops of losses: a sum over two slices, and softmax with cross-entropy.

use super::{
    reduce::{fold, max},
    simd,
    softmax::exp_sum,
};
use crate::{Scalar, par};

/// Lanes of a partial sum.
const LANES: usize = 16;
/// Least elements of a piece, and most pieces: their sums lie on the stack.
const PIECE: usize = 1 << 14;
const PIECES: usize = 64;

simd! {
    /// zᵢ = g(xᵢ, yᵢ) where z is wanted, and Σ f(xᵢ, yᵢ) in sixteen lanes that are added at the end.
    pub fn map_sum_piece[T: Scalar, F: Fn(T, T) -> T, G: Fn(T, T) -> T](
        x: &[T], y: &[T], z: Option<&mut [T]>, f: &F, g: &G,
    ) -> T {
        let mut lanes = [T::ZERO; LANES];
        let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
        match z {
            None => {
                for (x, y) in xs.iter().zip(ys) {
                    for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
                        *lane += f(x, y);
                    }
                }
            }
            Some(z) => {
                let (zs, z_rest) = z.as_chunks_mut::<LANES>();
                for ((x, y), z) in xs.iter().zip(ys).zip(zs) {
                    for i in 0..LANES {
                        lanes[i] += f(x[i], y[i]);
                        z[i] = g(x[i], y[i]);
                    }
                }
                for ((&x, &y), z) in x_rest.iter().zip(y_rest).zip(z_rest) {
                    *z = g(x, y);
                }
            }
        }
        let rest: T = x_rest.iter().zip(y_rest).map(|(&x, &y)| f(x, y)).sum();
        fold(lanes) + rest
    }
}

/// Σ f(xᵢ, yᵢ).
///
/// # Panics
/// If the lengths differ.
pub fn sum2<T: Scalar>(x: &[T], y: &[T], f: impl Fn(T, T) -> T + Sync) -> T {
    assert_eq!(x.len(), y.len());
    let length = x.len().div_ceil(PIECES).max(PIECE);
    let mut sums = [T::ZERO; PIECES];
    let count = x.len().div_ceil(length);
    par::for_chunks(&mut sums[..count], 1, |i, sum| {
        let at = i * length..x.len().min((i + 1) * length);
        sum[0] = map_sum_piece(&x[at.clone()], &y[at], None, &f, &f);
    });
    sums[..count].iter().copied().sum()
}

/// zᵢ = g(xᵢ, yᵢ); returns Σ f(xᵢ, yᵢ).
///
/// # Panics
/// If the lengths differ.
pub fn map_sum2<T: Scalar>(
    x: &[T],
    y: &[T],
    z: &mut [T],
    f: impl Fn(T, T) -> T + Sync,
    g: impl Fn(T, T) -> T + Sync,
) -> T {
    assert!(x.len() == z.len() && y.len() == z.len());
    if x.len() <= PIECE {
        return map_sum_piece(x, y, Some(z), &f, &g);
    }
    let length = x.len().div_ceil(PIECES).max(PIECE);
    let mut sums = [T::ZERO; PIECES];
    let count = x.len().div_ceil(length);
    par::for_chunks2((z, length), (&mut sums[..count], 1), |i, z, sum| {
        let at = i * length..i * length + z.len();
        sum[0] = map_sum_piece(&x[at.clone()], &y[at], Some(z), &f, &g);
    });
    sums[..count].iter().copied().sum()
}

simd! {
    /// Some rows of [`softmax_cross_entropy`].
    pub fn cross_entropy_rows[T: Scalar](x: &[T], classes: &[usize], dx: &mut [T], scale: T) -> T {
        let n = if classes.is_empty() { 1 } else { x.len() / classes.len() };
        let mut loss = T::ZERO;
        for ((x, dx), &class) in x.chunks_exact(n).zip(dx.chunks_exact_mut(n)).zip(classes) {
            let (max, sum) = if n >= 4 * LANES {
                let max = max(x);
                (max, exp_sum::<T, FMA>(x, dx, max))
            } else {
                few_classes::<T, FMA>(x, dx)
            };
            let inverse = scale / sum;
            for v in dx.iter_mut() {
                *v *= inverse;
            }
            dx[class] -= scale;
            loss += max + sum.v_ln() - x[class];
        }
        loss
    }
}

/// dx = exp(x − max); returns max and Σ dx. For rows of a few vectors.
#[inline(always)]
fn few_classes<T: Scalar, const FMA: bool>(x: &[T], dx: &mut [T]) -> (T, T) {
    let mut max = T::NEG_INFINITY;
    for &v in x {
        max = if v > max { v } else { max };
    }
    for (dx, &x) in dx.iter_mut().zip(x) {
        *dx = (max - x).v_exp_neg_by::<FMA>();
    }
    let mut lanes = [T::ZERO; LANES];
    let (chunks, rest) = dx.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += v;
        }
    }
    (max, fold(lanes) + rest.iter().copied().sum::<T>())
}

/// Rows of logits x (N, C) with a class each: dx = scale (softmax x − onehot), and Σ −ln softmax(x) at the class is returned.
///
/// # Panics
/// If the lengths do not fit together, or a class is not below C.
pub fn softmax_cross_entropy<T: Scalar>(x: &[T], classes: &[usize], dx: &mut [T], scale: T) -> T {
    assert_eq!(x.len(), dx.len());
    if x.len() <= PIECE {
        return cross_entropy_rows(x, classes, dx, scale);
    }
    let n = if classes.is_empty() { 1 } else { x.len() / classes.len() };
    let rows = classes.len().div_ceil(PIECES).max(PIECE.div_ceil(n.max(1)));
    let mut sums = [T::ZERO; PIECES];
    let count = classes.len().div_ceil(rows);
    par::for_chunks2((dx, rows * n), (&mut sums[..count], 1), |i, dx, sum| {
        let at = i * rows..classes.len().min((i + 1) * rows);
        sum[0] = cross_entropy_rows(&x[at.start * n..at.end * n], &classes[at], dx, scale);
    });
    sums[..count].iter().copied().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_softmax_agree_with_plain_loops() {
        let x: Vec<f64> = (0..77).map(|i| f64::from((i * 31) % 17) - 8.0).collect();
        let y: Vec<f64> = (0..77).map(|i| f64::from((i * 13) % 11) - 5.0).collect();
        let want: f64 = x.iter().zip(&y).map(|(a, b)| (a - b) * (a - b)).sum();
        assert_eq!(sum2(&x, &y, |a, b| (a - b) * (a - b)), want);
        let mut z = vec![f64::NAN; 77];
        assert_eq!(map_sum2(&x, &y, &mut z, |a, b| (a - b) * (a - b), |a, b| a * b), want);
        assert!(z.iter().zip(x.iter().zip(&y)).all(|(z, (x, y))| *z == x * y));

        for (rows, n) in [(3, 1), (3, 3), (3, 16), (3, 21), (2, 100), (3000, 12), (700, 65)] {
            let x: Vec<f64> = (0..rows * n).map(|i| f64::from(((i * 7) % 13) as u32) * 0.4).collect();
            let classes: Vec<usize> = (0..rows).map(|r| (r * 5) % n).collect();
            let mut dx = vec![f64::NAN; rows * n];
            let loss = softmax_cross_entropy(&x, &classes, &mut dx, 0.5);
            let mut want = 0.0;
            for (r, &class) in classes.iter().enumerate() {
                let row = &x[r * n..][..n];
                let sum: f64 = row.iter().map(|v| v.exp()).sum();
                want -= (row[class].exp() / sum).ln();
                for (c, &v) in row.iter().enumerate() {
                    let p = v.exp() / sum - if c == class { 1.0 } else { 0.0 };
                    assert!((dx[r * n + c] - 0.5 * p).abs() < 1e-14);
                }
            }
            assert!((loss - want).abs() < 1e-12 * want.max(1.0));
        }
    }
}
