//! How good a model is.

use crate::{
    Confusion, Scores, Trainer,
    metric::{Mask, Panel, for_each_class},
    step::Learner,
};
use chainrule_core::{
    Classes, Context, Error, Inputs, Module, Objective, Optimizer, Reduction, Result, Scalar, Target,
    TargetList, Tensor,
};
use chainrule_data::{Loader, Source, TargetSchema};
use std::fmt;

/// What [`Trainer::evaluate`] found. Prints scores and confusion matrix. Classes are those of the first output and target.
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

    /// The mean loss.
    pub fn loss(&self) -> f64 {
        self.scores.loss
    }

    /// The share of right classes; `None` if the target is not made of classes.
    pub fn accuracy(&self) -> Option<f64> {
        self.confusion.as_ref().map(Confusion::accuracy).or_else(|| self.scores.accuracy())
    }

    /// The number of samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Which classes are taken for which; `None` if the target is not made of classes, or of more than 4096.
    pub fn confusion(&self) -> Option<&Confusion> {
        self.confusion.as_ref()
    }

    /// The predicted class of each label, in the order of the data; nothing if the target is not made of classes.
    pub fn predictions(&self) -> impl ExactSizeIterator<Item = usize> {
        self.classes.iter().map(|&(_, predicted)| predicted)
    }

    /// (position of the label in the data, true class, predicted class) of each wrong prediction; an ignored label has none.
    pub fn mistakes(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let wrong =
            |(i, &(t, p)): (usize, &(usize, usize))| (t != p && t != Classes::IGNORED).then_some((i, t, p));
        self.classes.iter().enumerate().filter_map(wrong)
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

/// The most classes that a confusion matrix is made of; it has as many elements as their square.
const MOST_CONFUSED: usize = 1 << 12;

impl<T: Scalar, M: Module<T = T>, L: Objective<T = T>, O: Optimizer<T>> Trainer<M, L, O> {
    /// Measures the model by inference, in batches; nothing is learned.
    ///
    /// # Errors
    /// The data do not fit the model, or something is not finite, named by its layer.
    pub fn evaluate(&mut self, mut data: impl Source<T>) -> Result<Report> {
        let schema = data.schema().clone();
        self.panel.suit(&schema, &self.learner.loss);
        let (mut confusion, mut classes, mut mask) = (None, Vec::new(), Mask::default());
        let ignored = self.learner.loss.ignored_class_of(0);
        let target = schema.targets.first();
        let (scores, samples) = self.learner.measure(&mut data, &mut self.panel, |ys, targets| {
            let (Some(y), Some(&Target::Classes(_))) = (ys.first(), targets.first()) else { return Ok(()) };
            let confusion = confusion.get_or_insert_with(|| {
                // A model may have outputs for classes that the data lack.
                let outputs = y.shape().get(1).copied().unwrap_or(0);
                let known = target.and_then(TargetSchema::class_count).unwrap_or(0);
                let names = target.map_or(&[][..], TargetSchema::class_names);
                let classes = outputs.max(known);
                (classes <= MOST_CONFUSED).then(|| Confusion::new(classes).with_names(names))
            });
            let labels = mask.apply(targets[0], ignored).classes()?;
            for_each_class(y, labels, false, |predicted, truth| {
                if let Some(confusion) = &mut *confusion {
                    confusion.add(truth, predicted);
                }
                classes.push((truth, predicted));
            })
        })?;
        Ok(Report { scores, samples, confusion: confusion.flatten(), classes })
    }
}

impl<T: Scalar, M: Module<T = T>, L: Objective<T = T>, O: Optimizer<T>> Learner<M, L, O> {
    /// The scores over a source and how many samples it has; `each` sees the outputs of every batch.
    pub(crate) fn measure(
        &mut self,
        source: &mut dyn Source<T>,
        panel: &mut Panel<T>,
        mut each: impl FnMut(&[Tensor<T>], &[Target<'_, T>]) -> Result<()>,
    ) -> Result<(Scores, usize)> {
        let mut loader = Loader::new(source, self.settings.batch_size)?;
        let mut batch = std::mem::take(&mut self.run.batch);
        let (mut sum, mut weight, mut samples) = (0.0, 0.0, 0);
        let summed = self.loss.reduced_by() == Reduction::Sum;
        panel.reset();
        while loader.fill(&mut batch)? {
            samples += batch.len();
            (&batch.inputs).with(|xs| {
                (&batch.targets).with(|targets| {
                    self.run.pass.forward(&self.model, xs, Context::infer())?;
                    let own = self.loss.weight_of_all(targets);
                    if own > 0.0 {
                        let loss = self.value(xs, targets)?;
                        sum += loss * if summed { 1.0 } else { own };
                        weight += own;
                    }
                    let ys = self.run.pass.outputs();
                    panel.add(&self.loss, ys, targets)?;
                    each(ys, targets)
                })
            })?;
        }
        self.run.batch = batch;
        // A summed loss is told as a mean over the samples.
        let loss = sum / if summed { samples as f64 } else { weight };
        Ok((panel.read(loss), samples))
    }

    /// E of the outputs of the last pass.
    fn value(&mut self, xs: &[&Tensor<T>], targets: &[Target<'_, T>]) -> Result<f64> {
        let (ys, n) = (self.run.pass.outputs(), self.loss.predictions());
        if ys.len() < n {
            return Err(Error::shape(format!("loss: expected {n} predictions, got {} outputs", ys.len())));
        }
        (&ys[..n]).with(|ys| self.loss.evaluate(ys, targets, &mut self.run.loss_value))?;
        let &[loss] = self.run.loss_value.data() else {
            return Err(not_reduced());
        };
        if loss.is_finite() { Ok(loss.to_f64()) } else { Err(self.not_finite(xs, targets, Context::infer())) }
    }
}

pub(crate) fn not_reduced() -> Error {
    Error::value("expected a loss reduced to one element (mean or sum), got reduction none")
}
