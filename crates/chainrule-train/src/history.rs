//! What happened, epoch by epoch.

use std::fmt;

/// The loss and the metrics over some data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// The mean loss, each batch weighted by what its mean divides by: over the samples, unless the loss has weights of its
    /// own. NaN if the loss ignored every target.
    pub loss: f64,
    /// The metrics.
    pub metrics: Vec<Score>,
}

/// What a metric says.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The metric's name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Whether a larger value is the better one.
    pub higher_is_better: bool,
}

impl Scores {
    /// The value of a metric, or of `"loss"`.
    pub fn get(&self, name: &str) -> Option<f64> {
        if name == "loss" {
            return Some(self.loss);
        }
        self.metric(name).map(|score| score.value)
    }

    /// The value of the metric `accuracy`.
    pub fn accuracy(&self) -> Option<f64> {
        self.get("accuracy")
    }

    /// Whether a larger value of a metric is the better one; of the loss it is not.
    pub fn higher_is_better(&self, name: &str) -> bool {
        name != "loss" && self.metric(name).is_some_and(|score| score.higher_is_better)
    }

    fn metric(&self, name: &str) -> Option<&Score> {
        self.metrics.iter().find(|score| score.name == name)
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loss {}", number(self.loss))?;
        self.metrics.iter().try_for_each(|score| write!(f, ", {} {}", score.name, number(score.value)))
    }
}

/// One pass over the training data.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Epoch {
    /// Its number, the first is 1.
    pub number: usize,
    /// Over the training batches, each with the weights of its step.
    pub train: Scores,
    /// Over the validation data, after the epoch.
    pub validation: Option<Scores>,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// How long it took, validation included; 0 on a target without a clock.
    pub seconds: f64,
}

impl Epoch {
    /// The validation scores where there are any, else the training scores.
    pub fn watched(&self) -> &Scores {
        self.validation.as_ref().unwrap_or(&self.train)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}: {}", self.number, self.train)?;
        if let Some(validation) = &self.validation {
            write!(f, "; validation {validation}")?;
        }
        if self.seconds > 0.0 { write!(f, " ({})", seconds(self.seconds)) } else { Ok(()) }
    }
}

/// Why training ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ended {
    /// All epochs were done.
    #[default]
    Done,
    /// The watched score did not improve any more.
    NoImprovement,
    /// A callback stopped it.
    Callback,
    /// It was asked to stop; see [`crate::Trainer::stop_on`].
    Stopped,
    /// An error.
    Error,
}

/// All epochs of a [`crate::Trainer::fit`]. Prints as a table.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// In order.
    pub epochs: Vec<Epoch>,
    /// The number of the epoch whose weights the model has, if early stopping restored the best ones.
    pub best: Option<usize>,
    /// Why it ended.
    pub ended: Ended,
}

impl History {
    /// The last epoch; `None` if there was none.
    pub fn last(&self) -> Option<&Epoch> {
        self.epochs.last()
    }

    /// The epoch of the best weights; `None` without early stopping.
    pub fn best(&self) -> Option<&Epoch> {
        self.epochs.iter().find(|e| Some(e.number) == self.best)
    }

    /// The seconds of all epochs.
    pub fn seconds(&self) -> f64 {
        self.epochs.iter().map(|e| e.seconds).fold(0.0, |sum, s| sum + s)
    }

    /// (epoch, value) of a training score: `"loss"` or the name of a metric.
    pub fn train(&self, name: &str) -> Vec<(f64, f64)> {
        self.epochs.iter().filter_map(|e| Some((e.number as f64, e.train.get(name)?))).collect()
    }

    /// (epoch, value) of a validation score.
    pub fn validation(&self, name: &str) -> Vec<(f64, f64)> {
        self.epochs
            .iter()
            .filter_map(|e| Some((e.number as f64, e.validation.as_ref()?.get(name)?)))
            .collect()
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.epochs.iter().try_for_each(|e| writeln!(f, "{e}"))?;
        let n = self.epochs.len();
        write!(f, "{n} epoch{}", if n == 1 { "" } else { "s" })?;
        if self.seconds() > 0.0 {
            write!(f, " in {}", seconds(self.seconds()))?;
        }
        match self.best {
            Some(best) => write!(f, ", weights of epoch {best}"),
            None => Ok(()),
        }
    }
}

/// Four digits after the point, or powers of ten where those would say nothing.
pub(crate) fn number(v: f64) -> String {
    if v == 0.0 || (1e-2..1e5).contains(&v.abs()) { format!("{v:.4}") } else { format!("{v:.3e}") }
}

/// A time in the unit that reads best.
pub(crate) fn seconds(s: f64) -> String {
    match s {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 100.0 => format!("{s:.1} s"),
        s => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_reads_as_one_line() {
        let scores = |loss, value| Scores {
            loss,
            metrics: vec![Score { name: "accuracy".into(), value, higher_is_better: true }],
        };
        let epoch = Epoch {
            number: 3,
            train: scores(0.25, 0.9),
            validation: Some(scores(1.5e-4, 1.0)),
            learning_rate: 0.1,
            seconds: 1.25,
        };
        assert_eq!(
            epoch.to_string(),
            "epoch 3: loss 0.2500, accuracy 0.9000; validation loss 1.500e-4, accuracy 1.0000 (1.2 s)"
        );
        assert_eq!(seconds(125.9), "2 min 05 s");
        assert_eq!(epoch.watched().accuracy(), Some(1.0));
        assert_eq!(epoch.train.get("recall"), None);
        let timeless = Epoch { seconds: 0.0, validation: None, ..epoch.clone() };
        assert_eq!(timeless.to_string(), "epoch 3: loss 0.2500, accuracy 0.9000");
        let history = History { epochs: vec![epoch], ..History::default() };
        assert!(history.to_string().ends_with("(1.2 s)\n1 epoch in 1.2 s"), "{history}");
        assert_eq!(History::default().to_string(), "0 epochs");
    }
}
