//! What average pools share: the means over windows, and their gradient.

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
        self.cut(output, |axis, o| {
            let (n, parts) = (input[axis + 2], output[axis + 2]);
            // n = q·parts + r, so that no product overflows.
            let (q, r) = (n / parts, n % parts);
            let (start, end) = (o * q + o * r / parts, (o + 1) * q + ((o + 1) * r).div_ceil(parts));
            Span { start, end, count: end - start }
        })
    }
}

impl<T: Scalar> AvgPoolCache<2, T> {
    /// y[o] = mean of window o.
    pub(super) fn means(&mut self, x: &Tensor<T>, y: &mut Tensor<T>, shape: Shape, divisor: Option<usize>) {
        let [rows, cols] = &self.windows;
        let size = [x.shape()[2], x.shape()[3]];
        average_pool(x.data(), y.reset(shape), size, [rows, cols], divisor, &mut self.scratch);
    }

    /// dx[i] = Σ over the windows o that contain i of dy[o]/m[o].
    pub(super) fn gradient(&mut self, call: Call<'_, T>, dx: &mut Tensor<T>, divisor: Option<usize>) {
        let [rows, cols] = &self.windows;
        let shape = *call.x.shape();
        let (dx, size) = (dx.reset(shape), [shape[2], shape[3]]);
        average_pool_gradient(call.dy.data(), dx, size, [rows, cols], divisor, &mut self.scratch);
    }
}
