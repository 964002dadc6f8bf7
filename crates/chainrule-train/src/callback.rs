//! What a program does between epochs.

use crate::{Epoch, History};
use chainrule_core::{Error, Layer, Parameters, Result, Scalar};
use std::{ops::ControlFlow, path::PathBuf};

/// Called while a model is trained. It may look, save, change the model, and stop the training.
///
/// [`crate::Trainer::on_epoch`] takes a closure where that is enough.
pub trait Callback<M, T: Scalar>: Send {
    /// After each epoch, its validation included.
    ///
    /// # Errors
    /// Whatever goes wrong in it ends the training with that error.
    fn on_epoch_end(&mut self, _epoch: &Epoch, _model: &mut M) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    /// After each step of the optimizer, with the number of steps so far and the loss of the step.
    ///
    /// # Errors
    /// As [`Callback::on_epoch_end`].
    fn on_step_end(&mut self, _step: u64, _loss: f64, _model: &mut M) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    /// At the end, the best weights already back.
    ///
    /// # Errors
    /// As [`Callback::on_epoch_end`].
    fn on_fit_end(&mut self, _history: &History, _model: &mut M) -> Result<()> {
        Ok(())
    }
}

/// A closure as a callback.
pub(crate) struct OnEpoch<F>(pub(crate) F);

impl<M, T: Scalar, F: FnMut(&Epoch, &mut M) -> ControlFlow<()> + Send> Callback<M, T> for OnEpoch<F> {
    fn on_epoch_end(&mut self, epoch: &Epoch, model: &mut M) -> Result<ControlFlow<()>> {
        Ok((self.0)(epoch, model))
    }
}

/// Saves the weights as safetensors after every N epochs.
///
/// ```
/// use chainrule_train::Checkpoint;
/// let callback = Checkpoint::new("target/run/epoch-{epoch}.safetensors").every(5);
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    every: usize,
}

impl Checkpoint {
    /// After every epoch, into this file; `{epoch}` in its name is replaced by the number of the epoch, and without it
    /// the newest weights replace the older ones.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), every: 1 }
    }

    /// After every `n` epochs.
    #[must_use]
    pub fn every(mut self, n: usize) -> Self {
        self.every = n;
        self
    }

    fn path(&self, epoch: usize) -> PathBuf {
        match self.path.file_name().and_then(|name| name.to_str()) {
            Some(name) => self.path.with_file_name(name.replace("{epoch}", &epoch.to_string())),
            None => self.path.clone(),
        }
    }
}

impl<M: Layer<T>, T: Scalar> Callback<M, T> for Checkpoint {
    fn on_epoch_end(&mut self, epoch: &Epoch, model: &mut M) -> Result<ControlFlow<()>> {
        if self.every == 0 {
            return Err(Error::value("checkpoint: expected every 1 epoch or more, got 0"));
        }
        if epoch.number.is_multiple_of(self.every) {
            let model: &dyn Parameters<T> = model;
            chainrule_io::save(model, self.path(epoch.number))?;
        }
        Ok(ControlFlow::Continue(()))
    }
}
