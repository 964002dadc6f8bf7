//! The trainer: a model, a loss, an optimizer, and how they work together.

use crate::{
    Callback, Checkpoint, EarlyStopping, Epoch, History, Metric, Progress, Settings,
    callback::{OnEpoch, OnGradients},
    checkpoint::UnderWay,
    metric::Panel,
    progress::Output,
    step::{Learner, Run, Scheduled},
};
use chainrule_core::{
    Grads, Inputs, Module, Objective, Optimizer, Result, Scalar, Schedule, TargetList, Tensor,
};
use chainrule_data::Source;
use std::{
    fmt, io,
    ops::ControlFlow,
    sync::{Arc, atomic::AtomicBool},
};

/// Trains a model on data, and measures it: any module, any objective, any optimizer, any source.
///
/// One seed gives the same bits every time, with any number of threads. All settings have defaults; [`Trainer::fit`] and
/// [`Trainer::evaluate`] do the work, and [`Trainer::step`] is one step on a batch of the caller's.
///
/// See the crate's documentation for an example that runs.
pub struct Trainer<M: Module, L, O> {
    pub(crate) learner: Learner<M, L, O>,
    pub(crate) validation: Option<Box<dyn Source<M::T> + Send>>,
    pub(crate) stopping: Option<EarlyStopping>,
    pub(crate) panel: Panel<M::T>,
    pub(crate) callbacks: Vec<Box<dyn Callback<M>>>,
    pub(crate) out: Output,
    pub(crate) history: History,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Set from elsewhere to end the fit after the step in hand.
    pub(crate) stop: Option<Arc<AtomicBool>>,
    pub(crate) under_way: UnderWay<M::T>,
}

impl<M: Module, L: fmt::Debug, O: fmt::Debug> fmt::Debug for Trainer<M, L, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainer")
            .field("model", &self.learner.model.to_spec())
            .field("loss", &self.learner.loss)
            .field("optimizer", &self.learner.optimizer)
            .field("settings", &self.learner.settings)
            .finish_non_exhaustive()
    }
}

impl<T: Scalar, M: Module<T = T>, L: Objective<T = T>, O: Optimizer<T>> Trainer<M, L, O> {
    /// A trainer of a model that was initialised or loaded.
    ///
    /// Defaults: those of [`Settings`], no validation data, no schedule, and for each output accuracy for classes or MAE and
    /// R² for values.
    pub fn new(model: M, loss: L, optimizer: O) -> Self {
        let run = Run::new(&model);
        Self {
            learner: Learner {
                model,
                loss,
                optimizer,
                settings: Settings::default(),
                rate: None,
                scheduled: Ok(()),
                others: Vec::new(),
                noise: None,
                witness: None,
                run,
            },
            validation: None,
            stopping: None,
            panel: Panel::new(),
            callbacks: Vec::new(),
            out: Output::Stderr,
            history: History::default(),
            checkpoint: None,
            stop: None,
            under_way: UnderWay::new(0),
        }
    }

    /// Takes one step on a batch and returns its loss, that of the weights before the step. After the first step of a
    /// size nothing is allocated. If the loss ignores every target, no step is taken and the loss is 0.
    ///
    /// # Errors
    /// Wrong shapes, a class out of range, or something that is not finite, named by sample or by layer; the weights are
    /// then those from before the step.
    pub fn step(&mut self, inputs: impl Inputs<T>, targets: impl TargetList<T>) -> Result<T> {
        inputs.with(|xs| targets.with(|targets| self.learner.step(xs, targets, &mut self.callbacks)))
    }

