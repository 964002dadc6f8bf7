//! Stop when nothing improves any more, and go back to the best weights.

use crate::{Epoch, Metric};
use chainrule_core::{Error, Parameters, Result, Scalar};

/// When to stop: after `patience` epochs without improvement. The best weights are brought back at the end.
///
/// Watches the validation loss; the training loss when there is no validation data.
///
/// ```
/// use chainrule_train::EarlyStopping;
/// let rule = EarlyStopping::new(5).monitor("accuracy").min_delta(0.001);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct EarlyStopping {
    patience: usize,
    min_delta: f64,
    monitor: String,
}

impl EarlyStopping {
    /// Stops after this many epochs in a row without improvement.
    pub fn new(patience: usize) -> Self {
        Self { patience, min_delta: 0.0, monitor: "loss".into() }
    }

    /// By how much a score must be better than the best one to count as improvement (default 0).
    #[must_use]
    pub fn min_delta(mut self, min_delta: f64) -> Self {
        self.min_delta = min_delta;
        self
    }

    /// Which score to watch: `"loss"` (default) or the name of a metric.
    #[must_use]
    pub fn monitor(mut self, name: impl Into<String>) -> Self {
        self.monitor = name.into();
        self
    }
}

impl From<usize> for EarlyStopping {
    fn from(patience: usize) -> Self {
        Self::new(patience)
    }
}

/// A rule at work: the best score so far and its weights.
#[derive(Debug)]
pub(crate) struct Watch<T> {
    rule: EarlyStopping,
    higher_is_better: bool,
    best: Option<(usize, f64)>,
    weights: Vec<T>,
    waited: usize,
}

impl<T: Scalar> Watch<T> {
    /// # Errors
    /// The rule makes no sense, or there is no score of that name.
    pub(crate) fn new(rule: &EarlyStopping, metrics: &[Box<dyn Metric<T>>]) -> Result<Self> {
        if rule.patience == 0 {
            return Err(Error::value("early stopping: expected a patience of at least 1, got 0"));
        }
        if !(rule.min_delta >= 0.0 && rule.min_delta.is_finite()) {
            return Err(Error::value(format!(
                "early stopping: expected a finite min_delta of at least 0, got {}",
                rule.min_delta
            )));
        }
        let metric = metrics.iter().find(|m| m.name() == rule.monitor);
        if metric.is_none() && rule.monitor != "loss" {
            let names: Vec<&str> = metrics.iter().map(|m| m.name()).collect();
            return Err(Error::value(format!(
                "early stopping: expected to monitor `loss` or one of {names:?}, got `{}`",
                rule.monitor
            )));
        }
        let higher_is_better = rule.monitor != "loss" && metric.is_some_and(|m| m.higher_is_better());
        Ok(Self { rule: rule.clone(), higher_is_better, best: None, weights: Vec::new(), waited: 0 })
    }

    /// Whether to stop after this epoch; remembers the weights if they are the best so far.
    pub(crate) fn stop_after(&mut self, epoch: &Epoch, model: &dyn Parameters<T>) -> Result<bool> {
        let score = epoch.watched().get(&self.rule.monitor).unwrap_or(epoch.watched().loss);
        let gain = |best: f64| if self.higher_is_better { score - best } else { best - score };
        let better = match self.best {
            None => true,
            Some((_, best)) => gain(best) > self.rule.min_delta,
        };
        if better {
            self.best = Some((epoch.number, score));
            self.waited = 0;
            remember(model, &mut self.weights)?;
            return Ok(false);
        }
        self.waited += 1;
        Ok(self.waited >= self.rule.patience)
    }

    /// Brings the best weights back and tells their epoch.
    pub(crate) fn restore(&self, model: &mut dyn Parameters<T>) -> Result<Option<usize>> {
        let Some((number, _)) = self.best else { return Ok(None) };
        let mut rest = &self.weights[..];
        let mut result = Ok(());
        model.visit_mut(&mut |_, param| {
            let (own, others) = rest.split_at(param.volume());
            rest = others;
            match param.value_mut() {
                Ok(value) => value.copy_from_slice(own),
                Err(error) => result = Err(error),
            }
        });
        result.map(|()| Some(number))
    }
}

/// Copies every parameter and buffer, in order, into a buffer that is used again.
fn remember<T: Scalar>(model: &dyn Parameters<T>, weights: &mut Vec<T>) -> Result<()> {
    weights.clear();
    let mut result = Ok(());
    model.visit(&mut |_, param| match param.value() {
        Ok(value) => weights.extend_from_slice(value),
        Err(error) => result = Err(error),
    });
    result
}
