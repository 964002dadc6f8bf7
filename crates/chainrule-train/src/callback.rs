//! What a program does between epochs.

use crate::{Epoch, History, best::Best};
use chainrule_core::{Error, Grads, Parameters, Result};
use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

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

/// Saves the weights as safetensors after every N epochs, or after each that is the best so far. The folder is made before
/// the first epoch.
///
/// ```
/// use chainrule_train::Checkpoint;
/// let each = Checkpoint::new("target/run/epoch-{epoch}.safetensors").every(5);
/// let best = Checkpoint::new("target/run/best.safetensors").best_only("loss");
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    every: usize,
    best: Option<Best>,
}

impl Checkpoint {
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

impl<M: Parameters> Callback<M> for Checkpoint {
    fn on_fit_start(&mut self, scores: &[String], _: &mut M) -> Result<()> {
        if self.every == 0 {
            return Err(Error::value("checkpoint: expected every 1 epoch or more, got 0"));
        }
        if let Some(best) = &mut self.best {
            best.check("checkpoint", scores)?;
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
}

/// Makes the folder of a file, and finds out whether the file can be written there.
fn make_writable(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .map_err(|e| Error::io(e, format!("checkpoint: write into {}", folder.display())))?;
    if path.file_name().is_none() || path.is_dir() {
        return Err(Error::value(format!("checkpoint: expected the name of a file, got {}", path.display())));
    }
    chainrule_io::check_writable(path)
}
