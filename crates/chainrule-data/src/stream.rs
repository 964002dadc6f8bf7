//! Samples from an iterator whose length is not known.

use crate::{Batch, Pick, Schema, Source, TargetSchema};
use chainrule_core::{Classes, Targets};
use chainrule_tensor::{Error, Result, Scalar, Shape, Tensor};
use std::{fmt, iter::Fuse};

/// One sample of a [`Stream`], without a batch axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample<T = f32> {
    /// The inputs.
    pub inputs: Vec<Tensor<T>>,
    /// The targets.
    pub targets: Vec<SampleTarget<T>>,
}

/// The target of one [`Sample`].
#[derive(Clone, Debug, PartialEq)]
pub enum SampleTarget<T = f32> {
    /// A class index.
    Class(usize),
    /// Class indices of a dense label, row-major, or of a sequence.
    Classes(Vec<usize>),
    /// Values.
    Values(Tensor<T>),
}

impl<T: Scalar> Sample<T> {
    /// A sample with a class.
    pub fn class(x: Tensor<T>, class: usize) -> Self {
        Self { inputs: vec![x], targets: vec![SampleTarget::Class(class)] }
    }

    /// A sample with values to be predicted.
    pub fn values(x: Tensor<T>, values: Tensor<T>) -> Self {
        Self { inputs: vec![x], targets: vec![SampleTarget::Values(values)] }
    }
}

/// A source that reads an iterator: what a network receives, a file that is larger than memory, a simulation.
///
/// An epoch is one iterator, from its start to its end. Samples come in the iterator's order.
///
/// ```
/// use chainrule_data::{Loader, Sample, Schema, Stream, TargetSchema};
/// use chainrule_tensor::Tensor;
/// let schema = Schema::new([[1]], [TargetSchema::values([1])]);
/// let sums = Stream::new(schema, |epoch| {
///     (0..100).map(move |i| {
///         let x = (epoch * 100 + i) as f32;
///         Ok(Sample::values(Tensor::from([x]), Tensor::from([x + 1.0])))
///     })
/// });
/// let mut loader = Loader::new(sums, 64)?;
/// while let Some(batch) = loader.next_batch()? {
///     println!("{}", batch.len()); // 64, then 36
/// }
/// # Ok::<(), chainrule_data::Error>(())
/// ```
pub struct Stream<F, I> {
    schema: Schema,
    make: F,
    /// The iterator of this epoch, once a sample was read.
    samples: Option<Fuse<I>>,
    epoch: u64,
}

impl<F: FnMut(u64) -> I, I> Stream<F, I> {
    /// A stream of samples that look like `schema`; `make` gives the iterator of each epoch.
    pub fn new(schema: Schema, make: F) -> Self {
        Self { schema, make, samples: None, epoch: 0 }
    }
}

impl<F, I> fmt::Debug for Stream<F, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("schema", &self.schema)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl<T, F, I> Source<T> for Stream<F, I>
where
    T: Scalar,
    F: FnMut(u64) -> I,
    I: Iterator<Item = Result<Sample<T>>>,
{
    fn samples(&self) -> Option<usize> {
        None
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn start_epoch(&mut self, epoch: u64) -> Result<()> {
        (self.epoch, self.samples) = (epoch, None);
        Ok(())
    }

    fn fill(&mut self, pick: Pick<'_>, batch: &mut Batch<T>) -> Result<usize> {
        let count = pick.count()?;
        let Self { schema, make, samples, epoch } = self;
        let samples = samples.get_or_insert_with(|| make(*epoch).fuse());
        batch.reset(schema, count)?;
        for i in 0..count {
            match samples.next() {
                Some(sample) => push(schema, i, sample?, batch)?,
                None => {
                    batch.truncate(i);
                    return Ok(i);
                }
            }
        }
        Ok(count)
    }
}

/// Copies a sample to its place in the batch.
fn push<T: Scalar>(schema: &Schema, at: usize, sample: Sample<T>, batch: &mut Batch<T>) -> Result<()> {
    let counts = [sample.inputs.len(), sample.targets.len()];
    if counts != [schema.inputs.len(), schema.targets.len()] {
        return Err(Error::shape(format!(
            "stream: expected a sample of {} inputs and {} targets, got {} and {}",
            schema.inputs.len(),
            schema.targets.len(),
            counts[0],
            counts[1]
        )));
    }
    for (i, (x, all)) in sample.inputs.iter().zip(&mut batch.inputs).enumerate() {
        copy(&format_args!("input {i}"), &schema.inputs[i], x, at, all)?;
    }
    for (i, (target, all)) in sample.targets.into_iter().zip(&mut batch.targets).enumerate() {
        match (&schema.targets[i], target, all) {
            (TargetSchema::Classes { shape, classes, .. }, target, Targets::Classes { indices, .. }) => {
                let labels = labels(i, &target)?;
                if labels.len() != shape.volume() {
                    return Err(Error::shape(format!(
                        "stream: target {i}: expected {} classes of a sample, got {}",
                        shape.volume(),
                        labels.len()
                    )));
                }
                check(i, labels, *classes)?;
                indices[at * labels.len()..][..labels.len()].copy_from_slice(labels);
            }
            (TargetSchema::Sequences { classes }, target, Targets::Sequences { indices, lengths }) => {
                let labels = labels(i, &target)?;
                check(i, labels, *classes)?;
                indices.extend_from_slice(labels);
                lengths.push(labels.len());
            }
            (TargetSchema::Values { shape }, SampleTarget::Values(t), Targets::Values(all)) => {
                copy(&format_args!("target {i}"), shape, &t, at, all)?;
            }
            _ => return Err(Error::value(format!("stream: target {i}: expected values, got classes"))),
        }
    }
    Ok(())
}

fn copy<T: Scalar>(
    what: &fmt::Arguments<'_>,
    shape: &Shape,
    from: &Tensor<T>,
    at: usize,
    all: &mut Tensor<T>,
) -> Result<()> {
    if from.shape() != shape {
        return Err(Error::shape(format!("stream: {what}: expected a sample {shape}, got {}", from.shape())));
    }
    all.data_mut()[at * shape.volume()..][..shape.volume()].copy_from_slice(from.data());
    Ok(())
}

fn labels<T>(i: usize, target: &SampleTarget<T>) -> Result<&[usize]> {
    match target {
        SampleTarget::Class(class) => Ok(std::slice::from_ref(class)),
        SampleTarget::Classes(classes) => Ok(classes),
        SampleTarget::Values(_) => {
            Err(Error::value(format!("stream: target {i}: expected classes, got values")))
        }
    }
}

fn check(i: usize, labels: &[usize], classes: Option<usize>) -> Result<()> {
    let Some(classes) = classes else { return Ok(()) };
    match labels.iter().find(|&&c| c >= classes && c != Classes::IGNORED) {
        Some(c) => {
            Err(Error::index(format!("stream: target {i}: expected classes below {classes}, got {c}")))
        }
        None => Ok(()),
    }
}
