//! Reductions in a fixed order: the sum of a slice is the same bits however many threads there are.
//!
//! No sum has many addends of the scalar type: a lane takes `DEPTH` of them, then all lanes are added to an f64. The error
//! is that of a block, whatever the length: at most DEPTH + 6 roundings of f32, some 1e-6 of Σ |addends| if all of them fell on the
//! same side, and a fraction of that in practice.

use super::kernel;
use crate::{Scalar, compiled, par};

/// Lanes of a partial sum: the additions of four vectors of AVX-512 overlap. And those for the remainder.
const LANES: usize = 64;
const FEW: usize = 16;
/// Addends that a lane takes before it is added to an f64.
pub(super) const DEPTH: usize = 32;

/// Adds f(i) to f64, where f(i) adds the i-th vector of N addends to its lanes. In blocks of [`DEPTH`] vectors.
#[inline(always)]
pub(super) fn blocked<T: Scalar, const N: usize>(
    vectors: usize,
    mut f: impl FnMut(usize, &mut [T; N]),
) -> f64 {
    let (mut total, mut at) = (0.0, 0);
    while at < vectors {
        let end = vectors.min(at + DEPTH);
        let mut lanes = [T::ZERO; N];
        for i in at..end {
            f(i, &mut lanes);
        }
        total += fold(lanes).to_f64();
        at = end;
    }
    total
}

kernel! {
    /// Σ xᵢ
    pub fn sum[T](x: &[T]) -> f64 {
        let (many, rest) = x.as_chunks::<LANES>();
        let (few, rest) = rest.as_chunks::<FEW>();
        let total = blocked::<T, LANES>(many.len(), |i, lanes| {
            for (lane, &v) in lanes.iter_mut().zip(&many[i]) {
                *lane += v;
            }
        });
        let total = total + blocked::<T, FEW>(few.len(), |i, lanes| {
            for (lane, &v) in lanes.iter_mut().zip(&few[i]) {
                *lane += v;
            }
        });
        total + rest.iter().copied().sum::<T>().to_f64()
    }
}

