//! What a sample looks like, and the batches that samples are copied into.

use chainrule_core::{Target, Targets};
use chainrule_tensor::{Error, Result, Scalar, Shape, Tensor};

/// What a sample of a [`crate::Source`] looks like: the shapes of its inputs and the kinds of its targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// The shape of each input of one sample, without the batch axis.
    pub inputs: Vec<Shape>,
    /// What each target is.
    pub targets: Vec<TargetSchema>,
}

/// What a target of a [`Schema`] is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TargetSchema {
    /// Class indices.
    Classes {
        /// The shape of one sample's classes: no axes for one class a sample, (H, W) for dense labels.
        shape: Shape,
        /// The number of classes, if known.
        classes: Option<usize>,
        /// The names of the classes; empty if they have none.
        names: Vec<String>,
    },
    /// Values.
    Values {
        /// The shape of one sample's values.
        shape: Shape,
    },
    /// A sequence of class indices of any length.
    Sequences {
        /// The number of classes, if known.
        classes: Option<usize>,
    },
}

impl TargetSchema {
    /// One class a sample.
    pub fn classes(classes: usize) -> Self {
        Self::Classes { shape: Shape::default(), classes: Some(classes), names: Vec::new() }
    }

    /// Values of a shape a sample.
    pub fn values(shape: impl Into<Shape>) -> Self {
        Self::Values { shape: shape.into() }
    }

    /// A sequence of class indices a sample.
    pub fn sequences(classes: usize) -> Self {
        Self::Sequences { classes: Some(classes) }
    }

    /// The number of classes, if known.
    pub fn class_count(&self) -> Option<usize> {
        match self {
            Self::Classes { classes, .. } | Self::Sequences { classes } => *classes,
            Self::Values { .. } => None,
        }
    }

    /// The names of the classes; empty if they have none.
    pub fn class_names(&self) -> &[String] {
        match self {
            Self::Classes { names, .. } => names,
            _ => &[],
        }
    }

    /// The same kind and shape, whatever the number and the names of the classes.
    fn agrees(&self, target: Target<'_, impl Scalar>, samples: usize) -> bool {
        match (self, target) {
            (Self::Classes { shape, .. }, Target::Classes(c)) => is_batch_of(c.shape(), samples, shape),
            (Self::Values { shape }, Target::Values(v)) => is_batch_of(v.shape(), samples, shape),
            (Self::Sequences { .. }, Target::Sequences(s)) => s.lengths().len() == samples,
            _ => false,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Classes { shape, .. } => format!("classes {shape}"),
            Self::Values { shape } => format!("values {shape}"),
            Self::Sequences { .. } => "sequences".into(),
        }
    }
}

/// (n, …)
fn batched(n: usize, sample: &Shape) -> Result<Shape> {
    let mut axes = [n; Shape::MAX_RANK + 1];
    axes[1..=sample.len()].copy_from_slice(sample);
    Shape::new(&axes[..=sample.len()])
}

fn is_batch_of(batch: &Shape, samples: usize, sample: &Shape) -> bool {
    batch.split_first() == Some((&samples, &sample[..]))
}

impl Schema {
    /// The schema of samples with these inputs and targets.
    pub fn new<S: Into<Shape>>(
        inputs: impl IntoIterator<Item = S>,
        targets: impl IntoIterator<Item = TargetSchema>,
    ) -> Self {
        Self { inputs: inputs.into_iter().map(Into::into).collect(), targets: targets.into_iter().collect() }
    }

    /// Whether a batch of `samples` samples is as this schema says.
    ///
    /// # Errors
    /// A shape error that names the input or the target.
    pub fn check<T: Scalar>(&self, batch: &Batch<T>, samples: usize) -> Result<()> {
        let counts = (batch.inputs.len(), batch.targets.len());
        if counts != (self.inputs.len(), self.targets.len()) {
            return Err(Error::shape(format!(
                "source: expected {} inputs and {} targets, got {} and {}",
                self.inputs.len(),
                self.targets.len(),
                counts.0,
                counts.1
            )));
        }
        for (i, (x, shape)) in batch.inputs.iter().zip(&self.inputs).enumerate() {
            if !is_batch_of(x.shape(), samples, shape) {
                return Err(Error::shape(format!(
                    "source: input {i}: expected {samples} samples of shape {shape}, got {}",
                    x.shape()
                )));
            }
        }
        for (i, (target, schema)) in batch.targets.iter().zip(&self.targets).enumerate() {
            if !schema.agrees(target.into(), samples) {
                let got = match target {
                    Targets::Classes { shape, .. } => format!("classes {shape}"),
                    Targets::Values(values) => format!("values {}", values.shape()),
                    Targets::Sequences { lengths, .. } => format!("{} sequences", lengths.len()),
                };
                return Err(Error::shape(format!(
                    "source: target {i}: expected {samples} samples of {}, got {got}",
                    schema.describe()
                )));
            }
        }
        Ok(())
    }
}

/// Some samples of a source, in buffers that are reused. The first axis of each input and target counts samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch<T = f32> {
    /// (N, …): the inputs of the model.
    pub inputs: Vec<Tensor<T>>,
    /// What the outputs are compared with.
    pub targets: Vec<Targets<T>>,
}

