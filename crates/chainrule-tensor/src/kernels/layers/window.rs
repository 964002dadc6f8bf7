//! How windows slide over the axes of an image: the sizes that convolutions and pools share.

use crate::{Error, Result};
use std::ops::Range;

/// Windows that slide over R axes, outermost first: 1 for sequences, 2 for images, 3 for volumes.
///
/// ```
/// use chainrule_tensor::kernels::layers::Window;
/// let window = Window { padding: [[1, 1]; 2], ..Window::new([28, 28], [3, 3]) };
/// assert_eq!(window.output(), [28, 28]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window<const R: usize> {
    /// The lengths of the axes.
    pub input: [usize; R],
    /// Elements of a window.
    pub kernel: [usize; R],
    /// The distance between windows.
    pub stride: [usize; R],
    /// The distance between the elements of a window.
    pub dilation: [usize; R],
    /// Elements before and after each axis.
    pub padding: [[usize; 2]; R],
    /// Whether a last window counts that ends beyond the padding, as long as it begins before it.
    pub ceil: bool,
}

impl<const R: usize> Window<R> {
    /// Windows at every place where they lie within the axes.
    #[must_use]
    pub fn new(input: [usize; R], kernel: [usize; R]) -> Self {
        Self { input, kernel, stride: [1; R], dilation: [1; R], padding: [[0; 2]; R], ceil: false }
    }

    /// How many elements a window spans along an axis; `usize::MAX` beyond that.
    #[must_use]
    pub(super) fn reach(&self, axis: usize) -> usize {
        self.dilation[axis].saturating_mul(self.kernel[axis].saturating_sub(1)).saturating_add(1)
    }

    /// The windows along each axis; 0 where a window has no room, or where sizes overflow.
    #[must_use]
    pub fn output(&self) -> [usize; R] {
        std::array::from_fn(|axis| self.along(axis).unwrap_or(0))
    }

    fn along(&self, axis: usize) -> Option<usize> {
        let (n, [before, after], stride) = (self.input[axis], self.padding[axis], self.stride[axis]);
        let padded = n.checked_add(before)?.checked_add(after)?;
        let up = if self.ceil { stride.saturating_sub(1) } else { 0 };
        // With room for all but a part of a window, rounding up still counts it.
        let room = padded.checked_add(up)?.checked_sub(self.reach(axis))?;
        let count = room.checked_div(stride)?.checked_add(1)?;
        // The last window begins on the axis or in the padding before it.
        let beyond = self.ceil && (count - 1).checked_mul(stride).is_none_or(|begin| begin >= n + before);
        Some(count - usize::from(beyond))
    }

    /// Whether the sizes make sense.
    ///
    /// # Errors
    /// A kernel, stride or dilation of 0, an axis without a window, or sizes that overflow.
    pub fn check(&self) -> Result<()> {
        for (what, sizes) in [("kernel", self.kernel), ("stride", self.stride), ("dilation", self.dilation)] {
            if sizes.contains(&0) {
                return Err(Error::value(format!("expected a {what} of at least 1, got {sizes:?}")));
            }
        }
        for axis in 0..R {
            let [before, after] = self.padding[axis];
            let padded = self.input[axis].checked_add(before).and_then(|n| n.checked_add(after));
            let fits = |n: usize| n <= isize::MAX as usize / 8;
            if !padded.is_some_and(fits) || !fits(self.reach(axis)) {
                return Err(Error::shape(format!("expected sizes that fit in memory, got {self:?}")));
            }
        }
        Ok(())
    }

    /// The same windows over N axes, of which the first have one element: those of a sequence as those of an image of height 1.
    #[must_use]
    pub(super) fn over<const N: usize>(&self) -> Option<Window<N>> {
        Some(Window {
            input: over(self.input, 1)?,
            kernel: over(self.kernel, 1)?,
            stride: over(self.stride, 1)?,
            dilation: over(self.dilation, 1)?,
            padding: over(self.padding, [0; 2])?,
            ceil: self.ceil,
        })
    }

    /// The taps of window `o` that lie on an axis.
    #[inline]
    pub(super) fn taps(&self, axis: usize, o: usize) -> Range<usize> {
        let (begin, before, dilation) = (o * self.stride[axis], self.padding[axis][0], self.dilation[axis]);
        let first = before.saturating_sub(begin).div_ceil(dilation).min(self.kernel[axis]);
        let end = (before + self.input[axis]).saturating_sub(begin).div_ceil(dilation).min(self.kernel[axis]);
        first..end.max(first)
    }

