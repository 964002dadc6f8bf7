//! Stops when nothing improves any more, and restores the best weights.

use crate::{Epoch, best::Best, snapshot::Snapshot};
use chainrule_core::{Error, Parameters, Result, Scalar, Tensor};
use chainrule_io::Archive;

/// When to stop: after `patience` epochs without improvement. The best weights are restored at the end, or after an error.
///
/// Watches the validation loss; the training loss if there is no validation data. NaN is no improvement.
///
/// ```
/// use chainrule_train::EarlyStopping;
/// let rule = EarlyStopping::new(5).monitor("accuracy").min_delta(0.001);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct EarlyStopping {
    patience: usize,
    best: Best,
}

impl EarlyStopping {
    /// Stops after this many epochs in a row without improvement.
    pub fn new(patience: usize) -> Self {
        Self { patience, best: Best::new("loss") }
    }

    /// By how much a score must be better than the best one to be an improvement (default 0).
    #[must_use]
    pub fn min_delta(mut self, min_delta: f64) -> Self {
        self.best.set_min_delta(min_delta);
        self
    }

    /// Which score to watch: `"loss"` (default) or the name of a metric.
    #[must_use]
    pub fn monitor(mut self, name: impl Into<String>) -> Self {
        self.best.set_monitor(name);
        self
    }
}

impl From<usize> for EarlyStopping {
    fn from(patience: usize) -> Self {
        Self::new(patience)
    }
}

/// A rule at work: the best weights so far.
#[derive(Debug)]
pub(crate) struct Watch<T> {
    patience: usize,
    best: Best,
    weights: Snapshot<T>,
    waited: usize,
}

impl<T: Scalar> Watch<T> {
    /// # Errors
    /// The rule makes no sense, or there will be no score of that name.
    pub(crate) fn new(rule: &EarlyStopping, scores: &[String]) -> Result<Self> {
        if rule.patience == 0 {
            return Err(Error::value("early stopping: expected a patience of at least 1, got 0"));
        }
        rule.best.check("early stopping", scores)?;
        Ok(Self { patience: rule.patience, best: rule.best.clone(), weights: Snapshot::default(), waited: 0 })
    }

    /// Whether to stop after this epoch; keeps the weights if they are the best so far.
    pub(crate) fn stop_after(&mut self, epoch: &Epoch, model: &dyn Parameters<T = T>) -> Result<bool> {
        if self.best.improves(epoch) {
            self.waited = 0;
            self.weights.take(model)?;
            return Ok(false);
        }
        self.waited += 1;
        Ok(self.is_over())
    }

    /// Whether nothing has improved for long enough.
    pub(crate) fn is_over(&self) -> bool {
        self.waited >= self.patience
    }

    /// Adds what it has seen to a checkpoint.
    pub(crate) fn save(&self, archive: &mut Archive<T>) -> Result<()> {
        self.best.save(archive, "stopping.best");
        archive.set("stopping.waited", self.waited);
        let values = self.weights.values().to_vec();
        archive.insert("stopping", Tensor::from_vec([values.len()], values)?)
    }

    /// Goes on from there.
    pub(crate) fn go_on(&mut self, archive: &mut Archive<T>, model: &dyn Parameters<T = T>) -> Result<()> {
        self.best.restore(archive, "stopping.best")?;
        self.waited = archive.number("stopping.waited")?;
        let values = archive.take("stopping")?.into_vec();
        if self.best.epoch().is_some() {
            self.weights = Snapshot::of(model, values)?;
        }
        Ok(())
    }

    /// The number of the best epoch so far.
    pub(crate) fn best(&self) -> Option<usize> {
        self.best.epoch()
    }

    /// Restores the best weights and tells their epoch.
    pub(crate) fn restore(&self, model: &mut dyn Parameters<T = T>) -> Result<Option<usize>> {
        let best = self.best.epoch();
        if best.is_some() {
            self.weights.restore(model)?;
        }
        Ok(best)
    }
}
