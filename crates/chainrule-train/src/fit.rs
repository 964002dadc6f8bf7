//! Epochs.

use crate::{
    Accuracy, Ended, Epoch, History, MeanAbsoluteError, Metric, RSquared, Scores, Trainer,
    early_stopping::Watch, finite, progress::Reporter,
};
use chainrule_core::{Error, Layer, Loss, Optimizer, Reduction, Result, Scalar, Target};
use chainrule_data::{Batch, Dataset, Loader, Targets};
use std::{io, mem, ops::ControlFlow, time::Instant};

impl<T: Scalar, M: Layer<T>, L: Loss<T>, O: Optimizer<T>> Trainer<M, L, O, T> {
    /// Goes through the data, epoch by epoch. Called again it goes on from where it stopped.
    ///
    /// # Errors
    /// Settings that make no sense, data that do not fit the model, or something that is not finite, named by its layer;
    /// the weights are then those from before the step in which it happened.
    pub fn fit(&mut self, train: &Dataset<T>) -> Result<History> {
        // They leave the trainer so that its methods can be called beside them.
        let validation = self.validation.take();
        let mut out = mem::replace(&mut self.out, Box::new(io::sink()));
        let result = self.run(train, validation.as_ref(), &mut *out);
        (self.validation, self.out) = (validation, out);
        result
    }

    fn run(
        &mut self,
        train: &Dataset<T>,
        validation: Option<&Dataset<T>>,
        out: &mut (dyn io::Write + Send),
    ) -> Result<History> {
        self.check(train, validation)?;
        self.choose_metrics(train.targets());
        let mut loader = Loader::new(train, self.batch_size)?.drop_last(self.drop_last);
        if self.shuffle {
            loader = loader.shuffle(self.seed);
        }
        if loader.batches() == 0 {
            return Err(Error::value(format!(
                "trainer: expected at least one whole batch of {}, got {} samples and a short last batch that is dropped",
                self.batch_size,
                train.len()
            )));
        }
        let mut watch = self.stopping.as_ref().map(|rule| Watch::new(rule, &self.metrics)).transpose()?;
        let mut reporter = Reporter::new(self.progress, out, self.epochs_done + self.epochs);
        let (mut history, mut batch) = (History::default(), Batch::default());
        for _ in 0..self.epochs {
            let begun = Instant::now();
            let (scores, mut flow) = self.epoch(&mut loader, &mut batch, &mut reporter)?;
            if let Some(error) = finite::parameter(&self.model) {
                return Err(error);
            }
            self.epochs_done += 1;
            let epoch = Epoch {
                number: self.epochs_done,
                train: scores,
                validation: validation.map(|data| self.scores(data, |_, _| Ok(()))).transpose()?,
                learning_rate: self.optimizer.learning_rate(),
                seconds: begun.elapsed().as_secs_f64(),
            };
            reporter.epoch(&epoch);
            for callback in &mut self.callbacks {
                self.touched = true;
                if callback.on_epoch_end(&epoch, &mut self.model)?.is_break() {
                    flow = ControlFlow::Break(());
                }
            }
            let stop = match &mut watch {
                Some(watch) => watch.stop_after(&epoch, &self.model)?,
                None => false,
            };
            history.epochs.push(epoch);
            if flow.is_break() {
                history.ended = Ended::Callback;
                break;
            }
            if stop {
                history.ended = Ended::NoImprovement;
                break;
            }
        }
        if let Some(watch) = watch {
            history.best = watch.restore(&mut self.model)?;
            if let (Ended::NoImprovement, Some(best)) = (history.ended, history.best) {
                reporter.note(&format!("no improvement since epoch {best}: its weights are back"));
            }
        }
        for callback in &mut self.callbacks {
            self.touched = true;
            callback.on_fit_end(&history, &mut self.model)?;
        }
        Ok(history)
    }

    /// One pass over the data.
    fn epoch(
        &mut self,
        loader: &mut Loader<'_, T>,
        batch: &mut Batch<T>,
        reporter: &mut Reporter<'_>,
    ) -> Result<(Scores, ControlFlow<()>)> {
        let begun = Instant::now();
        let number = self.epochs_done + 1;
        self.metrics.iter_mut().for_each(|m| m.reset());
        loader.start_epoch(self.epochs_done as u64);
        let summed = self.loss.reduction() == Reduction::Sum;
        let (all, mut seen, mut sum) = (loader.samples(), 0, 0.0);
        let mut flow = ControlFlow::Continue(());
        while seen < all && flow.is_continue() {
            // The samples of this step, known beforehand so that each batch gets its share of the gradient.
            let whole = self.accumulate.saturating_mul(self.batch_size).min(all - seen);
            let (mut done, mut loss) = (0, 0.0);
            self.renew_grads();
            self.grads.zero();
            while done < whole && loader.fill(batch) {
                if done > 0 {
                    self.model.absorb(&self.cache);
                }
                let (n, target) = (batch.len(), target(&batch.targets));
                // E = Σ (nᵢ/N) Eᵢ of means, Σ Eᵢ of sums
                let share = if summed { 1.0 } else { n as f64 / whole as f64 };
                loss += share * self.pass(&batch.x, target, T::from_f64(share))?.to_f64();
                self.metrics.iter_mut().try_for_each(|m| m.add(&self.y, target))?;
                done += n;
            }
            self.update()?;
            self.model.absorb(&self.cache);
            seen += whole;
            sum += if summed { loss } else { loss * whole as f64 };
            reporter.step(number, seen, all, sum / seen as f64, begun);
            for callback in &mut self.callbacks {
                if callback.on_step_end(self.steps, loss, &mut self.model)?.is_break() {
                    flow = ControlFlow::Break(());
                }
                self.touched = true;
            }
        }
        Ok((self.read_scores(sum / seen.max(1) as f64), flow))
    }

    /// The loss and what the metrics say.
    pub(crate) fn read_scores(&self, loss: f64) -> Scores {
        Scores { loss, metrics: self.metrics.iter().map(|m| (m.name().to_owned(), m.value())).collect() }
    }

    /// What suits the targets, if the user chose nothing.
    pub(crate) fn choose_metrics(&mut self, targets: &Targets<T>) {
        if self.own_metrics {
            return;
        }
        self.metrics = match targets {
            Targets::Classes(_) => vec![Box::new(Accuracy::new()) as Box<dyn Metric<T>>],
            Targets::Values(_) => vec![Box::new(MeanAbsoluteError::new()), Box::new(RSquared::new())],
        };
    }

    fn check(&self, train: &Dataset<T>, validation: Option<&Dataset<T>>) -> Result<()> {
        self.model.check()?;
        self.loss.check()?;
        self.clip.check()?;
        if self.loss.reduction() == Reduction::None {
            return Err(Error::value(
                "expected a loss reduced to one number (mean or sum), got reduction none",
            ));
        }
        if self.accumulate == 0 {
            return Err(Error::value("trainer: expected to accumulate at least 1 batch, got 0"));
        }
        match validation {
            Some(data) if data.sample_shape() != train.sample_shape() => Err(Error::shape(format!(
                "validation data: expected samples of shape {:?} as in the training data, got {:?}",
                train.sample_shape(),
                data.sample_shape()
            ))),
            _ => Ok(()),
        }
    }
}

/// The targets of a batch as a loss takes them.
pub(crate) fn target<T>(targets: &Targets<T>) -> Target<'_, T> {
    match targets {
        Targets::Classes(classes) => Target::Classes(classes),
        Targets::Values(values) => Target::Values(values),
    }
}
