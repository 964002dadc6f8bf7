//! Statistics of every layer while a model is trained, and warnings where they say that something is wrong.

use crate::{Callback, Epoch, History, Statistics, history::number, snapshot::Snapshot};
use chainrule_core::{
    Error, Event, Grads, Module, Observer, Result, Scalar, Seen, Shape, Tensor, unwatch, watch,
};
use chainrule_tensor::compiled;
use std::{
    collections::HashSet,
    fmt,
    io::{self, Write},
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Looks at the first step of a fit and at every k-th: activations and ∂E/∂y of every part, gradients and updates of every
/// parameter, as a table on standard error, with a warning where they are unlike those of a training that goes well. Each
/// warning comes once for a layer. Between these steps a model is trained as without it, and the bits are always those.
///
/// | warning | where | source |
/// |---|---|---|
/// | dead ReLUs | 40 % of the units of a ReLU are 0 for every sample of the step; channels are the units of images | Karpathy, CS231n, 2015 |
/// | vanishing gradients | the root mean square of ∂E/∂y is below 10⁻⁶ of that of the layer next to the loss | Glorot and Bengio, 2010, for what it is; the bound is ours |
/// | exploding gradients | it is above 10⁴ of it | Pascanu, Mikolov and Bengio, 2013, likewise |
/// | learning rate | ‖Δw‖/‖w‖ of a weight of two or more axes is not within a factor of 100 of 10⁻³ | Karpathy, CS231n, 2015: about 10⁻³ |
/// | not finite | a value is infinite or NaN | [`crate::Trainer::explain`] says why |
///
/// ```
/// # use chainrule_train::Trainer;
/// # use chainrule_layers::Linear;
/// # use chainrule_losses::Mse;
/// # use chainrule_core::Parameters;
/// # use chainrule_optim::Adam;
/// use chainrule_train::Monitor;
/// # let model = Linear::<f32>::new(2, 1).init(0)?;
/// let trainer = Trainer::new(model, Mse::new(), Adam::new(1e-3)).callback(Monitor::every(100));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub struct Monitor<T: Scalar = f32> {
    every: u64,
    tally: Arc<Tally>,
    observer: Arc<dyn Observer<T>>,
    watching: bool,
    before: Snapshot<T>,
    parameters: Vec<ParameterStatistics>,
    warned: HashSet<(Trouble, String)>,
    tell: Box<dyn FnMut(&Health) -> Result<()> + Send>,
}

/// What a [`Monitor`] saw in a step. Prints as a table.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Health {
    /// The step, the first is 1.
    pub step: u64,
    /// Of every part of the model, in the order of their forward passes.
    pub layers: Vec<LayerStatistics>,
    /// Of every parameter that learns.
    pub parameters: Vec<ParameterStatistics>,
    /// What is wrong and was not told of before.
    pub warnings: Vec<Warning>,
}

/// The part of a model in a step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerStatistics {
    /// Its path.
    pub path: String,
    /// Its kind.
    pub kind: String,
    /// Its outputs.
    pub activations: Statistics,
    /// ∂E/∂y.
    pub gradients: Statistics,
    /// The share of the units of a ReLU that were 0 for every sample.
    pub dead: Option<f64>,
}

/// A parameter in a step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ParameterStatistics {
    /// Its path.
    pub path: String,
    /// Its values before the step.
    pub values: Statistics,
    /// Its gradient, before it was clipped.
    pub gradients: Statistics,
    /// What the optimizer added to it.
    pub update: Statistics,
    /// ‖Δw‖/‖w‖; infinite of a parameter that was 0.
    pub ratio: f64,
    /// Whether it has two or more axes.
    matrix: bool,
}

/// A kind of warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trouble {
    /// Most units of a ReLU are 0 for every sample.
    DeadUnits,
    /// ∂E/∂y is far smaller than next to the loss.
    VanishingGradient,
    /// ∂E/∂y is far larger than next to the loss.
    ExplodingGradient,
    /// The updates of a weight are far too large.
    RateTooHigh,
    /// The updates of a weight are far too small.
    RateTooLow,
    /// A value is infinite or NaN.
    NotFinite,
}

