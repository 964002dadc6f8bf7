//! The laws of losses.

use super::{Broken, Law, Outcome, Targets, Violation, hold, layer::close, passes};
use crate::{check::Check, report::Report, subject::weights};
use chainrule_core::{Error, Loss, Reduction, Result, Rng, Scalar, Shape, Target, Tensor};

/// What sums in another order may differ by.
const ROUNDING: f64 = 1e-11;

/// One case of a loss: the prediction's shape, the kind of target, a seed.
#[derive(Clone, Debug)]
pub struct LossCase {
    seed: u64,
    prediction: Vec<usize>,
    targets: Targets,
    wrong: Vec<Vec<usize>>,
}

impl LossCase {
    /// A case; the seed decides every number in it.
    pub fn new(seed: u64, prediction: impl AsRef<[usize]>, targets: Targets) -> Self {
        Self { seed, prediction: prediction.as_ref().to_vec(), targets, wrong: Vec::new() }
    }

    /// A shape of predictions that does not fit the target and must be refused. May be repeated.
    #[must_use]
    pub fn wrong(mut self, shape: impl AsRef<[usize]>) -> Self {
        self.wrong.push(shape.as_ref().to_vec());
        self
    }
}

/// A prediction and a target.
struct Data<T> {
    y: Tensor<T>,
    t: Tensor<T>,
    classes: Option<Vec<usize>>,
}

impl<T: Scalar> Data<T> {
    fn target(&self) -> Target<'_, T> {
        match &self.classes {
            Some(classes) => Target::Classes(classes),
            None => Target::Values(&self.t),
        }
    }

    fn cast<U: Scalar>(&self) -> Data<U> {
        Data { y: self.y.cast(), t: self.t.cast(), classes: self.classes.clone() }
    }
}

fn data(case: &LossCase, shape: &[usize], count: Option<usize>, purpose: &str) -> Result<Data<f64>> {
    let (mut rng, shape) = (Rng::keyed(case.seed, purpose), Shape::new(shape)?);
    let mut normal = || Tensor::from_fn(shape, |_| f64::from(rng.normal() as f32));
    let (y, numbers) = (normal(), normal());
    let (t, classes) = match case.targets {
        Targets::Numbers => (numbers, None),
        Targets::Probabilities => (Tensor::from_fn(shape, |_| f64::from(rng.uniform() as f32)), None),
        Targets::Classes { count: usual, below, ignored } => {
            let count = count.unwrap_or(usual);
            let mut classes: Vec<usize> = (0..count).map(|_| rng.below(below)).collect();
            if let Some(ignored) = ignored {
                for class in classes.iter_mut().skip(1) {
                    *class = if rng.below(4) == 0 { ignored } else { *class };
                }
                if let Some(first) = classes.first_mut().filter(|c| **c == ignored) {
                    *first = (ignored + 1) % below; // something must count, or the mean is 0/0
                }
            }
            (Tensor::default(), Some(classes))
        }
    };
    Ok(Data { y, t, classes })
}

/// The loss and both gradients, into buffers that held something else.
struct Slopes<T> {
    loss: Tensor<T>,
    dy: Tensor<T>,
    dt: Tensor<T>,
}

fn slopes<T: Scalar>(loss: &impl Loss<T>, data: &Data<T>, dloss: &Tensor<T>) -> Result<Slopes<T>> {
    let nan = || Tensor::full([3], T::from_f64(f64::NAN));
    let mut out = Slopes { loss: nan(), dy: nan(), dt: nan() };
    loss.forward(&data.y, data.target(), &mut out.loss)?;
    let dt = data.classes.is_none().then_some(&mut out.dt);
    loss.backward(&data.y, data.target(), dloss, Some(&mut out.dy), dt)?;
    if data.classes.is_some() {
        out.dt = Tensor::zeros([0]);
    }
    Ok(out)
}

