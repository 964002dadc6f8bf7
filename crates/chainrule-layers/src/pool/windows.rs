//! Windows that slide over an input.

use crate::rank::{check_sizes, join, split};
use chainrule_core::{Args, Error, Result, Scalar, Shape};
use chainrule_tensor::kernels::layers::pool::Span;

/// How windows slide along R axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Windows<const R: usize> {
    pub(super) kernel: [usize; R],
    pub(super) stride: [usize; R],
    pub(super) padding: [usize; R],
    pub(super) dilation: [usize; R],
    pub(super) ceil_mode: bool,
}

impl<const R: usize> Windows<R> {
    /// Windows side by side.
    pub(super) fn new(kernel: [usize; R]) -> Self {
        Self { kernel, stride: kernel, padding: [0; R], dilation: [1; R], ceil_mode: false }
    }

    /// The attributes that all sliding windows have.
    pub(super) fn from_args<T: Scalar>(args: &Args<'_, T>) -> Result<Self> {
        let kernel = args.get("kernel_size")?;
        let stride = args.optional("stride")?.unwrap_or(kernel);
        let (padding, ceil_mode) = (args.or("padding", [0; R])?, args.or("ceil_mode", false)?);
        Ok(Self { stride, padding, ceil_mode, ..Self::new(kernel) })
    }

    pub(super) fn check(&self, layer: &str) -> Result<()> {
        let Self { kernel, stride, padding, dilation, .. } = self;
        for (what, sizes) in [("kernel_size", kernel), ("stride", stride), ("dilation", dilation)] {
            check_sizes(layer, what, 1, *sizes)?;
        }
        if padding.iter().zip(kernel).any(|(&padding, &kernel)| padding > kernel / 2) {
            return Err(Error::value(format!(
                "{layer}: expected padding of at most half the kernel_size {kernel:?}, got {padding:?}"
            )));
        }
        Ok(())
    }

    /// The number of windows along an axis of `n` elements; `None` if not one fits.
    fn count(&self, axis: usize, n: usize) -> Option<usize> {
        // `check` has passed and n is a tensor's: nothing overflows.
        let of = |sizes: [usize; R]| sizes[axis] as i64;
        let (n, stride, padding) = (n as i64, of(self.stride), of(self.padding));
        let room = n + 2 * padding - of(self.dilation) * (of(self.kernel) - 1) - 1;
        let up = if self.ceil_mode { stride - 1 } else { 0 };
        let count = (room + up).div_euclid(stride) + 1;
        // The last window begins on the axis or in the padding before it.
        let behind = self.ceil_mode && (count - 1) * stride >= n + padding;
        usize::try_from(count - i64::from(behind)).ok().filter(|&count| count > 0)
    }

    /// Window o along an axis of n elements, without dilation; it counts the padding in it, or only what lies on the axis.
    pub(super) fn span(&self, axis: usize, o: usize, n: usize, include_pad: bool) -> Span {
        let (kernel, stride, padding) = (self.kernel[axis], self.stride[axis], self.padding[axis]);
        let (start, end) = (o * stride, (o * stride + kernel).min(n + 2 * padding)); // from the start of the padding
        let (inside, outside) = (start.max(padding) - padding, end.clamp(padding, n + padding) - padding);
        let count = if include_pad { end - start } else { outside.saturating_sub(inside) };
        Span { start: inside, end: outside, count }
    }

    pub(super) fn output_shape(&self, layer: &str, input: &[usize]) -> Result<Shape> {
        self.check(layer)?;
        Shape::new(input)?; // lengths that can be added
        let (batch, mut axes): (_, [usize; R]) = split(layer, None, input)?;
        for (axis, n) in axes.iter_mut().enumerate() {
            *n = self.count(axis, *n).ok_or_else(|| {
                let kernel = self.kernel;
                Error::shape(format!(
                    "{layer}: expected an input that holds a window of {kernel:?}, got {input:?}"
                ))
            })?;
        }
        join(batch, axes)
    }
}

/// Whether the elements of a plane can be numbered by a u32.
pub(super) fn check_positions(layer: &str, input: &[usize]) -> Result<()> {
    if input[2..].iter().fold(1, |n: usize, &axis| n.saturating_mul(axis)) < u32::MAX as usize {
        return Ok(());
    }
    Err(Error::shape(format!("{layer}: expected fewer than 2³² − 1 elements per channel, got {input:?}")))
}

/// The shape (n, c, …) of an example with R axes, the last of them longer by one.
pub(super) fn sized<const R: usize>(n: usize, c: usize, axis: usize) -> Shape {
    let mut shape = [n, c, axis, axis, axis];
    shape[R + 1] += 1;
    Shape::new(&shape[..R + 2]).unwrap_or_default()
}

/// The shape of an example to be measured: 64 channels with 1024 or 4096 elements.
pub(super) fn plenty<const R: usize>() -> Shape {
    let shape: &[usize] = match R {
        1 => &[16, 64, 1024],
        2 => &[16, 64, 32, 32],
        _ => &[4, 64, 16, 16, 16],
    };
    Shape::new(shape).unwrap_or_default()
}

/// The builder methods of layers with sliding windows.
macro_rules! sliding {
    () => {
        $crate::pool::windows::stride_and_ceil!();

        /// How far windows extend beyond each end of an axis, 0 by default, at most half the kernel.
        #[must_use]
        pub fn padding(mut self, padding: impl Into<Sizes<R>>) -> Self {
            self.windows.padding = padding.into().0;
            self
        }
    };
}
pub(super) use sliding;

/// Those of layers whose windows have no padding.
macro_rules! stride_and_ceil {
    () => {
        /// The distance between windows, the kernel by default.
        #[must_use]
        pub fn stride(mut self, stride: impl Into<Sizes<R>>) -> Self {
            self.windows.stride = stride.into().0;
            self
        }

        /// Whether a last window that extends beyond the end counts; `false` by default.
        #[must_use]
        pub fn ceil_mode(mut self, ceil: bool) -> Self {
            self.windows.ceil_mode = ceil;
            self
        }
    };
}
pub(super) use stride_and_ceil;

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    /// A kernel, a padding of at most half of it, and an image that holds a window.
    pub fn windows() -> impl Strategy<Value = ([usize; 2], [usize; 2], [usize; 2])> {
        [1..4usize, 1..4].prop_flat_map(|[kh, kw]| {
            let padding = [0..=kh / 2, 0..=kw / 2];
            (Just([kh, kw]), padding, [kh..kh + 5, kw..kw + 5])
        })
    }
}
