//! The convolution as its definition says, over any number of axes: what three axes go by, and what the fast kernels for one and
//! two are tested against.

use super::Geometry;
use crate::{Scalar, kernels::gemm::LONG, shape::positions};

/// Calls `f(index in x, index in w, index in y)` for every product of the sum, in order of y, then of w.
fn products<const R: usize>(g: &Geometry<R>, mut f: impl FnMut(usize, usize, usize)) {
    let (window, output) = (g.window(), g.output());
    let (c, k) = (g.group_channels(), g.group_filters());
    let taps = g.kernel.iter().product::<usize>();
    let pixels = g.input.iter().product::<usize>();
    let mut y = 0;
    for n in 0..g.images {
        for filter in 0..g.filters {
            for o in positions(output) {
                for channel in 0..c {
                    let plane = (n * g.channels + filter / k * c + channel) * pixels;
                    for (tap, t) in positions(g.kernel).enumerate() {
                        let pixel = (0..R).try_fold(0, |at, axis| {
                            Some(at * g.input[axis] + window.place(axis, o[axis], t[axis])?)
                        });
                        if let Some(pixel) = pixel {
                            f(plane + pixel, (filter * c + channel) * taps + tap, y);
                        }
                    }
                }
                y += 1;
            }
        }
    }
}

/// y = w ⋆ x + b
pub(super) fn forward<T: Scalar, const R: usize>(
    g: &Geometry<R>,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
) {
    let plane = g.output().iter().product::<usize>();
    for (i, y) in y.iter_mut().enumerate() {
        *y = bias.map_or(T::ZERO, |b| b[i / plane % g.filters]);
    }
    products(g, |i, j, o| y[o] += w[j] * x[i]);
}

/// dx = wᵀ ⋆ dy
pub(super) fn input_gradient<T: Scalar, const R: usize>(g: &Geometry<R>, w: &[T], dy: &[T], dx: &mut [T]) {
    dx.fill(T::ZERO);
    products(g, |i, j, o| dx[i] += w[j] * dy[o]);
}

/// dw += dy ⋆ x
pub(super) fn weight_gradient<T: Scalar, const R: usize>(g: &Geometry<R>, x: &[T], dy: &[T], dw: &mut [T]) {
    if g.output().into_iter().fold(g.images, usize::saturating_mul) <= LONG {
        return products(g, |i, j, o| dw[j] += dy[o] * x[i]);
    }
    let mut sums = vec![0.0; dw.len()];
    products(g, |i, j, o| sums[j] += dy[o].to_f64() * x[i].to_f64());
    dw.iter_mut().zip(sums).for_each(|(dw, sum)| *dw += T::from_f64(sum));
}
