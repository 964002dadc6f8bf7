//! The windows of an image that [`super::Unfold`] writes out and [`super::Fold`] sums.

use crate::rank::check_sizes;
use chainrule_core::{Args, Error, Result, Scalar, Spec};
use chainrule_tensor::kernels::layers::Window;

/// How windows slide over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patches {
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) padding: [usize; 2],
    pub(super) dilation: [usize; 2],
}

impl Patches {
    pub(super) fn new(kernel: [usize; 2]) -> Self {
        Self { kernel, stride: [1; 2], padding: [0; 2], dilation: [1; 2] }
    }

    pub(super) fn from_args<T: Scalar>(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self {
            stride: args.or("stride", [1; 2])?,
            padding: args.or("padding", [0; 2])?,
            dilation: args.or("dilation", [1; 2])?,
            ..Self::new(args.get("kernel_size")?)
        })
    }

    pub(super) fn spec(&self, spec: Spec) -> Spec {
        spec.with("kernel_size", self.kernel)
            .with("stride", self.stride)
            .with("padding", self.padding)
            .with("dilation", self.dilation)
    }

    pub(super) fn check(&self, layer: &str) -> Result<()> {
        let Self { kernel, stride, padding, dilation } = *self;
        for (what, sizes) in [("kernel_size", kernel), ("stride", stride), ("dilation", dilation)] {
            check_sizes(layer, what, 1, sizes)?;
        }
        check_sizes(layer, "padding", 0, padding)
    }

    pub(super) fn window(&self, input: [usize; 2]) -> Window<2> {
        let Self { kernel, stride, padding, dilation } = *self;
        Window { input, kernel, stride, dilation, padding: padding.map(|n| [n; 2]), ceil: false }
    }

    /// The elements of a window, and the windows of an image.
    pub(super) fn counts(&self, layer: &str, input: [usize; 2]) -> Result<[usize; 2]> {
        let window = self.window(input);
        window.check()?;
        let [rows, cols] = window.output();
        let counts = (self.kernel[0].checked_mul(self.kernel[1])).zip(rows.checked_mul(cols));
        match counts {
            Some((taps, windows)) if windows > 0 => Ok([taps, windows]),
            _ => Err(Error::shape(format!(
                "{layer}: expected an image that holds a window of {:?} at dilation {:?}, got {input:?}",
                self.kernel, self.dilation
            ))),
        }
    }
}

/// The builder methods of layers with such windows.
macro_rules! sliding {
    () => {
        /// The distance between windows, 1 by default.
        #[must_use]
        pub fn stride(mut self, stride: impl Into<Sizes<2>>) -> Self {
            self.patches.stride = stride.into().0;
            self
        }

        /// Zeros before and after each axis, none by default.
        #[must_use]
        pub fn padding(mut self, padding: impl Into<Sizes<2>>) -> Self {
            self.patches.padding = padding.into().0;
            self
        }

        /// The distance between the elements of a window, 1 by default.
        #[must_use]
        pub fn dilation(mut self, dilation: impl Into<Sizes<2>>) -> Self {
            self.patches.dilation = dilation.into().0;
            self
        }
    };
}
pub(super) use sliding;

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    /// Kernel, stride, padding, dilation, length of an axis that holds a window.
    pub fn axis() -> impl Strategy<Value = [usize; 5]> {
        [1..4usize, 1..4, 0..3, 1..3, 0..4].prop_map(|[kernel, stride, padding, dilation, extra]| {
            [kernel, stride, padding, dilation, (kernel - 1) * dilation + 1 + extra]
        })
    }
}
