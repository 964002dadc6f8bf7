//! What a prediction is compared with: one type from data set to loss.

use chainrule_tensor::{Error, Result, Scalar, Shape, Tensor};
use std::ops::Deref;

/// What a prediction is compared with, as a loss reads it. [`Targets`] owns the same.
#[derive(Debug)]
#[non_exhaustive]
pub enum Target<'a, T> {
    /// Class indices: one for each sample, or for each position of a dense prediction.
    Classes(Classes<'a>),
    /// Values: of a regression, of several labels at once, probabilities of classes.
    Values(&'a Tensor<T>),
    /// A sequence of class indices for each sample, of different lengths.
    Sequences(Sequences<'a>),
}

/// Class indices with their shape: (N), or (N, H, W) of dense labels. Dereferences to the indices, row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes<'a> {
    indices: &'a [usize],
    shape: Shape,
}

/// Sequences of class indices, one after another. Dereferences to all indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequences<'a> {
    indices: &'a [usize],
    lengths: &'a [usize],
}

impl<'a> Classes<'a> {
    /// The index of a target without a class. Metrics ignore it, and so does a loss that is told to.
    pub const IGNORED: usize = usize::MAX;

    /// Class indices of a shape.
    ///
    /// # Errors
    /// Another number of indices than the shape has elements.
    pub fn new(indices: &'a [usize], shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if indices.len() != shape.volume() {
            return Err(Error::shape(format!("expected classes of shape {shape}, got {}", indices.len())));
        }
        Ok(Self { indices, shape })
    }

    /// Their shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The indices, row-major.
    pub fn indices(&self) -> &'a [usize] {
        self.indices
    }
}

impl Deref for Classes<'_> {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        self.indices
    }
}

impl<'a> Sequences<'a> {
    /// Sequences of the given lengths.
    ///
    /// # Errors
    /// The lengths do not sum to the number of indices.
    pub fn new(indices: &'a [usize], lengths: &'a [usize]) -> Result<Self> {
        let sum = lengths.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
        if sum != Some(indices.len()) {
            return Err(Error::shape(format!(
                "expected lengths that sum to {} indices, got {lengths:?}",
                indices.len()
            )));
        }
        Ok(Self { indices, lengths })
    }

    /// The length of each sample's sequence.
    pub fn lengths(&self) -> &'a [usize] {
        self.lengths
    }

    /// Each sample's sequence.
    pub fn iter(&self) -> impl Iterator<Item = &'a [usize]> {
        let (mut rest, lengths) = (self.indices, self.lengths);
        lengths.iter().map(move |&n| {
            let (first, others) = rest.split_at(n);
            rest = others;
            first
        })
    }
}

impl Deref for Sequences<'_> {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        self.indices
    }
}

impl<T> Clone for Target<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Target<'_, T> {}

impl<'a, T: Scalar> Target<'a, T> {
    /// The values.
    ///
    /// # Errors
    /// The target is made of classes.
    pub fn values(self) -> Result<&'a Tensor<T>> {
        match self {
            Self::Values(t) => Ok(t),
            other => Err(Error::value(format!("expected a target of values, got {}", other.what()))),
        }
    }

    /// The class indices.
    ///
    /// # Errors
    /// The target is made of values or of sequences.
    pub fn classes(self) -> Result<Classes<'a>> {
        match self {
            Self::Classes(classes) => Ok(classes),
            other => Err(Error::value(format!("expected a target of classes, got {}", other.what()))),
        }
    }

    /// The sequences.
    ///
    /// # Errors
    /// The target is made of values or of one class each.
    pub fn sequences(self) -> Result<Sequences<'a>> {
        match self {
            Self::Sequences(sequences) => Ok(sequences),
            other => Err(Error::value(format!("expected a target of sequences, got {}", other.what()))),
        }
    }

    /// The number of samples.
    pub fn samples(self) -> usize {
        match self {
            Self::Classes(classes) => classes.shape.first().copied().unwrap_or(1),
            Self::Values(values) => values.shape().first().copied().unwrap_or(1),
            Self::Sequences(sequences) => sequences.lengths.len(),
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Classes(_) => "classes",
            Self::Values(_) => "values",
            Self::Sequences(_) => "sequences",
        }
    }
}

impl<'a, T> From<&'a [usize]> for Target<'a, T> {
    fn from(indices: &'a [usize]) -> Self {
        Self::Classes(Classes { indices, shape: Shape::from(indices.len()) })
    }
}

impl<'a, T> From<&'a Vec<usize>> for Target<'a, T> {
    fn from(indices: &'a Vec<usize>) -> Self {
        indices.as_slice().into()
    }
}

impl<'a, T, const N: usize> From<&'a [usize; N]> for Target<'a, T> {
    fn from(indices: &'a [usize; N]) -> Self {
        indices.as_slice().into()
    }
}

impl<'a, T> From<Classes<'a>> for Target<'a, T> {
    fn from(classes: Classes<'a>) -> Self {
        Self::Classes(classes)
    }
}

