//! Maxima over windows. The first of equals wins, and NaN wins over all.

use super::planes_per_piece;
use crate::{Scalar, kernels::simd, par};
use std::ops::Range;

/// How a window slides along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slide {
    /// The length of the axis before pooling.
    pub input: usize,
    /// The length after pooling.
    pub output: usize,
    /// Elements of a window.
    pub kernel: usize,
    /// The distance between two windows.
    pub stride: usize,
    /// How far the first window begins before the axis.
    pub padding: usize,
    /// The distance between two elements of a window.
    pub dilation: usize,
}

impl Slide {
    /// The windows whose element `k` lies on the axis, and where it lies for the first of them.
    fn inside(&self, k: usize) -> (Range<usize>, usize) {
        let ahead = k * self.dilation;
        let first = self.padding.saturating_sub(ahead).div_ceil(self.stride);
        let end = match (self.input + self.padding).checked_sub(ahead + 1) {
            Some(last) => (last / self.stride + 1).min(self.output),
            None => 0,
        };
        let range = first..end.max(first);
        let at = if range.is_empty() { 0 } else { first * self.stride + ahead - self.padding };
        (range, at)
    }
}

/// Calls `f(window, v, i)` for the elements v = xᵢ with i = `at`, `at + stride`, …
#[inline(always)]
fn strided<T: Scalar, W>(
    x: &[T],
    at: usize,
    stride: usize,
    mut windows: impl ExactSizeIterator<Item = W>,
    f: impl Fn(W, T, usize),
) {
    match stride {
        1 => {
            for (i, (w, &v)) in windows.zip(&x[at..]).enumerate() {
                f(w, v, at + i);
            }
        }
        2 => {
            // Whole pairs make a loop that vectorises; the last element may stand alone.
            let last = windows.len().saturating_sub(1);
            for (i, (v, w)) in x[at..].as_chunks::<2>().0.iter().zip(windows.by_ref().take(last)).enumerate()
            {
                f(w, v[0], at + 2 * i);
            }
            for w in windows {
                f(w, x[at + 2 * last], at + 2 * last);
            }
        }
        _ => {
            for (i, w) in windows.enumerate() {
                f(w, x[at + i * stride], at + i * stride);
            }
        }
    }
}

simd! {
    /// The maxima of one plane.
    pub fn plane_maxima[T: Scalar](x: &[T], y: &mut [T], rows: &Slide, cols: &Slide) {
        y.fill(T::NEG_INFINITY);
        for kh in 0..rows.kernel {
            let (windows, mut ih) = rows.inside(kh);
            for oh in windows {
                let x = &x[ih * cols.input..][..cols.input];
                for kw in 0..cols.kernel {
                    let (windows, at) = cols.inside(kw);
                    let y = y[oh * cols.output..][windows].iter_mut();
                    strided(x, at, cols.stride, y, |y, v, _| *y = if v > *y || v.is_nan() { v } else { *y });
                }
                ih += rows.stride;
            }
        }
    }
}

/// What stands for a window that holds no element.
const NONE: u32 = u32::MAX;

simd! {
    /// The maxima of one plane, and where in the plane they stand.
    pub fn plane_winners[T: Scalar](x: &[T], y: &mut [T], winners: &mut [u32], rows: &Slide, cols: &Slide) {
        y.fill(T::NEG_INFINITY);
        winners.fill(NONE);
        for kh in 0..rows.kernel {
            let (windows, mut ih) = rows.inside(kh);
            for oh in windows {
                let x = &x[ih * cols.input..][..cols.input];
                let start = (ih * cols.input) as u32;
                for kw in 0..cols.kernel {
                    let (windows, at) = cols.inside(kw);
                    let out = oh * cols.output + windows.start..oh * cols.output + windows.end;
                    let out = y[out.clone()].iter_mut().zip(&mut winners[out]);
                    strided(x, at, cols.stride, out, |(y, winner), v, iw| {
                        let wins = v > *y || v.is_nan() || *winner == NONE;
                        *y = if wins { v } else { *y };
                        *winner = if wins { start + iw as u32 } else { *winner };
                    });
                }
                ih += rows.stride;
            }
        }
    }
}