    /// The element that tap `t` of window `o` reads along an axis, on which it lies.
    #[inline]
    pub(super) fn place(&self, axis: usize, o: usize, t: usize) -> usize {
        o * self.stride[axis] + t * self.dilation[axis] - self.padding[axis][0]
    }
}

/// Values by axis as those of N axes, with `one` for those before; none for more than N.
pub(super) fn over<V: Copy, const R: usize, const N: usize>(by_axis: [V; R], one: V) -> Option<[V; N]> {
    let before = N.checked_sub(R)?;
    Some(std::array::from_fn(|axis| axis.checked_sub(before).map_or(one, |axis| by_axis[axis])))
}

/// The elements of a plane of x and of y, with axes of these lengths.
///
/// # Panics
/// Unless x and y of these lengths are as many whole planes.
pub(super) fn planes<const R: usize>(axes: [[usize; R]; 2], [x, y]: [usize; 2]) -> (usize, usize) {
    let volume = |axes: [usize; R]| axes.iter().try_fold(1usize, |v, &n| v.checked_mul(n));
    let [plane, out] = axes.map(volume).map(|n| n.unwrap_or(usize::MAX)); // no length of a slice
    let fit = match [plane, out] {
        [0, _] => x == 0 && y == 0,
        [_, 0] => x.is_multiple_of(plane) && y == 0,
        _ => x.is_multiple_of(plane) && y.is_multiple_of(out) && x / plane == y / out,
    };
    assert!(fit, "expected as many planes of {:?} as of {:?}, got {x} and {y} elements", axes[0], axes[1]);
    (plane, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_window_may_end_beyond_the_padding_where_sizes_are_rounded_up() {
        let over = |n, kernel, stride, padding, ceil| {
            Window { stride: [stride], padding: [[padding; 2]], ceil, ..Window::new([n], [kernel]) }.output()
        };
        assert_eq!((over(5, 2, 2, 0, false), over(5, 2, 2, 0, true)), ([2], [3]));
        assert_eq!((over(2, 3, 2, 0, false), over(2, 3, 2, 0, true)), ([0], [1]));
        // The third window would begin in the padding behind the axis.
        assert_eq!(over(5, 2, 3, 1, true), [2]);
        assert_eq!(over(1, 4, 2, 0, true), [0]);
    }

    #[test]
    fn the_taps_of_a_window_are_those_on_the_axis() {
        for (n, kernel, stride, padding, dilation) in [
            (5, 3, 1, 1, 1),
            (1, 5, 1, 2, 1),
            (4, 3, 2, 3, 3),
            (2, 7, 3, 5, 2),
            (3, 2, 4, 9, 6),
            (6, 1, 2, 0, 4),
        ] {
            let (stride, dilation, padding) = ([stride], [dilation], [[padding, padding + 1]]);
            let window = Window { stride, dilation, padding, ..Window::new([n], [kernel]) };
            for o in 0..window.output()[0] {
                let place = |t: usize| (o * stride[0] + t * dilation[0]).checked_sub(padding[0][0]);
                let on = |t: &usize| place(*t).is_some_and(|i| i < n);
                let taps = window.taps(0, o);
                assert!(taps.clone().eq((0..kernel).filter(on)), "{window:?} {o}");
                assert!(taps.into_iter().all(|t| place(t) == Some(window.place(0, o, t))));
            }
        }
    }

    #[test]
    fn sizes_that_overflow_are_errors() {
        let good = Window::new([7, 9], [3, 3]);
        assert!(good.check().is_ok() && good.output() == [5, 7]);
        for bad in [
            Window { padding: [[usize::MAX, 1], [0, 0]], ..good },
            Window { padding: [[usize::MAX / 2, usize::MAX / 2], [0, 0]], ..good },
            Window { dilation: [usize::MAX, 1], ..good },
            Window { kernel: [usize::MAX, 3], ..good },
            Window { input: [usize::MAX, 1], ..good },
            Window { stride: [0, 1], ..good },
            Window { kernel: [0, 1], ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
            let _ = bad.output(); // does not overflow
        }
        assert!(Window { stride: [usize::MAX, 1], ceil: true, ..good }.check().is_ok());
        let one = Window { padding: [[1, 2]], ..Window::new([5], [2]) };
        let two = one.over::<2>().unwrap();
        assert_eq!((two.input, two.padding, two.output()), ([1, 5], [[0, 0], [1, 2]], [1, 7]));
        assert!(Window::new([1; 3], [1; 3]).over::<2>().is_none());
    }
}