/// Something that is wrong, and where. Prints as a sentence.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Warning {
    /// What.
    pub trouble: Trouble,
    /// The layer or the parameter.
    pub path: String,
    /// The share, ratio or count that is wrong.
    pub value: f64,
}

/// The bounds of the table above.
const DEAD: f64 = 0.4;
const VANISHING: f64 = 1e-6;
const EXPLODING: f64 = 1e4;
const RATIO: f64 = 1e-3;
const FAR: f64 = 100.0;

/// Sees the parts of a step.
#[derive(Default)]
struct Tally(Mutex<Vec<Layer>>);

struct Layer {
    seen: LayerStatistics,
    /// Whether each unit of a ReLU was other than 0.
    alive: Vec<bool>,
}

impl Tally {
    fn layers(&self) -> MutexGuard<'_, Vec<Layer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

compiled! {
    /// Marks the units that are not 0: `inner` values of each are adjacent, and they come again and again.
    fn mark[T](y: &[T], inner: usize, alive: &mut [bool]) {
        for (i, values) in y.chunks(inner).enumerate() {
            let unit = i % alive.len();
            alive[unit] |= values.iter().any(|v| *v != T::ZERO);
        }
    }
}

/// How many units a sample has, and of how many values each: channels of images, otherwise single values.
fn units(shape: &Shape) -> (usize, usize) {
    match shape[..] {
        [_, channels, _, _, ..] => (channels, shape[2..].iter().product()),
        [_, ref sample @ ..] => (sample.iter().product(), 1),
        [] => (1, 1),
    }
}

impl<T: Scalar> Observer<T> for Tally {
    fn see(&self, Seen { path, part, event, .. }: Seen<'_, T>) {
        let mut layers = self.layers();
        let at = layers.iter().position(|layer| layer.seen.path == path).unwrap_or_else(|| {
            let kind = part.to_spec().kind().to_owned();
            let (activations, gradients) = Default::default();
            let seen = LayerStatistics { path: path.to_owned(), kind, activations, gradients, dead: None };
            layers.push(Layer { seen, alive: Vec::new() });
            layers.len() - 1
        });
        let layer = &mut layers[at];
        let all = |tensors: &mut dyn Iterator<Item = &Tensor<T>>, sum: Statistics| {
            tensors.fold(sum, |sum, t| sum.and(Statistics::of(t.data())))
        };
        match event {
            Event::Forward(ys) => {
                layer.seen.activations = all(&mut ys.iter(), layer.seen.activations);
                if let ("Relu" | "Relu6" | "SquaredRelu", [y]) = (&layer.seen.kind[..], ys) {
                    let (units, inner) = units(y.shape());
                    layer.alive.resize(units.max(1), false);
                    mark(y.data(), inner.max(1), &mut layer.alive);
                    let dead = layer.alive.iter().filter(|alive| !**alive).count();
                    layer.seen.dead = Some(dead as f64 / layer.alive.len() as f64);
                }
            }
            Event::Backward { dys, .. } => {
                layer.seen.gradients = all(&mut dys.iter().copied().flatten(), layer.seen.gradients);
            }
        }
    }
}

impl<T: Scalar> Monitor<T> {
    /// The first step of a fit, and every `k`-th.
    pub fn every(k: u64) -> Self {
        let tally = Arc::new(Tally::default());
        let observer = tally.clone();
        Self {
            every: k,
            tally,
            observer,
            watching: false,
            before: Snapshot::default(),
            parameters: Vec::new(),
            warned: HashSet::new(),
            tell: Box::new(|health| {
                let _ = writeln!(io::stderr(), "{health}"); // training goes on without a terminal
                Ok(())
            }),
        }
    }

