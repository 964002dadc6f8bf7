//! Laws about what passes over one layer have in common, and how tensors are compared.

use super::{Broken, Outcome, layer::Subject};
use crate::{
    evaluate::{Pass, backward, buffers, forward, pass, present, refs, weights},
    report::coordinate,
};
use chainrule_core::{Call, Context, Grads, Kind, Module, Parameters, Result, Scalar, Tensor};

/// What sums in another order may differ by, as a share of the largest value of a tensor (of 1, if all are smaller).
const ROUNDING: f64 = 1e-10;

/// The bits of two passes.
pub(super) fn equal_passes<T: Scalar>(when: &str, got: &Pass<T>, want: &Pass<T>) -> Outcome {
    all_equal(&format!("y{when}"), &got.ys, &want.ys)?;
    all_equal(&format!("dx{when}"), &got.dxs, &want.dxs)?;
    equal_grads(&format!("gradients{when}"), &got.grads, &want.grads)
}

pub(super) fn inference<M: Module<T = f64>>(subject: &Subject<'_, M>) -> Outcome {
    let Subject { case, module, xs, dys } = subject;
    let want = subject.pass(Context::frozen())?;
    // Noise would differ with the step and the place.
    for cx in [Context::infer(), Context::infer().step(9).child(2), Context::frozen().step(9).child(2)] {
        all_equal("y", &forward(module, xs, cx)?.0, &want.ys)?;
    }
    // After an inference, a cache that was recorded for other values is refused, or does not matter.
    let others = case.tensors(&case.inputs, "others")?;
    let mut ys = buffers(module.outputs());
    for (which, before) in
        [("a cache of training", Context::train(case.seed)), ("a cache of a frozen pass", Context::frozen())]
    {
        let mut state = M::State::default();
        module.apply(&refs(&others), &mut ys, &mut state, before)?;
        module.apply(&refs(xs), &mut ys, &mut state, Context::infer())?;
        refused_or_right(&format!("{which} after infer"), module, (xs, &ys, dys), &mut state, &want)?;
    }
    Ok(())
}

/// Backward gives what is right, or the error `NotRecorded`.
pub(super) fn refused_or_right<M: Module<T = f64>>(
    which: &str,
    module: &M,
    (xs, ys, dys): (&[Tensor<f64>], &[Tensor<f64>], &[Tensor<f64>]),
    state: &mut M::State,
    want: &Pass<f64>,
) -> Outcome {
    let (mut grads, mut dxs) = (Grads::new(module), buffers(xs.len()));
    match backward(module, (xs, ys, &present(dys)), state, &mut grads, &mut dxs, |_| true) {
        Err(error) if matches!(error.kind(), Kind::NotRecorded(_)) => Ok(()),
        Err(error) => Err(Broken(format!("backward with {which}: expected NotRecorded, got {error}"))),
        Ok(()) => {
            all_equal(&format!("dx by {which}"), &dxs, &want.dxs)?;
            equal_grads(&format!("gradients by {which}"), &grads, &want.grads)
        }
    }
}

pub(super) fn same_bits<M: Module<T = f64>>(subject: &Subject<'_, M>, cx: Context) -> Outcome {
    let Subject { module, xs, dys, .. } = subject;
    let want = subject.pass(cx)?;
    let nan = |t: &Tensor<f64>| {
        let mut t = t.clone();
        t.fill(f64::NAN);
        t
    };
    let (mut ys, mut state): (Vec<_>, _) = (want.ys.iter().map(nan).collect(), M::State::default());
    let (mut grads, mut dxs) = (Grads::new(module), want.dxs.iter().map(nan).collect::<Vec<_>>());
    module.apply(&refs(xs), &mut ys, &mut state, cx)?;
    all_equal("y", &ys, &want.ys)?;
    backward(module, (xs, &ys, &present(dys)), &mut state, &mut grads, &mut dxs, |_| true)?;
    all_equal("dx", &dxs, &want.dxs)?;
    equal_grads("gradients", &grads, &want.grads)?;
    let ([x], [dy]) = (&xs[..], &dys[..]) else { return Ok(()) };
    // The short way of one input and one output.
    let (mut y, mut dx) = (nan(&want.ys[0]), nan(&want.dxs[0]));
    let (mut state, mut grads) = (M::State::default(), Grads::new(module));
    module.apply_one(x, &mut y, &mut state, cx)?;
    equal("y of `apply_one`", &y, &want.ys[0])?;
    let requested = module.differentiable_input(0).then_some(&mut dx);
    module.pull_one(Call::recorded(x, &y, dy)?, &mut state, &mut grads, requested)?;
    equal("dx of `pull_one`", &dx, &want.dxs[0])?;
    equal_grads("gradients of `pull_one`", &grads, &want.grads)
}

