//! Where the first value came from that is infinite or NaN: a run again from its checkpoint, with every part watched.

use crate::{
    Progress, Statistics, Trainer,
    checkpoint::{Newest, newest},
    history::number,
    snapshot::Snapshot,
};
use chainrule_core::{
    Error, Event, Grads, Module, Objective, Observer, Optimizer, Result, Scalar, Seen, StateValue, Target,
    Tensor, unwatch, watch,
};
use chainrule_data::Source;
use chainrule_tensor::{compiled, kernels::reduce::all_finite, position};
use std::{
    fmt, mem,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What [`Trainer::explain`] found. Prints as a report.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Explanation {
    /// The steps that were taken again, the first of a run is 1; none if no checkpoint could be read.
    pub steps: Range<u64>,
    /// The first value that is not finite; `None` if there was none.
    pub first: Option<Finding>,
    /// The step before it in which the optimizer changed a parameter most, if that was more than a hundredfold.
    pub leap: Option<Leap>,
    /// What is wrong with checkpoints that could not be read.
    pub damaged: Vec<String>,
}

/// A value that is infinite or NaN.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// The step, the first of a run is 1.
    pub step: u64,
    /// The epoch, the first is 1.
    pub epoch: usize,
    /// The path of the layer; empty for the model as a whole and for what lies outside of it.
    pub path: String,
    /// The tensor.
    pub tensor: Culprit,
    /// The value.
    pub value: f64,
    /// Where it stands in the tensor.
    pub position: Vec<usize>,
    /// The sample that it comes from, if not all samples of the batch are alike.
    pub sample: Option<Sample>,
    /// What the tensor was computed from, by name.
    pub inputs: Vec<(String, Statistics)>,
}

/// Which tensor of a training step it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Culprit {
    /// An input of the batch.
    Input(usize),
    /// A target of the batch.
    Target(usize),
    /// An output of a layer.
    Activation(usize),
    /// The loss.
    Loss,
    /// ∂E/∂y of the loss, with respect to a prediction.
    LossGradient(usize),
    /// ∂E/∂y of an output of a layer: a sum over those that read it.
    OutputGradient(usize),
    /// ∂E/∂x of an input of a layer.
    InputGradient(usize),
    /// The gradient of a parameter.
    ParameterGradient(String),
    /// A parameter or a buffer, after the optimizer's step.
    Parameter(String),
    /// The optimizer's state of a parameter.
    OptimizerState {
        /// The parameter's name.
        parameter: String,
        /// The state's name.
        name: String,
    },
}

/// A sample of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// Its place in the batch.
    pub in_batch: usize,
    /// Its place in the data; `None` of a stream.
    pub in_data: Option<usize>,
    /// Its largest |x|.
    pub largest: f64,
    /// The median of that over the batch.
    pub usual: f64,
}

/// A step in which a parameter changed by much more than its own size.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Leap {
    /// The step.
    pub step: u64,
    /// The parameter's path.
    pub parameter: String,
    /// ‖Δw‖/‖w‖.
    pub ratio: f64,
    /// Its value before, its gradient and the optimizer's state.
    pub inputs: Vec<(String, Statistics)>,
    /// The states that are 0 where the gradient is not: ε is all that is left of a denominator.
    pub vanished: Vec<String>,
}

/// If it turns up within so many steps, an older checkpoint is taken: what led to it may lie before.
const ENOUGH: u64 = 10;
/// A change by as many times its size is no training.
const LEAP: f64 = 100.0;
/// So many times the median is another kind of sample.
const OUTLIER: f64 = 1e3;

/// What was found, beside the step.
struct Found {
    path: String,
    tensor: Culprit,
    value: f64,
    position: Vec<usize>,
    inputs: Vec<(String, Statistics)>,
    /// The first row that is not finite, if others are.
    row: Option<usize>,
}

