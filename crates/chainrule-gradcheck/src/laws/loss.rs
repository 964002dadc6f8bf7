//! The laws of losses.

use super::{Broken, Law, Outcome, TargetKind, Values, Violation, hold, layer::close, passes};
use crate::{check::Check, evaluate::weights, report::Report};
use chainrule_core::{
    Classes, Error, Loss, Reduction, Result, Rng, Scalar, Sequences, Shape, Target, Targets, Tensor,
};

/// What sums in another order may differ by.
const ROUNDING: f64 = 1e-11;

/// One case of a loss: the shapes of its predictions, the kinds of its targets, a seed.
#[derive(Clone, Debug)]
pub struct LossCase {
    pub(super) seed: u64,
    pub(super) predictions: Vec<Vec<usize>>,
    pub(super) targets: Vec<TargetKind>,
    pub(super) wrong: Vec<Vec<Vec<usize>>>,
    values: Vec<Values>,
    pub(super) large: usize,
}

impl LossCase {
    /// A case of one prediction and one target; the seed decides every value in it.
    pub fn new(seed: u64, prediction: impl AsRef<[usize]>, target: TargetKind) -> Self {
        Self::several(seed, [prediction], [target])
    }

    /// A case of several predictions and targets.
    pub fn several(
        seed: u64,
        predictions: impl IntoIterator<Item = impl AsRef<[usize]>>,
        targets: impl IntoIterator<Item = TargetKind>,
    ) -> Self {
        Self {
            seed,
            predictions: predictions.into_iter().map(|s| s.as_ref().to_vec()).collect(),
            targets: targets.into_iter().collect(),
            wrong: Vec::new(),
            values: Vec::new(),
            large: 120_000,
        }
    }

    /// The elements of the largest prediction for [`Law::Threads`], 120,000 by default. Fewer for a loss whose cost grows as
    /// the square of the batch.
    #[must_use]
    pub fn large(self, elements: usize) -> Self {
        Self { large: elements, ..self }
    }

    /// What the next prediction holds, the first at first; standard normal values unless it is said. For losses of
    /// probabilities, variances and the like.
    #[must_use]
    pub fn values(mut self, values: Values) -> Self {
        self.values.push(values);
        self
    }

    /// A shape of the prediction that does not fit the target and must be refused. May be repeated.
    #[must_use]
    pub fn wrong(self, shape: impl AsRef<[usize]>) -> Self {
        self.wrong_predictions([shape])
    }

    /// [`LossCase::wrong`] for several predictions.
    #[must_use]
    pub fn wrong_predictions(mut self, shapes: impl IntoIterator<Item = impl AsRef<[usize]>>) -> Self {
        self.wrong.push(shapes.into_iter().map(|s| s.as_ref().to_vec()).collect());
        self
    }
}

/// Predictions and targets.
pub(super) struct Data<T> {
    pub(super) ys: Vec<Tensor<T>>,
    pub(super) targets: Vec<Targets<T>>,
}

impl<T: Scalar> Data<T> {
    fn y(&self) -> &Tensor<T> {
        &self.ys[0]
    }

    fn target(&self) -> Target<'_, T> {
        Target::from(&self.targets[0])
    }

    /// The target, if it is made of values: it has a gradient.
    fn values(&self) -> Option<&Tensor<T>> {
        self.target().values().ok()
    }

    pub(super) fn cast<U: Scalar>(&self) -> Data<U> {
        let target = |targets: &Targets<T>| match targets {
            Targets::Values(values) => Targets::Values(values.cast()),
            Targets::Classes { indices, shape } => {
                Targets::Classes { indices: indices.clone(), shape: *shape }
            }
            Targets::Sequences { indices, lengths } => {
                Targets::Sequences { indices: indices.clone(), lengths: lengths.clone() }
            }
        };
        Data {
            ys: self.ys.iter().map(Tensor::cast).collect(),
            targets: self.targets.iter().map(target).collect(),
        }
    }
}

