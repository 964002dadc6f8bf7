//! Shapes: up to eight axes, kept in place so that a shape never allocates.

use crate::{Error, Result};
use std::{
    array, fmt,
    hash::{Hash, Hasher},
    ops::Deref,
};

/// The lengths of a tensor's axes, outermost first. Dereferences to `[usize]`.
///
/// ```
/// use chainrule_tensor::Shape;
/// let s = Shape::from([32, 3, 8, 8]);
/// assert_eq!((s.len(), s[1], s.volume()), (4, 3, 6144));
/// ```
#[derive(Clone, Copy, Eq)]
pub struct Shape {
    /// 1 beyond the rank. Methods name all eight rather than index, so that a shape stays in registers: one that is written to
    /// memory by axes and copied by vectors makes the processor wait, which small layers feel.
    axes: [usize; Shape::MAX_RANK],
    rank: usize,
}

impl PartialEq for Shape {
    /// All axes at once: a derived comparison calls `memcmp`, which small layers feel.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let differ = |differ, (a, b): (&usize, &usize)| differ | (a ^ b);
        self.axes.iter().zip(&other.axes).fold(self.rank ^ other.rank, differ) == 0
    }
}

impl Hash for Shape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Default for Shape {
    /// The shape of a scalar.
    #[inline]
    fn default() -> Self {
        Self { axes: [1; Self::MAX_RANK], rank: 0 }
    }
}

impl Shape {
    /// The largest number of axes.
    pub const MAX_RANK: usize = 8;

    /// A shape from a slice.
    ///
    /// # Errors
    /// More than [`Shape::MAX_RANK`] axes, or axes whose product, empty ones left out, overflows `isize`: so every product of
    /// some of the axes can be taken without a check.
    #[inline]
    pub fn new(axes: &[usize]) -> Result<Self> {
        /// The product of two shorter axes fits.
        const SHORT: usize = 1 << (usize::BITS / 2 - 2);
        // Batches of vectors: layers of a few elements feel the loops below.
        if let [n, d] = *axes
            && n.max(d) < SHORT
        {
            return Ok(Self::from([n, d]));
        }
        let volume = axes.iter().try_fold(1usize, |v, &n| v.checked_mul(n.max(1)));
        if axes.len() > Self::MAX_RANK || volume.is_none_or(|v| v > isize::MAX as usize / 8) {
            return Err(Self::refused(axes));
        }
        Ok(Self { axes: array::from_fn(|i| axes.get(i).copied().unwrap_or(1)), rank: axes.len() })
    }

    #[cold]
    fn refused(axes: &[usize]) -> Error {
        Error::shape(match axes.len() {
            0..=Self::MAX_RANK => format!("expected a volume that fits in memory, got {axes:?}"),
            _ => format!("expected at most {} axes, got {axes:?}", Self::MAX_RANK),
        })
    }

    /// The number of elements: the product of the axes, 1 for a scalar.
    #[inline]
    pub fn volume(&self) -> usize {
        let [a, b, c, d, e, f, g, h] = self.axes;
        ((a * b) * (c * d)) * ((e * f) * (g * h))
    }

    /// This shape with one axis replaced.
    ///
    /// # Panics
    /// If there is no such axis.
    #[must_use]
    #[inline]
    pub fn with(self, axis: usize, length: usize) -> Self {
        assert!(axis < self.rank, "a shape of {} axes has no axis {axis}", self.rank);
        Self { axes: array::from_fn(|i| if i == axis { length } else { self.axes[i] }), rank: self.rank }
    }

    /// This shape with one more, innermost, axis.
    ///
    /// # Errors
    /// More than [`Shape::MAX_RANK`] axes.
    #[inline]
    pub fn push(&self, length: usize) -> Result<Self> {
        let mut axes = [0; Self::MAX_RANK + 1];
        axes[..self.rank].copy_from_slice(self);
        axes[self.rank] = length;
        Self::new(&axes[..=self.rank])
    }
}

