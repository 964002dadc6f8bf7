//! The convolution as its definition says, over any number of axes, but for the zeros: the way where an image is little of what
//! windows see. The fast kernels are tested against it.

use super::Geometry;
use crate::{Scalar, kernels::gemm::LONG, shape::positions};

/// Calls `f(index in x, index in w, index in y)` for every product of the sum with a pixel, in order of y, then of w.
fn products<const R: usize>(g: &Geometry<R>, mut f: impl FnMut(usize, usize, usize)) {
    let (window, output) = (g.window(), g.output());
    let (c, k) = (g.group_channels(), g.group_filters());
    let taps = g.kernel.iter().product::<usize>();
    let pixels = g.input.iter().product::<usize>();
    let mut y = 0;
    for n in 0..g.images {
        for filter in 0..g.filters {
            for o in positions(output) {
                let inside: [_; R] = std::array::from_fn(|axis| window.taps(axis, o[axis]));
                // By rows of taps, which are contiguous along the innermost axis.
                let (row, step) = (inside[R - 1].len(), g.dilation[R - 1]);
                let rows: [_; R] =
                    std::array::from_fn(|axis| if axis < R - 1 { inside[axis].len() } else { row.min(1) });
                for channel in 0..c {
                    let plane = (n * g.channels + filter / k * c + channel) * pixels;
                    let filter = (filter * c + channel) * taps;
                    for t in positions(rows) {
                        let t: [_; R] = std::array::from_fn(|axis| inside[axis].start + t[axis]);
                        let pixel = (0..R)
                            .fold(0, |at, axis| at * g.input[axis] + window.place(axis, o[axis], t[axis]));
                        let tap = (0..R).fold(0, |at, axis| at * g.kernel[axis] + t[axis]);
                        for i in 0..row {
                            f(plane + pixel + i * step, filter + tap + i, y);
                        }
                    }
                }
                y += 1;
            }
        }
    }
}

/// y = w ⋆ x + b
///
/// # Panics
/// If the geometry does not pass [`Geometry::check`], or a slice is not as long as it says; so do the two gradients.
pub(super) fn forward<T: Scalar, const R: usize>(
    g: &Geometry<R>,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
) {
    g.expect(x, w, y);
    assert!(bias.is_none_or(|b| b.len() == g.filters), "a bias has one element a filter");
    let plane = g.output().iter().product::<usize>();
    for (i, y) in y.iter_mut().enumerate() {
        *y = bias.map_or(T::ZERO, |b| b[i / plane % g.filters]);
    }
    products(g, |i, j, o| y[o] += w[j] * x[i]);
}

/// dx = wᵀ ⋆ dy
pub(super) fn input_gradient<T: Scalar, const R: usize>(g: &Geometry<R>, w: &[T], dy: &[T], dx: &mut [T]) {
    g.expect(dx, w, dy);
    dx.fill(T::ZERO);
    products(g, |i, j, o| dx[i] += w[j] * dy[o]);
}

/// dw += dy ⋆ x
pub(super) fn weight_gradient<T: Scalar, const R: usize>(g: &Geometry<R>, x: &[T], dy: &[T], dw: &mut [T]) {
    g.expect(x, dw, dy);
    if g.output().into_iter().fold(g.images, usize::saturating_mul) <= LONG {
        return products(g, |i, j, o| dw[j] += dy[o] * x[i]);
    }
    let mut sums = vec![0.0; dw.len()];
    products(g, |i, j, o| sums[j] += dy[o].to_f64() * x[i].to_f64());
    dw.iter_mut().zip(sums).for_each(|(dw, sum)| *dw += T::from_f64(sum));
}