    /// Gives what it sees to a closure, in place of standard error.
    #[must_use]
    pub fn tell(mut self, tell: impl FnMut(&Health) -> Result<()> + Send + 'static) -> Self {
        self.tell = Box::new(tell);
        self
    }

    fn begin(&mut self, model: &mut impl Module<T = T>) {
        self.tally.layers().clear();
        // A model without parts has parameters alone to look at.
        let _ = watch(model, ["*"], &self.observer);
        self.watching = true;
    }

    fn end(&mut self, model: &mut impl Module<T = T>) {
        unwatch(model, &self.observer);
        self.watching = false;
    }

    fn health(&mut self, step: u64, model: &impl Module<T = T>) -> Health {
        let mut parameters = std::mem::take(&mut self.parameters).into_iter();
        let mut done = Vec::new();
        self.before.visit(model, &mut |_, p, before| {
            let Ok(now) = p.value() else { return };
            if p.trainable()
                && let Some(parameter) = parameters.next()
            {
                let update: Vec<T> = now.iter().zip(before).map(|(&now, &before)| now - before).collect();
                let update = Statistics::of(&update);
                let ratio = update.rms() / parameter.values.rms();
                done.push(ParameterStatistics { update, ratio, ..parameter });
            }
        });
        let layers = self.tally.layers().drain(..).map(|layer| layer.seen).collect();
        let mut health = Health { step, layers, parameters: done, warnings: Vec::new() };
        let warned = &mut self.warned;
        health.warnings = troubles(&health);
        health.warnings.retain(|warning| warned.insert((warning.trouble, warning.path.clone())));
        health
    }
}

/// All that is wrong.
fn troubles(health: &Health) -> Vec<Warning> {
    let mut all = Vec::new();
    let mut warn = |trouble, path: &str, value| all.push(Warning { trouble, path: path.to_owned(), value });
    let seen = |layer: &&LayerStatistics| layer.gradients.count > 0;
    let last = health.layers.iter().rev().find(seen).map_or(0.0, |layer| layer.gradients.rms());
    for layer in &health.layers {
        let (path, ratio) = (&layer.path, layer.gradients.rms() / last);
        let not_finite = layer.activations.not_finite + layer.gradients.not_finite;
        if not_finite > 0 {
            warn(Trouble::NotFinite, path, not_finite as f64);
        }
        if let Some(dead) = layer.dead.filter(|dead| *dead >= DEAD) {
            warn(Trouble::DeadUnits, path, dead);
        }
        match ratio {
            _ if layer.gradients.count == 0 || last == 0.0 => {}
            ratio if ratio < VANISHING => warn(Trouble::VanishingGradient, path, ratio),
            ratio if ratio > EXPLODING => warn(Trouble::ExplodingGradient, path, ratio),
            _ => {}
        }
    }
    for p in health.parameters.iter().filter(|p| p.matrix && p.values.rms() > 0.0) {
        match p.ratio {
            ratio if ratio > RATIO * FAR => warn(Trouble::RateTooHigh, &p.path, ratio),
            ratio if ratio < RATIO / FAR => warn(Trouble::RateTooLow, &p.path, ratio),
            _ => {}
        }
    }
    all
}

impl<T: Scalar, M: Module<T = T>> Callback<M> for Monitor<T> {
    fn on_fit_start(&mut self, _: &[String], model: &mut M) -> Result<()> {
        if self.every == 0 {
            return Err(Error::value("monitor: expected every 1 step or more, got 0"));
        }
        self.end(model); // of a fit that failed
        self.warned.clear();
        self.begin(model);
        Ok(())
    }

    fn on_gradients(&mut self, _: u64, model: &M, grads: &mut Grads<T>) -> Result<()> {
        if !self.watching {
            return Ok(());
        }
        self.before.take(model)?;
        self.parameters.clear();
        model.try_visit(&mut |path, p| {
            if p.trainable() {
                self.parameters.push(ParameterStatistics {
                    path: path.to_string(),
                    values: Statistics::of(p.value()?),
                    gradients: grads.get(p).map_or_else(Statistics::default, Statistics::of),
                    update: Statistics::default(),
                    ratio: 0.0,
                    matrix: p.shape().len() > 1,
                });
            }
            Ok(())
        })
    }

