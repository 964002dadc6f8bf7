//! The metrics of a trainer together.

use super::{Accuracy, Classes, MeanAbsoluteError, Metric, RSquared};
use crate::{Score, Scores};
use chainrule_core::{Error, Objective, Result, Scalar, Target, Tensor};
use chainrule_data::{Schema, TargetSchema};
use chainrule_io::Archive;

/// All metrics, and whether they were chosen by the user.
pub(crate) struct Panel<T> {
    metrics: Vec<Box<dyn Metric<T>>>,
    chosen: bool,
    mask: Mask,
}

impl<T: Scalar> Panel<T> {
    pub(crate) fn new() -> Self {
        Self { metrics: Vec::new(), chosen: false, mask: Mask::default() }
    }

    /// Adds a metric of the user's; the first one takes the place of the default ones.
    pub(crate) fn push(&mut self, metric: Box<dyn Metric<T>>) {
        if !self.chosen {
            self.metrics.clear();
        }
        self.chosen = true;
        self.metrics.push(metric);
    }

    /// What suits the targets, unless the user chose: for each output that has a target of its own.
    pub(crate) fn suit(&mut self, schema: &Schema, loss: &impl Objective<T = T>) {
        if self.chosen {
            return;
        }
        self.metrics.clear();
        if loss.predictions() != loss.targets() {
            return;
        }
        for (i, target) in schema.targets.iter().take(loss.targets()).enumerate() {
            match target {
                TargetSchema::Classes { .. } => self.metrics.push(Box::new(Accuracy::of(i))),
                TargetSchema::Values { .. } => {
                    self.metrics.push(Box::new(MeanAbsoluteError::of(i)));
                    self.metrics.push(Box::new(RSquared::of(i)));
                }
                _ => {}
            }
        }
    }

    /// The names of all scores, that of the loss first.
    pub(crate) fn names(&self) -> Vec<String> {
        let metrics = self.metrics.iter().map(|m| m.name().to_owned());
        std::iter::once("loss".to_owned()).chain(metrics).collect()
    }

    pub(crate) fn reset(&mut self) {
        self.metrics.iter_mut().for_each(|m| m.reset());
    }

    /// Takes the outputs of a batch in.
    pub(crate) fn add(
        &mut self,
        loss: &impl Objective<T = T>,
        ys: &[Tensor<T>],
        targets: &[Target<'_, T>],
    ) -> Result<()> {
        for metric in &mut self.metrics {
            let (output, target) = (metric.output(), metric.target());
            let (Some(y), Some(t)) = (ys.get(output), targets.get(target)) else {
                return Err(Error::value(format!(
                    "{}: expected output {output} and target {target}, got {} outputs and {} targets",
                    metric.name(),
                    ys.len(),
                    targets.len()
                )));
            };
            metric.add(y, self.mask.apply(*t, loss.ignored_class_of(target)))?;
        }
        Ok(())
    }

    /// Adds what the metrics have added up to a checkpoint.
    pub(crate) fn save(&self, archive: &mut Archive<T>) {
        for (i, metric) in self.metrics.iter().enumerate() {
            archive.set_list(format!("metric.{i}"), metric.sums());
        }
    }

    /// Goes on from there.
    pub(crate) fn restore(&mut self, archive: &Archive<T>) -> Result<()> {
        for (i, metric) in self.metrics.iter_mut().enumerate() {
            metric.reset();
            metric.set_sums(&archive.list(&format!("metric.{i}"))?);
        }
        Ok(())
    }

    /// The loss and what the metrics say.
    pub(crate) fn read(&self, loss: f64) -> Scores {
        let scores = self.metrics.iter().map(|m| Score {
            name: m.name().to_owned(),
            value: m.value(),
            higher_is_better: m.higher_is_better(),
        });
        Scores { loss, metrics: scores.collect() }
    }
}

/// Room for labels in which the class that the loss ignores is [`Classes::IGNORED`].
#[derive(Debug, Default)]
pub(crate) struct Mask(Vec<usize>);

impl Mask {
    pub(crate) fn apply<'a, T: Scalar>(
        &'a mut self,
        target: Target<'a, T>,
        ignored: Option<usize>,
    ) -> Target<'a, T> {
        match (target, ignored) {
            (Target::Classes(classes), Some(ignored)) if classes.contains(&ignored) => {
                self.0.clear();
                let label = |&c: &usize| if c == ignored { Classes::IGNORED } else { c };
                self.0.extend(classes.iter().map(label));
                Classes::new(&self.0, *classes.shape()).expect("as many as before").into()
            }
            _ => target,
        }
    }
}
