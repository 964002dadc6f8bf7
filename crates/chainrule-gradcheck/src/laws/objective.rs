//! The laws of objectives: losses of several predictions and targets.

use super::{
    Broken, Law, LossCase, Outcome, Violation, hold,
    layer::close,
    loss::{Data, agrees, data, near, refused},
    passes,
};
use crate::{
    check::Check,
    evaluate::{buffers, refs, weights},
};
use chainrule_core::{Objective, Reduction, Result, Rng, Scalar, Shape, Target, Tensor};

/// The loss, and ∂E/∂y of every prediction, into buffers that held something else.
struct Gradients<T> {
    loss: Tensor<T>,
    dys: Vec<Tensor<T>>,
}

fn views<T: Scalar>(data: &Data<T>) -> Vec<Target<'_, T>> {
    data.targets.iter().map(Target::from).collect()
}

fn evaluate<T: Scalar>(objective: &impl Objective<T = T>, data: &Data<T>) -> Result<Tensor<T>> {
    let mut loss = Tensor::full([3], T::from_f64(f64::NAN));
    objective.evaluate(&refs(&data.ys), &views(data), &mut loss)?;
    Ok(loss)
}

fn gradients<T: Scalar>(
    objective: &impl Objective<T = T>,
    data: &Data<T>,
    dloss: &Tensor<T>,
) -> Result<Gradients<T>> {
    let mut dys = vec![Tensor::full([3], T::from_f64(f64::NAN)); data.ys.len()];
    let mut requested: Vec<_> = dys.iter_mut().map(Some).collect();
    objective.differentiate(&refs(&data.ys), &views(data), dloss, &mut requested)?;
    Ok(Gradients { loss: evaluate(objective, data)?, dys })
}

/// Tests the laws for an objective and its twin in f32, and returns what was broken. This is what
/// [`crate::objective_laws!`] runs for each case.
pub fn objective_laws<O, S>(case: &LossCase, build: impl Fn() -> O, single: impl Fn() -> S) -> Vec<Violation>
where
    O: Objective<T = f64>,
    S: Objective<T = f32>,
{
    let mut out = Vec::new();
    let with = |test: &dyn Fn(&O, &Data<f64>, &Tensor<f64>) -> Outcome| {
        let (objective, data) = (build(), data(case, 1, "data")?);
        objective.verify()?;
        let shape = *evaluate(&objective, &data)?.shape();
        let dloss = passes::single(&weights(shape, &mut Rng::keyed(case.seed, "dloss")));
        test(&objective, &data, &dloss)
    };
    hold(Law::Shapes, &mut out, || with(&|o, data, dloss| shapes(case, o, data, dloss)));
    hold(Law::InputGradient, &mut out, || {
        with(&|o, data, _| agrees(&Check::new().seed(case.seed).objective(o, &data.ys, &views(data)[..])?))
    });
    hold(Law::SameBits, &mut out, || with(&same_bits));
    hold(Law::OnePass, &mut out, || with(&|o, data, dloss| one_pass(o, data, dloss)));
    hold(Law::Linearity, &mut out, || with(&|o, data, dloss| linear(case, o, data, dloss)));
    hold(Law::SinglePrecision, &mut out, || {
        with(&|o, data, dloss| {
            let (got, want) =
                (gradients(&single(), &data.cast(), &dloss.cast())?, gradients(o, data, dloss)?);
            close("loss", &got.loss.cast(), &want.loss, 1.0)?;
            let mut pairs = got.dys.iter().zip(&want.dys).enumerate();
            pairs.try_for_each(|(i, (got, want))| close(&format!("dy{i}"), &got.cast(), want, 1.0))
        })
    });
    if Rng::keyed(case.seed, "threads").below(4) == 0 {
        hold(Law::Threads, &mut out, || threads(case, &build()));
    }
    out
}

fn shapes(case: &LossCase, o: &impl Objective<T = f64>, data: &Data<f64>, dloss: &Tensor<f64>) -> Outcome {
    let counts = [o.predictions(), o.targets()];
    if counts != [data.ys.len(), data.targets.len()] {
        return Err(Broken(format!(
            "expected an objective of {} predictions and {} targets, got {} and {}",
            data.ys.len(),
            data.targets.len(),
            counts[0],
            counts[1]
        )));
    }
    if o.reduced_by() != Reduction::None && !dloss.shape().is_empty() {
        return Err(Broken(format!("expected one element, got the shape {}", dloss.shape())));
    }
    for (i, (y, dy)) in data.ys.iter().zip(gradients(o, data, dloss)?.dys).enumerate() {
        if dy.shape() != y.shape() {
            return Err(Broken(format!("expected dy{i} of y's shape {}, got {}", y.shape(), dy.shape())));
        }
    }
    let refuse = |what: &str, ys: &[Tensor<f64>], targets: &[Target<'_, f64>]| {
        let ys = refs(ys);
        refused(&format!("evaluate of {what}"), &|| o.evaluate(&ys, targets, &mut Tensor::default()))?;
        refused(&format!("differentiate of {what}"), &|| {
            let mut dys = buffers(ys.len());
            let mut requested: Vec<_> = dys.iter_mut().map(Some).collect();
            o.differentiate(&ys, targets, dloss, &mut requested)
        })?;
        refused(&format!("both of {what}"), &|| {
            o.value_and_gradients(&ys, targets, &mut buffers(ys.len())).map(drop)
        })
    };
    let targets = views(data);
    for wrong in &case.wrong {
        let ys: Vec<_> = wrong.iter().map(|s| Ok(Tensor::zeros(Shape::new(s)?))).collect::<Result<_>>()?;
        refuse(&format!("predictions {wrong:?}"), &ys, &targets)?;
    }
    let more = [&data.ys[..], &data.ys[..1]].concat();
    refuse("one prediction too many", &more, &targets)?;
    refuse("one prediction too few", &data.ys[1..], &targets)?;
    let more: Vec<_> = targets.iter().copied().chain([Target::Values(&data.ys[0])]).collect();
    refuse("one target too many", &data.ys, &more)?;
    if let Some((_, fewer)) = targets.split_last() {
        refuse("one target too few", &data.ys, fewer)?;
    }
    refused("dloss of another shape", &|| {
        gradients(o, data, &Tensor::zeros(dloss.shape().push(2)?)).map(drop)
    })
}

