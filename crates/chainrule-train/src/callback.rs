//! What a program does between epochs.

use crate::{Epoch, History};
use chainrule_core::{Grads, Parameters, Result};
use chainrule_io::Archive;
use std::ops::ControlFlow;

/// Called while a model is trained. It may look, save, change the model, and stop the training.
///
/// [`crate::Trainer::on_epoch`] takes a closure where that is enough.
pub trait Callback<M: Parameters>: Send {
    /// Before the first epoch, with the names of the scores that each epoch will have: `loss` and those of the metrics.
    ///
    /// # Errors
    /// Whatever goes wrong in it ends the training with that error.
    fn on_fit_start(&mut self, _scores: &[String], _model: &mut M) -> Result<()> {
        Ok(())
    }

    /// After each epoch, its validation included.
    ///
    /// # Errors
    /// As [`Callback::on_fit_start`].
    fn on_epoch_end(&mut self, _epoch: &Epoch, _model: &mut M) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    /// After backward and before clipping and the optimizer, with the number of steps so far: what changes gradients
    /// (centralisation, noise, adaptive clipping). They are those of all batches of the step, and finite.
    ///
    /// # Errors
    /// As [`Callback::on_fit_start`]; the weights are then those from before the step.
    fn on_gradients(&mut self, _step: u64, _model: &M, _grads: &mut Grads<M::T>) -> Result<()> {
        Ok(())
    }

    /// After each step of the optimizer, with the number of steps so far and the loss of the step.
    ///
    /// # Errors
    /// As [`Callback::on_fit_start`].
    fn on_step_end(&mut self, _step: u64, _loss: f64, _model: &mut M) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    /// Adds what it needs to go on in another process to a checkpoint, under names and keys that begin with the prefix.
    ///
    /// # Errors
    /// As [`Callback::on_fit_start`].
    fn save(&self, _archive: &mut Archive<M::T>, _prefix: &str) -> Result<()> {
        Ok(())
    }

    /// Goes on from there: after [`Callback::on_fit_start`], with the weights of the checkpoint.
    ///
    /// # Errors
    /// As [`Callback::on_fit_start`].
    fn restore(&mut self, _archive: &mut Archive<M::T>, _prefix: &str, _model: &M) -> Result<()> {
        Ok(())
    }

    /// At the end, with the best weights restored. Not after an error.
    ///
    /// # Errors
    /// As [`Callback::on_fit_start`].
    fn on_fit_end(&mut self, _history: &History, _model: &mut M) -> Result<()> {
        Ok(())
    }
}

/// A closure as a callback.
pub(crate) struct OnEpoch<F>(pub(crate) F);

impl<M: Parameters, F: FnMut(&Epoch, &mut M) -> Result<ControlFlow<()>> + Send> Callback<M> for OnEpoch<F> {
    fn on_epoch_end(&mut self, epoch: &Epoch, model: &mut M) -> Result<ControlFlow<()>> {
        (self.0)(epoch, model)
    }
}

/// A closure that changes gradients.
pub(crate) struct OnGradients<F>(pub(crate) F);

impl<M: Parameters, F: FnMut(u64, &M, &mut Grads<M::T>) -> Result<()> + Send> Callback<M> for OnGradients<F> {
    fn on_gradients(&mut self, step: u64, model: &M, grads: &mut Grads<M::T>) -> Result<()> {
        (self.0)(step, model, grads)
    }
}