impl Found {
    fn new<T: Scalar>(
        path: &str,
        tensor: Culprit,
        values: &[T],
        shape: &[usize],
        inputs: Vec<(String, Statistics)>,
    ) -> Option<Self> {
        if all_finite(values) {
            return None;
        }
        let flat = values.iter().position(|v| !v.is_finite())?;
        let rows = shape.first().copied().unwrap_or(1).max(1);
        let width = (values.len() / rows).max(1);
        let some = values.chunks(width).any(|row| all_finite(row));
        Some(Self {
            path: path.to_owned(),
            tensor,
            value: values[flat].to_f64(),
            position: position(shape, flat),
            inputs,
            row: some.then_some(flat / width),
        })
    }
}

/// Sees the parts, and keeps the first value that is not finite.
#[derive(Default)]
struct Eye(Mutex<Option<Found>>);

impl Eye {
    fn found(&self) -> MutexGuard<'_, Option<Found>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named<T: Scalar>(name: &str, tensors: &[&Tensor<T>]) -> Vec<(String, Statistics)> {
    let name = |i: usize| if tensors.len() == 1 { name.to_owned() } else { format!("{name}{i}") };
    tensors.iter().enumerate().map(|(i, t)| (name(i), Statistics::of(t.data()))).collect()
}

/// The parameters of a layer; of a container they are those of its parts, which were looked at before.
fn own_parameters<T: Scalar>(part: &impl Module<T = T>) -> Vec<(String, Statistics)> {
    let mut own = Vec::new();
    if part.nesting() == 0 {
        part.visit(&mut |path, p| own.extend(p.value().map(|w| (path.to_string(), Statistics::of(w)))));
    }
    own
}

/// The first gradient of a parameter that is not finite.
fn of_gradients<T: Scalar>(
    path: &str,
    part: &impl Module<T = T>,
    grads: &Grads<T>,
    inputs: impl Fn() -> Vec<(String, Statistics)>,
) -> Option<Found> {
    let mut found = None;
    part.visit(&mut |at, p| {
        if let (None, Some(g)) = (&found, grads.get(p)) {
            let at = at.to_string();
            let (layer, name) = at.rsplit_once('.').unwrap_or(("", &at));
            let dot = if path.is_empty() || layer.is_empty() { "" } else { "." };
            let culprit = Culprit::ParameterGradient(name.to_owned());
            found = Found::new(&format!("{path}{dot}{layer}"), culprit, g, p.shape(), Vec::new());
        }
    });
    found.map(|found| Found { inputs: inputs(), row: None, ..found })
}

impl<T: Scalar> Observer<T> for Eye {
    fn see(&self, Seen { path, part, xs, event, .. }: Seen<'_, T>) {
        let mut found = self.found();
        if found.is_some() {
            return;
        }
        let inputs = |dys: &[&Tensor<T>]| {
            let mut all = named("∂E/∂y", dys);
            all.extend(named("x", xs));
            all.extend(own_parameters::<T>(part));
            all
        };
        let new = |culprit, t: &Tensor<T>, dys: &[&Tensor<T>]| {
            if all_finite(t.data()) {
                return None;
            }
            Found::new(path, culprit, t.data(), t.shape(), inputs(dys))
        };
        *found = match event {
            Event::Forward(ys) => {
                ys.iter().enumerate().find_map(|(j, y)| new(Culprit::Activation(j), y, &[]))
            }
            Event::Backward { dys, dxs, grads } => {
                let given: Vec<&Tensor<T>> = dys.iter().copied().flatten().collect();
                let of_dys = dys.iter().enumerate().find_map(|(j, dy)| {
                    let found = new(Culprit::OutputGradient(j), (*dy)?, &[])?;
                    Some(Found { inputs: Vec::new(), ..found })
                });
                let of_dxs = || {
                    let mut dxs = dxs.iter().enumerate();
                    dxs.find_map(|(i, dx)| new(Culprit::InputGradient(i), (*dx)?, &given))
                };
                let of_grads = || of_gradients(path, part, grads?, || inputs(&given));
                of_dys.or_else(of_dxs).or_else(of_grads)
            }
        };
    }
}