pub(super) fn unread_outputs<M: Module<T = f64>>(subject: &Subject<'_, M>, cx: Context) -> Outcome {
    let Subject { module, xs, dys, .. } = subject;
    if module.reads_outputs() {
        return Ok(());
    }
    let want = subject.pass(cx)?;
    let (mut ys, mut state) = forward(module, xs, cx)?;
    ys.iter_mut().for_each(|y| y.fill(f64::NAN));
    let (mut grads, mut dxs) = (Grads::new(module), buffers(xs.len()));
    backward(module, (xs, &ys, &present(dys)), &mut state, &mut grads, &mut dxs, |_| true)?;
    all_equal("dx with y overwritten", &dxs, &want.dxs)?;
    equal_grads("gradients with y overwritten", &grads, &want.grads)
}

pub(super) fn two_backwards<M: Module<T = f64>>(subject: &Subject<'_, M>, cx: Context) -> Outcome {
    let Subject { module, xs, dys, .. } = subject;
    let (ys, mut state) = forward(module, xs, cx)?;
    let (mut grads, mut dxs) = (Grads::new(module), buffers(xs.len()));
    let dys = present(dys);
    backward(module, (xs, &ys, &dys), &mut state, &mut grads, &mut dxs, |_| true)?;
    let (once, first) = (named(module, &grads), dxs.clone());
    backward(module, (xs, &ys, &dys), &mut state, &mut grads, &mut dxs, |_| true)?;
    all_equal("dx of the second backward", &dxs, &first)?;
    for ((name, twice), (_, mut once)) in named(module, &grads).into_iter().zip(once) {
        once.data_mut().iter_mut().for_each(|g| *g += *g);
        rounding(&format!("gradient of {name} after two backwards"), &twice, &once)?;
    }
    Ok(())
}

pub(super) fn without_dx<M: Module<T = f64>>(subject: &Subject<'_, M>, cx: Context) -> Outcome {
    let Subject { module, xs, dys, .. } = subject;
    let want = subject.pass(cx)?;
    let n = xs.len();
    // None is requested; then all but one; then one alone.
    let mut masks = vec![vec![false; n]];
    if n > 1 {
        masks.extend((0..n).map(|k| (0..n).map(|i| i != k).collect()));
        masks.extend((0..n).map(|k| (0..n).map(|i| i == k).collect()));
    }
    for mask in masks {
        let (ys, mut state) = forward(module, xs, cx)?;
        let (mut grads, mut dxs) = (Grads::new(module), buffers(n));
        backward(module, (xs, &ys, &present(dys)), &mut state, &mut grads, &mut dxs, |i| mask[i])?;
        equal_grads(&format!("gradients with dx requested: {mask:?}"), &grads, &want.grads)?;
        for (i, _) in mask.iter().enumerate().filter(|(_, requested)| **requested) {
            equal(&format!("dx{i} with dx requested: {mask:?}"), &dxs[i], &want.dxs[i])?;
        }
    }
    Ok(())
}

pub(super) fn linear<M: Module<T = f64>>(subject: &Subject<'_, M>, cx: Context) -> Outcome {
    let Subject { case, module, xs, dys } = subject;
    let mut rng = case.rng("other dy");
    let other: Vec<_> = dys.iter().map(|dy| weights(*dy.shape(), &mut rng)).collect();
    let (a, b) = (0.75, -2.5);
    let mix = |one: &Tensor<f64>, two: &Tensor<f64>| {
        Tensor::from_fn(*one.shape(), |i| a * one.data()[i] + b * two.data()[i])
    };
    let mixed: Vec<_> = dys.iter().zip(&other).map(|(one, two)| mix(one, two)).collect();
    let zeros: Vec<_> = dys.iter().map(|dy| Tensor::zeros(*dy.shape())).collect();
    let gradients = |dys: &[Tensor<f64>]| -> Result<Vec<(String, Tensor<f64>)>> {
        let pass = pass(module, xs, &present(dys), cx)?;
        let dxs = pass.dxs.into_iter().enumerate().filter(|(i, _)| module.differentiable_input(*i));
        let dxs = dxs.map(|(i, dx)| (format!("dx{i}"), dx));
        Ok(dxs.chain(named(module, &pass.grads)).collect())
    };
    let (one, two) = (gradients(dys)?, gradients(&other)?);
    for ((name, got), ((_, one), (_, two))) in gradients(&mixed)?.into_iter().zip(one.into_iter().zip(two)) {
        // Where the summands cancel, rounding is that of the summands.
        let limit = ROUNDING * size(&one).max(size(&two));
        near(&name, &got, &mix(&one, &two), limit, |shape, at, got, want| {
            let name = coordinate(&name, shape, at);
            format!("{name}: {got} for ¾ dy − 2½ dy′, but {want} when they are done one by one")
        })?;
    }
    for (name, got) in gradients(&zeros)? {
        equal(&format!("|{name}| for dy = 0"), &abs(&got), &Tensor::zeros(*got.shape()))?;
    }
    Ok(())
}