kernel! {
    /// Σ xᵢ yᵢ
    pub fn dot[T](x: &[T], y: &[T]) -> f64 {
        let ((many, x_rest), (of_y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
        let total = blocked::<T, LANES>(many.len().min(of_y.len()), |i, lanes| {
            for ((lane, &x), &y) in lanes.iter_mut().zip(&many[i]).zip(&of_y[i]) {
                *lane += x * y;
            }
        });
        let ((few, x_rest), (of_y, y_rest)) = (x_rest.as_chunks::<FEW>(), y_rest.as_chunks::<FEW>());
        let total = total + blocked::<T, FEW>(few.len().min(of_y.len()), |i, lanes| {
            for ((lane, &x), &y) in lanes.iter_mut().zip(&few[i]).zip(&of_y[i]) {
                *lane += x * y;
            }
        });
        total + x_rest.iter().zip(y_rest).map(|(&x, &y)| x * y).sum::<T>().to_f64()
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

/// Columns whose sums are kept together.
const COLUMNS: usize = 256;

/// Sums of columns: `block` takes the addends of [`DEPTH`] rows, and goes to `total` then.
pub(super) struct Columns<T, const N: usize> {
    pub block: [T; N],
    pub total: [f64; N],
    rows: usize,
}

impl<T: Scalar, const N: usize> Columns<T, N> {
    #[inline(always)]
    pub fn new() -> Self {
        Self { block: [T::ZERO; N], total: [0.0; N], rows: 0 }
    }

    /// What a row adds to, of `width` columns.
    #[inline(always)]
    pub fn row(&mut self, width: usize) -> &mut [T] {
        if self.rows == DEPTH {
            self.settle(width);
        }
        self.rows += 1;
        &mut self.block[..width]
    }

    /// The sums of `width` columns.
    #[inline(always)]
    pub fn sums(&mut self, width: usize) -> &[f64] {
        self.settle(width);
        &self.total[..width]
    }

    /// Adds the blocks of `width` columns to their totals.
    #[inline(always)]
    pub fn settle(&mut self, width: usize) {
        for (total, block) in self.total[..width].iter_mut().zip(&mut self.block[..width]) {
            *total += block.to_f64();
            *block = T::ZERO;
        }
        self.rows = 0;
    }
}

/// out_j += Σ x_j over rows x, which are as long as `out` at least.
#[inline(always)]
pub(super) fn add_rows<'x, T: Scalar>(rows: impl Iterator<Item = &'x [T]> + Clone, out: &mut [T]) {
    for (out, first) in out.chunks_mut(COLUMNS).zip((0..).step_by(COLUMNS)) {
        let mut columns = Columns::<T, COLUMNS>::new();
        for x in rows.clone() {
            for (o, &v) in columns.row(out.len()).iter_mut().zip(&x[first..]) {
                *o += v;
            }
        }
        let sums = columns.sums(out.len());
        out.iter_mut().zip(sums).for_each(|(o, &v)| *o = T::from_f64(o.to_f64() + v));
    }
}

kernel! {
    /// out_j += Σᵢ x_ij over the rows of x.
    pub fn add_rows_to[T](x: &[T], out: &mut [T]) {
        let width = out.len();
        if width == 0 {
            return;
        }
        if x.len() > DEPTH * width {
            return add_rows(x.chunks_exact(width), out);
        }
        for row in x.chunks_exact(width) {
            for (o, &v) in out.iter_mut().zip(row) {
                *o += v;
            }
        }
    }
}

kernel! {
    /// out_j += Σ x_ij over some rows i of x.
    pub(super) fn add_rows_at[T: Scalar](rows: &[usize], x: &[T], out: &mut [T]) {
        let width = out.len();
        add_rows(rows.iter().map(|&i| &x[i * width..]), out);
    }
}

kernel! {
    /// The largest element; −∞ of nothing. NaN is ignored.
    pub fn max[T](x: &[T]) -> T {
        let mut lanes = [T::NEG_INFINITY; FEW];
        let (chunks, rest) = x.as_chunks::<FEW>();
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

compiled! {
    /// out_k += Σ over n and p of x_nkp, for x (N, K, plane) and K the length of `out`.
    ///
    /// # Panics
    /// If x does not hold whole images of `out.len()` planes.
    pub fn add_planes_to[T](x: &[T], plane: usize, out: &mut [T]) {
        let image = plane * out.len();
        if x.is_empty() {
            return;
        }
        assert!(x.len().is_multiple_of(image), "x holds whole images");
        let channels = (PIECE * out.len() / x.len()).clamp(1, COLUMNS);
        par::for_chunks(out, channels, |piece, out| {
            let mut totals = [0.0; COLUMNS];
            for x in x.chunks(image) {
                let planes = x[piece * channels * plane..].chunks(plane);
                totals[..out.len()].iter_mut().zip(planes).for_each(|(total, plane)| *total += sum(plane));
            }
            out.iter_mut().zip(&totals).for_each(|(out, total)| *out = T::from_f64(out.to_f64() + total));
        });
    }
}

/// Whether a value takes the place of the largest before it: it is larger, or the first NaN. NaN is above all, as in
/// PyTorch.
#[inline]
pub fn exceeds<T: Scalar>(v: T, largest: T) -> bool {
    v > largest || (v.is_nan() && !largest.is_nan())
}

compiled! {
    /// The index of the largest element, the first of equals; of the first NaN if there is one; 0 of nothing.
    pub fn argmax[T](x: &[T]) -> usize {
        let mut best = 0;
        for (i, &v) in x.iter().enumerate() {
            if exceeds(v, x[best]) {
                best = i;
            }
        }
        best
    }
}

kernel! {
    /// Whether no element is infinite or NaN.
    pub fn all_finite[T](x: &[T]) -> bool {
        // 0·x is 0 for finite x and NaN otherwise; a sum of them keeps the NaN.
        let mut lanes = [T::ZERO; FEW];
        let (chunks, rest) = x.as_chunks::<FEW>();
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
