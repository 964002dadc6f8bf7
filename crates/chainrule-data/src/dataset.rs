//! Samples in memory: features and targets, checked once, when the set is made.

use crate::{
    Batch, Targets,
    check::{check_features, check_finite, check_labels},
    one_hot,
};
use chainrule_tensor::{Error, Result, Scalar, Shape, Tensor};

/// Features and targets in memory: at least one sample, all numbers finite, all classes in range.
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
    x: Tensor<T>,
    targets: Targets<T>,
    classes: usize,
    names: Vec<String>,
}

impl<T: Scalar> Dataset<T> {
    /// Samples with a class each.
    ///
    /// # Shapes
    /// `x` (N, …), `labels` N.
    ///
    /// # Errors
    /// No sample, another number of labels than of samples, a label that is not below `classes`, or a number that is not
    /// finite.
    pub fn classification(x: Tensor<T>, labels: impl Into<Vec<usize>>, classes: usize) -> Result<Self> {
        let labels = labels.into();
        check_features(&x, labels.len())?;
        check_labels(&labels, classes)?;
        Ok(Self { x, targets: Targets::Classes(labels), classes, names: Vec::new() })
    }

    /// Samples with numbers to be predicted.
    ///
    /// # Shapes
    /// `x` (N, …), `values` (N, …).
    ///
    /// # Errors
    /// No sample, another number of targets than of samples, or a number that is not finite.
    pub fn regression(x: Tensor<T>, values: Tensor<T>) -> Result<Self> {
        check_features(&x, values.shape().first().copied().unwrap_or(0))?;
        check_finite("values", &values)?;
        Ok(Self { x, targets: Targets::Values(values), classes: 0, names: Vec::new() })
    }