    fn on_step_end(&mut self, step: u64, _: f64, model: &mut M) -> Result<ControlFlow<()>> {
        if self.watching {
            self.end(model);
            let health = self.health(step, model);
            (self.tell)(&health)?;
        }
        if (step + 1).is_multiple_of(self.every) {
            self.begin(model);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn on_epoch_end(&mut self, _: &Epoch, _: &mut M) -> Result<ControlFlow<()>> {
        self.tally.layers().clear(); // the validation's
        Ok(ControlFlow::Continue(()))
    }

    fn on_fit_end(&mut self, _: &History, model: &mut M) -> Result<()> {
        self.end(model);
        Ok(())
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trouble, path, value } = self;
        let (percent, ratio) = (100.0 * value, number(*value));
        match trouble {
            Trouble::DeadUnits => write!(
                f,
                "`{path}`: {percent:.0} % of its units are 0 for every sample: a smaller learning rate, another initialisation \
                 or LeakyRelu may help"
            ),
            Trouble::VanishingGradient => write!(
                f,
                "`{path}`: ∂E/∂y is {ratio} of what it is next to the loss and vanishes: normalisation, a way around or \
                 another activation may help"
            ),
            Trouble::ExplodingGradient => write!(
                f,
                "`{path}`: ∂E/∂y is {ratio} times what it is next to the loss and explodes: clipping, normalisation or a \
                 smaller initialisation may help"
            ),
            Trouble::RateTooHigh => write!(
                f,
                "`{path}`: a step changes it by {ratio} of its size, where about 1e-3 is usual: the learning rate may be far too high"
            ),
            Trouble::RateTooLow => write!(
                f,
                "`{path}`: a step changes it by {ratio} of its size, where about 1e-3 is usual: the learning rate may be far too low"
            ),
            Trouble::NotFinite => write!(f, "`{path}`: {value} values are infinite or NaN"),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let with = |s: &Statistics| [s.mean, s.deviation, s.min, s.max].map(number);
        let mut rows = vec![
            [
                "layer",
                "kind",
                "y: mean",
                "deviation",
                "min",
                "max",
                "zeros",
                "∂E/∂y: mean",
                "deviation",
                "dead",
            ]
            .map(String::from)
            .to_vec(),
        ];
        for layer in &self.layers {
            let mut row = vec![layer.path.clone(), layer.kind.clone()];
            row.extend(with(&layer.activations));
            row.push(percent(layer.activations.share_of_zeros()));
            row.extend([layer.gradients.mean, layer.gradients.deviation].map(number));
            row.push(layer.dead.map_or(String::new(), percent));
            rows.push(row);
        }
        write!(f, "step {}", self.step)?;
        table(f, &rows)?;
        let mut rows = vec![
            ["parameter", "w: mean", "deviation", "min", "max", "∂E/∂w: mean", "deviation", "‖Δw‖/‖w‖"]
                .map(String::from)
                .to_vec(),
        ];
        for p in &self.parameters {
            let mut row = vec![p.path.clone()];
            row.extend(with(&p.values));
            row.extend([p.gradients.mean, p.gradients.deviation, p.ratio].map(number));
            rows.push(row);
        }
        table(f, &rows)?;
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

/// Columns of equal width, the first two of text to the left; nothing of a header alone.
fn table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    if rows.len() < 2 {
        return Ok(());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let text = i == 0 || rows[0][i] == "kind";
            line += &if text { format!("  {cell:width$}") } else { format!("  {cell:>width$}") };
        }
        write!(f, "\n{}", line.trim_end())?;
    }
    Ok(())
}

impl<T: Scalar> fmt::Debug for Monitor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("every", &self.every).finish_non_exhaustive()
    }
}
