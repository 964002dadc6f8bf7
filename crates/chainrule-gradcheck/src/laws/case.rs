//! What a law is tested on.

use chainrule_core::{Result, Rng, Scalar, Shape, Tensor};
use std::ops::Range;

/// What the inputs hold.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Values {
    /// Standard normal values.
    #[default]
    Normal,
    /// Uniform values from a range.
    Uniform(Range<f64>),
    /// Whole numbers from a range: ids.
    Indices(Range<usize>),
    /// 1, and in one of four places 0; the first of each row is 1.
    Mask,
    /// 0, and in one of four places 1; the first of each row is 0. What a mask of hidden keys holds.
    Hidden,
    /// −1 and 1.
    Signs,
    /// Lengths of sequences: whole numbers from 1 to the given one, which is the first.
    Lengths(usize),
}

impl Values {
    pub(crate) fn tensor<T: Scalar>(&self, shape: Shape, rng: &mut Rng) -> Tensor<T> {
        let row = shape.last().copied().unwrap_or(1);
        Tensor::from_fn(shape, |i| {
            // Of f32's precision, so that both precisions see the same values.
            T::from_f64(match self {
                Self::Normal => f64::from(rng.normal() as f32),
                Self::Uniform(range) => {
                    f64::from((range.start + (range.end - range.start) * rng.uniform()) as f32)
                }
                Self::Indices(range) => (range.start + rng.below(range.len())) as f64,
                Self::Mask => f64::from(u8::from(rng.below(4) != 0 || i % row == 0)),
                Self::Hidden => f64::from(u8::from(rng.below(4) == 0 && i % row != 0)),
                Self::Signs => [-1.0, 1.0][rng.below(2)],
                Self::Lengths(longest) if i == 0 => *longest as f64,
                Self::Lengths(longest) => (1 + rng.below(*longest)) as f64,
            })
        })
    }
}

/// One case of a layer or another module: shapes, what the inputs hold, a seed.
#[derive(Clone, Debug)]
pub struct Case {
    pub(crate) seed: u64,
    pub(crate) inputs: Vec<Vec<usize>>,
    pub(crate) wrong: Vec<Vec<Vec<usize>>>,
    pub(crate) large: Option<Vec<Vec<usize>>>,
    /// The time axis of each input that has one.
    pub(crate) sequences: Vec<(usize, usize)>,
    /// A stream is an error.
    pub(crate) refuses_streams: bool,
    values: Values,
    values_of: Vec<(usize, Values)>,
    /// The batch axis of each input whose first axis is another one.
    batch_axes: Vec<(usize, Option<usize>)>,
}

fn shapes(shapes: impl IntoIterator<Item = impl AsRef<[usize]>>) -> Vec<Vec<usize>> {
    shapes.into_iter().map(|s| s.as_ref().to_vec()).collect()
}

/// What was said last of an input.
fn said<V>(list: &[(usize, V)], input: usize) -> Option<&V> {
    list.iter().rev().find(|(i, _)| *i == input).map(|(_, said)| said)
}

