//! Laws about what passes over one layer have in common, and how tensors are compared.

use super::{Broken, Outcome, layer::Bench};
use crate::{
    report::coordinate,
    subject::{refs, weights},
};
use chainrule_core::{Context, Grads, Kind, MultiLayer, Parameters, Result, Scalar, Tensor};

/// What sums in another order may differ by, as a share of the largest number of a tensor (of 1, if all are smaller).
const ROUNDING: f64 = 1e-10;

/// Law 4.
pub(super) fn inference<L: MultiLayer<f64>>(bench: &Bench<'_, L>) -> Outcome {
    let want = bench.pass(Context::frozen())?;
    // Noise would differ with the step and the place.
    for cx in [Context::infer(), Context::infer().step(9).child(2), Context::frozen().step(9).child(2)] {
        equal("y", &bench.subject.forward(&bench.xs, cx)?.0, &want.y)?;
    }
    // After an inference, a cache that was recorded for other numbers is refused, or does not matter.
    let others = bench.case.tensors(&bench.case.inputs, "others")?;
    let mut y = Tensor::default();
    for (which, before) in [
        ("a cache of training", Some(Context::train(bench.case.seed))),
        ("a cache of a frozen pass", Some(Context::frozen())),
        ("a fresh cache", None),
    ] {
        let mut cache = L::Cache::default();
        if let Some(mut before) = before {
            bench.subject.0.forward(&refs(&others), &mut y, &mut cache, &mut before)?;
            bench.subject.0.forward(&refs(&bench.xs), &mut y, &mut cache, &mut Context::infer())?;
        }
        let (mut grads, mut dxs) = (Grads::new(&bench.subject), vec![Tensor::default(); bench.xs.len()]);
        match bench.subject.backward((&bench.xs, &y, &bench.dy), &mut cache, &mut grads, &mut dxs, |_| true) {
            Err(error) if matches!(error.kind(), Kind::NotRecorded(_)) => {}
            Err(error) => {
                return Err(Broken(format!(
                    "backward with {which} after infer: expected NotRecorded, got {error}"
                )));
            }
            Ok(()) => {
                all_equal(&format!("dx by {which} after infer"), &dxs, &want.dxs)?;
                equal_grads(&format!("gradients by {which} after infer"), &grads, &want.grads)?;
            }
        }
    }
    Ok(())
}

/// Law 5.
pub(super) fn same_bits<L: MultiLayer<f64>>(bench: &Bench<'_, L>, mut cx: Context) -> Outcome {
    let want = bench.pass(cx)?;
    let nan = |t: &Tensor<f64>| Tensor::full(*t.shape(), f64::NAN);
    let (mut y, mut cache) = (nan(&want.y), L::Cache::default());
    let (mut grads, mut dxs) = (Grads::new(&bench.subject), bench.xs.iter().map(nan).collect::<Vec<_>>());
    bench.subject.0.forward(&refs(&bench.xs), &mut y, &mut cache, &mut cx)?;
    equal("y", &y, &want.y)?;
    if !bench.subject.0.reads_output() {
        // Another layer may have overwritten it.
        y.fill(f64::NAN);
    }
    bench.subject.backward((&bench.xs, &y, &bench.dy), &mut cache, &mut grads, &mut dxs, |_| true)?;
    all_equal("dx", &dxs, &want.dxs)?;
    equal_grads("gradients", &grads, &want.grads)
}

/// Law 6.
pub(super) fn two_backwards<L: MultiLayer<f64>>(bench: &Bench<'_, L>, cx: Context) -> Outcome {
    let (y, mut cache) = bench.subject.forward(&bench.xs, cx)?;
    let (mut grads, mut dxs) = (Grads::new(&bench.subject), vec![Tensor::default(); bench.xs.len()]);
    let call = (&bench.xs[..], &y, &bench.dy);
    bench.subject.backward(call, &mut cache, &mut grads, &mut dxs, |_| true)?;
    let (once, first) = (named(&bench.subject, &grads), dxs.clone());
    bench.subject.backward(call, &mut cache, &mut grads, &mut dxs, |_| true)?;
    all_equal("dx of the second backward", &dxs, &first)?;
    for ((name, twice), (_, mut once)) in named(&bench.subject, &grads).into_iter().zip(once) {
        once.data_mut().iter_mut().for_each(|g| *g += *g);
        rounding(&format!("gradient of {name} after two backwards"), &twice, &once)?;
    }
    Ok(())
}

