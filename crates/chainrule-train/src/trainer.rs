//! The trainer: a model, a loss, an optimizer, and how they work together.

use crate::{Callback, EarlyStopping, Epoch, Metric, Progress, callback::OnEpoch, clip::Clip};
use chainrule_core::{Grads, Layer, Loss, Optimizer, Scalar, Tensor};
use chainrule_data::Dataset;
use chainrule_optim::Schedule;
use std::{io, ops::ControlFlow};

/// Trains a model on a dataset, and measures it.
///
/// One seed gives the same bits every time, with any number of threads. All settings have defaults; [`Trainer::fit`] and
/// [`Trainer::evaluate`] do the work, and [`Trainer::step`] is one step on a batch of the caller's.
///
/// See the crate's documentation for an example that runs.
pub struct Trainer<M: Layer<T>, L, O, T: Scalar = f32> {
    pub(crate) model: M,
    pub(crate) loss: L,
    pub(crate) optimizer: O,

    pub(crate) epochs: usize,
    pub(crate) batch_size: usize,
    pub(crate) seed: u64,
    pub(crate) shuffle: bool,
    pub(crate) drop_last: bool,
    pub(crate) accumulate: usize,
    pub(crate) check_layers: bool,
    pub(crate) clip: Clip,
    /// The learning rate of a step.
    pub(crate) rate: Option<Box<dyn FnMut(u64) -> f64 + Send>>,
    pub(crate) validation: Option<Dataset<T>>,
    pub(crate) stopping: Option<EarlyStopping>,
    pub(crate) metrics: Vec<Box<dyn Metric<T>>>,
    /// Whether the metrics are the user's, and not those that suit the targets.
    pub(crate) own_metrics: bool,
    pub(crate) callbacks: Vec<Box<dyn Callback<M, T>>>,
    pub(crate) progress: Progress,
    pub(crate) out: Box<dyn io::Write + Send>,

    // The buffers of a step, used again and again.
    pub(crate) cache: M::Cache,
    pub(crate) y: Tensor<T>,
    pub(crate) dy: Tensor<T>,
    pub(crate) loss_value: Tensor<T>,
    pub(crate) grads: Grads<T>,
    /// Whether somebody else had the model in hand, who may have put another one in its place.
    pub(crate) touched: bool,

    /// Passes, steps and epochs since the beginning; another `fit` goes on counting.
    pub(crate) passes: u64,
    pub(crate) steps: u64,
    pub(crate) epochs_done: usize,
}

impl<T: Scalar, M: Layer<T>, L: Loss<T>, O: Optimizer<T>> Trainer<M, L, O, T> {
    /// A trainer of a model that was initialised or loaded.
    ///
    /// Defaults: 10 epochs, batches of 32, shuffled, seed 0, no validation data, no clipping, no schedule, accuracy for
    /// classes or MAE and R² for numbers, and a progress bar on a terminal.
    pub fn new(model: M, loss: L, optimizer: O) -> Self {
        let grads = Grads::new(&model);
        Self {
            model,
            loss,
            optimizer,
            epochs: 10,
            batch_size: 32,
            seed: 0,
            shuffle: true,
            drop_last: false,
            accumulate: 1,
            check_layers: false,
            clip: Clip::default(),
            rate: None,
            validation: None,
            stopping: None,
            metrics: Vec::new(),
            own_metrics: false,
            callbacks: Vec::new(),
            progress: Progress::Auto,
            out: Box::new(io::stderr()),
            cache: M::Cache::default(),
            y: Tensor::default(),
            dy: Tensor::default(),
            loss_value: Tensor::default(),
            grads,
            touched: false,
            passes: 0,
            steps: 0,
            epochs_done: 0,
        }
    }

