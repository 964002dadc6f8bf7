//! Loops of losses: a sum over two slices, and softmax with cross-entropy.

use super::softmax::exp_sum;
use crate::{
    Scalar, compiled,
    kernels::{
        kernel,
        reduce::{blocked, fold, max},
    },
    par,
};
use std::ops::Range;

/// Lanes of a partial sum.
const LANES: usize = 16;
/// Least elements of a piece, 64 KiB of f32, and most pieces: their sums are on the stack.
const PIECE: usize = 1 << 14;
const PIECES: usize = 64;

kernel! {
    /// zᵢ = g(xᵢ, yᵢ) if z is requested, and Σ f(xᵢ, yᵢ).
    fn map_sum_piece[T: Scalar, F: Fn(T, T) -> T, G: Fn(T, T) -> T](
        x: &[T], y: &[T], z: Option<&mut [T]>, f: &F, g: &G,
    ) -> f64 {
        let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
        let vectors = xs.len().min(ys.len());
        let total = match z {
            None => blocked::<T, LANES>(vectors, |i, lanes| {
                for ((lane, &x), &y) in lanes.iter_mut().zip(&xs[i]).zip(&ys[i]) {
                    *lane += f(x, y);
                }
            }),
            Some(z) => {
                let (zs, z_rest) = z.as_chunks_mut::<LANES>();
                for ((&x, &y), z) in x_rest.iter().zip(y_rest).zip(z_rest) {
                    *z = g(x, y);
                }
                blocked::<T, LANES>(vectors.min(zs.len()), |i, lanes| {
                    let (x, y, z) = (&xs[i], &ys[i], &mut zs[i]);
                    for i in 0..LANES {
                        lanes[i] += f(x[i], y[i]);
                        z[i] = g(x[i], y[i]);
                    }
                })
            }
        };
        total + x_rest.iter().zip(y_rest).map(|(&x, &y)| f(x, y)).sum::<T>().to_f64()
    }
}

/// Σ f over pieces of `rows` rows, in their order; `z`, of `width` elements a row, is cut likewise. The cut depends on the sizes
/// alone.
fn sum_pieces<T: Scalar>(
    rows: usize,
    width: usize,
    z: Option<&mut [T]>,
    f: impl Fn(Range<usize>, Option<&mut [T]>) -> f64 + Sync,
) -> f64 {
    let per = rows.div_ceil(PIECES).max(PIECE.div_ceil(width.max(1)));
    if rows <= per {
        return f(0..rows, z);
    }
    let piece = |i: usize| i * per..rows.min((i + 1) * per);
    let (mut sums, count) = ([0.0; PIECES], rows.div_ceil(per));
    let sums = &mut sums[..count];
    match z {
        Some(z) => {
            par::for_chunks2((z, per * width), (sums, 1), |i, z, sum| sum[0] = f(piece(i), Some(z)));
        }
        None => par::for_chunks(sums, 1, |i, sum| sum[0] = f(piece(i), None)),
    }
    sums.iter().copied().sum()
}

/// Σ f(xᵢ, yᵢ).
///
/// # Panics
/// If the lengths differ.
pub fn sum2<T: Scalar>(x: &[T], y: &[T], f: impl Fn(T, T) -> T + Sync) -> f64 {
    assert_eq!(x.len(), y.len());
    sum_pieces(x.len(), 1, None::<&mut [T]>, |at, _| map_sum_piece(&x[at.clone()], &y[at], None, &f, &f))
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
) -> f64 {
    assert!(x.len() == z.len() && y.len() == z.len());
    sum_pieces(x.len(), 1, Some(z), |at, z| map_sum_piece(&x[at.clone()], &y[at], z, &f, &g))
}

kernel! {
    /// Some rows of [`softmax_cross_entropy`].
    fn cross_entropy_rows[T: Scalar](x: &[T], classes: &[usize], dx: &mut [T], scale: T) -> f64 {
        let n = if classes.is_empty() { 1 } else { x.len() / classes.len() };
        let mut loss = 0.0;
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
            loss += ((max - x[class]) + sum.v_ln::<false>()).to_f64(); // e = −ln p, exact for rows far from 0
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
        *dx = (max - x).v_exp_neg::<FMA>();
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

compiled! {
    /// Rows of logits x (N, C) with a class each: dx = scale (softmax x − onehot), and Σ −ln softmax(x) at the class is returned.
    ///
    /// # Panics
    /// If the lengths do not fit together, or a class is not below C.
    pub fn softmax_cross_entropy[T](x: &[T], classes: &[usize], dx: &mut [T], scale: T) -> f64 {
        assert_eq!(x.len(), dx.len());
        let n = if classes.is_empty() { 1 } else { x.len() / classes.len() };
        sum_pieces(classes.len(), n, Some(dx), |at, dx| {
            let dx = dx.unwrap_or_default();
            cross_entropy_rows(&x[at.start * n..at.end * n], &classes[at], dx, scale)
        })
    }
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
