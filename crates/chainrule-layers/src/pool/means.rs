//! What average pools share: the means over windows, and their gradient.

use crate::rank::axes_of;
use chainrule_core::{Call, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::layers::pool::{Span, average_pool, average_pool_gradient};

/// What average pools keep: nothing for backward, scratch space alone.
#[derive(Debug)]
pub struct AvgPoolCache<const R: usize, T> {
    /// The windows along each axis.
    windows: [Vec<Span>; R],
    /// One row per task.
    scratch: Vec<T>,
}

impl<const R: usize, T> Default for AvgPoolCache<R, T> {
    fn default() -> Self {
        Self { windows: [const { Vec::new() }; R], scratch: Vec::new() }
    }
}

impl<const R: usize, T: Scalar> AvgPoolCache<R, T> {
    /// Fills the cache with the windows of an output (N, C, …): `window(axis, o)` is window o along an axis.
    pub(super) fn cut(&mut self, output: &[usize], window: impl Fn(usize, usize) -> Span) -> &mut Self {
        for (axis, windows) in self.windows.iter_mut().enumerate() {
            windows.clear();
            windows.extend((0..output[axis + 2]).map(|o| window(axis, o)));
        }
        self
    }

    /// Fills the cache with windows that divide the axes of x (N, C, …) into as many parts as y has elements: window o of O
    /// along an axis of n is ⌊o n/O⌋ … ⌈(o + 1) n/O⌉ − 1.
    pub(super) fn divide(&mut self, input: &[usize], output: &[usize]) -> &mut Self {
        self.cut(output, |axis, o| part(o, input[axis + 2], output[axis + 2]))
    }
}

/// Window o of so many that divide an axis of n elements: ⌊o n/parts⌋ … ⌈(o + 1) n/parts⌉ − 1.
pub(super) fn part(o: usize, n: usize, parts: usize) -> Span {
    // n = q·parts + r, so that no product overflows.
    let (q, r) = (n / parts, n % parts);
    let (start, end) = (o * q + o * r / parts, (o + 1) * q + ((o + 1) * r).div_ceil(parts));
    Span { start, end, count: end - start }
}

impl<const R: usize, T: Scalar> AvgPoolCache<R, T> {
    /// y[o] = mean of window o.
    pub(super) fn means(&mut self, x: &Tensor<T>, y: &mut Tensor<T>, shape: Shape, divisor: Option<usize>) {
        let windows = self.windows.each_ref().map(Vec::as_slice);
        average_pool(x.data(), y.reset(shape), axes_of(x.shape()), windows, divisor, &mut self.scratch);
    }

    /// dx[i] = Σ over the windows o that contain i of dy[o]/m[o].
    pub(super) fn gradient(&mut self, call: Call<'_, T>, dx: &mut Tensor<T>, divisor: Option<usize>) {
        self.spread(call.dy.data(), dx, *call.x.shape(), divisor);
    }

    /// dx[i] = Σ over the windows o that contain i of dy[o]/m[o], for x of a shape.
    pub(super) fn spread(&mut self, dy: &[T], dx: &mut Tensor<T>, shape: Shape, divisor: Option<usize>) {
        let windows = self.windows.each_ref().map(Vec::as_slice);
        let (dx, size) = (dx.reset(shape), axes_of(&shape));
        average_pool_gradient(dy, dx, size, windows, divisor, &mut self.scratch);
    }
}
