//! What is predicted, and a batch: features with their targets.

use chainrule_tensor::{Scalar, Tensor};

/// What the samples are to be predicted as.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets<T = f32> {
    /// A class for each sample.
    Classes(Vec<usize>),
    /// Numbers for each sample; the first axis counts samples.
    Values(Tensor<T>),
}

impl<T: Scalar> Targets<T> {
    /// The number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(c) => c.len(),
            Self::Values(v) => v.shape().first().copied().unwrap_or(0),
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for Targets<T> {
    fn default() -> Self {
        Self::Classes(Vec::new())
    }
}

/// Some samples of a dataset, in buffers that are used again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch<T = f32> {
    /// (N, …): the features.
    pub x: Tensor<T>,
    /// The targets of the same N samples.
    pub targets: Targets<T>,
}

impl<T: Scalar> Batch<T> {
    /// The number of samples.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there is no sample: a batch that was never filled.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}
