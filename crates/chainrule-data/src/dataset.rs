//! Samples in memory: inputs and targets, checked once, when the set is made.

use crate::{
    Batch, Features, Pick, Schema, Source, TargetSchema,
    check::{check_finite, check_labels, check_samples},
    one_hot,
    schema::{classes_of, sequences_of, values_of},
};
use chainrule_core::{Classes, Targets};
use chainrule_tensor::{Error, Result, Scalar, Shape, Tensor};

/// Inputs and targets in memory: at least one sample, all values finite, all classes in range.
///
/// ```
/// use chainrule_data::Dataset;
/// use chainrule_tensor::Tensor;
/// let xor = Dataset::classification(Tensor::from([[0.0f32, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), [0, 1, 1, 0], 2)?;
/// assert_eq!((xor.len(), xor.sample_shape()), (4, &[2][..]));
/// let text = Dataset::classification(Tensor::from([[0.0f32], [1.0]]), [0, 2], 2).unwrap_err().to_string();
/// assert_eq!(text, "labels: expected classes below 2, got 2 at sample 1");
/// # Ok::<(), chainrule_data::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset<T = f32> {
    inputs: Vec<Features<T>>,
    targets: Vec<Targets<T>>,
    /// Where each sequence of a target begins; empty for the other kinds.
    starts: Vec<Vec<usize>>,
    schema: Schema,
}

impl<T: Scalar> Dataset<T> {
    /// Samples with a class each.
    ///
    /// # Shapes
    /// `x` (N, …), `labels` N.
    ///
    /// # Errors
    /// No sample, another number of labels than of samples, a label that is neither below `classes` nor
    /// [`Classes::IGNORED`], or a value that is not finite.
    pub fn classification(
        x: impl Into<Features<T>>,
        labels: impl Into<Vec<usize>>,
        classes: usize,
    ) -> Result<Self> {
        Self::new([x], [Targets::classes(labels)])?.with_classes(0, classes)
    }

    /// Samples with values to be predicted: of a regression, or 0 and 1 for several labels at once.
    ///
    /// # Shapes
    /// `x` (N, …), `values` (N, …).
    ///
    /// # Errors
    /// No sample, another number of targets than of samples, or a value that is not finite.
    pub fn regression(x: impl Into<Features<T>>, values: Tensor<T>) -> Result<Self> {
        Self::new([x], [Targets::Values(values)])
    }

    /// Samples with a class for each position.
    ///
    /// # Shapes
    /// `x` (N, C, d₁, …), `labels` (N, d₁, …), row-major.
    ///
    /// # Errors
    /// As [`Dataset::classification`].
    pub fn segmentation(
        x: impl Into<Features<T>>,
        labels: impl Into<Vec<usize>>,
        classes: usize,
    ) -> Result<Self> {
        let (x, indices) = (x.into(), labels.into());
        let [n, _, ref positions @ ..] = x.shape()[..] else {
            return Err(Error::shape(format!(
                "features: expected (samples, channels, ..), got {}",
                x.shape()
            )));
        };
        let axes: Vec<usize> = [n].iter().chain(positions).copied().collect();
        let shape = Shape::new(&axes)?;
        Self::new([x], [Targets::Classes { indices, shape }])?.with_classes(0, classes)
    }