fn same_bits<O: Objective<T = f64>>(o: &O, data: &Data<f64>, dloss: &Tensor<f64>) -> Outcome {
    let want = gradients(o, data, dloss)?;
    let used = Tensor::full([data.ys.iter().map(Tensor::len).sum::<usize>() + 7], 7.0);
    let mut loss = used.clone();
    o.evaluate(&refs(&data.ys), &views(data), &mut loss)?;
    passes::equal("loss", &loss, &want.loss)?;
    // Each gradient alone, into a larger buffer.
    for (i, want) in want.dys.iter().enumerate() {
        let mut dys = vec![used.clone(); data.ys.len()];
        let mut requested: Vec<_> =
            dys.iter_mut().enumerate().map(|(j, dy)| (i == j).then_some(dy)).collect();
        o.differentiate(&refs(&data.ys), &views(data), dloss, &mut requested)?;
        passes::equal(&format!("dy{i} alone"), &dys[i], want)?;
    }
    Ok(())
}

fn one_pass<O: Objective<T = f64>>(o: &O, data: &Data<f64>, dloss: &Tensor<f64>) -> Outcome {
    let (ys, targets) = (refs(&data.ys), views(data));
    let mut dys = vec![Tensor::full([3], f64::NAN); ys.len()];
    if !dloss.shape().is_empty() {
        return refused("value and gradients of several losses", &|| {
            o.value_and_gradients(&ys, &targets, &mut buffers(ys.len())).map(drop)
        });
    }
    let value = o.value_and_gradients(&ys, &targets, &mut dys)?;
    let want = gradients(o, data, &Tensor::from(1.0))?;
    near("loss", &Tensor::from(value), &want.loss)?;
    dys.iter().zip(&want.dys).enumerate().try_for_each(|(i, (dy, want))| near(&format!("dy{i}"), dy, want))
}

fn linear(case: &LossCase, o: &impl Objective<T = f64>, data: &Data<f64>, dloss: &Tensor<f64>) -> Outcome {
    let other = weights(*dloss.shape(), &mut Rng::keyed(case.seed, "other dloss"));
    let mix = |a: &Tensor<f64>, b: &Tensor<f64>| {
        Tensor::from_fn(*a.shape(), |i| 0.75 * a.data()[i] - 2.5 * b.data()[i])
    };
    let dys = |dloss: &Tensor<f64>| gradients(o, data, dloss).map(|gradients| gradients.dys);
    let (one, two) = (dys(dloss)?, dys(&other)?);
    for (i, (got, (one, two))) in dys(&mix(dloss, &other))?.iter().zip(one.iter().zip(&two)).enumerate() {
        near(&format!("dy{i} of ¾ dloss − 2½ dloss′"), got, &mix(one, two))?;
    }
    let zero = dys(&Tensor::zeros(*dloss.shape()))?;
    let zero = zero.iter().flat_map(Tensor::data).all(|&v| v == 0.0);
    zero.then_some(()).ok_or_else(|| Broken("expected no gradient for dloss = 0".into()))
}

fn threads<O: Objective<T = f64>>(case: &LossCase, o: &O) -> Outcome {
    let elements = case.predictions.iter().map(|s| s.iter().product::<usize>()).max().unwrap_or(0);
    if elements == 0 {
        return Ok(());
    }
    let data = data(case, case.large.div_ceil(elements), "large")?;
    // What belongs to single samples does not fit a larger batch.
    let Ok(loss) = evaluate(o, &data) else { return Ok(()) };
    let dloss = Tensor::full(*loss.shape(), 1.0);
    let with = |n| chainrule_tensor::par::with_threads(n, || gradients(o, &data, &dloss));
    let want = with(1)?;
    for n in [2, 3] {
        let got = with(n)?;
        passes::equal(&format!("loss with {n} threads"), &got.loss, &want.loss)?;
        passes::all_equal(&format!("dy with {n} threads"), &got.dys, &want.dys)?;
    }
    Ok(())
}
