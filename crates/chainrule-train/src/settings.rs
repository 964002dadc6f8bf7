//! How a model is trained, as plain values.

use crate::Progress;
use chainrule_core::{Error, Result};

/// The settings of a [`crate::Trainer`] that are plain values, with their defaults; its builder methods set them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// How many times `fit` goes through the data (10).
    pub epochs: usize,
    /// How many samples go through the model at once (32).
    pub batch_size: usize,
    /// The seed of the order of samples and of the noise in the model (0).
    pub seed: u64,
    /// Whether the samples come in another order each epoch (yes).
    pub shuffle: bool,
    /// Whether a short last batch is dropped (no).
    pub drop_last: bool,
    /// How many batches make one step of the optimizer (1).
    pub accumulate: usize,
    /// Whether the output of every layer is checked for infinities and NaN in every pass (no).
    pub check_layers: bool,
    /// The largest |g| of one gradient element (none).
    pub clip_value: Option<f64>,
    /// The largest ‖g‖ of all gradients together (none).
    pub clip_norm: Option<f64>,
    /// How progress is reported (a bar on a terminal, lines elsewhere).
    pub progress: Progress,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 32,
            seed: 0,
            shuffle: true,
            drop_last: false,
            accumulate: 1,
            check_layers: false,
            clip_value: None,
            clip_norm: None,
            progress: Progress::Auto,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<()> {
        for (what, limit) in [("clip_value", self.clip_value), ("clip_norm", self.clip_norm)] {
            if let Some(limit) = limit.filter(|limit| !(*limit > 0.0 && limit.is_finite())) {
                return Err(Error::value(format!("{what}: expected a finite limit above 0, got {limit}")));
            }
        }
        if self.accumulate == 0 {
            return Err(Error::value("trainer: expected to accumulate at least 1 batch, got 0"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_make_no_sense_are_errors() {
        assert!(Settings::default().check().is_ok());
        assert!(Settings { clip_value: Some(0.0), ..Settings::default() }.check().is_err());
        assert!(Settings { clip_norm: Some(f64::NAN), ..Settings::default() }.check().is_err());
        assert!(Settings { accumulate: 0, ..Settings::default() }.check().is_err());
    }
}