/// Tests the laws for a loss and its twin in f32 under every reduction, and returns what was broken.
///
/// This is what [`crate::loss_laws!`] runs for each case.
pub fn loss_laws<L: Loss<f64>, S: Loss<f32>>(
    case: &LossCase,
    build: impl Fn(Reduction) -> L,
    single: impl Fn(Reduction) -> S,
) -> Vec<Violation> {
    let mut out = Vec::new();
    let all = [Reduction::Mean, Reduction::Sum, Reduction::None];
    let each = |test: &dyn Fn(&L, &Data<f64>, &Tensor<f64>) -> Outcome| {
        all.into_iter().try_for_each(|reduction| {
            let (loss, data) = (build(reduction), data(case, &case.prediction, None, "data")?);
            loss.check()?;
            let shape = loss.output_shape(data.y.shape(), data.target())?;
            let dloss = passes::single(&weights(shape, &mut Rng::keyed(case.seed, "dloss")));
            test(&loss, &data, &dloss)
                .map_err(|Broken(what)| Broken(format!("reduction {reduction:?}: {what}")))
        })
    };
    let differences =
        |loss: &L, data: &Data<f64>| Check::new().seed(case.seed).loss_split(loss, &data.y, data.target());
    hold(Law::Shapes, &mut out, || each(&|loss, data, _| shapes(case, loss, data)));
    hold(Law::InputGradient, &mut out, || each(&|loss, data, _| agrees(&differences(loss, data)?.0)));
    hold(Law::TargetGradient, &mut out, || {
        each(&|loss, data, dloss| match data.classes {
            None => agrees(&differences(loss, data)?.1),
            Some(_) => refused("dt of classes", &|| {
                loss.backward(&data.y, data.target(), dloss, None, Some(&mut Tensor::default()))
            }),
        })
    });
    hold(Law::SameBits, &mut out, || each(&|loss, data, dloss| same_bits(case, loss, data, dloss)));
    hold(Law::OnePass, &mut out, || each(&|loss, data, _| one_pass(loss, data)));
    hold(Law::Linearity, &mut out, || each(&|loss, data, dloss| linear(case, loss, data, dloss)));
    hold(Law::Reductions, &mut out, || {
        let data = data(case, &case.prediction, None, "data")?;
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

fn agrees(report: &Report) -> Outcome {
    if report.passed() { Ok(()) } else { Err(Broken(report.to_string())) }
}

fn refused(what: &str, test: &dyn Fn() -> Result<()>) -> Outcome {
    test().err().map(drop).ok_or_else(|| Broken(format!("{what}: expected an error, got none")))
}

fn shapes(case: &LossCase, loss: &impl Loss<f64>, data: &Data<f64>) -> Outcome {
    let shape = loss.output_shape(data.y.shape(), data.target())?;
    let (mut e, target) = (Tensor::default(), data.target());
    loss.forward(&data.y, target, &mut e)?;
    if *e.shape() != shape {
        return Err(Broken(format!("output_shape says {shape}, forward makes {}", e.shape())));
    }
    if loss.reduction() != Reduction::None && !shape.is_empty() {
        return Err(Broken(format!("expected one number, got the shape {shape}")));
    }
    let s = slopes(loss, data, &Tensor::full(shape, 1.0))?;
    if s.dy.shape() != data.y.shape() {
        return Err(Broken(format!("expected dy of y's shape {}, got {}", data.y.shape(), s.dy.shape())));
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
    for wrong in &case.wrong {
        refuse(&Tensor::zeros(Shape::new(wrong)?), target, &format!("a prediction {wrong:?}"))?;
    }
    if let Some(classes) = &data.classes {
        let more = [&classes[..], &[0]].concat();
        refuse(&data.y, Target::Classes(&more), "one class too many")?;
        refuse(&data.y, Target::Classes(&classes[1..]), "one class too few")?;
        if let Targets::Classes { below, ignored, .. } = case.targets {
            for beyond in [below, usize::MAX].into_iter().filter(|&c| Some(c) != ignored) {
                let mut wrong = classes.clone();
                wrong[classes.len() - 1] = beyond;
                refuse(&data.y, Target::Classes(&wrong), &format!("the class {beyond} of {below}"))?;
            }
        }
    } else {
        let longer = Shape::new(&[&data.t.shape()[..], &[2]].concat())?;
        refuse(&data.y, Target::Values(&Tensor::zeros(longer)), "a target of another shape")?;
        refuse(&Tensor::zeros(longer), target, "a prediction of another shape")?;
    }
    // A gradient of another shape than the loss.
    let wrong = Tensor::zeros(Shape::new(&[&shape[..], &[2]].concat())?);
    refused("dloss of another shape", &|| {
        loss.backward(&data.y, target, &wrong, Some(&mut Tensor::default()), None)
    })
}

fn same_bits(case: &LossCase, loss: &impl Loss<f64>, data: &Data<f64>, dloss: &Tensor<f64>) -> Outcome {
    let want = slopes(loss, data, dloss)?;
    let mut reused = slopes(loss, data, dloss)?;
    passes::equal("loss", &reused.loss, &want.loss)?;
    // Larger buffers with other numbers, and each gradient alone.
    let used = Tensor::full([case.prediction.iter().product::<usize>() + 7], 7.0);
    (reused.loss, reused.dy, reused.dt) = (used.clone(), used.clone(), used);
    loss.forward(&data.y, data.target(), &mut reused.loss)?;
    loss.backward(&data.y, data.target(), dloss, Some(&mut reused.dy), None)?;
    passes::equal("loss", &reused.loss, &want.loss)?;
    passes::equal("dy alone", &reused.dy, &want.dy)?;
    if data.classes.is_none() {
        loss.backward(&data.y, data.target(), dloss, None, Some(&mut reused.dt))?;
        passes::equal("dt alone", &reused.dt, &want.dt)?;
    }
    Ok(())
}

fn near(what: &str, got: &Tensor<f64>, want: &Tensor<f64>) -> Outcome {
    passes::near(what, got, want, ROUNDING * passes::size(want), |_, at, got, want| {
        format!("{what}: expected {want}, got {got} at position {at}")
    })
}

fn one_pass(loss: &impl Loss<f64>, data: &Data<f64>) -> Outcome {
    let mut dy = Tensor::full([data.y.len() + 3], f64::NAN);
    if !loss.output_shape(data.y.shape(), data.target())?.is_empty() {
        return refused("value and gradient of several losses", &|| {
            loss.value_and_gradient(&data.y, data.target(), &mut Tensor::default()).map(drop)
        });
    }
    if loss.reduction() == Reduction::None {
        return Ok(());
    }
    let value = loss.value_and_gradient(&data.y, data.target(), &mut dy)?;
    let want = slopes(loss, data, &Tensor::from(1.0))?;
    near("loss", &Tensor::from(value), &want.loss)?;
    near("dy", &dy, &want.dy)
}

fn linear(case: &LossCase, loss: &impl Loss<f64>, data: &Data<f64>, dloss: &Tensor<f64>) -> Outcome {
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
fn reductions<L: Loss<f64>>(data: &Data<f64>, [mean, sum, none]: [L; 3]) -> Outcome {
    for (loss, want) in [(&mean, Reduction::Mean), (&sum, Reduction::Sum), (&none, Reduction::None)] {
        if loss.reduction() != want {
            return Err(Broken(format!("asked for {want:?}, got a loss that says {:?}", loss.reduction())));
        }
    }
    let shape = none.output_shape(data.y.shape(), data.target())?;
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

fn threads(case: &LossCase, loss: &impl Loss<f64>) -> Outcome {
    let Some((&first, rest)) = case.prediction.split_first().filter(|(n, _)| **n > 0) else { return Ok(()) };
    let times = 120_000usize.div_ceil(case.prediction.iter().product::<usize>().max(1));
    let shape = [&[first * times], rest].concat();
    let count = match case.targets {
        Targets::Classes { count, .. } => Some(count * times),
        _ => None,
    };
    let data = data(case, &shape, count, "large")?;
    let dloss = match loss.output_shape(data.y.shape(), data.target()) {
        Ok(shape) => Tensor::full(shape, 1.0),
        // Weights of single elements do not fit a larger batch, nor classes along the first axis.
        Err(_) => return Ok(()),
    };
    let with = |n| {
        chainrule_tensor::par::with_threads(n, || {
            let s = slopes(loss, &data, &dloss)?;
            let mut dy = Tensor::default();
            let value = if dloss.shape().is_empty() && loss.reduction() != Reduction::None {
                loss.value_and_gradient(&data.y, data.target(), &mut dy)?
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
