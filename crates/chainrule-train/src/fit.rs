//! Epochs.

use crate::{
    Ended, Epoch, History, Scores, Trainer,
    checkpoint::{Part, UnderWay, archive, prefix},
    clock::Moment,
    early_stopping::Watch,
    evaluate::not_reduced,
    progress::Reporter,
};
use chainrule_core::{Error, Module, Objective, Optimizer, Reduction, Result, Scalar};
use chainrule_data::{Loader, Source};
use chainrule_io::Archive;
use std::{ops::ControlFlow, sync::atomic::Ordering};

impl<T: Scalar, M: Module<T = T>, L: Objective<T = T>, O: Optimizer<T>> Trainer<M, L, O> {
    /// Goes through the data, epoch by epoch: a reference to a [`chainrule_data::Dataset`], or any other source. Called again it
    /// continues from where it stopped. A stream comes in its own order.
    ///
    /// # Errors
    /// Settings that make no sense, data that do not fit the model, or something that is not finite, named by its layer. The
    /// weights are then those from before the step in which it happened, or the best ones if early stopping watched;
    /// [`Trainer::history`] has the epochs until then. The optimizer's own state may have moved.
    pub fn fit(&mut self, mut train: impl Source<T>) -> Result<History> {
        let resumed = self.under_way.resumed.take();
        if resumed.is_none() {
            self.history = History::default();
            self.under_way = UnderWay::new(self.learner.run.epochs);
        }
        let result = self.all_epochs(&mut train, resumed);
        if let Some(watch) = &self.under_way.watch {
            let restored = watch.restore(&mut self.learner.model);
            self.history.best = if result.is_ok() { restored? } else { restored.unwrap_or(None) };
        }
        self.history.ended = *result.as_ref().unwrap_or(&Ended::Error);
        result?;
        for callback in &mut self.callbacks {
            self.learner.run.touched = true;
            callback.on_fit_end(&self.history, &mut self.learner.model)?;
        }
        Ok(self.history.clone())
    }