/// y = the maximum of each window, plane by plane; `winners`, if wanted, the place in the plane where it stands.
///
/// # Panics
/// If the lengths do not fit together.
pub fn max_pool<T: Scalar>(x: &[T], y: &mut [T], winners: Option<&mut [u32]>, rows: Slide, cols: Slide) {
    let (plane, out) = (rows.input * cols.input, rows.output * cols.output);
    if y.is_empty() {
        return;
    }
    assert_eq!(x.len() / plane, y.len() / out);
    let per = planes_per_piece(plane);
    let planes = |i: usize| x[i * per * plane..].chunks_exact(plane);
    match winners {
        Some(winners) => par::for_chunks2((y, per * out), (winners, per * out), |i, y, winners| {
            for ((x, y), winners) in planes(i).zip(y.chunks_exact_mut(out)).zip(winners.chunks_exact_mut(out))
            {
                plane_winners(x, y, winners, &rows, &cols);
            }
        }),
        None => par::for_chunks(y, per * out, |i, y| {
            planes(i).zip(y.chunks_exact_mut(out)).for_each(|(x, y)| plane_maxima(x, y, &rows, &cols));
        }),
    }
}

/// dx = dy at the winners, added up, and 0 elsewhere.
///
/// # Panics
/// If the lengths do not fit together.
pub fn max_pool_gradient<T: Scalar>(dy: &[T], winners: &[u32], dx: &mut [T], plane: usize) {
    if dx.is_empty() {
        return;
    }
    assert_eq!(dy.len(), winners.len());
    let (per, out) = (planes_per_piece(plane), dy.len() / (dx.len() / plane));
    par::for_chunks(dx, per * plane, |i, dx| {
        dx.fill(T::ZERO);
        let planes = dy[i * per * out..].chunks_exact(out).zip(winners[i * per * out..].chunks_exact(out));
        for (dx, (dy, winners)) in dx.chunks_exact_mut(plane).zip(planes) {
            for (&g, &at) in dy.iter().zip(winners) {
                if at != NONE {
                    dx[at as usize] += g;
                }
            }
        }
    });
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + 13) % 101) as f32 - 50.0).collect()
    }

    pub(crate) fn slide(
        input: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        dilation: usize,
    ) -> Slide {
        let output = (input + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
        Slide { input, output, kernel, stride, padding, dilation }
    }

    /// The plain loops: the maximum of window (oh, ow) and where it stands.
    fn naive(x: &[f32], rows: Slide, cols: Slide, oh: usize, ow: usize) -> (f32, u32) {
        let mut best = (f32::NEG_INFINITY, NONE);
        for kh in 0..rows.kernel {
            for kw in 0..cols.kernel {
                let ih = (oh * rows.stride + kh * rows.dilation).wrapping_sub(rows.padding);
                let iw = (ow * cols.stride + kw * cols.dilation).wrapping_sub(cols.padding);
                if ih < rows.input && iw < cols.input {
                    let (v, at) = (x[ih * cols.input + iw], ih * cols.input + iw);
                    if v > best.0 || v.is_nan() || best.1 == NONE {
                        best = (v, at as u32);
                    }
                }
            }
        }
        best
    }

    #[test]
    fn all_geometries_agree_with_the_naive_loop() {
        let axes = [
            (7, 3, 2, 1, 1),
            (9, 2, 2, 0, 1),
            (5, 1, 3, 0, 1),
            (12, 4, 1, 2, 2),
            (3, 2, 1, 1, 4),
            (40, 3, 1, 1, 1),
        ];
        for &(a, b, c, d, e) in &axes {
            for &(f, g, h, i, j) in &axes {
                let (rows, cols) = (slide(a, b, c, d, e), slide(f, g, h, i, j));
                let (plane, out) = (a * f, rows.output * cols.output);
                let mut x = numbers(3 * plane);
                (x[plane / 2], x[2 * plane]) = (f32::NAN, f32::NEG_INFINITY);
                let (mut y, mut y_alone, mut winners) =
                    (vec![0.0; 3 * out], vec![0.0; 3 * out], vec![0; 3 * out]);
                max_pool(&x, &mut y, Some(&mut winners), rows, cols);
                max_pool(&x, &mut y_alone, None, rows, cols);
                let (dy, mut dx, mut want) = (numbers(3 * out), vec![f32::NAN; x.len()], vec![0.0; x.len()]);
                max_pool_gradient(&dy, &winners, &mut dx, plane);
                for o in 0..3 * out {
                    let p = o / out * plane;
                    let (v, at) = naive(&x[p..p + plane], rows, cols, o % out / cols.output, o % cols.output);
                    assert_eq!(
                        (y[o].to_bits(), y_alone[o].to_bits(), winners[o]),
                        (v.to_bits(), v.to_bits(), at)
                    );
                    if at != NONE {
                        want[p + at as usize] += dy[o];
                    }
                }
                assert_eq!(dx, want);
            }
        }
    }
}