impl Deref for Shape {
    type Target = [usize];
    #[inline]
    fn deref(&self) -> &[usize] {
        &self.axes[..self.rank]
    }
}

impl std::ops::DerefMut for Shape {
    #[inline]
    fn deref_mut(&mut self) -> &mut [usize] {
        &mut self.axes[..self.rank]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(axes: [usize; N]) -> Self {
        const { assert!(N <= Self::MAX_RANK, "a shape has at most eight axes") };
        let mut shape = Self { rank: N, ..Self::default() };
        shape.axes[..N].copy_from_slice(&axes);
        shape
    }
}

impl From<usize> for Shape {
    /// One axis.
    fn from(length: usize) -> Self {
        Self::from([length])
    }
}

impl<const N: usize> From<&[usize; N]> for Shape {
    fn from(axes: &[usize; N]) -> Self {
        Self::from(*axes)
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Self {
        *shape
    }
}

/// Lengths that are known at run time alone.
macro_rules! lengths {
    ($($t:ty),*) => {$(
        impl TryFrom<$t> for Shape {
            type Error = Error;
            /// [`Shape::new`].
            ///
            /// # Errors
            /// More than [`Shape::MAX_RANK`] axes, or a volume that overflows.
            fn try_from(axes: $t) -> Result<Self> {
                Self::new(&axes)
            }
        }
    )*};
}
lengths!(&[usize], Vec<usize>, &Vec<usize>);

/// The shape that an argument stands for, if a tensor can have it.
pub(crate) fn shape(axes: impl TryInto<Shape, Error: Into<Error>>) -> Result<Shape> {
    Shape::new(&axes.try_into().map_err(Into::into)?)
}

/// Writes the position of the element at a flat index, row-major, to `at`.
fn unravel(axes: &[usize], mut flat: usize, at: &mut [usize]) {
    for (at, &n) in at.iter_mut().zip(axes).rev() {
        (flat, *at) = (flat / n.max(1), flat % n.max(1));
    }
}

/// The position of the element at a flat index of a shape, row-major.
///
/// ```
/// assert_eq!(chainrule_tensor::position(&[2, 3, 4], 23), [1, 2, 3]);
/// ```
pub fn position(shape: &[usize], flat: usize) -> Vec<usize> {
    let mut at = vec![0; shape.len()];
    unravel(shape, flat, &mut at);
    at
}

/// All positions of R axes, row-major.
pub(crate) fn positions<const R: usize>(axes: [usize; R]) -> impl Iterator<Item = [usize; R]> {
    (0..axes.iter().product()).map(move |flat| {
        let mut at = [0; R];
        unravel(&axes, flat, &mut at);
        at
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_overflows_is_an_error() {
        assert!(Shape::new(&[usize::MAX, 2]).is_err() && Shape::new(&[0, usize::MAX, 2]).is_err());
        assert!(Shape::new(&[1; 9]).is_err());
        assert_eq!(Shape::new(&[]).unwrap().volume(), 1);
        assert_eq!(*Shape::try_from(&[2, 3][..]).unwrap(), [2, 3]);
        assert!(Shape::try_from(&[1; 9][..]).is_err() && Shape::try_from(vec![1; 9]).is_err());
        let axes = [usize::MAX, 2];
        assert!(shape(axes).is_err() && shape(&axes[..]).is_err());
        assert_eq!(*Shape::from([2, 3]).push(4).unwrap(), [2, 3, 4]);
        assert_eq!(*Shape::from([2, 3]).with(0, 7), [7, 3]);
    }

    #[test]
    fn positions_are_row_major() {
        assert_eq!(positions([2, 2]).collect::<Vec<_>>(), [[0, 0], [0, 1], [1, 0], [1, 1]]);
        assert_eq!((positions([3, 0]).count(), positions([]).count()), (0, 1));
        assert_eq!((position(&[4, 5], 13), position(&[], 0)), (vec![2, 3], vec![]));
    }
}