    fn all_epochs(&mut self, train: &mut dyn Source<T>, resumed: Option<Archive<T>>) -> Result<Ended> {
        self.check(train)?;
        self.panel.suit(train.schema(), &self.learner.loss);
        let scores = self.panel.names();
        self.under_way.watch = self.stopping.as_ref().map(|rule| Watch::new(rule, &scores)).transpose()?;
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.prepare(&scores, resumed.is_some())?;
        }
        let settings = self.learner.settings.clone();
        let mut loader = Loader::new(train, settings.batch_size)?.drop_last(settings.drop_last);
        if settings.shuffle {
            loader = loader.shuffle(settings.seed);
        }
        if loader.batches() == Some(0) {
            return Err(Error::value(format!(
                "trainer: expected at least one whole batch of {}, got {} samples and a short last batch that is dropped",
                settings.batch_size,
                loader.source().samples().unwrap_or(0)
            )));
        }
        for callback in &mut self.callbacks {
            self.learner.run.touched = true;
            callback.on_fit_start(&scores, &mut self.learner.model)?;
        }
        if let Some(archive) = resumed {
            self.go_on(archive)?;
            if self.under_way.watch.as_ref().is_some_and(Watch::is_over) {
                return Ok(Ended::NoImprovement);
            }
        }
        let last = self.under_way.first + settings.epochs;
        while self.learner.run.epochs < last {
            let Some((epoch, mut flow)) = self.epoch(&mut loader, last)? else {
                return Ok(Ended::Stopped);
            };
            self.history.epochs.push(epoch.clone());
            for callback in &mut self.callbacks {
                self.learner.run.touched = true;
                if callback.on_epoch_end(&epoch, &mut self.learner.model)?.is_break() {
                    flow = ControlFlow::Break(());
                }
            }
            let stop = match &mut self.under_way.watch {
                Some(watch) => watch.stop_after(&epoch, &self.learner.model)?,
                None => false,
            };
            self.write_after(&epoch)?;
            if flow.is_break() {
                return Ok(Ended::Callback);
            }
            if stop {
                if let Some(best) = self.under_way.watch.as_ref().and_then(Watch::best) {
                    self.reporter(last)
                        .note(&format!("no improvement since epoch {best}: its weights are restored"));
                }
                return Ok(Ended::NoImprovement);
            }
        }
        Ok(Ended::Done)
    }

    /// One pass over the data, and its validation; nothing if it was asked to stop.
    fn epoch(
        &mut self,
        loader: &mut Loader<&mut dyn Source<T>, T>,
        last: usize,
    ) -> Result<Option<(Epoch, ControlFlow<()>)>> {
        let begun = Moment::now();
        loader.start_epoch(self.learner.run.epochs as u64);
        match self.under_way.part.seen {
            0 => self.panel.reset(),
            seen => loader.skip(seen)?,
        }
        let (train, flow) = self.pass_over(loader, last, begun)?;
        if self.under_way.stopped {
            return Ok(None);
        }
        self.learner.run.epochs += 1;
        self.under_way.part = Part::default();
        let validation = match &mut self.validation {
            Some(data) => Some(self.learner.measure(&mut **data, &mut self.panel, |_, _| Ok(()))?.0),
            None => None,
        };
        let epoch = Epoch {
            number: self.learner.run.epochs,
            train,
            validation,
            learning_rate: self.learner.optimizer.learning_rate(),
            seconds: begun.seconds(),
        };
        self.reporter(last).epoch(&epoch);
        Ok(Some((epoch, flow)))
    }

    /// All steps of an epoch, unless a callback stops it.
    fn pass_over(
        &mut self,
        loader: &mut Loader<&mut dyn Source<T>, T>,
        last: usize,
        begun: Moment,
    ) -> Result<(Scores, ControlFlow<()>)> {
        let Self { learner, panel, callbacks, out, history, checkpoint, stop, under_way, .. } = self;
        let mut reporter = Reporter::new(learner.settings.progress, out, last);
        let (number, all, reduction) = (learner.run.epochs + 1, loader.samples(), learner.loss.reduced_by());
        let mean = |Part { seen, sum, weight }: Part| {
            sum / if reduction == Reduction::Sum { seen as f64 } else { weight }
        };
        loop {
            let step = learner.step_from(loader, panel, callbacks)?;
            if step.samples > 0 {
                let part = &mut under_way.part;
                part.seen += step.samples;
                part.sum += step.sum;
                part.weight += step.weight;
                reporter.step(number, part.seen, all, mean(*part), begun);
            }
            if step.weight > 0.0 {
                let mut flow = ControlFlow::Continue(());
                for callback in callbacks.iter_mut() {
                    learner.run.touched = true;
                    let loss = step.loss(reduction);
                    if callback.on_step_end(learner.run.steps, loss, &mut learner.model)?.is_break() {
                        flow = ControlFlow::Break(());
                    }
                }
                if flow.is_break() {
                    return Ok((panel.read(mean(under_way.part)), flow));
                }
            }
            under_way.stopped = stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
            if let Some(checkpoint) = checkpoint.as_ref().filter(|checkpoint| {
                under_way.stopped || (step.weight > 0.0 && checkpoint.is_due(learner.run.steps))
            }) {
                let archive = archive(learner, panel, callbacks, history, under_way, checkpoint)?;
                checkpoint.write(&archive, learner.run.steps)?;
            }
            if under_way.stopped {
                return Ok((panel.read(mean(under_way.part)), ControlFlow::Break(())));
            }
            // A source with a length needs no further look.
            if step.ended || Some(under_way.part.seen) == all {
                break;
            }
        }
        if under_way.part.seen == 0 {
            return Err(Error::value("trainer: expected a batch in each epoch, got none from the source"));
        }
        Ok((panel.read(mean(under_way.part)), ControlFlow::Continue(())))
    }

    /// Gives what has come to be since [`Trainer::resume`] its part of the checkpoint.
    fn go_on(&mut self, mut archive: Archive<T>) -> Result<()> {
        let Self { learner, panel, callbacks, checkpoint, under_way, .. } = self;
        if under_way.part.seen > 0 {
            panel.restore(&archive)?;
        }
        if let Some(watch) = &mut under_way.watch {
            watch.go_on(&mut archive, &learner.model)?;
        }
        if let Some(checkpoint) = checkpoint {
            checkpoint.restore(&archive)?;
        }
        for (i, callback) in callbacks.iter_mut().enumerate() {
            callback.restore(&mut archive, &prefix(i), &learner.model)?;
        }
        Ok(())
    }

    /// The checkpoints of the end of an epoch.
    fn write_after(&mut self, epoch: &Epoch) -> Result<()> {
        let Self { learner, panel, callbacks, history, checkpoint, under_way, .. } = self;
        let Some(checkpoint) = checkpoint else { return Ok(()) };
        let (due, best) = (checkpoint.is_due_after(epoch.number), checkpoint.improves(epoch));
        if due || best {
            let archive = archive(learner, panel, callbacks, history, under_way, checkpoint)?;
            if due {
                checkpoint.write(&archive, learner.run.steps)?;
            }
            if best {
                checkpoint.write_best(&archive)?;
            }
        }
        Ok(())
    }

    fn reporter(&mut self, last: usize) -> Reporter<'_> {
        Reporter::new(self.learner.settings.progress, &mut self.out, last)
    }

    pub(crate) fn check(&self, train: &dyn Source<T>) -> Result<()> {
        let learner = &self.learner;
        learner.model.validate()?;
        learner.loss.verify()?;
        learner.optimizer.check()?;
        learner.settings.check()?;
        learner.check_schedules()?;
        if learner.loss.reduced_by() == Reduction::None {
            return Err(not_reduced());
        }
        let (schema, expected) = (train.schema(), (learner.model.inputs(), learner.loss.targets()));
        if (schema.inputs.len(), schema.targets.len()) != expected {
            return Err(Error::shape(format!(
                "training data: expected {} inputs, as the model, and {} targets, as the loss, got {} and {}",
                expected.0,
                expected.1,
                schema.inputs.len(),
                schema.targets.len()
            )));
        }
        let varied = train.shapes_vary() || self.validation.as_ref().is_some_and(|data| data.shapes_vary());
        match self.validation.as_ref().map(|data| data.schema()) {
            Some(other) if other.inputs.len() == schema.inputs.len() && varied => Ok(()),
            Some(other) if other.inputs != schema.inputs => {
                let place = other.inputs.iter().zip(&schema.inputs).position(|(a, b)| a != b);
                Err(Error::shape(match place {
                    Some(i) => format!(
                        "validation data: expected samples of shape {} as in the training data, got {}",
                        schema.inputs[i], other.inputs[i]
                    ),
                    None => format!(
                        "validation data: expected {} inputs as in the training data, got {}",
                        schema.inputs.len(),
                        other.inputs.len()
                    ),
                }))
            }
            _ => Ok(()),
        }
    }
}