/// Random predictions and targets, of so many times the case's samples.
pub(super) fn data(case: &LossCase, times: usize, purpose: &str) -> Result<Data<f64>> {
    let mut rng = Rng::keyed(case.seed, purpose);
    let more = |shape: &[usize]| {
        let mut shape = shape.to_vec();
        shape.iter_mut().take(1).for_each(|n| *n *= times);
        Shape::new(&shape)
    };
    let mut ys = Vec::new();
    for (i, shape) in case.predictions.iter().enumerate() {
        ys.push(case.values.get(i).unwrap_or(&Values::Normal).tensor(more(shape)?, &mut rng));
    }
    let mut targets = Vec::new();
    for (j, kind) in case.targets.iter().enumerate() {
        // A target of values has the shape of the prediction beside it.
        let beside = *ys.get(j).or(ys.first()).map_or(&Shape::default(), |y| y.shape());
        targets.push(match kind {
            TargetKind::Values => {
                Targets::Values(Tensor::from_fn(beside, |_| f64::from(rng.normal() as f32)))
            }
            TargetKind::Probabilities => {
                Targets::Values(Tensor::from_fn(beside, |_| f64::from(rng.uniform() as f32)))
            }
            TargetKind::Of { shape, values } => Targets::Values(values.tensor(more(shape)?, &mut rng)),
            TargetKind::Classes { shape, below, ignored } => {
                let shape = more(shape)?;
                Targets::Classes { indices: classes(shape.volume(), *below, *ignored, &mut rng), shape }
            }
            TargetKind::Sequences { samples, lengths, classes } => {
                let draw =
                    |range: &std::ops::Range<usize>, rng: &mut Rng| range.start + rng.below(range.len());
                let lengths: Vec<usize> = (0..samples * times).map(|_| draw(lengths, &mut rng)).collect();
                let indices = (0..lengths.iter().sum()).map(|_| draw(classes, &mut rng)).collect();
                Targets::Sequences { indices, lengths }
            }
        });
    }
    Ok(Data { ys, targets })
}

/// Random classes, some of them ignored but never all: their mean would be 0/0.
fn classes(count: usize, below: usize, ignored: Option<usize>, rng: &mut Rng) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..count).map(|_| rng.below(below)).collect();
    if let Some(ignored) = ignored {
        for class in classes.iter_mut().skip(1) {
            *class = if rng.below(4) == 0 { ignored } else { *class };
        }
        if let Some(first) = classes.first_mut().filter(|c| **c == ignored) {
            *first = (ignored + 1) % below;
        }
    }
    classes
}

/// The loss and both gradients, into buffers that held something else.
struct Slopes<T> {
    loss: Tensor<T>,
    dy: Tensor<T>,
    dt: Tensor<T>,
}

fn slopes<T: Scalar>(loss: &impl Loss<T = T>, data: &Data<T>, dloss: &Tensor<T>) -> Result<Slopes<T>> {
    let nan = || Tensor::full([3], T::from_f64(f64::NAN));
    let mut out = Slopes { loss: nan(), dy: nan(), dt: nan() };
    loss.forward(data.y(), data.target(), &mut out.loss)?;
    let dt = data.values().is_some().then_some(&mut out.dt);
    loss.backward(data.y(), data.target(), dloss, Some(&mut out.dy), dt)?;
    if data.values().is_none() {
        out.dt = Tensor::zeros([0]);
    }
    Ok(out)
}

