//! The convolution as its definition says, loop by loop: what the fast kernels are tested against.

use super::Geometry;
use crate::Scalar;

/// Calls `f(place in x, place in w, place in y)` for every product of the sum, in order of y, then of w.
fn products(g: &Geometry, mut f: impl FnMut(usize, usize, usize)) {
    let ([h, w], [oh, ow], [r, s]) = (g.input, g.output(), g.kernel);
    let (c, k) = (g.group_channels(), g.group_filters());
    // The place along an axis that tap t of window o reads, if it lies in the image.
    let place = |axis: usize, o: usize, t: usize| {
        (o * g.stride[axis] + t * g.dilation[axis])
            .checked_sub(g.padding[axis][0])
            .filter(|&i| i < g.input[axis])
    };
    for y in 0..g.images * g.filters * oh * ow {
        let (n, filter, i, j) = (y / (ow * oh * g.filters), y / (ow * oh) % g.filters, y / ow % oh, y % ow);
        for tap in 0..c * r * s {
            let channel = filter / k * c + tap / (r * s);
            if let (Some(a), Some(b)) = (place(0, i, tap / s % r), place(1, j, tap % s)) {
                f(((n * g.channels + channel) * h + a) * w + b, filter * c * r * s + tap, y);
            }
        }
    }
}

pub(super) fn forward<T: Scalar>(g: &Geometry, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let plane = g.output()[0] * g.output()[1];
    for (i, y) in y.iter_mut().enumerate() {
        *y = bias.map_or(T::ZERO, |b| b[i / plane % g.filters]);
    }
    products(g, |i, j, o| y[o] += w[j] * x[i]);
}

pub(super) fn input_gradient<T: Scalar>(g: &Geometry, w: &[T], dy: &[T], dx: &mut [T]) {
    dx.fill(T::ZERO);
    products(g, |i, j, o| dx[i] += w[j] * dy[o]);
}

pub(super) fn weight_gradient<T: Scalar>(g: &Geometry, x: &[T], dy: &[T], dw: &mut [T]) {
    products(g, |i, j, o| dw[j] += dy[o] * x[i]);
}