/// Watches the steps of a run.
pub(crate) struct Witness<T: Scalar> {
    eye: Arc<Eye>,
    observer: Arc<dyn Observer<T>>,
    /// The step and the epoch in hand.
    pub(crate) now: (u64, usize),
    /// The positions in the data of the samples of the batch.
    pub(crate) positions: Vec<usize>,
    /// The largest |x| of each sample of the batch.
    largest: Vec<f64>,
    leap: Option<Leap>,
}

compiled! {
    fn largest[T](x: &[T]) -> f64 {
        x.iter().fold(0.0, |m: f64, v| m.max(v.to_f64().abs()))
    }
}

compiled! {
    /// Σ (a − b)²
    fn apart[T](a: &[T], b: &[T]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a.to_f64() - b.to_f64()) * (a.to_f64() - b.to_f64())).sum()
    }
}

impl<T: Scalar> Witness<T> {
    fn new() -> Self {
        let eye = Arc::new(Eye::default());
        let observer = eye.clone();
        Self { eye, observer, now: (0, 0), positions: Vec::new(), largest: Vec::new(), leap: None }
    }

    /// An error if something was found: it ends the run.
    fn verdict(&self) -> Result<()> {
        if self.eye.found().is_none() { Ok(()) } else { Err(Error::value("explain: found")) }
    }

    fn keep(&self, found: impl FnOnce() -> Option<Found>) -> Result<()> {
        let mut place = self.eye.found();
        if place.is_none() {
            *place = found();
        }
        drop(place);
        self.verdict()
    }