/// Tests the laws for a loss and its twin in f32 under every reduction, and returns what was broken.
///
/// This is what [`crate::loss_laws!`] runs for each case.
pub fn loss_laws<L: Loss<T = f64>, S: Loss<T = f32>>(
    case: &LossCase,
    build: impl Fn(Reduction) -> L,
    single: impl Fn(Reduction) -> S,
) -> Vec<Violation> {
    let mut out = Vec::new();
    let all = [Reduction::Mean, Reduction::Sum, Reduction::None];
    let each = |test: &dyn Fn(&L, &Data<f64>, &Tensor<f64>) -> Outcome| {
        all.into_iter().try_for_each(|reduction| {
            let (loss, data) = (build(reduction), data(case, 1, "data")?);
            loss.check()?;
            let shape = loss.output_shape(data.y().shape(), data.target())?;
            let dloss = passes::single(&weights(shape, &mut Rng::keyed(case.seed, "dloss")));
            test(&loss, &data, &dloss)
                .map_err(|Broken(what)| Broken(format!("reduction {reduction:?}: {what}")))
        })
    };
    let differences = |loss: &L, data: &Data<f64>| {
        Check::new().seed(case.seed).prediction_and_target(loss, data.y(), data.target())
    };
    hold(Law::Shapes, &mut out, || each(&|loss, data, _| shapes(case, loss, data)));
    hold(Law::InputGradient, &mut out, || each(&|loss, data, _| agrees(&differences(loss, data)?[0])));
    hold(Law::TargetGradient, &mut out, || {
        each(&|loss, data, dloss| match data.values() {
            Some(_) => agrees(&differences(loss, data)?[1]),
            None => refused("dt of classes", &|| {
                loss.backward(data.y(), data.target(), dloss, None, Some(&mut Tensor::default()))
            }),
        })
    });
    hold(Law::SameBits, &mut out, || each(&|loss, data, dloss| same_bits(loss, data, dloss)));
    hold(Law::OnePass, &mut out, || each(&|loss, data, _| one_pass(loss, data)));
    hold(Law::Linearity, &mut out, || each(&|loss, data, dloss| linear(case, loss, data, dloss)));
    hold(Law::Reductions, &mut out, || {
        let data = data(case, 1, "data")?;
        reductions(&data, all.map(&build))
    });
    hold(Law::SinglePrecision, &mut out, || {
        each(&|loss, data, dloss| {
            let twin = single(loss.reduction());
            let (got, want) = (slopes(&twin, &data.cast(), &dloss.cast())?, slopes(loss, data, dloss)?);
            close("loss", &got.loss.cast(), &want.loss, 1.0)?;
            close("dy", &got.dy.cast(), &want.dy, 1.0)?;
            close("dt", &got.dt.cast(), &want.dt, 1.0)
        })
    });
    if Rng::keyed(case.seed, "threads").below(4) == 0 {
        hold(Law::Threads, &mut out, || each(&|loss, _, _| threads(case, loss)));
    }
    out
}

pub(super) fn agrees(report: &Report) -> Outcome {
    if report.passed() { Ok(()) } else { Err(Broken(report.to_string())) }
}

pub(super) fn refused(what: &str, test: &dyn Fn() -> Result<()>) -> Outcome {
    test().err().map(drop).ok_or_else(|| Broken(format!("{what}: expected an error, got none")))
}

