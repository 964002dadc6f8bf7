//! How good a model is.

use crate::{Confusion, Scores, Trainer, fit::target, metric::for_each_class};
use chainrule_core::{Context, Error, Layer, Loss, Optimizer, Reduction, Result, Scalar, Target, Tensor};
use chainrule_data::{Batch, Dataset, Loader};
use std::fmt;

/// What [`Trainer::evaluate`] found. Prints scores and confusion matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    scores: Scores,
    samples: usize,
    confusion: Option<Confusion>,
    /// (true, predicted), in the order of the data.
    classes: Vec<(usize, usize)>,
}

impl Report {
    /// The loss and the metrics.
    pub fn scores(&self) -> &Scores {
        &self.scores
    }

    /// The mean loss over the samples.
    pub fn loss(&self) -> f64 {
        self.scores.loss
    }

    /// The share of right classes; `None` for numbers as targets.
    pub fn accuracy(&self) -> Option<f64> {
        self.confusion.as_ref().map(Confusion::accuracy).or_else(|| self.scores.accuracy())
    }

    /// The number of samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Which classes are taken for which; `None` for numbers as targets.
    pub fn confusion(&self) -> Option<&Confusion> {
        self.confusion.as_ref()
    }

    /// The predicted class of each label, in the order of the data; nothing for numbers as targets.
    pub fn predictions(&self) -> impl ExactSizeIterator<Item = usize> {
        self.classes.iter().map(|&(_, predicted)| predicted)
    }

    /// (position in the data, true class, predicted class) of what was predicted wrong.
    pub fn mistakes(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let wrong = |&(i, &(t, p)): &(usize, &(usize, usize))| (t != p).then_some((i, t, p));
        self.classes.iter().enumerate().filter_map(move |c| wrong(&c))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} samples)", self.scores, self.samples)?;
        match &self.confusion {
            Some(confusion) => write!(f, "\n\n{confusion}"),
            None => Ok(()),
        }
    }
}

impl<T: Scalar, M: Layer<T>, L: Loss<T>, O: Optimizer<T>> Trainer<M, L, O, T> {
    /// Measures the model by inference, in batches; nothing is learned.
    ///
    /// # Errors
    /// The data do not fit the model, or something is not finite, named by its layer.
    pub fn evaluate(&mut self, data: &Dataset<T>) -> Result<Report> {
        self.choose_metrics(data.targets());
        let (mut confusion, mut classes) = (None, Vec::new());
        let scores = self.scores(data, |y, target| {
            let Target::Classes(labels) = target else { return Ok(()) };
            let confusion = confusion.get_or_insert_with(|| {
                // A model may have outputs for classes that the data lack.
                let outputs = y.shape().get(1).copied().unwrap_or(0);
                Confusion::new(outputs.max(data.classes())).with_names(data.class_names())
            });
            for_each_class(y, labels, |predicted, truth| {
                confusion.add(truth, predicted);
                classes.push((truth, predicted));
            })
        })?;
        Ok(Report { scores, samples: data.len(), confusion, classes })
    }

    /// The scores over a dataset; `each` sees the predictions of every batch.
    pub(crate) fn scores(
        &mut self,
        data: &Dataset<T>,
        mut each: impl FnMut(&Tensor<T>, Target<'_, T>) -> Result<()>,
    ) -> Result<Scores> {
        let mut loader = Loader::new(data, self.batch_size)?;
        let mut batch = Batch::default();
        let mut sum = 0.0;
        self.metrics.iter_mut().for_each(|m| m.reset());
        while loader.fill(&mut batch) {
            let target = target(&batch.targets);
            self.model.forward(&batch.x, &mut self.y, &mut self.cache, &mut Context::infer())?;
            self.loss.forward(&self.y, target, &mut self.loss_value)?;
            let &[loss] = self.loss_value.data() else {
                return Err(Error::value(
                    "expected a loss reduced to one number (mean or sum), got reduction none",
                ));
            };
            if !loss.is_finite() {
                return Err(self.not_finite(&batch.x, target, Context::infer()));
            }
            let weight = if self.loss.reduction() == Reduction::Sum { 1 } else { batch.len() };
            sum += loss.to_f64() * weight as f64;
            self.metrics.iter_mut().try_for_each(|m| m.add(&self.y, target))?;
            each(&self.y, target)?;
        }
        Ok(self.read_scores(sum / data.len() as f64))
    }
}