    /// A batch, before its forward pass.
    pub(crate) fn batch(&mut self, xs: &[&Tensor<T>], targets: &[Target<'_, T>]) -> Result<()> {
        let rows = xs.first().and_then(|x| x.shape().first()).copied().unwrap_or(0);
        self.largest = vec![0.0; rows];
        for x in xs.iter().filter(|x| x.shape().first() == Some(&rows)) {
            let width = (x.len() / rows.max(1)).max(1);
            for (all, row) in self.largest.iter_mut().zip(x.data().chunks(width)) {
                *all = all.max(largest(row));
            }
        }
        self.keep(|| {
            let of = |culprit, t: &Tensor<T>| Found::new("", culprit, t.data(), t.shape(), Vec::new());
            let mut inputs = xs.iter().enumerate();
            inputs.find_map(|(i, x)| of(Culprit::Input(i), x)).or_else(|| {
                let mut targets = targets.iter().enumerate();
                targets.find_map(|(i, t)| of(Culprit::Target(i), t.values().ok()?))
            })
        })
    }

    /// The outputs of the model.
    pub(crate) fn outputs(
        &self,
        model: &impl Module<T = T>,
        xs: &[&Tensor<T>],
        ys: &[Tensor<T>],
    ) -> Result<()> {
        self.keep(|| {
            ys.iter().enumerate().find_map(|(j, y)| {
                let found = Found::new("", Culprit::Activation(j), y.data(), y.shape(), Vec::new())?;
                let mut inputs = named("x", xs);
                inputs.extend(own_parameters(model));
                Some(Found { inputs, ..found })
            })
        })
    }

    /// The loss and its gradients.
    pub(crate) fn loss(
        &self,
        loss: T,
        ys: &[Tensor<T>],
        targets: &[Target<'_, T>],
        dys: &[Tensor<T>],
    ) -> Result<()> {
        let inputs = || {
            let ys: Vec<_> = ys.iter().take(dys.len()).collect();
            let targets: Vec<_> = targets.iter().filter_map(|t| t.values().ok()).collect();
            let mut inputs = named("y", &ys);
            inputs.extend(named("target", &targets));
            inputs
        };
        self.keep(|| {
            let of_loss = Found::new("", Culprit::Loss, &[loss], &[], Vec::new());
            let mut dys = dys.iter().enumerate();
            let of_dys = || {
                dys.find_map(|(j, dy)| {
                    Found::new("", Culprit::LossGradient(j), dy.data(), dy.shape(), Vec::new())
                })
            };
            of_loss.or_else(of_dys).map(|found| Found { inputs: inputs(), ..found })
        })
    }

    /// The gradients of the parameters.
    pub(crate) fn gradients(&self, model: &impl Module<T = T>, grads: &Grads<T>) -> Result<()> {
        self.keep(|| of_gradients("", model, grads, Vec::new))
    }

    /// Parameters and the optimizer's state after its step.
    pub(crate) fn updated<O: Optimizer<T>>(
        &mut self,
        model: &impl Module<T = T>,
        optimizer: &O,
        before: &Snapshot<T>,
        grads: &Grads<T>,
    ) -> Result<()> {
        let mut found = None;
        let (mut squares, mut n) = (0.0, 0usize);
        before.visit(model, &mut |_, p, w| {
            if !p.is_buffer() {
                squares += Statistics::of(w).rms().powi(2) * w.len() as f64;
                n += w.len();
            }
        });
        let usual = (squares / n.max(1) as f64).sqrt();
        let (mut largest, mut leaps) = (self.leap.as_ref().map_or(LEAP, |leap| leap.ratio), None);
        before.visit(model, &mut |path, p, w| {
            let Ok(now) = p.value() else { return };
            let path = path.to_string();
            let (layer, name) = path.rsplit_once('.').unwrap_or(("", &path));
            if found.is_none() {
                let culprit = Culprit::Parameter(name.to_owned());
                found = Found::new(layer, culprit, now, p.shape(), Vec::new()).map(|found| {
                    let inputs = origins(&path, w, grads.get(p), model, optimizer);
                    Found { inputs, row: None, ..found }
                });
            }
            let size = Statistics::of(w).rms();
            let ratio =
                (apart(now, w) / w.len().max(1) as f64).sqrt() / if size > 0.0 { size } else { usual };
            if !p.is_buffer() && ratio > largest && ratio.is_finite() {
                (largest, leaps) = (ratio, Some((path.clone(), w.to_vec(), grads.get(p).map(<[T]>::to_vec))));
            }
        });
        if let Some((parameter, w, g)) = leaps {
            let mut vanished = Vec::new();
            each_state(model, optimizer, &parameter, |name, values| {
                let hidden = |(s, g): (&T, &T)| *s == T::ZERO && *g != T::ZERO;
                if g.as_ref()
                    .is_some_and(|g| g.len() == values.len() && values.data().iter().zip(g).any(hidden))
                {
                    vanished.push(name.to_owned());
                }
            });
            let inputs = origins(&parameter, &w, g.as_deref(), model, optimizer);
            self.leap = Some(Leap { step: self.now.0, parameter, ratio: largest, inputs, vanished });
        }
        let mut state = None;
        let looked = optimizer.visit_state(model, &mut |path, of, value| {
            if let (None, StateValue::Values(values)) = (&state, value) {
                let (layer, name) = path.rsplit_once('.').unwrap_or(("", path));
                let culprit = Culprit::OptimizerState { parameter: name.to_owned(), name: of.to_owned() };
                let found = Found::new(layer, culprit, values.data(), values.shape(), Vec::new());
                state = found.map(|found| (path.to_owned(), Found { row: None, ..found }));
            }
        });
        looked?;
        self.keep(|| {
            found.or_else(|| {
                let (path, mut found) = state?;
                before.visit(model, &mut |at, p, w| {
                    if at.to_string() == path {
                        found.inputs = origins(&path, w, grads.get(p), model, optimizer);
                    }
                });
                Some(found)
            })
        })
    }

    /// What was found, with its place in the run.
    fn finding(&self) -> Option<Finding> {
        let Found { path, tensor, value, position, inputs, row } = self.eye.found().take()?;
        let mut sorted = self.largest.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let usual = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        let largest = (0..self.largest.len()).max_by(|&a, &b| self.largest[a].total_cmp(&self.largest[b]));
        let outlier = largest.filter(|&i| self.largest[i] > OUTLIER * usual);
        let sample = row.filter(|&row| row < self.largest.len()).or(outlier).map(|in_batch| Sample {
            in_batch,
            in_data: self.positions.get(in_batch).copied(),
            largest: self.largest[in_batch],
            usual,
        });
        let (step, epoch) = self.now;
        Some(Finding { step, epoch, path, tensor, value, position, sample, inputs })
    }
}

/// Calls `f` with the optimizer's state of a parameter.
fn each_state<T: Scalar, M: Module<T = T>>(
    model: &M,
    optimizer: &impl Optimizer<T>,
    parameter: &str,
    mut f: impl FnMut(&str, &Tensor<T>),
) {
    // A state that cannot be listed is not told of.
    let _ = optimizer.visit_state(model, &mut |path, name, value| match value {
        StateValue::Values(values) if path == parameter => f(name, values),
        _ => {}
    });
}

/// What a parameter was computed from.
fn origins<T: Scalar>(
    path: &str,
    before: &[T],
    gradient: Option<&[T]>,
    model: &impl Module<T = T>,
    optimizer: &impl Optimizer<T>,
) -> Vec<(String, Statistics)> {
    let mut all = vec![("before".to_owned(), Statistics::of(before))];
    all.extend(gradient.map(|g| ("gradient".to_owned(), Statistics::of(g))));
    each_state(model, optimizer, path, |name, values| {
        all.push((name.to_owned(), Statistics::of(values.data())));
    });
    all
}

impl<T: Scalar, M: Module<T = T>, L: Objective<T = T>, O: Optimizer<T>> Trainer<M, L, O> {
    /// Says where the first value came from that is infinite or NaN: goes on from the newest checkpoint of a folder, or from a
    /// file, as [`Trainer::resume`] does, takes the steps after it again with every part of the model watched, and stops at the
    /// first such value. If that is within ten steps and there is an older checkpoint, it starts from there, to see what led to it;
    /// a trainer that has taken no step starts from where it is. Model, data, settings and callbacks are those of the run, so that the steps have its bits; a model may
    /// have been watched or not.
    ///
    /// The trainer then stands where that happened, with the weights before the step; no checkpoint is written meanwhile.
    ///
    /// ```no_run
    /// # use chainrule_train::{Checkpoint, Trainer};
    /// # use chainrule_core::Parameters;
    /// # use chainrule_data::iris;
    /// # use chainrule_layers::Linear;
    /// # use chainrule_losses::CrossEntropy;
    /// # use chainrule_optim::Adam;
    /// # let model = Linear::<f32>::new(4, 3).init(1)?;
    /// let data = iris();
    /// let mut trainer = Trainer::new(model, CrossEntropy::new(), Adam::new(0.05))
    ///     .checkpoint(Checkpoint::new("runs/iris").every_steps(100));
    /// if let Err(error) = trainer.fit(&data) {
    ///     eprintln!("{error}\n{}", trainer.explain("runs/iris", &data)?);
    /// }
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// There is no checkpoint and steps were taken, as [`Trainer::resume`], or the run fails for another reason.
    pub fn explain(&mut self, from: impl AsRef<Path>, train: impl Source<T>) -> Result<Explanation> {
        let (from, mut train) = (from.as_ref(), train);
        let Newest { mut archive, damaged } = newest::<T>(from, 0)?;
        let damaged: Vec<String> = damaged.iter().map(ToString::to_string).collect();
        let mut explanation = Explanation::default();
        for older in 1.. {
            match archive {
                Some(archive) => self.take_over(archive)?,
                None if !damaged.is_empty() => break,
                None if self.learner.run.steps == 0 => {
                    self.learner.optimizer.reset(); // a step that failed may have moved it
                    self.learner.run.passes = 0;
                }
                None => {
                    return Err(Error::state(format!(
                        "explain: expected a checkpoint at {}, got none; a new trainer begins at the start of the run",
                        from.display()
                    )));
                }
            }
            explanation = self.replay(&mut train)?;
            let first = explanation.steps.start;
            if explanation.first.as_ref().is_none_or(|found| found.step - first >= ENOUGH) {
                break;
            }
            archive = newest::<T>(from, older)?.archive;
            if archive.is_none() {
                break;
            }
        }
        Ok(Explanation { damaged, ..explanation })
    }

    /// The rest of the run, watched.
    fn replay(&mut self, train: &mut dyn Source<T>) -> Result<Explanation> {
        let first = self.learner.run.steps + 1;
        let witness = Witness::new();
        let observer = Arc::clone(&witness.observer);
        // A model without parts is looked at as a whole.
        let _ = watch(&mut self.learner.model, ["*"], &observer);
        self.learner.witness = Some(Box::new(witness));
        let aside = (
            self.checkpoint.take(),
            self.stop.take(),
            mem::replace(&mut self.learner.settings.progress, Progress::Silent),
        );
        let result = self.fit(train);
        (self.checkpoint, self.stop, self.learner.settings.progress) = aside;
        unwatch(&mut self.learner.model, &observer);
        let witness = self.learner.witness.take();
        let found = witness.as_ref().and_then(|witness| witness.finding());
        let last = match (&found, result) {
            (Some(found), _) => found.step,
            (None, Ok(_)) => self.learner.run.steps,
            (None, Err(error)) => return Err(error),
        };
        let leap = witness.and_then(|witness| witness.leap);
        Ok(Explanation { steps: first..last + 1, first: found, leap, damaged: Vec::new() })
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(i) => write!(f, "input {i}"),
            Self::Target(i) => write!(f, "target {i}"),
            Self::Activation(0) => f.write_str("the output"),
            Self::Activation(j) => write!(f, "output {j}"),
            Self::Loss => f.write_str("the loss"),
            Self::LossGradient(j) => write!(f, "∂E/∂y of the loss, prediction {j}"),
            Self::OutputGradient(0) => f.write_str("∂E/∂y"),
            Self::OutputGradient(j) => write!(f, "∂E/∂y, output {j}"),
            Self::InputGradient(0) => f.write_str("∂E/∂x"),
            Self::InputGradient(i) => write!(f, "∂E/∂x, input {i}"),
            Self::ParameterGradient(name) => write!(f, "the gradient of `{name}`"),
            Self::Parameter(name) => write!(f, "`{name}` after the optimizer's step"),
            Self::OptimizerState { parameter, name } => {
                write!(f, "the optimizer's state `{name}` of `{parameter}`")
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, epoch, path, tensor, value, position, sample, inputs } = self;
        write!(f, "step {step}, epoch {epoch}: the first value that is not finite is {value} ")?;
        if !position.is_empty() {
            write!(f, "at {position:?} ")?;
        }
        write!(f, "in {tensor}")?;
        if !path.is_empty() {
            write!(f, ", in layer `{path}`")?;
        }
        if let Some(Sample { in_batch, in_data, largest, usual }) = sample {
            write!(f, "\n  sample {in_batch} of the batch")?;
            if let Some(at) = in_data {
                write!(f, ", {at} of the data")?;
            }
            write!(
                f,
                ": its largest |x| is {}, the batch's median of that {}",
                number(*largest),
                number(*usual)
            )?;
        }
        table(f, inputs)
    }
}

/// Names and statistics, a line each.
fn table(f: &mut fmt::Formatter<'_>, lines: &[(String, Statistics)]) -> fmt::Result {
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    lines.iter().try_for_each(|(name, of)| write!(f, "\n  {name:width$}  {of}"))
}

impl fmt::Display for Leap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, parameter, ratio, inputs, vanished } = self;
        let ratio = number(*ratio);
        write!(f, "step {step}: the optimizer changed `{parameter}` by {ratio} times its size")?;
        table(f, inputs)?;
        for name in vanished {
            write!(
                f,
                "\n  `{name}` is 0 where the gradient is not: where it is a denominator, ε is all of it, and too small"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut paragraphs = Vec::new();
        paragraphs.extend(self.first.as_ref().map(ToString::to_string));
        paragraphs.extend(self.leap.as_ref().map(ToString::to_string));
        if self.first.is_none() && !self.steps.is_empty() {
            let Range { start, end } = self.steps;
            paragraphs.push(format!("every value is finite in steps {start} to {}", end - 1));
        }
        paragraphs
            .extend(self.damaged.iter().map(|error| format!("a checkpoint that cannot be read: {error}")));
        f.write_str(&paragraphs.join("\n"))
    }
}

impl<T: Scalar> fmt::Debug for Witness<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").field("now", &self.now).finish_non_exhaustive()
    }
}
