//! The sizes of a convolution.

use super::super::window::{Window, as_pair};
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
fn volume(sizes: impl IntoIterator<Item = usize>) -> usize {
    let mut product = Some(1usize);
    for n in sizes {
        if n == 0 {
            return 0;
        }
        product = product.and_then(|p| p.checked_mul(n));
    }
    product.unwrap_or(usize::MAX)
}

impl<const R: usize> Geometry<R> {
    /// How its windows slide.
    #[must_use]
    pub fn window(&self) -> Window<R> {
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
    pub fn reach(&self, axis: usize) -> usize {
        self.window().reach(axis)
    }

    /// Channels of a group, C/groups.
    #[must_use]
    pub fn group_channels(&self) -> usize {
        self.channels / self.groups
    }

    /// Filters of a group, K/groups.
    #[must_use]
    pub fn group_filters(&self) -> usize {
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
        self.window().check()?;
        let Self { channels, filters, groups, .. } = *self;
        if groups == 0 || channels % groups != 0 || filters % groups != 0 {
            return Err(Error::value(format!(
                "expected groups that divide {channels} channels and {filters} filters, got {groups}"
            )));
        }
        // Images are copied with their padding into rows of whole strides.
        let padded = std::array::from_fn::<_, R, _>(|axis| {
            (self.input[axis] + self.padding[axis][0] + self.padding[axis][1])
                .saturating_add(self.stride[axis])
        });
        let frame = volume([self.images.max(1), channels].into_iter().chain(padded));
        let output = volume([self.images.max(1), filters].into_iter().chain(self.output()));
        if [frame, output, self.w_len()].iter().any(|&len| len > isize::MAX as usize / 8) {
            return Err(Error::shape(format!("expected sizes that fit in memory, got {self:?}")));
        }
        Ok(())
    }

    /// A convolution of sequences as one of images of height 1, and one of images as it is.
    #[must_use]
    pub fn as_images(&self) -> Option<Geometry<2>> {
        Some(Geometry {
            images: self.images,
            channels: self.channels,
            filters: self.filters,
            groups: self.groups,
            input: as_pair(self.input, 1)?,
            kernel: as_pair(self.kernel, 1)?,
            stride: as_pair(self.stride, 1)?,
            dilation: as_pair(self.dilation, 1)?,
            padding: as_pair(self.padding, [0; 2])?,
        })
    }

    /// Panics unless the sizes make sense and the slices are as long as they say.
    pub(super) fn expect<T>(&self, x: &[T], w: &[T], y: &[T]) {
        if let Err(error) = self.check() {
            panic!("{error}");
        }
        let sizes = [self.x_len(), self.w_len(), self.y_len()];
        assert_eq!([x.len(), w.len(), y.len()], sizes, "x, w and y are as long as {self:?} says");
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
        assert_eq!((line.output(), line.as_images().unwrap().output()), ([7], [1, 7]));
    }
}