impl Case {
    /// A case without inputs; the seed decides every value in it.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            inputs: Vec::new(),
            wrong: Vec::new(),
            large: None,
            sequences: Vec::new(),
            refuses_streams: false,
            values: Values::Normal,
            values_of: Vec::new(),
            batch_axes: Vec::new(),
        }
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

    /// A shape that a module of one input must refuse. May be repeated.
    #[must_use]
    pub fn wrong(self, shape: impl AsRef<[usize]>) -> Self {
        self.wrong_inputs([shape])
    }

    /// Shapes that a module of several inputs must refuse. May be repeated.
    #[must_use]
    pub fn wrong_inputs(mut self, inputs: impl IntoIterator<Item = impl AsRef<[usize]>>) -> Self {
        self.wrong.push(shapes(inputs));
        self
    }

    /// The shape for [`Law::Threads`](super::Law::Threads), which needs more work than one thread gets. By default the
    /// batch is made large enough for an input of about 120,000 elements.
    #[must_use]
    pub fn large(self, shape: impl AsRef<[usize]>) -> Self {
        self.large_inputs([shape])
    }

    /// [`Case::large`] for several inputs.
    #[must_use]
    pub fn large_inputs(self, inputs: impl IntoIterator<Item = impl AsRef<[usize]>>) -> Self {
        Self { large: Some(shapes(inputs)), ..self }
    }

    /// What the inputs hold.
    #[must_use]
    pub fn values(self, values: Values) -> Self {
        Self { values, ..self }
    }

    /// What one of several inputs holds.
    #[must_use]
    pub fn values_of(mut self, input: usize, values: Values) -> Self {
        self.values_of.push((input, values));
        self
    }

    /// The module has memory over time, and this is the time axis of its first input:
    /// [`Law::Streaming`](super::Law::Streaming) cuts it into pieces.
    #[must_use]
    pub fn sequence(self, axis: usize) -> Self {
        self.sequence_of(0, axis)
    }

    /// [`Case::sequence`] for another input. Inputs without a time axis are given whole with each piece.
    #[must_use]
    pub fn sequence_of(mut self, input: usize, axis: usize) -> Self {
        self.sequences.push((input, axis));
        self
    }

    /// The module needs the whole sequence (memory in both directions, attention to later positions): it must refuse a stream.
    #[must_use]
    pub fn refuses_streams(self, refuses_streams: bool) -> Self {
        Self { refuses_streams, ..self }
    }

    /// The batch axis of an input whose first axis is another one: `Some(1)` of states (layers, N, H), `None` of a mask
    /// that all samples share.
    #[must_use]
    pub fn batch_axis_of(mut self, input: usize, axis: impl Into<Option<usize>>) -> Self {
        self.batch_axes.push((input, axis.into()));
        self
    }

    /// The axis of the batch of an input, if it has one.
    pub(crate) fn batch_axis(&self, input: usize) -> Option<usize> {
        said(&self.batch_axes, input).copied().unwrap_or(Some(0))
    }

    pub(crate) fn rng(&self, purpose: &str) -> Rng {
        Rng::keyed(self.seed, purpose)
    }

    /// Inputs of given shapes.
    pub(crate) fn tensors<T: Scalar>(&self, shapes: &[Vec<usize>], purpose: &str) -> Result<Vec<Tensor<T>>> {
        let mut rng = self.rng(purpose);
        let tensor = |(i, shape): (usize, &Vec<usize>)| {
            let values = said(&self.values_of, i).unwrap_or(&self.values);
            Ok(values.tensor(Shape::new(shape)?, &mut rng))
        };
        shapes.iter().enumerate().map(tensor).collect()
    }

    /// The shapes with another batch.
    pub(crate) fn batch(&self, f: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
        let mut shapes = self.inputs.clone();
        for (i, shape) in shapes.iter_mut().enumerate() {
            let axis = self.batch_axis(i);
            if let Some(n) = axis.and_then(|axis| shape.get_mut(axis)) {
                *n = f(*n);
            }
        }
        shapes
    }

    pub(crate) fn large_shapes(&self) -> Vec<Vec<usize>> {
        self.large.clone().unwrap_or_else(|| {
            let sample = self.batch(|_| 1).iter().map(|s| s.iter().product::<usize>()).max().unwrap_or(1);
            self.batch(|_| 120_000usize.div_ceil(sample.max(1)))
        })
    }
}

/// What a target of a loss is made of.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TargetKind {
    /// Standard normal values, of the prediction's shape.
    Values,
    /// Uniform values from 0 to 1, of the prediction's shape.
    Probabilities,
    /// Values of another shape, or from another range.
    Of {
        /// Their shape. The first axis counts samples.
        shape: Vec<usize>,
        /// What they hold.
        values: Values,
    },
    /// Classes.
    Classes {
        /// (N), or (N, H, W) of dense labels.
        shape: Vec<usize>,
        /// The number of classes: this class must be refused.
        below: usize,
        /// The class to be ignored. Some of the classes are, but not the first; it may be out of range.
        ignored: Option<usize>,
    },
    /// Sequences of classes.
    Sequences {
        /// The number of sequences.
        samples: usize,
        /// The range of their lengths.
        lengths: Range<usize>,
        /// The range of the classes.
        classes: Range<usize>,
    },
}
