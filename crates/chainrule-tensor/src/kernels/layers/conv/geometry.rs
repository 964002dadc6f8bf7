//! The sizes of a convolution.

use super::super::window::{Window, over};
use crate::{Error, Result};

/// The sizes of a convolution over R axes, outermost first: 1 for sequences, 2 for images, 3 for volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry<const R: usize> {
    /// N
    pub images: usize,
    /// C, of the input.
    pub channels: usize,
    /// K, channels of the output.
    pub filters: usize,
    /// Groups, which divide both; each sees only its own channels.
    pub groups: usize,
    /// The lengths of the input's axes.
    pub input: [usize; R],
    /// The lengths of the kernel's axes.
    pub kernel: [usize; R],
    /// The distance between windows.
    pub stride: [usize; R],
    /// The distance between the taps of a window.
    pub dilation: [usize; R],
    /// Zeros before and after the image, along each axis.
    pub padding: [[usize; 2]; R],
}

/// The product of some sizes; `usize::MAX`, which is no length of a slice, where it overflows.
pub(super) fn volume(sizes: impl IntoIterator<Item = usize>) -> usize {
    let mut product = Some(1usize);
    for n in sizes {
        if n == 0 {
            return 0;
        }
        product = product.and_then(|p| p.checked_mul(n));
    }
    product.unwrap_or(usize::MAX)
}

/// The length of an axis with its padding up to which the zeros on it are never skipped.
const SMALL: usize = 64;

impl<const R: usize> Geometry<R> {
    /// How its windows slide.
    #[must_use]
    pub(super) fn window(&self) -> Window<R> {
        let &Self { input, kernel, stride, dilation, padding, .. } = self;
        Window { input, kernel, stride, dilation, padding, ceil: false }
    }

    /// The lengths of the output's axes; 0 where a window has no room, or where sizes overflow.
    #[must_use]
    pub fn output(&self) -> [usize; R] {
        self.window().output()
    }

    /// How many pixels a window spans along an axis.
    #[must_use]
    pub(super) fn reach(&self, axis: usize) -> usize {
        self.window().reach(axis)
    }

    /// Channels of a group, C/groups.
    #[must_use]
    pub(super) fn group_channels(&self) -> usize {
        self.channels / self.groups
    }

    /// Filters of a group, K/groups.
    #[must_use]
    pub(super) fn group_filters(&self) -> usize {
        self.filters / self.groups
    }

    /// Elements of x, (N, C, axes of the input); `usize::MAX` where that overflows, as for y and w.
    #[must_use]
    pub fn x_len(&self) -> usize {
        volume([self.images, self.channels].into_iter().chain(self.input))
    }

    /// Elements of y, (N, K, axes of the output).
    #[must_use]
    pub fn y_len(&self) -> usize {
        volume([self.images, self.filters].into_iter().chain(self.output()))
    }

    /// Elements of w, (K, C/groups, axes of the kernel).
    #[must_use]
    pub fn w_len(&self) -> usize {
        volume([self.filters, self.group_channels()].into_iter().chain(self.kernel))
    }