impl<T: Scalar> Batch<T> {
    /// The number of samples; 0 for a batch that was never filled.
    pub fn len(&self) -> usize {
        self.inputs.first().and_then(|x| x.shape().first()).copied().unwrap_or(0)
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first input.
    ///
    /// # Panics
    /// If there is none: the batch was never filled.
    pub fn x(&self) -> &Tensor<T> {
        &self.inputs[0]
    }

    /// The first target.
    ///
    /// # Panics
    /// If there is none.
    pub fn target(&self) -> &Targets<T> {
        &self.targets[0]
    }

    /// Makes room for `samples` samples that look like `schema`, in the memory that is there. Values are unspecified, classes
    /// 0, and there is no sequence yet: the caller writes them.
    ///
    /// # Errors
    /// So many samples do not fit in memory.
    pub fn reset(&mut self, schema: &Schema, samples: usize) -> Result<()> {
        self.make_room(schema.inputs.len(), schema.targets.len());
        for (x, shape) in self.inputs.iter_mut().zip(&schema.inputs) {
            x.reset(batched(samples, shape)?);
        }
        for (target, schema) in self.targets.iter_mut().zip(&schema.targets) {
            match schema {
                TargetSchema::Classes { shape, .. } => {
                    let (indices, all) = classes_of(target);
                    *all = batched(samples, shape)?;
                    indices.clear();
                    indices.resize(all.volume(), 0);
                }
                TargetSchema::Values { shape } => {
                    values_of(target).reset(batched(samples, shape)?);
                }
                TargetSchema::Sequences { .. } => {
                    let (indices, lengths) = sequences_of(target);
                    indices.clear();
                    lengths.clear();
                }
            }
        }
        Ok(())
    }

    pub(crate) fn make_room(&mut self, inputs: usize, targets: usize) {
        self.inputs.truncate(inputs);
        self.inputs.resize_with(inputs, Tensor::default);
        self.targets.truncate(targets);
        self.targets.resize_with(targets, || Targets::classes([]));
    }

    /// Keeps the first samples alone; does nothing if there are no more.
    pub fn truncate(&mut self, samples: usize) {
        if samples >= self.len() {
            return;
        }
        // A reset to a smaller volume leaves the elements where they are.
        for x in &mut self.inputs {
            x.reset(x.shape().with(0, samples));
        }
        for target in &mut self.targets {
            match target {
                Targets::Classes { indices, shape } => {
                    *shape = shape.with(0, samples);
                    indices.truncate(shape.volume());
                }
                Targets::Values(values) => drop(values.reset(values.shape().with(0, samples))),
                Targets::Sequences { indices, lengths } => {
                    lengths.truncate(samples);
                    indices.truncate(lengths.iter().sum());
                }
            }
        }
    }

    /// The class indices of a target, to be written.
    ///
    /// # Panics
    /// If there is no such target or it has none.
    pub fn classes_mut(&mut self, target: usize) -> &mut [usize] {
        match &mut self.targets[target] {
            Targets::Classes { indices, .. } => indices,
            _ => panic!("target {target} is not made of classes"),
        }
    }

    /// The values of a target, to be written.
    ///
    /// # Panics
    /// If there is no such target or it has none.
    pub fn values_mut(&mut self, target: usize) -> &mut [T] {
        match &mut self.targets[target] {
            Targets::Values(values) => values.data_mut(),
            _ => panic!("target {target} is not made of values"),
        }
    }

    /// Adds the sequence of the next sample to a target.
    ///
    /// # Panics
    /// If there is no such target or it is not made of sequences.
    pub fn push_sequence(&mut self, target: usize, sequence: &[usize]) {
        match &mut self.targets[target] {
            Targets::Sequences { indices, lengths } => {
                indices.extend_from_slice(sequence);
                lengths.push(sequence.len());
            }
            _ => panic!("target {target} is not made of sequences"),
        }
    }

    /// The values of one sample of an input, to be changed.
    ///
    /// # Panics
    /// If there is no such input or sample.
    pub fn sample_mut(&mut self, input: usize, sample: usize) -> &mut [T] {
        let x = &mut self.inputs[input];
        let width = x.shape()[1..].iter().product::<usize>();
        &mut x.data_mut()[sample * width..][..width]
    }
}

/// The buffers of a target; its variant is kept where it fits.
pub(crate) fn classes_of<T: Scalar>(target: &mut Targets<T>) -> (&mut Vec<usize>, &mut Shape) {
    if !matches!(target, Targets::Classes { .. }) {
        *target = Targets::classes([]);
    }
    let Targets::Classes { indices, shape } = target else { unreachable!("just set") };
    (indices, shape)
}

pub(crate) fn values_of<T: Scalar>(target: &mut Targets<T>) -> &mut Tensor<T> {
    if !matches!(target, Targets::Values(_)) {
        *target = Targets::Values(Tensor::default());
    }
    let Targets::Values(values) = target else { unreachable!("just set") };
    values
}

pub(crate) fn sequences_of<T: Scalar>(target: &mut Targets<T>) -> (&mut Vec<usize>, &mut Vec<usize>) {
    if !matches!(target, Targets::Sequences { .. }) {
        *target = Targets::Sequences { indices: Vec::new(), lengths: Vec::new() };
    }
    let Targets::Sequences { indices, lengths } = target else { unreachable!("just set") };
    (indices, lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_another_form_is_named() {
        let schema = Schema::new([[2]], [TargetSchema::classes(3), TargetSchema::values([])]);
        let mut batch = Batch::<f32> {
            inputs: vec![Tensor::zeros([4, 2])],
            targets: vec![Targets::classes([0; 4]), Targets::Values(Tensor::zeros([4]))],
        };
        schema.check(&batch, 4).unwrap();
        let text = schema.check(&batch, 3).unwrap_err().to_string();
        assert_eq!(text, "source: input 0: expected 3 samples of shape [2], got [4, 2]");
        batch.targets.swap(0, 1);
        let text = schema.check(&batch, 4).unwrap_err().to_string();
        assert_eq!(text, "source: target 0: expected 4 samples of classes [], got values [4]");
        batch.targets.pop();
        let text = schema.check(&batch, 4).unwrap_err().to_string();
        assert_eq!(text, "source: expected 1 inputs and 2 targets, got 1 and 1");
    }
}