    /// Samples of any number of inputs and targets. [`Dataset::with_classes`] says how many classes a target has.
    ///
    /// # Shapes
    /// Every input (N, …); of targets the first axis is N.
    ///
    /// # Errors
    /// No input, no sample, different numbers of samples, or a value that is not finite.
    pub fn new<F: Into<Features<T>>>(
        inputs: impl IntoIterator<Item = F>,
        targets: impl IntoIterator<Item = Targets<T>>,
    ) -> Result<Self> {
        let inputs: Vec<Features<T>> = inputs.into_iter().map(Into::into).collect();
        let targets: Vec<Targets<T>> = targets.into_iter().collect();
        check_samples(&inputs, &targets)?;
        let sample = |shape: &Shape| Shape::new(&shape[1..]).expect("part of a shape");
        let schema = Schema {
            inputs: inputs.iter().map(|x| sample(x.shape())).collect(),
            targets: targets
                .iter()
                .map(|target| match target {
                    Targets::Classes { shape, .. } => {
                        TargetSchema::Classes { shape: sample(shape), classes: None, names: Vec::new() }
                    }
                    Targets::Values(values) => TargetSchema::Values { shape: sample(values.shape()) },
                    Targets::Sequences { .. } => TargetSchema::Sequences { classes: None },
                })
                .collect(),
        };
        let starts = targets.iter().map(starts).collect();
        Ok(Self { inputs, targets, starts, schema })
    }

    /// Says how many classes a target has.
    ///
    /// # Errors
    /// The target has values, or a label that is neither below `classes` nor [`Classes::IGNORED`].
    pub fn with_classes(mut self, target: usize, classes: usize) -> Result<Self> {
        let count = match (self.targets.get(target), self.schema.targets.get_mut(target)) {
            (
                Some(Targets::Classes { indices, shape }),
                Some(TargetSchema::Classes { classes: count, .. }),
            ) => {
                check_labels(indices, classes, shape[1..].iter().product(), Some(Classes::IGNORED))?;
                count
            }
            (Some(Targets::Sequences { indices, .. }), Some(TargetSchema::Sequences { classes: count })) => {
                if let Some(c) = indices.iter().find(|&&c| c >= classes) {
                    return Err(Error::index(format!("labels: expected classes below {classes}, got {c}")));
                }
                count
            }
            _ => return Err(Error::value(format!("expected target {target} to be made of classes"))),
        };
        *count = Some(classes);
        Ok(self)
    }

    /// Gives the classes of the first target names.
    ///
    /// # Errors
    /// Another number of names than of classes.
    pub fn with_class_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Result<Self> {
        let new: Vec<String> = names.into_iter().map(Into::into).collect();
        let classes = self.classes();
        match self.schema.targets.first_mut() {
            Some(TargetSchema::Classes { names, .. }) if new.len() == classes => {
                *names = new;
                Ok(self)
            }
            _ => Err(Error::value(format!(
                "class names: expected {classes}, one for each class, got {}",
                new.len()
            ))),
        }
    }

    /// The number of samples, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a dataset is never empty")]
    pub fn len(&self) -> usize {
        self.inputs[0].shape()[0]
    }

    /// All inputs.
    pub fn inputs(&self) -> &[Features<T>] {
        &self.inputs
    }

    /// (N, …): the first input as a tensor. Bytes are converted at the first call, and both are kept.
    pub fn x(&self) -> &Tensor<T> {
        self.inputs[0].tensor()
    }

    /// All targets.
    pub fn targets(&self) -> &[Targets<T>] {
        &self.targets
    }

    /// The class indices of the first target; `None` if it is not made of classes.
    pub fn labels(&self) -> Option<&[usize]> {
        match self.targets.first() {
            Some(Targets::Classes { indices, .. }) => Some(indices),
            _ => None,
        }
    }

    /// The values of the first target; `None` if it is not made of values.
    pub fn values(&self) -> Option<&Tensor<T>> {
        match self.targets.first() {
            Some(Targets::Values(values)) => Some(values),
            _ => None,
        }
    }

    /// The number of classes of the first target, 0 if it has none or they were not counted.
    pub fn classes(&self) -> usize {
        self.schema.targets.first().and_then(TargetSchema::class_count).unwrap_or(0)
    }

    /// The name of a class of the first target; its index if it has no name.
    pub fn class_name(&self, class: usize) -> String {
        self.class_names().get(class).cloned().unwrap_or_else(|| class.to_string())
    }

    /// The names of the classes of the first target; empty if they have none.
    pub fn class_names(&self) -> &[String] {
        self.schema.targets.first().map_or(&[], TargetSchema::class_names)
    }

