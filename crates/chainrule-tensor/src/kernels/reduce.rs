//! Reductions in a fixed order: the sum of a slice is the same bits however many threads there are.

use super::kernel;
use crate::{Scalar, par};

/// Lanes of a partial sum.
const LANES: usize = 16;

kernel! {
    /// Σ xᵢ, in sixteen lanes that are added at the end.
    pub fn sum[T: Scalar](x: &[T]) -> T {
        let mut lanes = [T::ZERO; LANES];
        let (chunks, rest) = x.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &v) in lanes.iter_mut().zip(chunk) {
                *lane += v;
            }
        }
        fold(lanes) + rest.iter().copied().sum::<T>()
    }
}

kernel! {
    /// Σ xᵢ yᵢ, in sixteen lanes that are added at the end.
    pub fn dot[T: Scalar](x: &[T], y: &[T]) -> T {
        let mut lanes = [T::ZERO; LANES];
        let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
        for (x, y) in xs.iter().zip(ys) {
            for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
                *lane += x * y;
            }
        }
        fold(lanes) + x_rest.iter().zip(y_rest).map(|(&x, &y)| x * y).sum::<T>()
    }
}

/// The sum of N lanes, N a power of two: halves are added until one is left.
#[inline(always)]
pub(super) fn fold<T: Scalar, const N: usize>(lanes: [T; N]) -> T {
    // Out of sight of the optimiser: it would plan the loop before for the last, narrowest additions, two lanes at a time.
    let mut lanes = std::hint::black_box(lanes);
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            let other = lanes[i + width];
            lanes[i] += other;
        }
        width /= 2;
    }
    lanes[0]
}

kernel! {
    /// out_j += Σᵢ x_ij over the rows of x.
    pub fn add_rows_to[T: Scalar](x: &[T], out: &mut [T]) {
        if out.is_empty() {
            return;
        }
        for row in x.chunks_exact(out.len()) {
            for (o, &v) in out.iter_mut().zip(row) {
                *o += v;
            }
        }
    }
}

kernel! {
    /// The largest element; −∞ of nothing. NaN is ignored.
    pub fn max[T: Scalar](x: &[T]) -> T {
        let mut lanes = [T::NEG_INFINITY; LANES];
        let (chunks, rest) = x.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &v) in lanes.iter_mut().zip(chunk) {
                *lane = if v > *lane { v } else { *lane };
            }
        }
        let m = lanes.into_iter().fold(T::NEG_INFINITY, |m, v| if v > m { v } else { m });
        rest.iter().fold(m, |m, &v| if v > m { v } else { m })
    }
}

/// Elements that a piece of [`add_planes_to`] sums at least: 256 KiB of f32, 4 µs at 59 GB/s.
const PIECE: usize = 1 << 16;

/// out_k += Σ over n and p of x_nkp, for x (N, K, plane) and K the length of `out`.
///
/// # Panics
/// If x does not hold whole images of `out.len()` planes.
pub fn add_planes_to<T: Scalar>(x: &[T], plane: usize, out: &mut [T]) {
    let image = plane * out.len();
    if x.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(image), "x holds whole images");
    let channels = (PIECE * out.len() / x.len()).max(1);
    par::for_chunks(out, channels, |piece, out| {
        for x in x.chunks(image) {
            let planes = x[piece * channels * plane..].chunks(plane);
            out.iter_mut().zip(planes).for_each(|(out, plane)| *out += sum(plane));
        }
    });
}

/// Whether a value takes the place of the largest before it: it is larger, or the first NaN. NaN is above all, as in
/// PyTorch.
#[inline]
pub fn exceeds<T: Scalar>(v: T, largest: T) -> bool {
    v > largest || (v.is_nan() && !largest.is_nan())
}

/// The index of the largest element, the first of equals; of the first NaN if there is one; 0 of nothing.
pub fn argmax<T: Scalar>(x: &[T]) -> usize {
    let mut best = 0;
    for (i, &v) in x.iter().enumerate() {
        if exceeds(v, x[best]) {
            best = i;
        }
    }
    best
}

kernel! {
    /// Whether no element is infinite or NaN.
    pub fn all_finite[T: Scalar](x: &[T]) -> bool {
        // 0·x is 0 for finite x and NaN otherwise; a sum of them keeps the NaN.
        let mut lanes = [T::ZERO; LANES];
        let (chunks, rest) = x.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &v) in lanes.iter_mut().zip(chunk) {
                *lane += T::ZERO * v;
            }
        }
        fold(lanes) == T::ZERO && rest.iter().all(|v| v.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_agree_with_plain_loops() {
        for n in [0, 1, 15, 16, 17, 100, 1001] {
            let x: Vec<f64> = (0..n).map(|i| f64::from((i * 37 + 11) % 101) - 50.0).collect();
            let y: Vec<f64> = (0..n).map(|i| f64::from((i * 53 + 7) % 97) - 48.0).collect();
            assert_eq!(sum(&x), x.iter().sum::<f64>());
            assert_eq!(dot(&x, &y), x.iter().zip(&y).map(|(a, b)| a * b).sum::<f64>());
            assert_eq!(max(&x), x.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            assert!(all_finite(&x));
        }
        let x: Vec<f64> = (0..24).map(f64::from).collect();
        let mut out = [100.0, 0.0, 0.0];
        add_planes_to(&x, 4, &mut out); // two images of three planes of four
        assert_eq!(out, [160.0, 92.0, 124.0]);
        assert_eq!(argmax(&[1.0f32, 3.0, 3.0]), 1);
        assert_eq!(argmax::<f32>(&[]), 0);
        for at in 0..4 {
            // Wherever it stands, and the first of several.
            for rest in [f64::NEG_INFINITY, 1.0, f64::INFINITY] {
                let mut x = [rest; 4];
                x[at..].fill(f64::NAN);
                assert_eq!(argmax(&x), at);
                x[at + 1..].fill(f64::INFINITY);
                assert_eq!(argmax(&x), at);
            }
        }
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, 20, 32] {
                let mut x = [1.0f32; 33];
                x[at] = bad;
                assert!(!all_finite(&x));
            }
        }
    }
}