fn abs(t: &Tensor<f64>) -> Tensor<f64> {
    Tensor::from_fn(*t.shape(), |i| t.data()[i].abs())
}

pub(super) fn reused_cache<M: Module<T = f64>>(subject: &Subject<'_, M>, cx: Context) -> Outcome {
    let Subject { case, module, xs, dys } = subject;
    let want = subject.pass(cx)?;
    let (mut ys, mut state) = (buffers(module.outputs()), M::State::default());
    let mut dxs = buffers(xs.len());
    // Larger, the same, smaller, the same, after another kind of pass.
    let sizes = [case.batch(|n| n + 3), case.inputs.clone(), case.batch(|n| n.div_ceil(2))];
    for (k, shapes) in sizes.iter().enumerate() {
        let others =
            [cx, Context::infer(), Context::stream(), Context::frozen(), Context::train(case.seed ^ 1)];
        for cx in others {
            let xs = case.tensors(shapes, "another batch")?;
            // A batch may be too small for this layer; the cache must be good afterwards all the same.
            if module.apply(&refs(&xs), &mut ys, &mut state, cx).is_ok() && cx.recording() {
                let ones: Vec<_> = ys.iter().map(|y| Tensor::full(*y.shape(), 1.0)).collect();
                let mut grads = Grads::new(module);
                backward(module, (&xs, &ys, &present(&ones)), &mut state, &mut grads, &mut dxs, |_| true)?;
            }
        }
        let mut grads = Grads::new(module);
        module.apply(&refs(xs), &mut ys, &mut state, cx)?;
        backward(module, (xs, &ys, &present(dys)), &mut state, &mut grads, &mut dxs, |_| true)?;
        let what = |what: &str| format!("{what} after a batch of {shapes:?} (round {k})");
        all_equal(&what("y"), &ys, &want.ys)?;
        all_equal(&what("dx"), &dxs, &want.dxs)?;
        equal_grads(&what("gradients"), &grads, &want.grads)?;
    }
    Ok(())
}

/// The in-place twin, in either precision.
pub(super) fn in_place<M: Module>(
    module: &M,
    xs: &[Tensor<f64>],
    dys: &[Tensor<f64>],
    cx: Context,
) -> Outcome {
    let Some(twin) = module.as_in_place() else { return Ok(()) };
    let ([x], [dy]) = (xs, dys) else {
        return Err(Broken("expected one input and one output where there is an in-place twin".into()));
    };
    let mut parameters = 0;
    module.visit(&mut |_, _| parameters += 1);
    if parameters > 0 {
        return Err(Broken(format!(
            "expected no parameters where there is an in-place twin, got {parameters}"
        )));
    }
    let (mut x, dy) = (x.cast::<M::T>(), dy.cast::<M::T>());
    // Zeros of both signs, and values at which functions saturate.
    for (x, v) in x.data_mut().iter_mut().zip([0.0, -0.0, 30.0, -30.0, 1e-30, -1e-30]) {
        *x = M::T::from_f64(v);
    }
    let want = pass(module, std::slice::from_ref(&x), &[Some(&dy)], cx)?;
    let (mut y, mut dx) = (x, dy);
    twin.forward_in_place(&mut y)?;
    equal("y in place", &y, &want.ys[0])?;
    twin.backward_in_place(&y, &mut dx);
    equal("dx in place", &dx, &want.dxs[0])
}

/// Copies every parameter and buffer by name.
pub(super) fn copy<P: Parameters, Q: Parameters>(from: &P, to: &mut Q) -> Result<(), String> {
    let mut saved = Vec::new();
    from.visit(&mut |path, p| saved.push((path.to_string(), p.tensor().map(Tensor::cast::<Q::T>))));
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
pub(super) fn named<P: Parameters>(model: &P, grads: &Grads<P::T>) -> Vec<(String, Tensor<P::T>)> {
    let mut out = Vec::new();
    model.visit(&mut |path, p| {
        if let Some(g) = grads.get(p) {
            out.push((path.to_string(), Tensor::from_fn(*p.shape(), |i| g[i])));
        }
    });
    out
}

/// The same values as f32 can hold.
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
    got.iter().zip(want).enumerate().try_for_each(|(i, (g, w))| equal(&format!("{what}, number {i}"), g, w))
}

pub(super) fn equal_grads<T: Scalar>(what: &str, got: &Grads<T>, want: &Grads<T>) -> Outcome {
    let tensor = |g: &Grads<T>| Tensor::from_fn([g.values().len()], |i| g.values()[i]);
    equal(what, &tensor(got), &tensor(want))
}

/// The largest value of a tensor; 1, if all are smaller.
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
    // NaN is near nothing but itself.
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
