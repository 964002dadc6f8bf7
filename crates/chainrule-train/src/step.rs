//! One step: forward, loss, backward, clip, optimizer, fold. And what it leaves behind when it fails.

use crate::{Callback, Settings, explain::Witness, finite, metric::Panel, snapshot::Snapshot};
use chainrule_core::{
    Context, Error, Inputs, Module, Objective, Optimizer, Pass, Reduction, Result, Scalar, Schedule, Target,
    TargetList, Tensor, unknown_setting,
};
use chainrule_data::{Batch, Loader, Source};
use chainrule_optim::{clip_norm, clip_value};

/// The learning rate of a step.
pub(crate) type Rate = Box<dyn FnMut(u64) -> f64 + Send>;

/// A setting of the optimizer that follows a schedule of its own value.
pub(crate) struct Scheduled {
    pub(crate) name: String,
    pub(crate) schedule: Box<dyn Schedule>,
    /// Its value before the first step.
    pub(crate) base: Option<f64>,
}

impl Scheduled {
    fn apply<T: Scalar>(&mut self, optimizer: &mut impl Optimizer<T>, step: u64) -> Result<()> {
        let base = match self.base {
            Some(base) => base,
            None => {
                let base = optimizer.setting(&self.name).ok_or_else(|| unknown_setting(&self.name))?;
                *self.base.insert(base)
            }
        };
        optimizer.set_setting(&self.name, base * self.schedule.factor(step))
    }
}

/// A model, its loss and its optimizer at work.
pub(crate) struct Learner<M: Module, L, O> {
    pub(crate) model: M,
    pub(crate) loss: L,
    pub(crate) optimizer: O,
    pub(crate) settings: Settings,
    pub(crate) rate: Option<Rate>,
    /// Whether the schedule makes sense.
    pub(crate) scheduled: Result<()>,
    /// Other settings of the optimizer that follow a schedule.
    pub(crate) others: Vec<Scheduled>,
    /// The factor of all noise.
    pub(crate) noise: Option<Box<dyn Schedule>>,
    /// Looks for the first value that is not finite: [`crate::Trainer::explain`].
    pub(crate) witness: Option<Box<Witness<M::T>>>,
    pub(crate) run: Run<M>,
}