    /// How many times [`Trainer::fit`] goes through the data.
    #[must_use]
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }

    /// How many samples go through the model at once.
    #[must_use]
    pub fn batch_size(mut self, samples: usize) -> Self {
        self.batch_size = samples;
        self
    }

    /// The seed of the shuffling and of the noise (dropout) in the model.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether the samples come in another order each epoch.
    #[must_use]
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// Whether a last batch that is shorter than the others is left out.
    #[must_use]
    pub fn drop_last(mut self, drop: bool) -> Self {
        self.drop_last = drop;
        self
    }

    /// How many batches make one step of the optimizer. Their gradients are averaged by their numbers of samples, or added
    /// if the loss is a sum: that is the gradient of one large batch, for layers that do not mix samples.
    #[must_use]
    pub fn accumulate(mut self, batches: usize) -> Self {
        self.accumulate = batches;
        self
    }

    /// Scales the gradients of a step down to this norm, all parameters together, when theirs is larger.
    ///
    /// Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013.
    #[must_use]
    pub fn clip_norm(mut self, max: f64) -> Self {
        self.clip.norm = Some(max);
        self
    }

    /// Cuts every single gradient of a step to [−max, max]; done before [`Trainer::clip_norm`].
    #[must_use]
    pub fn clip_value(mut self, max: f64) -> Self {
        self.clip.value = Some(max);
        self
    }

    /// Sets the learning rate before each step by a function of the number of steps taken so far.
    #[must_use]
    pub fn learning_rate(mut self, rate: impl FnMut(u64) -> f64 + Send + 'static) -> Self {
        self.rate = Some(Box::new(rate));
        self
    }

    /// Sets the learning rate before each step by a schedule of the optimizer's own rate.
    ///
    /// ```
    /// # use chainrule_train::Trainer;
    /// # use chainrule_layers::Linear;
    /// # use chainrule_losses::Mse;
    /// # use chainrule_core::Layer;
    /// use chainrule_optim::{Adam, Cosine};
    /// # let model = Linear::<f32>::new(2, 1).init(0)?;
    /// let trainer = Trainer::new(model, Mse::new(), Adam::new(1e-3)).schedule(Cosine::new(1000));
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    #[must_use]
    pub fn schedule(self, schedule: impl Schedule + 'static) -> Self {
        let base = self.optimizer.learning_rate();
        self.learning_rate(move |step| base * schedule.factor(step))
    }

    /// Whether the output of every layer is checked for infinities and NaN in every pass. Without it they are looked for
    /// only once the loss or a gradient has one.
    #[must_use]
    pub fn check_layers(mut self, check: bool) -> Self {
        self.check_layers = check;
        self
    }

    /// Data to measure on after each epoch; nothing is learned from it.
    #[must_use]
    pub fn validation(mut self, data: Dataset<T>) -> Self {
        self.validation = Some(data);
        self
    }

    /// Stops when nothing improves any more, and brings the best weights back: a patience in epochs, or a rule.
    #[must_use]
    pub fn early_stopping(mut self, rule: impl Into<EarlyStopping>) -> Self {
        self.stopping = Some(rule.into());
        self
    }

    /// Measures this beside the loss, in place of what would suit the targets.
    #[must_use]
    pub fn metric(mut self, metric: impl Metric<T> + 'static) -> Self {
        if !self.own_metrics {
            self.metrics.clear();
        }
        self.own_metrics = true;
        self.metrics.push(Box::new(metric));
        self
    }

    /// Calls this while training; callbacks are called in the order in which they were added.
    #[must_use]
    pub fn callback(mut self, callback: impl Callback<M, T> + 'static) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Calls a closure after each epoch; it stops the training by `ControlFlow::Break(())`.
    #[must_use]
    pub fn on_epoch(self, f: impl FnMut(&Epoch, &mut M) -> ControlFlow<()> + Send + 'static) -> Self {
        self.callback(OnEpoch(f))
    }

    /// How progress is shown.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Where progress is shown, in place of standard error.
    #[must_use]
    pub fn progress_to(mut self, out: impl io::Write + Send + 'static) -> Self {
        self.out = Box::new(out);
        self
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The model, to be changed.
    pub fn model_mut(&mut self) -> &mut M {
        self.touched = true;
        &mut self.model
    }

    /// The model, trained.
    pub fn into_model(self) -> M {
        self.model
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &O {
        &self.optimizer
    }

    /// The optimizer, to be changed.
    pub fn optimizer_mut(&mut self) -> &mut O {
        &mut self.optimizer
    }

    /// The gradients of the last step, as the optimizer saw them.
    pub fn grads(&self) -> &Grads<T> {
        &self.grads
    }

    /// The output of the last pass.
    pub fn output(&self) -> &Tensor<T> {
        &self.y
    }

    /// How many steps the optimizer took.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}
