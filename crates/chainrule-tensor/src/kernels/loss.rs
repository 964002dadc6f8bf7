//! Loops of losses: a sum over two slices, and softmax with cross-entropy.

use super::{reduce::fold, simd};
use crate::Scalar;

/// Lanes of a partial sum.
const LANES: usize = 16;

simd! {
    /// Σ f(xᵢ, yᵢ), in sixteen lanes that are added at the end.
    pub fn sum2[T: Scalar, F: Fn(T, T) -> T](x: &[T], y: &[T], f: &F) -> T {
        let mut lanes = [T::ZERO; LANES];
        let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
        for (x, y) in xs.iter().zip(ys) {
            for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
                *lane += f(x, y);
            }
        }
        let rest: T = x_rest.iter().zip(y_rest).map(|(&x, &y)| f(x, y)).sum();
        fold(lanes) + rest
    }
}

simd! {
    /// Rows of logits x (N, C) with a class each: dx = scale (softmax x − onehot), and Σ −ln softmax(x) at the class is returned.
    pub fn softmax_cross_entropy[T: Scalar](x: &[T], classes: &[usize], dx: &mut [T], scale: T) -> T {
        let n = if classes.is_empty() { 1 } else { x.len() / classes.len() };
        let mut loss = T::ZERO;
        for ((x, dx), &class) in x.chunks_exact(n).zip(dx.chunks_exact_mut(n)).zip(classes) {
            let mut max = T::NEG_INFINITY;
            for &v in x {
                max = if v > max { v } else { max };
            }
            for (dx, &x) in dx.iter_mut().zip(x) {
                *dx = (x - max).v_exp();
            }
            let mut lanes = [T::ZERO; LANES];
            let (chunks, rest) = dx.as_chunks::<LANES>();
            for chunk in chunks {
                for (lane, &v) in lanes.iter_mut().zip(chunk) {
                    *lane += v;
                }
            }
            let sum = fold(lanes) + rest.iter().copied().sum::<T>();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_softmax_agree_with_plain_loops() {
        let x: Vec<f64> = (0..77).map(|i| f64::from((i * 31) % 17) - 8.0).collect();
        let y: Vec<f64> = (0..77).map(|i| f64::from((i * 13) % 11) - 5.0).collect();
        let want: f64 = x.iter().zip(&y).map(|(a, b)| (a - b) * (a - b)).sum();
        assert_eq!(sum2(&x, &y, &|a, b| (a - b) * (a - b)), want);

        for n in [1, 3, 16, 21] {
            let rows = 3;
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
            assert!((loss - want).abs() < 1e-12);
        }
    }
}
