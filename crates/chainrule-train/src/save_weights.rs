//! Weights in files of their own.

use crate::{Callback, Epoch, best::Best, checkpoint::make_writable};
use chainrule_core::{Error, Parameters, Result};
use chainrule_io::Archive;
use std::{ops::ControlFlow, path::PathBuf};

/// Saves the weights as safetensors after every N epochs, or after each that is the best so far. The folder is made before
/// the first epoch.
///
/// ```
/// use chainrule_train::SaveWeights;
/// let each = SaveWeights::new("target/run/epoch-{epoch}.safetensors").every(5);
/// let best = SaveWeights::new("target/run/best.safetensors").best_only("loss");
/// ```
#[derive(Clone, Debug)]
pub struct SaveWeights {
    path: PathBuf,
    every: usize,
    best: Option<Best>,
}

impl SaveWeights {
    /// After every epoch, into this file; `{epoch}` in its name is replaced by the number of the epoch, and without it
    /// the newest weights replace the older ones.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), every: 1, best: None }
    }

    /// After every `n` epochs.
    #[must_use]
    pub fn every(mut self, n: usize) -> Self {
        self.every = n;
        self
    }

    /// Only after an epoch that is better than all before in `"loss"` or a metric, on the validation data if there are any.
    #[must_use]
    pub fn best_only(mut self, monitor: impl Into<String>) -> Self {
        self.best = Some(Best::new(monitor));
        self
    }

    fn path(&self, epoch: usize) -> PathBuf {
        match self.path.file_name().and_then(|name| name.to_str()) {
            Some(name) => self.path.with_file_name(name.replace("{epoch}", &epoch.to_string())),
            None => self.path.clone(),
        }
    }
}

impl<M: Parameters> Callback<M> for SaveWeights {
    fn on_fit_start(&mut self, scores: &[String], _: &mut M) -> Result<()> {
        if self.every == 0 {
            return Err(Error::value("save weights: expected every 1 epoch or more, got 0"));
        }
        if let Some(best) = &mut self.best {
            best.check("save weights", scores)?;
            best.reset();
        }
        make_writable(&self.path(1))
    }

    fn on_epoch_end(&mut self, epoch: &Epoch, model: &mut M) -> Result<ControlFlow<()>> {
        let due = epoch.number.is_multiple_of(self.every);
        if due && self.best.as_mut().is_none_or(|best| best.improves(epoch)) {
            chainrule_io::save(model, self.path(epoch.number))?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn save(&self, archive: &mut Archive<M::T>, prefix: &str) -> Result<()> {
        if let Some(best) = &self.best {
            best.save(archive, &format!("{prefix}best"));
        }
        Ok(())
    }

    fn restore(&mut self, archive: &mut Archive<M::T>, prefix: &str, _: &M) -> Result<()> {
        self.best.as_mut().map_or(Ok(()), |best| best.restore(archive, &format!("{prefix}best")))
    }
}