fn shapes(case: &LossCase, loss: &impl Loss<T = f64>, data: &Data<f64>) -> Outcome {
    let shape = loss.output_shape(data.y().shape(), data.target())?;
    let (mut e, target) = (Tensor::default(), data.target());
    loss.forward(data.y(), target, &mut e)?;
    if *e.shape() != shape {
        return Err(Broken(format!("output_shape says {shape}, forward makes {}", e.shape())));
    }
    if loss.reduction() != Reduction::None && !shape.is_empty() {
        return Err(Broken(format!("expected one element, got the shape {shape}")));
    }
    let s = slopes(loss, data, &Tensor::full(shape, 1.0))?;
    if s.dy.shape() != data.y().shape() {
        return Err(Broken(format!("expected dy of y's shape {}, got {}", data.y().shape(), s.dy.shape())));
    }
    let refuse = |y: &Tensor<f64>, target: Target<'_, f64>, what: &str| {
        let one = Tensor::full(shape, 1.0);
        refused(&format!("output_shape of {what}"), &|| loss.output_shape(y.shape(), target).map(drop))?;
        refused(&format!("forward of {what}"), &|| loss.forward(y, target, &mut Tensor::default()))?;
        refused(&format!("backward of {what}"), &|| {
            loss.backward(y, target, &one, Some(&mut Tensor::default()), None)
        })?;
        refused(&format!("both of {what}"), &|| {
            loss.value_and_gradient(y, target, &mut Tensor::default()).map(drop)
        })
    };
    for wrong in case.wrong.iter().flatten() {
        refuse(&Tensor::zeros(Shape::new(wrong)?), target, &format!("a prediction {wrong:?}"))?;
    }
    match &data.targets[0] {
        Targets::Classes { indices, shape } => {
            let samples = shape.first().copied().unwrap_or(1);
            let sample = indices.len() / samples.max(1);
            for (n, text) in [(samples + 1, "one sample of classes too many"), (samples - 1, "one too few")] {
                let mut other = indices.clone();
                other.resize(n * sample, 0);
                refuse(data.y(), Classes::new(&other, shape.with(0, n))?.into(), text)?;
            }
            let flat = Shape::from([1, indices.len()]);
            if *shape != flat {
                refuse(data.y(), Classes::new(indices, flat)?.into(), "classes of another shape")?;
            }
            if let TargetKind::Classes { below, ignored, .. } = case.targets[0] {
                for beyond in [below, usize::MAX].into_iter().filter(|&c| Some(c) != ignored) {
                    let mut wrong = indices.clone();
                    wrong[indices.len() - 1] = beyond;
                    let wrong = Classes::new(&wrong, *shape)?.into();
                    refuse(data.y(), wrong, &format!("the class {beyond} of {below}"))?;
                }
            }
        }
        Targets::Values(t) => {
            let longer = Tensor::zeros(t.shape().push(2)?);
            refuse(data.y(), Target::Values(&longer), "a target of another shape")?;
            refuse(&longer, target, "a prediction of another shape")?;
        }
        Targets::Sequences { indices, lengths } => {
            let more = [&lengths[..], &[0]].concat();
            refuse(data.y(), Sequences::new(indices, &more)?.into(), "one sequence too many")?;
        }
    }
    // A gradient of another shape than the loss.
    let wrong = Tensor::zeros(shape.push(2)?);
    refused("dloss of another shape", &|| {
        loss.backward(data.y(), target, &wrong, Some(&mut Tensor::default()), None)
    })
}

fn same_bits(loss: &impl Loss<T = f64>, data: &Data<f64>, dloss: &Tensor<f64>) -> Outcome {
    let want = slopes(loss, data, dloss)?;
    let mut reused = slopes(loss, data, dloss)?;
    passes::equal("loss", &reused.loss, &want.loss)?;
    // Larger buffers with other values, and each gradient alone.
    let used = Tensor::full([data.y().len() + 7], 7.0);
    (reused.loss, reused.dy, reused.dt) = (used.clone(), used.clone(), used);
    loss.forward(data.y(), data.target(), &mut reused.loss)?;
    loss.backward(data.y(), data.target(), dloss, Some(&mut reused.dy), None)?;
    passes::equal("loss", &reused.loss, &want.loss)?;
    passes::equal("dy alone", &reused.dy, &want.dy)?;
    if data.values().is_some() {
        loss.backward(data.y(), data.target(), dloss, None, Some(&mut reused.dt))?;
        passes::equal("dt alone", &reused.dt, &want.dt)?;
    }
    Ok(())
}

pub(super) fn near(what: &str, got: &Tensor<f64>, want: &Tensor<f64>) -> Outcome {
    passes::near(what, got, want, ROUNDING * passes::size(want), |_, at, got, want| {
        format!("{what}: expected {want}, got {got} at position {at}")
    })
}

fn one_pass(loss: &impl Loss<T = f64>, data: &Data<f64>) -> Outcome {
    let mut dy = Tensor::full([data.y().len() + 3], f64::NAN);
    if !loss.output_shape(data.y().shape(), data.target())?.is_empty() {
        return refused("value and gradient of several losses", &|| {
            loss.value_and_gradient(data.y(), data.target(), &mut Tensor::default()).map(drop)
        });
    }
    if loss.reduction() == Reduction::None {
        return Ok(());
    }
    let value = loss.value_and_gradient(data.y(), data.target(), &mut dy)?;
    let want = slopes(loss, data, &Tensor::from(1.0))?;
    near("loss", &Tensor::from(value), &want.loss)?;
    near("dy", &dy, &want.dy)
}