impl<'a, T> From<Sequences<'a>> for Target<'a, T> {
    fn from(sequences: Sequences<'a>) -> Self {
        Self::Sequences(sequences)
    }
}

impl<'a, T> From<&'a Tensor<T>> for Target<'a, T> {
    fn from(values: &'a Tensor<T>) -> Self {
        Self::Values(values)
    }
}

impl<'a, T> From<&'a Targets<T>> for Target<'a, T> {
    fn from(targets: &'a Targets<T>) -> Self {
        match targets {
            Targets::Classes { indices, shape } => Self::Classes(Classes { indices, shape: *shape }),
            Targets::Values(values) => Self::Values(values),
            Targets::Sequences { indices, lengths } => Self::Sequences(Sequences { indices, lengths }),
        }
    }
}

/// The targets of a data set or of a batch: [`Target`], owned. The first axis counts samples.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets<T = f32> {
    /// Class indices of a shape, one for each sample or for each position of a dense label.
    Classes {
        /// The indices, row-major.
        indices: Vec<usize>,
        /// (N), or (N, H, W).
        shape: Shape,
    },
    /// Values of each sample.
    Values(Tensor<T>),
    /// A sequence of class indices for each sample.
    Sequences {
        /// All sequences, one after another.
        indices: Vec<usize>,
        /// The length of each.
        lengths: Vec<usize>,
    },
}

impl<T: Scalar> Targets<T> {
    /// One class for each sample.
    pub fn classes(indices: impl Into<Vec<usize>>) -> Self {
        let indices = indices.into();
        Self::Classes { shape: Shape::from(indices.len()), indices }
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes { shape, .. } => shape.first().copied().unwrap_or(0),
            Self::Values(values) => values.shape().first().copied().unwrap_or(0),
            Self::Sequences { lengths, .. } => lengths.len(),
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for Targets<T> {
    fn default() -> Self {
        Self::Classes { indices: Vec::new(), shape: Shape::from(0) }
    }
}

/// The targets of an objective: one that converts into a [`Target`], or several.
pub trait TargetList<T> {
    /// Calls `f` with them.
    fn with<R>(&self, f: impl FnOnce(&[Target<'_, T>]) -> R) -> R;
}

macro_rules! one_target {
    ($([$($generics:tt)*] $t:ty;)*) => {$(
        impl<T, $($generics)*> TargetList<T> for $t {
            #[inline]
            fn with<R>(&self, f: impl FnOnce(&[Target<'_, T>]) -> R) -> R {
                f(&[Target::from(*self)])
            }
        }
    )*};
}

one_target! {
    [] Target<'_, T>;
    [] Classes<'_>;
    [] Sequences<'_>;
    [] &Tensor<T>;
    [] &Targets<T>;
    [] &[usize];
    [] &Vec<usize>;
    [const N: usize] &[usize; N];
}

impl<T> TargetList<T> for &[Target<'_, T>] {
    fn with<R>(&self, f: impl FnOnce(&[Target<'_, T>]) -> R) -> R {
        f(self)
    }
}

impl<T, const N: usize> TargetList<T> for [Target<'_, T>; N] {
    fn with<R>(&self, f: impl FnOnce(&[Target<'_, T>]) -> R) -> R {
        f(self)
    }
}

impl<T> TargetList<T> for &[Targets<T>] {
    fn with<R>(&self, f: impl FnOnce(&[Target<'_, T>]) -> R) -> R {
        match self {
            // One target stands on the stack: a step allocates nothing.
            [one] => f(&[one.into()]),
            [one, two] => f(&[one.into(), two.into()]),
            _ => f(&self.iter().map(Target::from).collect::<Vec<_>>()),
        }
    }
}

impl<T> TargetList<T> for &Vec<Targets<T>> {
    fn with<R>(&self, f: impl FnOnce(&[Target<'_, T>]) -> R) -> R {
        self.as_slice().with(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_lengths_must_fit() {
        assert!(Classes::new(&[0; 6], [2, 3]).is_ok() && Classes::new(&[0; 6], [2, 2]).is_err());
        let sequences = Sequences::new(&[1, 2, 3], &[2, 0, 1]).unwrap();
        assert_eq!(sequences.iter().collect::<Vec<_>>(), [&[1, 2][..], &[], &[3]]);
        assert!(Sequences::new(&[1, 2, 3], &[2, 2]).is_err());
        assert!(Sequences::new(&[1], &[usize::MAX, 2]).is_err());
    }

    #[test]
    fn owned_targets_are_read_as_what_they_are() {
        let dense = Targets::<f32>::Classes { indices: vec![0; 12], shape: Shape::from([2, 3, 2]) };
        assert_eq!((dense.len(), Target::from(&dense).samples()), (2, 2));
        assert_eq!(*Target::from(&dense).classes().unwrap().shape(), Shape::from([2, 3, 2]));
        let text = Target::from(&dense).values().unwrap_err().to_string();
        assert_eq!(text, "expected a target of values, got classes");
    }
}
