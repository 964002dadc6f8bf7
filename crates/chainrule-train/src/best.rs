//! The best epoch so far.

use crate::Epoch;
use chainrule_core::{Error, Result, Scalar};
use chainrule_io::Archive;

/// A score that is watched, and the epoch in which it was best.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Best {
    monitor: String,
    min_delta: f64,
    best: Option<(usize, f64)>,
}

impl Best {
    pub(crate) fn new(monitor: impl Into<String>) -> Self {
        Self { monitor: monitor.into(), min_delta: 0.0, best: None }
    }

    pub(crate) fn set_min_delta(&mut self, min_delta: f64) {
        self.min_delta = min_delta;
    }

    pub(crate) fn set_monitor(&mut self, monitor: impl Into<String>) {
        self.monitor = monitor.into();
    }

    pub(crate) fn reset(&mut self) {
        self.best = None;
    }

    /// # Errors
    /// There will be no score of that name, or a margin that makes no sense.
    pub(crate) fn check(&self, what: &str, scores: &[String]) -> Result<()> {
        if !(self.min_delta >= 0.0 && self.min_delta.is_finite()) {
            return Err(Error::value(format!(
                "{what}: expected a finite min_delta of at least 0, got {}",
                self.min_delta
            )));
        }
        if !scores.contains(&self.monitor) {
            return Err(Error::value(format!(
                "{what}: expected to monitor `loss` or one of {:?}, got `{}`",
                &scores[1..],
                self.monitor
            )));
        }
        Ok(())
    }

    /// Whether this epoch is better than the best one before, which it then replaces. NaN is never better.
    pub(crate) fn improves(&mut self, epoch: &Epoch) -> bool {
        let scores = epoch.watched();
        let Some(score) = scores.get(&self.monitor).filter(|score| !score.is_nan()) else { return false };
        let higher = scores.higher_is_better(&self.monitor);
        let better = self.best.is_none_or(|(_, best)| {
            let gain = if higher { score - best } else { best - score };
            gain > self.min_delta
        });
        if better {
            self.best = Some((epoch.number, score));
        }
        better
    }

    /// Adds the best epoch and its score to a checkpoint.
    pub(crate) fn save<T: Scalar>(&self, archive: &mut Archive<T>, key: &str) {
        archive.set_list(key, self.best.map_or(Vec::new(), |(epoch, score)| vec![epoch as f64, score]));
    }

    /// Goes on from there.
    pub(crate) fn restore<T: Scalar>(&mut self, archive: &Archive<T>, key: &str) -> Result<()> {
        self.best = match archive.list(key)?[..] {
            [] => None,
            [epoch, score] => Some((epoch as usize, score)),
            _ => return Err(Error::format(format!("checkpoint: expected an epoch and a score as `{key}`"))),
        };
        Ok(())
    }

    /// The number of the best epoch.
    pub(crate) fn epoch(&self) -> Option<usize> {
        self.best.map(|(epoch, _)| epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Score, Scores};

    #[test]
    fn nan_is_never_the_best() {
        let epoch = |number, value| Epoch {
            number,
            train: Scores {
                loss: value,
                metrics: vec![Score { name: "accuracy".into(), value, higher_is_better: true }],
            },
            validation: None,
            learning_rate: 0.1,
            seconds: 0.0,
        };
        let run = |monitor: &str| {
            let mut best = Best::new(monitor);
            [f64::NAN, 2.0, f64::NAN, 1.0, 3.0].into_iter().enumerate().for_each(|(i, v)| {
                best.improves(&epoch(i + 1, v));
            });
            best.epoch()
        };
        assert_eq!((run("loss"), run("accuracy")), (Some(4), Some(5)));
        let mut best = Best::new("loss");
        assert!(!best.improves(&epoch(1, f64::NAN)) && best.epoch().is_none());
        assert!(best.improves(&epoch(2, f64::INFINITY)) && best.improves(&epoch(3, 1e9)));
    }
}
