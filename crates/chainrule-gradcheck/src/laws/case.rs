//! What a law is tested on.

use chainrule_core::{Rng, Scalar, Shape, Tensor};
use std::ops::Range;

/// Which numbers the inputs are made of.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Values {
    /// Standard normal numbers.
    #[default]
    Normal,
    /// Evenly from a range.
    Uniform(Range<f64>),
    /// Row numbers from a range: whole, and with a gradient of 0.
    Indices(Range<usize>),
}

impl Values {
    pub(crate) fn tensor<T: Scalar>(&self, shape: Shape, rng: &mut Rng) -> Tensor<T> {
        Tensor::from_fn(shape, |_| {
            // Of f32's precision, so that both precisions see the same numbers.
            T::from_f64(match self {
                Self::Normal => f64::from(rng.normal() as f32),
                Self::Uniform(range) => {
                    f64::from((range.start + (range.end - range.start) * rng.uniform()) as f32)
                }
                Self::Indices(range) => (range.start + rng.below(range.len())) as f64,
            })
        })
    }
}

/// One case of a layer: shapes, the kind of numbers, a seed.
#[derive(Clone, Debug)]
pub struct Case {
    pub(crate) seed: u64,
    pub(crate) inputs: Vec<Vec<usize>>,
    pub(crate) wrong: Vec<Vec<Vec<usize>>>,
    pub(crate) large: Option<Vec<Vec<usize>>>,
    pub(crate) values: Values,
}

fn shapes(shapes: impl IntoIterator<Item = impl AsRef<[usize]>>) -> Vec<Vec<usize>> {
    shapes.into_iter().map(|s| s.as_ref().to_vec()).collect()
}

impl Case {
    /// A case without inputs; the seed decides every number in it.
    pub fn new(seed: u64) -> Self {
        Self { seed, inputs: Vec::new(), wrong: Vec::new(), large: None, values: Values::Normal }
    }

    /// The shape of the one input.
    #[must_use]
    pub fn input(self, shape: impl AsRef<[usize]>) -> Self {
        self.inputs([shape])
    }

    /// The shapes of several inputs.
    #[must_use]
    pub fn inputs(self, inputs: impl IntoIterator<Item = impl AsRef<[usize]>>) -> Self {
        Self { inputs: shapes(inputs), ..self }
    }

    /// A shape that a layer of one input must refuse. May be repeated.
    #[must_use]
    pub fn wrong(self, shape: impl AsRef<[usize]>) -> Self {
        self.wrong_inputs([shape])
    }

    /// Shapes that a layer of several inputs must refuse. May be repeated.
    #[must_use]
    pub fn wrong_inputs(mut self, inputs: impl IntoIterator<Item = impl AsRef<[usize]>>) -> Self {
        self.wrong.push(shapes(inputs));
        self
    }

    /// The shape for the law of threads, which needs more work than one thread gets. Unless told, the batch is made large
    /// enough for an input of about 120,000 numbers.
    #[must_use]
    pub fn large(self, shape: impl AsRef<[usize]>) -> Self {
        self.large_inputs([shape])
    }

    /// [`Case::large`] for several inputs.
    #[must_use]
    pub fn large_inputs(self, inputs: impl IntoIterator<Item = impl AsRef<[usize]>>) -> Self {
        Self { large: Some(shapes(inputs)), ..self }
    }

    /// Which numbers the inputs are made of.
    #[must_use]
    pub fn values(self, values: Values) -> Self {
        Self { values, ..self }
    }

    pub(crate) fn rng(&self, purpose: &str) -> Rng {
        Rng::keyed(self.seed, purpose)
    }

    /// Inputs of given shapes.
    pub(crate) fn tensors<T: Scalar>(
        &self,
        shapes: &[Vec<usize>],
        purpose: &str,
    ) -> chainrule_core::Result<Vec<Tensor<T>>> {
        let mut rng = self.rng(purpose);
        shapes.iter().map(|s| Ok(self.values.tensor(Shape::new(s)?, &mut rng))).collect()
    }

    /// The shapes with another batch: the first axis of each input is changed.
    pub(crate) fn batch(&self, f: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
        let mut shapes = self.inputs.clone();
        shapes.iter_mut().filter_map(|s| s.first_mut()).for_each(|n| *n = f(*n));
        shapes
    }

    pub(crate) fn large_shapes(&self) -> Vec<Vec<usize>> {
        self.large.clone().unwrap_or_else(|| {
            let row = self.inputs.iter().map(|s| s.iter().skip(1).product::<usize>()).max().unwrap_or(1);
            self.batch(|_| 120_000usize.div_ceil(row.max(1)))
        })
    }
}

/// Which targets a loss is tested on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Targets {
    /// Standard normal numbers, of the prediction's shape.
    Numbers,
    /// Numbers evenly from 0 to 1, of the prediction's shape.
    Probabilities,
    /// So many classes, each below `below`.
    Classes {
        /// How many there are.
        count: usize,
        /// What they are below; this class must be refused.
        below: usize,
        /// A class that appears now and then (never first) and may be out of range: the one to be ignored.
        ignored: Option<usize>,
    },
}