/// Law 7.
pub(super) fn without_dx<L: MultiLayer<f64>>(bench: &Bench<'_, L>, cx: Context) -> Outcome {
    let want = bench.pass(cx)?;
    let n = bench.xs.len();
    // Nobody wants any; then all but one; then one alone.
    let mut masks = vec![vec![false; n]];
    if n > 1 {
        masks.extend((0..n).map(|k| (0..n).map(|i| i != k).collect()));
        masks.extend((0..n).map(|k| (0..n).map(|i| i == k).collect()));
    }
    for mask in masks {
        let (y, mut cache) = bench.subject.forward(&bench.xs, cx)?;
        let (mut grads, mut dxs) = (Grads::new(&bench.subject), vec![Tensor::default(); n]);
        bench.subject.backward((&bench.xs, &y, &bench.dy), &mut cache, &mut grads, &mut dxs, |i| mask[i])?;
        equal_grads(&format!("gradients with dx wanted: {mask:?}"), &grads, &want.grads)?;
        for (i, _) in mask.iter().enumerate().filter(|(_, wanted)| **wanted) {
            equal(&format!("dx{i} with dx wanted: {mask:?}"), &dxs[i], &want.dxs[i])?;
        }
    }
    Ok(())
}

/// Law 8.
pub(super) fn linear<L: MultiLayer<f64>>(bench: &Bench<'_, L>, cx: Context) -> Outcome {
    let other = weights(*bench.dy.shape(), &mut bench.case.rng("other dy"));
    let (a, b) = (0.75, -2.5);
    let pairs = bench.dy.data().iter().zip(other.data());
    let mixed = Tensor::from_vec(*bench.dy.shape(), pairs.map(|(x, y)| a * x + b * y).collect())?;
    let zero = Tensor::zeros(*bench.dy.shape());
    let tensors = |dy: &Tensor<f64>| -> Result<Vec<(String, Tensor<f64>)>> {
        let pass = bench.subject.pass(&bench.xs, dy, cx)?;
        let dxs = pass.dxs.into_iter().enumerate().map(|(i, dx)| (format!("dx{i}"), dx));
        Ok(dxs.chain(named(&bench.subject, &pass.grads)).collect())
    };
    let (one, two) = (tensors(&bench.dy)?, tensors(&other)?);
    for ((name, got), ((_, one), (_, two))) in tensors(&mixed)?.into_iter().zip(one.into_iter().zip(two)) {
        let sum = one.data().iter().zip(two.data()).map(|(x, y)| a * x + b * y);
        let want = Tensor::from_vec(*one.shape(), sum.collect())?;
        // Where the summands cancel, rounding is that of the summands.
        near(&name, &got, &want, ROUNDING * size(&one).max(size(&two)), |shape, at, got, want| {
            let name = coordinate(&name, shape, at);
            format!("{name}: {got} for ¾ dy − 2½ dy′, but {want} when they are done one by one")
        })?;
    }
    for (name, got) in tensors(&zero)? {
        equal(
            &format!("{name} for dy = 0, whose signs are not looked at"),
            &abs(&got),
            &Tensor::zeros(*got.shape()),
        )?;
    }
    Ok(())
}

fn abs(t: &Tensor<f64>) -> Tensor<f64> {
    Tensor::from_fn(*t.shape(), |i| t.data()[i].abs())
}

/// Law 9.
pub(super) fn reused_cache<L: MultiLayer<f64>>(bench: &Bench<'_, L>, cx: Context) -> Outcome {
    let want = bench.pass(cx)?;
    let (mut y, mut cache) = (Tensor::default(), L::Cache::default());
    let mut dxs = vec![Tensor::default(); bench.xs.len()];
    // Larger, the same, smaller, the same, after another kind of pass.
    let sizes = [bench.case.batch(|n| n + 3), bench.case.inputs.clone(), bench.case.batch(|n| n.div_ceil(2))];
    for (k, shapes) in sizes.iter().enumerate() {
        for mut cx in [cx, Context::infer(), Context::frozen(), Context::train(bench.case.seed ^ 1)] {
            let xs = bench.case.tensors(shapes, "another batch")?;
            // A batch may be too small for this layer; the cache must be good afterwards all the same.
            if bench.subject.0.forward(&refs(&xs), &mut y, &mut cache, &mut cx).is_ok() && cx.recording() {
                let dy = Tensor::full(*y.shape(), 1.0);
                let mut grads = Grads::new(&bench.subject);
                bench.subject.backward((&xs, &y, &dy), &mut cache, &mut grads, &mut dxs, |_| true)?;
            }
        }
        let mut grads = Grads::new(&bench.subject);
        bench.subject.0.forward(&refs(&bench.xs), &mut y, &mut cache, &mut cx.clone())?;
        bench.subject.backward((&bench.xs, &y, &bench.dy), &mut cache, &mut grads, &mut dxs, |_| true)?;
        let what = |what: &str| format!("{what} after a batch of {:?} (round {k})", shapes);
        equal(&what("y"), &y, &want.y)?;
        all_equal(&what("dx"), &dxs, &want.dxs)?;
        equal_grads(&what("gradients"), &grads, &want.grads)?;
    }
    Ok(())
}