fn linear(case: &LossCase, loss: &impl Loss<T = f64>, data: &Data<f64>, dloss: &Tensor<f64>) -> Outcome {
    let other = weights(*dloss.shape(), &mut Rng::keyed(case.seed, "other dloss"));
    let mix = |a: &Tensor<f64>, b: &Tensor<f64>| {
        Tensor::from_fn(*a.shape(), |i| 0.75 * a.data()[i] - 2.5 * b.data()[i])
    };
    let (one, two) = (slopes(loss, data, dloss)?, slopes(loss, data, &other)?);
    let (got, none) =
        (slopes(loss, data, &mix(dloss, &other))?, slopes(loss, data, &Tensor::zeros(*dloss.shape()))?);
    near("dy of ¾ dloss − 2½ dloss′", &got.dy, &mix(&one.dy, &two.dy))?;
    near("dt of ¾ dloss − 2½ dloss′", &got.dt, &mix(&one.dt, &two.dt))?;
    let zero = none.dy.data().iter().chain(none.dt.data()).all(|&v| v == 0.0);
    zero.then_some(()).ok_or_else(|| Broken("expected no gradient for dloss = 0".into()))
}

/// Mean, sum and none belong to the same single losses.
fn reductions<L: Loss<T = f64>>(data: &Data<f64>, [mean, sum, none]: [L; 3]) -> Outcome {
    for (loss, want) in [(&mean, Reduction::Mean), (&sum, Reduction::Sum), (&none, Reduction::None)] {
        if loss.reduction() != want {
            return Err(Broken(format!("expected a loss reduced by {want:?}, got {:?}", loss.reduction())));
        }
    }
    let shape = none.output_shape(data.y().shape(), data.target())?;
    let single = slopes(&none, data, &Tensor::full(shape, 1.0))?;
    let [sum, mean] = [&sum, &mean].map(|loss| slopes(loss, data, &Tensor::from(1.0)));
    let (sum, mean) = (sum?, mean?);
    near("sum", &sum.loss, &Tensor::from(single.loss.data().iter().sum::<f64>()))?;
    near("dy of the sum", &sum.dy, &single.dy)?;
    near("dt of the sum", &sum.dt, &single.dt)?;
    // sum = divisor · mean, and so are the slopes.
    let divisor = sum.loss.data()[0] / mean.loss.data()[0];
    if !(divisor > 0.0 || sum.loss.data()[0] == 0.0) {
        return Err(Broken(format!(
            "the mean {} is no share of the sum {}",
            mean.loss.data()[0],
            sum.loss.data()[0]
        )));
    }
    let share = |t: &Tensor<f64>| Tensor::from_fn(*t.shape(), |i| t.data()[i] / divisor);
    if divisor > 0.0 {
        near("dy of the mean", &mean.dy, &share(&sum.dy))?;
        near("dt of the mean", &mean.dt, &share(&sum.dt))?;
    }
    Ok(())
}

fn threads(case: &LossCase, loss: &impl Loss<T = f64>) -> Outcome {
    let elements = case.predictions.iter().map(|s| s.iter().product::<usize>()).max().unwrap_or(1);
    if elements == 0 {
        return Ok(());
    }
    let data = data(case, case.large.div_ceil(elements), "large")?;
    let dloss = match loss.output_shape(data.y().shape(), data.target()) {
        Ok(shape) => Tensor::full(shape, 1.0),
        // Weights of single elements do not fit a larger batch, nor classes along the first axis.
        Err(_) => return Ok(()),
    };
    let with = |n| {
        chainrule_tensor::par::with_threads(n, || {
            let s = slopes(loss, &data, &dloss)?;
            let mut dy = Tensor::default();
            let value = if dloss.shape().is_empty() && loss.reduction() != Reduction::None {
                loss.value_and_gradient(data.y(), data.target(), &mut dy)?
            } else {
                0.0
            };
            Ok::<_, Error>([s.loss, s.dy, s.dt, dy, Tensor::from(value)])
        })
    };
    let want = with(1)?;
    for n in [2, 3] {
        for (name, (got, want)) in
            ["loss", "dy", "dt", "dy in one pass", "loss in one pass"].iter().zip(with(n)?.iter().zip(&want))
        {
            passes::equal(&format!("{name} with {n} threads"), got, want)?;
        }
    }
    Ok(())
}