    /// Multiplications with additions of one pass.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        let windows = volume([self.images].into_iter().chain(self.output()));
        (windows as u64).saturating_mul(self.w_len() as u64)
    }

    /// Whether the sizes make sense.
    ///
    /// # Errors
    /// A kernel, stride or dilation of 0, groups that do not divide channels and filters, or sizes that overflow.
    pub fn check(&self) -> Result<()> {
        self.checked().map(drop)
    }

    /// [`check`](Self::check), and then [`sparse`](Self::sparse).
    fn checked(&self) -> Result<[bool; 2]> {
        self.window().check()?;
        let Self { images, channels, filters, groups, .. } = *self;
        if groups == 0 || channels % groups != 0 || filters % groups != 0 {
            return Err(Error::value(format!(
                "expected groups that divide {channels} channels and {filters} filters, got {groups}"
            )));
        }
        let (images, sparse) = (images.max(1), self.sparse());
        // Images are copied with the zeros around them: x into rows of whole strides, of which none is longer than the padded axis if
        // it is taken at all, dy for every element of x that a tap reads. Where the image is sparse it is not copied.
        let copied = |axis: usize| {
            let n = self.input[axis];
            let padded = n + self.padding[axis][0] + self.padding[axis][1];
            match sparse {
                [false, false] => 4 * padded,
                [false, true] => 2 * padded,
                [true, false] => n + self.reach(axis) + 2,
                [true, true] => n,
            }
        };
        let copies = volume([images, channels.max(filters)].into_iter().chain((0..R).map(copied)));
        let output = volume([images, filters].into_iter().chain(self.output()));
        let lengths = [copies, output, self.w_len()];
        if lengths.into_iter().chain(self.stride).any(|len| len > isize::MAX as usize / 8) {
            return Err(Error::shape(format!("expected sizes that fit in memory, got {self:?}")));
        }
        Ok(sparse)
    }

    /// Whether y and ∂W, and whether ∂X, are sums over so few pixels that the definition is the cheaper way. It skips the zeros
    /// around an image, which the fast ways copy and multiply, but takes up to 64 times as long for a product.
    pub(super) fn sparse(&self) -> [bool; 2] {
        // The usual sizes: little to copy and to multiply in any case; or half of what windows see are pixels, and there are half
        // as many windows as the stride allows.
        let usual = |axis: usize| {
            let (n, sides) = (self.input[axis], self.padding[axis][0].saturating_add(self.padding[axis][1]));
            n.saturating_add(sides) <= SMALL || (sides <= n && self.reach(axis) <= n / 2)
        };
        if (0..R).all(usual) {
            return [false; 2];
        }
        self.is_mostly_zeros()
    }

    #[cold]
    fn is_mostly_zeros(&self) -> [bool; 2] {
        let (output, real) = (self.output(), |n: usize| n as f64);
        let [mut x, mut y, mut taps, mut seen] = [1.0; 4];
        // Elements of the frames of x and dy, and products of a pair of channels, zeros included.
        let (mut frames, mut products) = ([1.0; 2], [1.0; 2]);
        for axis in 0..R {
            let (n, out, kernel) = (self.input[axis], output[axis], self.kernel[axis]);
            let (stride, dilation) = (self.stride[axis].max(1), self.dilation[axis].max(1));
            // A window has at most n/dilation taps on the axis, and a tap is there in at most n/stride windows.
            let by_window = real(out) * real(kernel.min(n.div_ceil(dilation)));
            let by_tap = real(kernel) * real(out.min(n.div_ceil(stride)));
            (x, y, taps) = (x * real(n), y * real(out), taps * real(kernel));
            seen *= by_window.min(by_tap);
            let reach = real(self.reach(axis));
            frames[0] *= real(out.saturating_sub(1)) * real(stride) + reach;
            frames[1] *= (real(n) + reach) / real(stride) + 1.0;
            products[0] *= real(out) * real(kernel);
            products[1] *= real(n) * real(kernel.div_ceil(stride));
        }
        let (channels, filters) = (real(self.channels), real(self.filters));
        let pairs = channels * filters / real(self.groups.max(1));
        let needed = 64.0 * (pairs * (seen + taps) + channels * x + filters * y);
        [
            pairs * products[0] + channels * frames[0] > needed,
            pairs * products[1] + filters * frames[1] > needed,
        ]
    }

    /// The same convolution over N axes, of which the first have one element: that of sequences as one of images of height 1.
    #[must_use]
    pub(super) fn over<const N: usize>(&self) -> Option<Geometry<N>> {
        Some(Geometry {
            images: self.images,
            channels: self.channels,
            filters: self.filters,
            groups: self.groups,
            input: over(self.input, 1)?,
            kernel: over(self.kernel, 1)?,
            stride: over(self.stride, 1)?,
            dilation: over(self.dilation, 1)?,
            padding: over(self.padding, [0; 2])?,
        })
    }

    /// Panics unless the sizes make sense and the slices are as long as they say; returns [`sparse`](Self::sparse).
    pub(super) fn expect<T>(&self, x: &[T], w: &[T], y: &[T]) -> [bool; 2] {
        let sparse = self.checked().unwrap_or_else(|error| panic!("{error}"));
        let sizes = [self.x_len(), self.w_len(), self.y_len()];
        assert_eq!([x.len(), w.len(), y.len()], sizes, "x, w and y are as long as {self:?} says");
        sparse
    }
}

impl Geometry<2> {
    /// Whether windows are single pixels side by side.
    pub(super) fn is_single(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [[0; 2]; 2]
    }

    /// The same convolution with the image in rows of other lengths, where windows are single pixels side by side.
    pub(super) fn flat(&self, lanes: usize) -> Self {
        let pixels = self.input[0] * self.input[1];
        if !self.is_single() || self.input[1].is_multiple_of(lanes) {
            return *self;
        }
        // Rows of whole vectors if that comes out even, so that they can be shared over threads; or else one row.
        let rows = [8, 4, 2].into_iter().find(|rows| pixels.is_multiple_of(rows * lanes)).unwrap_or(1);
        Self { input: [rows, pixels / rows], ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_overflow_are_errors_and_no_length_of_a_slice() {
        let good = Geometry {
            images: 2,
            channels: 4,
            filters: 6,
            groups: 2,
            input: [5, 7],
            kernel: [3, 3],
            stride: [1, 2],
            dilation: [1, 1],
            padding: [[1, 1], [0, 0]],
        };
        assert!(good.check().is_ok());
        assert_eq!((good.x_len(), good.w_len(), good.y_len()), (280, 108, 2 * 6 * 5 * 3));
        let huge = usize::MAX / 4;
        for bad in [
            Geometry { groups: 0, ..good },
            Geometry { groups: 4, ..good },
            Geometry { stride: [0, 1], ..good },
            Geometry { stride: [1, usize::MAX], ..good },
            Geometry { images: huge, ..good },
            Geometry { channels: huge - huge % 2, ..good },
            Geometry { input: [huge, huge], ..good },
            Geometry { padding: [[huge, huge], [0, 0]], ..good },
            Geometry { padding: [[usize::MAX; 2]; 2], ..good },
            Geometry { kernel: [huge, huge], ..good },
            Geometry { images: 0, padding: [[huge, 0], [0, 0]], ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert_eq!(Geometry { input: [huge, huge], ..good }.x_len(), usize::MAX);
        assert_eq!(Geometry { images: 0, input: [huge, huge], ..good }.x_len(), 0);
        let line = Geometry {
            images: 1,
            channels: 1,
            filters: 1,
            groups: 1,
            input: [9],
            kernel: [2],
            stride: [1],
            dilation: [3],
            padding: [[0, 1]],
        };
        assert_eq!((line.output(), line.over::<2>().unwrap().output()), ([7], [1, 7]));
    }
}