    /// How many labels of each class the first target has, ignored ones left out; empty if it has no classes.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes()];
        for &c in self.labels().unwrap_or(&[]) {
            if let Some(count) = counts.get_mut(c) {
                *count += 1;
            }
        }
        counts
    }

    /// The shape of one sample of the first input, without the batch axis.
    pub fn sample_shape(&self) -> &[usize] {
        &self.inputs[0].shape()[1..]
    }

    /// The bytes of memory that all elements take.
    pub fn memory(&self) -> usize {
        let targets = self.targets.iter().map(|target| match target {
            Targets::Classes { indices, .. } => size_of_val(&indices[..]),
            Targets::Values(values) => size_of_val(values.data()),
            Targets::Sequences { indices, lengths } => {
                size_of_val(&indices[..]) + 2 * size_of_val(&lengths[..])
            }
        });
        self.inputs.iter().map(Features::memory).sum::<usize>() + targets.sum::<usize>()
    }

    /// Inputs and targets, taken apart.
    pub fn into_parts(self) -> (Vec<Features<T>>, Vec<Targets<T>>) {
        (self.inputs, self.targets)
    }

    /// The first input as (N, D): one row a sample.
    #[must_use]
    pub fn flatten(self) -> Self {
        let d = self.sample_shape().iter().product();
        self.reshape(&[d]).expect("the volume is the same")
    }

    /// The first input as (N, `sample_shape`).
    ///
    /// # Errors
    /// Another volume than the samples have.
    pub fn reshape(mut self, sample_shape: &[usize]) -> Result<Self> {
        let axes: Vec<usize> = [self.len()].iter().chain(sample_shape).copied().collect();
        self.inputs[0].reshape(Shape::new(&axes)?)?;
        self.schema.inputs[0] = Shape::new(sample_shape)?;
        Ok(self)
    }

    /// The same samples with one-hot values (N, classes) as the first target, in place of one class each.
    ///
    /// # Errors
    /// The first target is not one class for each sample.
    pub fn one_hot(mut self) -> Result<Self> {
        let (Some(labels), Some(classes)) = (self.labels(), self.schema.targets[0].class_count()) else {
            return Err(Error::value("one-hot: expected a first target of classes, got another"));
        };
        if labels.len() != self.len() {
            return Err(Error::shape(format!(
                "one-hot: expected one class a sample, got {} for {} samples",
                labels.len(),
                self.len()
            )));
        }
        self.targets[0] = Targets::Values(one_hot(labels, classes)?);
        self.schema.targets[0] = TargetSchema::values(classes);
        Ok(self)
    }

    /// The same samples with the first input changed by `f`, such as a [`crate::Scaler`]'s `apply`. Bytes become values.
    ///
    /// # Errors
    /// That of `f`, another number of samples afterwards, or a value that is no longer finite.
    pub fn map_x(mut self, f: impl FnOnce(&mut Tensor<T>) -> Result<()>) -> Result<Self> {
        let mut x = self.inputs.swap_remove(0).into_tensor();
        f(&mut x)?;
        self.inputs.push(Features::Values(x));
        let last = self.inputs.len() - 1;
        self.inputs.swap(0, last);
        check_samples(&self.inputs, &self.targets)?;
        self.schema.inputs[0] = Shape::new(self.sample_shape())?;
        Ok(self)
    }

    /// The same samples with the values of the first target changed by `f`.
    ///
    /// # Errors
    /// The first target is not made of values, and as [`Dataset::map_x`].
    pub fn map_values(mut self, f: impl FnOnce(&mut Tensor<T>) -> Result<()>) -> Result<Self> {
        let n = self.len();
        let Some(Targets::Values(values)) = self.targets.first_mut() else {
            return Err(Error::value("expected a first target of values, got another"));
        };
        f(values)?;
        if values.shape().first() != Some(&n) {
            return Err(Error::shape(format!("values: expected {n} samples, got {}", values.shape())));
        }
        check_finite("values", values)?;
        self.schema.targets[0] = TargetSchema::Values { shape: Shape::new(&values.shape()[1..])? };
        Ok(self)
    }

    /// The samples of the given positions, in that order; a position may come twice.
    ///
    /// # Errors
    /// No position, or one that is not below the number of samples.
    pub fn select(&self, positions: &[usize]) -> Result<Self> {
        if positions.is_empty() {
            return Err(Error::value("dataset: expected at least one sample, got none selected"));
        }
        self.check_positions(positions)?;
        let inputs = self.inputs.iter().map(|x| x.select(positions)).collect();
        let mut targets: Vec<Targets<T>> = self.targets.iter().map(|_| Targets::classes([])).collect();
        self.gather_targets(positions, &mut targets);
        let starts = targets.iter().map(starts).collect();
        Ok(Self { inputs, targets, starts, schema: self.schema.clone() })
    }

    /// Overwrites a batch with the samples of the given positions; its buffers are reused.
    ///
    /// # Errors
    /// A position that is not below the number of samples.
    pub fn gather(&self, positions: &[usize], batch: &mut Batch<T>) -> Result<()> {
        self.check_positions(positions)?;
        batch.make_room(self.inputs.len(), self.targets.len());
        self.inputs.iter().zip(&mut batch.inputs).for_each(|(all, some)| all.gather(positions, some));
        self.gather_targets(positions, &mut batch.targets);
        Ok(())
    }

    fn check_positions(&self, positions: &[usize]) -> Result<()> {
        match positions.iter().find(|&&p| p >= self.len()) {
            Some(p) => Err(Error::index(format!("select: expected positions below {}, got {p}", self.len()))),
            None => Ok(()),
        }
    }

    fn gather_targets(&self, positions: &[usize], out: &mut [Targets<T>]) {
        for ((all, starts), some) in self.targets.iter().zip(&self.starts).zip(out) {
            match all {
                Targets::Classes { indices: all, shape } => {
                    let (indices, batch) = classes_of(some);
                    *batch = shape.with(0, positions.len());
                    let width = shape[1..].iter().product::<usize>();
                    indices.clear();
                    positions.iter().for_each(|&p| indices.extend_from_slice(&all[p * width..][..width]));
                }
                Targets::Values(all) => {
                    let width = all.shape()[1..].iter().product::<usize>();
                    let values = values_of(some).reset(all.shape().with(0, positions.len()));
                    if width > 0 {
                        for (to, &p) in values.chunks_exact_mut(width).zip(positions) {
                            to.copy_from_slice(&all.data()[p * width..][..width]);
                        }
                    }
                }
                Targets::Sequences { indices: all, lengths: all_lengths } => {
                    let (indices, lengths) = sequences_of(some);
                    indices.clear();
                    lengths.clear();
                    for &p in positions {
                        indices.extend_from_slice(&all[starts[p]..][..all_lengths[p]]);
                        lengths.push(all_lengths[p]);
                    }
                }
            }
        }
    }
}

/// Where each sequence begins.
fn starts<T>(target: &Targets<T>) -> Vec<usize> {
    let Targets::Sequences { lengths, .. } = target else { return Vec::new() };
    let mut end = 0;
    lengths
        .iter()
        .map(|n| {
            end += n;
            end - n
        })
        .collect()
}

macro_rules! source {
    ($($dataset:ty),*) => {$(
        impl<T: Scalar> Source<T> for $dataset {
            fn samples(&self) -> Option<usize> {
                Some(self.len())
            }

            fn schema(&self) -> &Schema {
                &self.schema
            }

            fn fill(&mut self, pick: Pick<'_>, batch: &mut Batch<T>) -> Result<usize> {
                let positions = pick.positions()?;
                self.gather(positions, batch)?;
                Ok(positions.len())
            }
        }
    )*};
}
source!(Dataset<T>, &Dataset<T>);