    /// Gives the classes names.
    ///
    /// # Errors
    /// Another number of names than of classes.
    pub fn with_class_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Result<Self> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        if names.len() != self.classes {
            return Err(Error::value(format!(
                "class names: expected {}, one a class, got {}",
                self.classes,
                names.len()
            )));
        }
        self.names = names;
        Ok(self)
    }

    /// The number of samples, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a dataset is never empty")]
    pub fn len(&self) -> usize {
        self.x.shape()[0]
    }

    /// (N, …): all features.
    pub fn x(&self) -> &Tensor<T> {
        &self.x
    }

    /// All targets.
    pub fn targets(&self) -> &Targets<T> {
        &self.targets
    }

    /// The classes of all samples; `None` when the targets are numbers.
    pub fn labels(&self) -> Option<&[usize]> {
        match &self.targets {
            Targets::Classes(c) => Some(c),
            Targets::Values(_) => None,
        }
    }

    /// The numbers to be predicted; `None` when the targets are classes.
    pub fn values(&self) -> Option<&Tensor<T>> {
        match &self.targets {
            Targets::Classes(_) => None,
            Targets::Values(v) => Some(v),
        }
    }

    /// The number of classes, 0 when the targets are numbers.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The name of a class; its number when it has no name.
    pub fn class_name(&self, class: usize) -> String {
        self.names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }

    /// The names of the classes; empty when they have none.
    pub fn class_names(&self) -> &[String] {
        &self.names
    }

    /// How many samples each class has; empty when the targets are numbers.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes];
        self.labels().unwrap_or(&[]).iter().for_each(|&c| counts[c] += 1);
        counts
    }

    /// The shape of one sample, without the batch axis.
    pub fn sample_shape(&self) -> &[usize] {
        &self.x.shape()[1..]
    }

    /// Features and targets, taken apart.
    pub fn into_parts(self) -> (Tensor<T>, Targets<T>) {
        (self.x, self.targets)
    }

    /// The features as (N, D): one row a sample.
    #[must_use]
    pub fn flatten(mut self) -> Self {
        let (n, d) = (self.len(), self.x.len() / self.len());
        self.x.reshape([n, d]).expect("the volume is the same");
        self
    }

    /// The features as (N, `sample_shape`).
    ///
    /// # Errors
    /// Another volume than the samples have.
    pub fn reshape(mut self, sample_shape: &[usize]) -> Result<Self> {
        let axes: Vec<usize> = [self.len()].iter().chain(sample_shape).copied().collect();
        self.x.reshape(Shape::new(&axes)?)?;
        Ok(self)
    }

    /// The same samples with one-hot numbers (N, classes) in place of classes.
    ///
    /// # Errors
    /// The targets are numbers.
    pub fn one_hot(self) -> Result<Self> {
        let Targets::Classes(labels) = &self.targets else {
            return Err(Error::value("one-hot: expected classes as targets, got numbers"));
        };
        let values = one_hot(labels, self.classes)?;
        Ok(Self { targets: Targets::Values(values), classes: 0, ..self })
    }

    /// The same samples with features changed by `f`, such as a [`crate::Scaler`]'s `apply`.
    ///
    /// # Errors
    /// That of `f`, another number of samples afterwards, or a number that is no longer finite.
    pub fn map_x(mut self, f: impl FnOnce(&mut Tensor<T>) -> Result<()>) -> Result<Self> {
        let n = self.len();
        f(&mut self.x)?;
        check_features(&self.x, n)?;
        Ok(self)
    }

    /// The same samples with the numbers to be predicted changed by `f`.
    ///
    /// # Errors
    /// The targets are classes, and as [`Dataset::map_x`].
    pub fn map_values(self, f: impl FnOnce(&mut Tensor<T>) -> Result<()>) -> Result<Self> {
        let Targets::Values(mut values) = self.targets else {
            return Err(Error::value("expected numbers as targets, got classes"));
        };
        f(&mut values)?;
        Self::regression(self.x, values)
    }

    /// The samples of the given positions, in that order; a position may come twice.
    ///
    /// # Errors
    /// No position, or one that is not below the number of samples.
    pub fn select(&self, positions: &[usize]) -> Result<Self> {
        if positions.is_empty() {
            return Err(Error::value("dataset: expected at least one sample, got none selected"));
        }
        if let Some(p) = positions.iter().find(|&&p| p >= self.len()) {
            return Err(Error::index(format!("select: expected positions below {}, got {p}", self.len())));
        }
        let mut batch = Batch::default();
        self.gather(positions, &mut batch);
        let Batch { x, targets } = batch;
        Ok(Self { x, targets, classes: self.classes, names: self.names.clone() })
    }

    /// Fills a batch with the samples of the given positions; its buffers are used again.
    ///
    /// # Panics
    /// If a position is not below the number of samples.
    pub fn gather(&self, positions: &[usize], batch: &mut Batch<T>) {
        gather_rows(&self.x, positions, &mut batch.x);
        match (&self.targets, &mut batch.targets) {
            (Targets::Classes(all), Targets::Classes(some)) => {
                some.clear();
                some.extend(positions.iter().map(|&p| all[p]));
            }
            (Targets::Classes(all), some) => {
                *some = Targets::Classes(positions.iter().map(|&p| all[p]).collect());
            }
            (Targets::Values(all), Targets::Values(some)) => gather_rows(all, positions, some),
            (Targets::Values(all), some) => {
                let mut values = Tensor::default();
                gather_rows(all, positions, &mut values);
                *some = Targets::Values(values);
            }
        }
    }
}

/// out = the given rows of `all` along the first axis
fn gather_rows<T: Scalar>(all: &Tensor<T>, rows: &[usize], out: &mut Tensor<T>) {
    let width = all.len() / all.shape()[0];
    let out = out.reset(all.shape().with(0, rows.len()));
    if width > 0 {
        for (to, &r) in out.chunks_exact_mut(width).zip(rows) {
            to.copy_from_slice(&all.data()[r * width..][..width]);
        }
    }
}