/// Copies every parameter and buffer by name.
pub(super) fn copy<T: Scalar, U: Scalar>(
    from: &impl Parameters<T>,
    to: &mut impl Parameters<U>,
) -> Result<(), String> {
    let mut saved = Vec::new();
    from.visit(&mut |path, p| saved.push((path.to_string(), p.tensor().map(Tensor::cast::<U>))));
    let mut result = Ok(());
    to.visit_mut(&mut |path, p| {
        let name = path.to_string();
        match saved.iter().position(|(saved, _)| *saved == name).map(|at| saved.swap_remove(at)) {
            Some((_, Some(value))) => result = result.clone().and(p.set(value).map_err(|e| e.to_string())),
            _ => result = Err(format!("the layer built anew has `{name}`, which was not saved")),
        }
    });
    match saved.first() {
        Some((name, _)) => Err(format!("the layer built anew has no `{name}`")),
        None => result,
    }
}

/// The gradient of each parameter with its name.
pub(super) fn named<T: Scalar>(model: &impl Parameters<T>, grads: &Grads<T>) -> Vec<(String, Tensor<T>)> {
    let mut out = Vec::new();
    model.visit(&mut |path, p| {
        if let Some(g) = grads.get(p) {
            out.push((path.to_string(), Tensor::from_fn(*p.shape(), |i| g[i])));
        }
    });
    out
}

/// The same numbers as f32 can hold.
pub(super) fn single(t: &Tensor<f64>) -> Tensor<f64> {
    t.cast::<f32>().cast()
}

/// The same shape and the same bits.
pub(super) fn equal<T: Scalar>(what: &str, got: &Tensor<T>, want: &Tensor<T>) -> Outcome {
    if got.shape() != want.shape() {
        return Err(Broken(format!("{what}: expected shape {}, got {}", want.shape(), got.shape())));
    }
    let differ = |(g, w): (&T, &T)| g.to_f64().to_bits() != w.to_f64().to_bits();
    match got.data().iter().zip(want.data()).position(differ) {
        Some(at) => Err(Broken(format!(
            "{}: expected {}, got {}",
            coordinate(what, want.shape(), at),
            want.data()[at],
            got.data()[at]
        ))),
        None => Ok(()),
    }
}

pub(super) fn all_equal<T: Scalar>(what: &str, got: &[Tensor<T>], want: &[Tensor<T>]) -> Outcome {
    got.iter().zip(want).enumerate().try_for_each(|(i, (g, w))| equal(&format!("{what} (input {i})"), g, w))
}

pub(super) fn equal_grads<T: Scalar>(what: &str, got: &Grads<T>, want: &Grads<T>) -> Outcome {
    let tensor = |g: &Grads<T>| Tensor::from_fn([g.values().len()], |i| g.values()[i]);
    equal(what, &tensor(got), &tensor(want))
}

/// The largest number of a tensor; 1, if all are smaller.
pub(super) fn size(t: &Tensor<f64>) -> f64 {
    t.data().iter().fold(1.0, |m, v| m.max(v.abs()))
}

/// The same within a limit.
pub(super) fn near(
    what: &str,
    got: &Tensor<f64>,
    want: &Tensor<f64>,
    limit: f64,
    text: impl Fn(&[usize], usize, f64, f64) -> String,
) -> Outcome {
    if got.shape() != want.shape() {
        return Err(Broken(format!("{what}: expected shape {}, got {}", want.shape(), got.shape())));
    }
    let pairs = got.data().iter().zip(want.data());
    // Not-a-number is near nothing but itself.
    let far = |(g, w): (&f64, &f64)| !((g - w).abs() <= limit || g.to_bits() == w.to_bits());
    match pairs.clone().position(far) {
        Some(at) => Err(Broken(text(want.shape(), at, got.data()[at], want.data()[at]))),
        None => Ok(()),
    }
}

fn rounding(what: &str, got: &Tensor<f64>, want: &Tensor<f64>) -> Outcome {
    near(what, got, want, ROUNDING * size(want), |shape, at, got, want| {
        format!("{}: expected {want}, got {got}", coordinate(what, shape, at))
    })
}
