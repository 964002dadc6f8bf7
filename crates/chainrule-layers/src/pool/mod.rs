//! Layers that shrink images: each output is made of a window of the input.

mod adaptive_avg_pool2d;
mod avg_pool2d;
mod global_avg_pool2d;
mod max_pool2d;

pub use adaptive_avg_pool2d::{AdaptiveAvgPool2d, OutputSize};
pub use avg_pool2d::AvgPool2d;
pub use global_avg_pool2d::GlobalAvgPool2d;
pub use max_pool2d::{MaxPool2d, MaxPool2dCache};

use crate::Pair;
use chainrule_core::{Call, Error, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::pool::{Window, average_pool, average_pool_gradient};

/// What the means keep: nothing for backward, scratch alone.
#[derive(Debug, Default)]
pub struct AvgPoolCache<T> {
    /// The windows along the height and along the width.
    rows: Vec<Window>,
    cols: Vec<Window>,
    /// One row a piece of work.
    scratch: Vec<T>,
}

impl<T: Scalar> AvgPoolCache<T> {
    fn cut(&mut self, rows: impl Iterator<Item = Window>, cols: impl Iterator<Item = Window>) {
        self.rows.clear();
        self.rows.extend(rows);
        self.cols.clear();
        self.cols.extend(cols);
    }

    /// y[o] = mean of window o.
    fn means(&mut self, x: &Tensor<T>, y: &mut [T], divisor: Option<usize>) {
        let (size, windows) = ([x.shape()[2], x.shape()[3]], (&self.rows[..], &self.cols[..]));
        average_pool(x.data(), y, size, windows, divisor, &mut self.scratch);
    }

    /// dx[i] = Σ over the windows o that i is in of dy[o]/m[o].
    fn gradient(&mut self, call: Call<'_, T>, dx: &mut Tensor<T>, divisor: Option<usize>) {
        let (shape, windows) = (*call.x.shape(), (&self.rows[..], &self.cols[..]));
        let (dx, size) = (dx.reset(shape), [shape[2], shape[3]]);
        average_pool_gradient(call.dy.data(), dx, size, windows, divisor, &mut self.scratch);
    }
}

/// (N, C, H, W) or an error.
fn planes(name: &str, input: &[usize]) -> Result<[usize; 4]> {
    match *input {
        [n, c, h, w] if h > 0 && w > 0 => Ok([n, c, h, w]),
        _ => Err(Error::shape(format!("{name}: expected input (N, C, H, W) with pixels, got {input:?}"))),
    }
}

/// How windows slide over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sliding {
    name: &'static str,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
}

impl Sliding {
    /// Windows side by side.
    fn new(name: &'static str, kernel: Pair) -> Self {
        Self { name, kernel, stride: kernel, padding: 0.into(), dilation: 1.into(), ceil_mode: false }
    }

    fn check(&self) -> Result<()> {
        let Self { name, kernel, stride, padding, dilation, .. } = self;
        for (what, pair) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
            if pair.h == 0 || pair.w == 0 {
                return Err(Error::value(format!("{name}: expected a {what} of at least 1, got {pair}")));
            }
        }
        if padding.h > kernel.h / 2 || padding.w > kernel.w / 2 {
            return Err(Error::value(format!(
                "{name}: expected a padding of at most half the kernel {kernel}, got {padding}"
            )));
        }
        Ok(())
    }

    /// The windows along an axis; `None` if there is no room for one.
    fn length(
        &self,
        n: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        dilation: usize,
    ) -> Option<usize> {
        // Wide enough for any sizes.
        let [n, kernel, stride, padding, dilation] =
            [n, kernel, stride, padding, dilation].map(|v| v as i128);
        let spare = n + 2 * padding - dilation.saturating_mul(kernel - 1) - 1;
        let up = if self.ceil_mode { stride - 1 } else { 0 };
        let length = (spare + up).div_euclid(stride) + 1;
        // The last window begins on the axis or in the padding before it.
        let beyond = self.ceil_mode && (length - 1).saturating_mul(stride) >= n + padding;
        usize::try_from(length - i128::from(beyond)).ok().filter(|&length| length > 0)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        let [n, c, h, w] = planes(self.name, input)?;
        let Self { kernel, stride, padding, dilation, .. } = *self;
        let oh = self.length(h, kernel.h, stride.h, padding.h, dilation.h);
        let ow = self.length(w, kernel.w, stride.w, padding.w, dilation.w);
        match (oh, ow) {
            (Some(oh), Some(ow)) => Shape::new(&[n, c, oh, ow]),
            _ => Err(Error::shape(format!(
                "{}: expected images that hold a window of {kernel}, got input {input:?}",
                self.name
            ))),
        }
    }
}

/// The builders that sliding windows share.
macro_rules! sliding_builders {
    () => {
        /// The distance between windows, the kernel by default.
        #[must_use]
        pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
            self.sliding.stride = stride.into();
            self
        }

        /// How far windows reach over each edge, 0 by default, at most half the kernel.
        #[must_use]
        pub fn padding(mut self, padding: impl Into<Pair>) -> Self {
            self.sliding.padding = padding.into();
            self
        }

        /// Whether a last window that reaches over the far edge counts; `false` by default.
        #[must_use]
        pub fn ceil_mode(mut self, ceil: bool) -> Self {
            self.sliding.ceil_mode = ceil;
            self
        }
    };
}
use sliding_builders;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// A kernel, a padding of at most half of it, and an image that holds a window.
    pub fn windows() -> impl Strategy<Value = ([usize; 2], [usize; 2], [usize; 2])> {
        [1..4usize, 1..4].prop_flat_map(|[kh, kw]| {
            let padding = [0..=kh / 2, 0..=kw / 2];
            (Just([kh, kw]), padding, [kh..kh + 5, kw..kw + 5])
        })
    }
}