/// The state of a training: the buffers of a step, reused again and again, and the counts since the beginning, which another
/// `fit` continues.
pub(crate) struct Run<M: Module> {
    pub(crate) pass: Pass<M>,
    /// The weights before the step.
    before: Snapshot<M::T>,
    /// Whether the weights may have moved in this step, and `before` holds what they were.
    moved: bool,
    /// Whether the model was borrowed mutably: another one may be in its place.
    pub(crate) touched: bool,
    pub(crate) batch: Batch<M::T>,
    pub(crate) loss_value: Tensor<M::T>,
    pub(crate) passes: u64,
    pub(crate) steps: u64,
    pub(crate) epochs: usize,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step {
    batches: usize,
    pub(crate) samples: usize,
    /// Σ wᵢ: what the means of the batches divide by, together.
    pub(crate) weight: f64,
    /// Σ wᵢ Eᵢ, or Σ Eᵢ of a loss that is a sum.
    pub(crate) sum: f64,
    /// The weight of the first batch that has one: the others' gradients are relative to it.
    unit: f64,
    /// Whether the source has no further batch in this epoch.
    pub(crate) ended: bool,
}

impl Step {
    /// The loss of the step.
    pub(crate) fn loss(&self, reduction: Reduction) -> f64 {
        if reduction == Reduction::Sum { self.sum } else { self.sum / self.weight }
    }
}

impl<M: Module> Run<M> {
    pub(crate) fn new(model: &M) -> Self {
        Self {
            pass: Pass::new(model),
            before: Snapshot::default(),
            moved: false,
            touched: false,
            batch: Batch::default(),
            loss_value: Tensor::default(),
            passes: 0,
            steps: 0,
            epochs: 0,
        }
    }
}

impl<T: Scalar, M: Module<T = T>, L: Objective<T = T>, O: Optimizer<T>> Learner<M, L, O> {
    /// One step on a batch of the caller's; its loss is that of the weights before.
    pub(crate) fn step(
        &mut self,
        xs: &[&Tensor<T>],
        targets: &[Target<'_, T>],
        callbacks: &mut [Box<dyn Callback<M>>],
    ) -> Result<T> {
        for (i, x) in xs.iter().enumerate() {
            let error = if i == 0 {
                finite::sample("input", x)
            } else {
                finite::sample(format_args!("input {i}"), x)
            };
            if let Some(error) = error {
                return Err(error);
            }
        }
        let samples = xs.first().and_then(|x| x.shape().first()).copied().unwrap_or(0);
        self.whole(callbacks, |learner, step| {
            learner.add(xs, targets, samples, step).map(|loss| loss.unwrap_or(T::ZERO))
        })
        .map(|(loss, _)| loss)
    }

    /// One step on the next batches of a loader; `panel` measures them.
    pub(crate) fn step_from(
        &mut self,
        loader: &mut Loader<&mut dyn Source<T>, T>,
        panel: &mut Panel<T>,
        callbacks: &mut [Box<dyn Callback<M>>],
    ) -> Result<Step> {
        let mut batch = std::mem::take(&mut self.run.batch);
        let result = self.whole(callbacks, |learner, step| {
            for _ in 0..learner.settings.accumulate {
                if !loader.fill(&mut batch)? {
                    step.ended = true;
                    break;
                }
                let samples = batch.len();
                if let Some(witness) = &mut learner.witness {
                    witness.positions = loader.last(samples).to_vec();
                }
                (&batch.inputs).with(|xs| {
                    (&batch.targets).with(|targets| {
                        if learner.add(xs, targets, samples, step)?.is_some() {
                            panel.add(&learner.loss, learner.run.pass.outputs(), targets)?;
                        }
                        Ok::<_, Error>(())
                    })
                })?;
            }
            Ok(())
        });
        self.run.batch = batch;
        result.map(|((), step)| step)
    }

    /// A step whose batches `add` adds. If anything in it fails, the weights are those from before.
    fn whole<R>(
        &mut self,
        callbacks: &mut [Box<dyn Callback<M>>],
        add: impl FnOnce(&mut Self, &mut Step) -> Result<R>,
    ) -> Result<(R, Step)> {
        self.check_schedules()?;
        self.renew();
        self.run.pass.zero();
        self.run.moved = false;
        let mut step = Step::default();
        let result = add(self, &mut step).and_then(|r| {
            if step.weight > 0.0 {
                self.update(&step, callbacks)?;
            }
            Ok(r)
        });
        if result.is_err() && self.run.moved {
            self.run.before.restore(&mut self.model)?;
        }
        result.map(|r| (r, step))
    }

    /// Whether all schedules make sense.
    pub(crate) fn check_schedules(&self) -> Result<()> {
        self.scheduled.clone()?;
        self.others.iter().try_for_each(|other| other.schedule.check())?;
        self.noise.as_ref().map_or(Ok(()), |noise| noise.check())
    }

    /// Adds the gradients of a batch, and returns E; nothing of a batch whose targets are all ignored.
    fn add(
        &mut self,
        xs: &[&Tensor<T>],
        targets: &[Target<'_, T>],
        samples: usize,
        step: &mut Step,
    ) -> Result<Option<T>> {
        step.samples += samples;
        let weight = self.loss.weight_of_all(targets);
        if weight == 0.0 {
            return Ok(None);
        }
        if step.batches > 0 {
            self.guard()?;
            self.model.fold(self.run.pass.state());
        }
        let mut cx = Context::train(self.settings.seed).step(self.run.passes);
        if let Some(noise) = &self.noise {
            cx = cx.scale_noise(noise.factor(self.run.steps));
        }
        if self.settings.check_layers {
            cx = cx.check_finite();
        }
        let pass = &mut self.run.pass;
        if let Some(witness) = &mut self.witness {
            witness.now = (self.run.steps + 1, self.run.epochs + 1);
            witness.batch(xs, targets)?;
        }
        pass.forward(&self.model, xs, cx)?;
        if let Some(witness) = &self.witness {
            witness.outputs(&self.model, xs, pass.outputs())?;
        }
        let loss = pass.loss(&self.loss, targets)?;
        if let Some(witness) = &self.witness {
            witness.loss(loss, pass.outputs(), targets, pass.output_gradients())?;
        }
        if !loss.is_finite() {
            return Err(self.not_finite(xs, targets, cx));
        }
        // E = Σ (wᵢ/W) Eᵢ of means, Σ Eᵢ of sums; W is known at the end alone
        let summed = self.loss.reduced_by() == Reduction::Sum;
        if step.batches == 0 {
            step.unit = weight;
        } else if !summed {
            pass.scale(T::from_f64(weight / step.unit));
        }
        pass.backward(&self.model, xs)?;
        if let Some(witness) = &self.witness {
            witness.gradients(&self.model, pass.grads())?;
        }
        self.run.passes += 1;
        step.batches += 1;
        step.weight += weight;
        step.sum += loss.to_f64() * if summed { 1.0 } else { weight };
        Ok(Some(loss))
    }

    /// Moves the weights along the gradients.
    fn update(&mut self, step: &Step, callbacks: &mut [Box<dyn Callback<M>>]) -> Result<()> {
        let grads = self.run.pass.grads_mut();
        if step.batches > 1 && self.loss.reduced_by() != Reduction::Sum {
            grads.scale(T::from_f64(step.unit / step.weight));
        }
        if let Some(error) = finite::gradient(&self.model, grads) {
            return Err(error);
        }
        for callback in callbacks {
            callback.on_gradients(self.run.steps, &self.model, grads)?;
        }
        if let Some(limit) = self.settings.clip_value {
            clip_value(grads, limit)?;
        }
        if let Some(limit) = self.settings.clip_norm {
            clip_norm(grads, limit)?;
        }
        if let Some(witness) = &self.witness {
            witness.gradients(&self.model, grads)?;
        }
        if let Some(rate) = &mut self.rate {
            self.optimizer.set_learning_rate(rate(self.run.steps));
        }
        for other in &mut self.others {
            other.apply(&mut self.optimizer, self.run.steps)?;
        }
        self.guard()?;
        self.run.pass.update(&mut self.model, &mut self.optimizer)?;
        if let Some(witness) = &mut self.witness {
            witness.updated(&self.model, &self.optimizer, &self.run.before, self.run.pass.grads())?;
        }
        // The optimizer may have overflowed, and so may running statistics.
        if let Some(error) = self.run.before.find_changed(&self.model, finite::parameter) {
            return Err(error);
        }
        self.run.steps += 1;
        Ok(())
    }

    /// Keeps the weights before they move for the first time in a step.
    fn guard(&mut self) -> Result<()> {
        if !self.run.moved {
            self.run.before.take(&self.model)?;
            self.run.moved = true;
        }
        Ok(())
    }

    /// Why a loss is infinite or NaN: the same pass again, with finite checks on.
    #[cold]
    pub(crate) fn not_finite(&mut self, xs: &[&Tensor<T>], targets: &[Target<'_, T>], cx: Context) -> Error {
        let inputs = || xs.iter().find_map(|x| finite::sample("input", x));
        let values = || targets.iter().find_map(|t| finite::sample("target", t.values().ok()?));
        if let Some(error) = inputs().or_else(values).or_else(|| finite::model(&self.model)) {
            return error;
        }
        let again = self.run.pass.forward(&self.model, xs, cx.check_finite()).err();
        let ys = self.run.pass.outputs();
        again.or_else(|| ys.iter().find_map(|y| finite::sample("the model's output", y))).unwrap_or_else(|| {
            let largest = ys.iter().flat_map(|y| y.data()).fold(T::ZERO, |m, v| m.max(v.abs()));
            Error::value(format!(
                "expected a finite loss, got one that is infinite or NaN though the model's outputs are finite, up to \
                 {largest:e}: a smaller learning rate may help"
            ))
        })
    }

    /// Makes new gradients if the model is another one than they were made for.
    fn renew(&mut self) {
        if !std::mem::take(&mut self.run.touched) {
            return;
        }
        let grads = self.run.pass.grads();
        let (mut known, mut volume) = (true, 0);
        self.model.visit(&mut |_, param| {
            if !param.is_buffer() {
                known &= grads.range(param).is_some_and(|range| range.len() == param.volume());
                volume += param.volume();
            }
        });
        if !known || volume < grads.values().len() {
            self.run.pass = Pass::new(&self.model);
        }
    }
}