    /// All settings that are plain values.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.learner.settings = settings;
        self
    }

    /// How many times [`Trainer::fit`] goes through the data.
    #[must_use]
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.learner.settings.epochs = epochs;
        self
    }

    /// How many samples go through the model at once.
    #[must_use]
    pub fn batch_size(mut self, samples: usize) -> Self {
        self.learner.settings.batch_size = samples;
        self
    }

    /// The seed of the shuffling and of the noise (dropout) in the model.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.learner.settings.seed = seed;
        self
    }

    /// Whether the samples come in another order each epoch.
    #[must_use]
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.learner.settings.shuffle = shuffle;
        self
    }

    /// Whether a last batch that is shorter than the others is dropped.
    #[must_use]
    pub fn drop_last(mut self, drop: bool) -> Self {
        self.learner.settings.drop_last = drop;
        self
    }

    /// How many batches make one step of the optimizer. Their gradients are averaged by what their means divide by (the
    /// number of samples, or the sum of the class weights), or added if the loss is a sum: that is the gradient of one large
    /// batch, for layers that do not mix samples.
    #[must_use]
    pub fn accumulate(mut self, batches: usize) -> Self {
        self.learner.settings.accumulate = batches;
        self
    }

    /// Scales the gradients of a step down to this norm, all parameters together, when theirs is larger.
    ///
    /// Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013.
    #[must_use]
    pub fn clip_norm(mut self, max: f64) -> Self {
        self.learner.settings.clip_norm = Some(max);
        self
    }

    /// Limits every gradient element of a step to [−max, max]; done before [`Trainer::clip_norm`].
    #[must_use]
    pub fn clip_value(mut self, max: f64) -> Self {
        self.learner.settings.clip_value = Some(max);
        self
    }

    /// Sets the learning rate before each step by a function of the number of steps taken so far.
    #[must_use]
    pub fn learning_rate(mut self, rate: impl FnMut(u64) -> f64 + Send + 'static) -> Self {
        self.learner.rate = Some(Box::new(rate));
        self.learner.scheduled = Ok(());
        self
    }

    /// Sets the learning rate before each step by a schedule of the optimizer's own rate. One that makes no sense, with a part
    /// that can never run for example, is an error of the first step. [`crate::pictures::Plot::schedule`] draws it.
    ///
    /// ```
    /// # use chainrule_train::Trainer;
    /// # use chainrule_layers::Linear;
    /// # use chainrule_losses::Mse;
    /// # use chainrule_core::Parameters;
    /// use chainrule_optim::{Adam, schedule::Cosine};
    /// # let model = Linear::<f32>::new(2, 1).init(0)?;
    /// let trainer = Trainer::new(model, Mse::new(), Adam::new(1e-3)).schedule(Cosine::new(1000));
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    #[must_use]
    pub fn schedule(self, schedule: impl Schedule + 'static) -> Self {
        let base = self.learner.optimizer.learning_rate();
        let check = schedule.check();
        let mut trainer = self.learning_rate(move |step| base * schedule.factor(step));
        trainer.learner.scheduled = check;
        trainer
    }

    /// Lets another setting of the optimizer follow a schedule of its own value: `weight_decay`, or `momentum`, which is β₁ where there
    /// are betas; see [`Optimizer::setting`]. A name that the optimizer does not have is an error of the first step. A later schedule of
    /// a name takes the place of an earlier one.
    ///
    /// ```
    /// # use chainrule_train::Trainer;
    /// # use chainrule_layers::Linear;
    /// # use chainrule_losses::Mse;
    /// # use chainrule_core::Parameters;
    /// use chainrule_optim::{AdamW, schedule::Cosine};
    /// # let model = Linear::<f32>::new(2, 1).init(0)?;
    /// let optimizer = AdamW::new(1e-3).weight_decay(0.1);
    /// let trainer = Trainer::new(model, Mse::new(), optimizer).schedule_setting("weight_decay", Cosine::new(1000));
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    #[must_use]
    pub fn schedule_setting(mut self, name: impl Into<String>, schedule: impl Schedule + 'static) -> Self {
        let other = Scheduled { name: name.into(), schedule: Box::new(schedule), base: None };
        self.learner.others.retain(|earlier| earlier.name != other.name);
        self.learner.others.push(other);
        self
    }

    /// Multiplies the probability of every dropout, and the deviation of every other noise, by a schedule in [0, 1]: dropout that
    /// grows over the first epochs, or that stops after them. See [`chainrule_core::Context::scale_noise`].
    #[must_use]
    pub fn schedule_noise(mut self, schedule: impl Schedule + 'static) -> Self {
        self.learner.noise = Some(Box::new(schedule));
        self
    }

    /// Whether the output of every layer is checked for infinities and NaN in every pass. Without it the layer is searched for
    /// only once the loss or a gradient has one.
    #[must_use]
    pub fn check_layers(mut self, check: bool) -> Self {
        self.learner.settings.check_layers = check;
        self
    }

    /// Data to measure on after each epoch; nothing is learned from it.
    #[must_use]
    pub fn validation(mut self, data: impl Source<T> + Send + 'static) -> Self {
        self.validation = Some(Box::new(data));
        self
    }

    /// Stops when nothing improves any more, and restores the best weights: a patience in epochs, or a rule.
    #[must_use]
    pub fn early_stopping(mut self, rule: impl Into<EarlyStopping>) -> Self {
        self.stopping = Some(rule.into());
        self
    }

    /// Measures this beside the loss, in place of the default metrics.
    #[must_use]
    pub fn metric(mut self, metric: impl Metric<T> + 'static) -> Self {
        self.panel.push(Box::new(metric));
        self
    }

    /// Calls this while training; callbacks are called in the order in which they were added.
    #[must_use]
    pub fn callback(mut self, callback: impl Callback<M> + 'static) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Calls a closure after each epoch; it stops the training by `Ok(ControlFlow::Break(()))`, or by an error.
    #[must_use]
    pub fn on_epoch(self, f: impl FnMut(&Epoch, &mut M) -> Result<ControlFlow<()>> + Send + 'static) -> Self {
        self.callback(OnEpoch(f))
    }

    /// Calls a closure with the gradients of each step, before they are clipped.
    ///
    /// ```
    /// # use chainrule_train::Trainer;
    /// # use chainrule_layers::Linear;
    /// # use chainrule_losses::Mse;
    /// # use chainrule_core::Parameters;
    /// # use chainrule_optim::Adam;
    /// use chainrule_optim::centralize;
    /// # let model = Linear::<f32>::new(2, 1).init(0)?;
    /// let trainer = Trainer::new(model, Mse::new(), Adam::new(1e-3))
    ///     .on_gradients(|_step, model, grads| centralize(model, grads));
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    #[must_use]
    pub fn on_gradients(self, f: impl FnMut(u64, &M, &mut Grads<T>) -> Result<()> + Send + 'static) -> Self {
        self.callback(OnGradients(f))
    }

    /// Writes what the run goes on from; see [`Trainer::resume`].
    #[must_use]
    pub fn checkpoint(mut self, checkpoint: Checkpoint) -> Self {
        self.checkpoint = Some(checkpoint);
        self
    }

    /// Ends [`Trainer::fit`] after the step in hand once the flag is set, as a handler of Ctrl-C does it: with a checkpoint if
    /// there is a [`Checkpoint`], and [`crate::Ended::Stopped`].
    #[must_use]
    pub fn stop_on(mut self, flag: Arc<AtomicBool>) -> Self {
        self.stop = Some(flag);
        self
    }

    /// How progress is reported.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.learner.settings.progress = progress;
        self
    }

    /// Where progress is reported, in place of standard error.
    #[must_use]
    pub fn progress_to(mut self, out: impl io::Write + Send + 'static) -> Self {
        self.out = Output::Writer(Box::new(out));
        self
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.learner.model
    }

    /// The model, to be changed.
    pub fn model_mut(&mut self) -> &mut M {
        self.learner.run.touched = true;
        &mut self.learner.model
    }

    /// The model, trained.
    pub fn into_model(self) -> M {
        self.learner.model
    }

    /// The loss.
    pub fn loss(&self) -> &L {
        &self.learner.loss
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &O {
        &self.learner.optimizer
    }

    /// The optimizer, to be changed.
    pub fn optimizer_mut(&mut self) -> &mut O {
        &mut self.learner.optimizer
    }

    /// The epochs of the last [`Trainer::fit`], also of one that failed.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The gradients of the last step, as the optimizer saw them.
    pub fn grads(&self) -> &Grads<T> {
        self.learner.run.pass.grads()
    }

    /// The first output of the last pass.
    ///
    /// # Panics
    /// If the model has no output.
    pub fn output(&self) -> &Tensor<T> {
        &self.outputs()[0]
    }

    /// All outputs of the last pass.
    pub fn outputs(&self) -> &[Tensor<T>] {
        self.learner.run.pass.outputs()
    }

    /// How many steps the optimizer took.
    pub fn steps(&self) -> u64 {
        self.learner.run.steps
    }
}
