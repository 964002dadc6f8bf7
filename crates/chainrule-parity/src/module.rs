//! Running one case of a layer or a loss.

use crate::{
    Step, Stop, attention,
    case::{Array, Case, Input},
    compare::{Kind, agree, gradient, shapes, values},
};
use chainrule_core::{
    AnyState, BoxModule, Call, Context, Grads, Module, ModuleCall, Objective, Param, Parameters, Path,
    Reduction, Registry, Scalar, Shape, Target, Targets, Tensor,
};
use std::collections::BTreeMap;

/// Builds, runs and compares.
pub fn run<T: Scalar>(registry: &Registry<T>, case: &Case) -> Step<()> {
    if let Some(spec) = case.args.spec(registry.modules(), &case.module)? {
        if let Some(given) = attention::Inputs::of(case)? {
            let module = registry.build_module(&given.extended(spec, case))?;
            return run_module(case, module, &given.arrays(), Some(given.tensors(case)?));
        }
        let module = registry.build_module(&spec)?;
        return run_module(case, module, &tensors(case)?, None);
    }
    let Some(spec) = case.args.spec(registry.losses(), &case.module)? else {
        return Err(Stop::Skip("module".into()));
    };
    run_loss(case, &*registry.build_loss(&spec)?, &tensors(case)?)
}

/// The inputs, each of which must be one tensor.
fn tensors(case: &Case) -> Step<Vec<&Array>> {
    let refused = |what: &str, name: &Option<String>| {
        Stop::Skip(format!("{what} as argument {} of forward", name.as_deref().unwrap_or("input")))
    };
    let one = |(name, input): &'_ (Option<String>, Input)| match input {
        Input::Array(_) => Ok(()),
        // The lengths of a CTC loss.
        Input::Numbers(_) if case.module == "CTCLoss" => Ok(()),
        Input::Numbers(_) => Err(refused("a list", name)),
        Input::Other(what) => Err(refused(what, name)),
    };
    case.inputs.iter().try_for_each(one)?;
    if case.outputs.is_empty() {
        return Err(Stop::Fail("the case has no output".into()));
    }
    let arrays = case.inputs.iter().filter_map(|(_, input)| match input {
        Input::Array(array) | Input::Numbers(array) => Some(array),
        Input::Other(_) => None,
    });
    Ok(arrays.collect())
}

/// PyTorch's backward passes with 1/α and 1/6 rounded to f32, whatever the type. Ours are exact: they differ by up to the roundoff of
/// f32, 6e-8, times the gradient.
const ROUNDED: [&str; 2] = ["CELU", "Hardsigmoid"];

/// With `given`, the inputs are those, which have all their axes; outputs may then have one more than PyTorch's.
fn run_module<T: Scalar>(
    case: &Case,
    mut module: BoxModule<T>,
    arrays: &[&Array],
    given: Option<Vec<Tensor<T>>>,
) -> Step<()> {
    set_state(&case.state, &mut module)?;
    let more_axes = given.is_some();
    let (inputs, batched) = match given {
        Some(given) => (given, false),
        None => inputs(case, &module, arrays)?,
    };
    let xs: Vec<&Tensor<T>> = inputs.iter().collect();
    let run = |seed| -> Step<(Vec<Tensor<T>>, AnyState)> {
        let mut ys: Vec<Tensor<T>> = (0..module.outputs()).map(|_| Tensor::default()).collect();
        let mut state = AnyState::default();
        let cx = if case.training { Context::train(seed) } else { Context::frozen() };
        module.apply(&xs, &mut ys, &mut state, cx)?;
        Ok((ys, state))
    };
    let (ys, mut state) = run(0)?;
    if case.training && run(1)?.0 != ys {
        return Err(Stop::Skip("its noise is drawn".into()));
    }
    for (j, (y, want)) in ys.iter().zip(&case.outputs).enumerate() {
        if more_axes && y.shape().len() > want.values.shape().len() {
            let without: Vec<usize> = y.shape().iter().copied().filter(|&n| n != 1).collect();
            let theirs: Vec<usize> = want.values.shape().iter().copied().filter(|&n| n != 1).collect();
            shapes(&named("output", j), &without, &theirs, false)?;
            values(&named("output", j), Kind::Value, y.data(), want)?;
            continue;
        }
        agree(&named("output", j), Kind::Value, y, want, batched)?;
    }
    if let Some(cotangent) = &case.cotangent {
        // ∂E/∂y of the first output; the others were not used.
        let mut dy = cotangent.cast::<T>();
        dy.reshape(*ys[0].shape())?;
        let mut dys = vec![None; ys.len()];
        dys[0] = Some(&dy);
        let mut grads = Grads::new(&module);
        let mut dxs: Vec<Tensor<T>> = xs.iter().map(|_| Tensor::default()).collect();
        let floats: Vec<bool> = arrays.iter().map(|array| array.float).collect();
        let mut requested: Vec<_> =
            dxs.iter_mut().zip(&floats).map(|(dx, &float)| float.then_some(dx)).collect();
        module.pull(ModuleCall::new(&module, &xs, &ys, &dys)?, &mut state, &mut grads, &mut requested)?;
        // Gradients are listed for the floating-point inputs.
        let got = dxs.iter().zip(&floats).filter(|(_, float)| **float).map(|(dx, _)| dx);
        for (i, (dx, want)) in got.zip(&case.grad_inputs).enumerate() {
            let what = named("gradient of the input", i);
            match want {
                Some(want) if ROUNDED.contains(&&*case.module) => {
                    values(&what, Kind::Rounded, dx.data(), want)?;
                }
                _ => gradient(&what, dx.data(), want.as_ref())?,
            }
        }
        each(&module, &mut |path, p| match case.grad_params.get(path) {
            Some(want) => {
                gradient(&format!("gradient of {path}"), grads.get(p).unwrap_or_default(), want.as_ref())
            }
            None => Ok(()),
        })?;
    }
    match (&xs[..], &ys[..], &case.outputs[ys.len().min(case.outputs.len())..]) {
        (_, _, []) if case.outputs.len() == ys.len() => {}
        ([x], [y], [indices]) if case.args.is_on("return_indices") => {
            winners(&module, x, y, &mut state, indices)?;
        }
        _ => return Err(Stop::Fail(format!("unexpected number of outputs: {}", case.outputs.len()))),
    }
    module.fold(&state);
    each(&module, &mut |path, p| match case.buffers_after.get(path) {
        Some(want) => values(&format!("{path} after the pass"), Kind::Value, p.value()?, want),
        None => Ok(()),
    })
}

/// The first of several needs no number.
fn named(what: &str, index: usize) -> String {
    if index == 0 { what.into() } else { format!("{what} {index}") }
}

/// The inputs, and whether they were given a batch that PyTorch's do without: where the module refuses them as they are, or
/// makes something of another shape of them.
fn inputs<T: Scalar>(case: &Case, module: &BoxModule<T>, arrays: &[&Array]) -> Step<(Vec<Tensor<T>>, bool)> {
    let fits = |inputs: &[Tensor<T>], batched| -> Step<()> {
        let given: Vec<Shape> = inputs.iter().map(|x| *x.shape()).collect();
        for (j, (got, want)) in module.output_shapes(&given)?.iter().zip(&case.outputs).enumerate() {
            shapes(&named("output", j), got, want.values.shape(), batched)?;
        }
        Ok(())
    };
    let plain: Vec<Tensor<T>> = arrays.iter().map(|array| array.cast()).collect();
    let Err(refused) = fits(&plain, false) else { return Ok((plain, false)) };
    let mut batch = plain;
    for x in &mut batch {
        let shape: Vec<usize> = std::iter::once(1).chain(x.shape().iter().copied()).collect();
        x.reshape(Shape::new(&shape)?)?;
    }
    fits(&batch, true).map_err(|_| refused)?;
    Ok((batch, true))
}

/// Where each maximum was found, as an index into its plane: where its gradient goes.
fn winners<T: Scalar>(
    module: &BoxModule<T>,
    x: &Tensor<T>,
    y: &Tensor<T>,
    state: &mut AnyState,
    want: &Array,
) -> Step<()> {
    let (mut dy, mut dx, mut grads) = (Tensor::<T>::zeros(*y.shape()), Tensor::default(), Grads::new(module));
    let plane: usize = x.shape().iter().skip(2).product();
    let mut indices = Vec::with_capacity(y.len());
    for o in 0..y.len() {
        dy.data_mut()[o] = T::ONE;
        module.pull_one(Call::recorded(x, y, &dy)?, state, &mut grads, Some(&mut dx))?;
        dy.data_mut()[o] = T::ZERO;
        let winner = dx.data().iter().position(|&d| d != T::ZERO);
        indices.push(winner.map_or(-T::ONE, |i| T::from_usize(i % plane)));
    }
    values("index", Kind::Value, &indices, want)
}

/// Sets every parameter and buffer; a name that only one side has is a failure.
pub fn set_state<T: Scalar>(state: &BTreeMap<String, Array>, module: &mut BoxModule<T>) -> Step<()> {
    let mut left: Vec<&str> = state.keys().map(String::as_str).collect();
    let mut result = Ok(());
    module.visit_mut(&mut |path: &Path<'_>, p: &mut Param<T>| {
        let path = path.to_string();
        left.retain(|name| *name != path);
        let set = match state.get(&path) {
            Some(array) => p.set(array.cast()).map_err(Stop::from),
            None => Err(Stop::Fail(format!("`{path}` is not among PyTorch's parameters"))),
        };
        if result.is_ok() {
            result = set;
        }
    });
    result?;
    match left.first() {
        Some(name) => Err(Stop::Fail(format!("the module has no parameter `{name}`"))),
        None => Ok(()),
    }
}

/// Calls `f` with every parameter and its path, up to the first that fails.
pub fn each<T: Scalar>(module: &BoxModule<T>, f: &mut dyn FnMut(&str, &Param<T>) -> Step<()>) -> Step<()> {
    let mut result = Ok(());
    module.visit(&mut |path, p| {
        if result.is_ok() {
            result = f(&path.to_string(), p);
        }
    });
    result
}

/// Where a loss's inputs stand among those of PyTorch.
struct Roles {
    predictions: &'static [usize],
    targets: &'static [usize],
}

fn roles(module: &str) -> Roles {
    let (predictions, targets): (&[usize], &[usize]) = match module {
        "CosineEmbeddingLoss" | "MarginRankingLoss" => (&[0, 1], &[2]),
        "GaussianNLLLoss" => (&[0, 2], &[1]),
        "TripletMarginLoss" => (&[0, 1, 2], &[]),
        _ => (&[0], &[1]),
    };
    Roles { predictions, targets }
}

/// Losses whose labels are values here, although their type in PyTorch may be that of whole numbers.
const LABELS_ARE_VALUES: &[&str] = &["MarginRankingLoss", "MultiLabelSoftMarginLoss"];

/// The targets, as a loss takes them.
fn targets<T: Scalar>(case: &Case, inputs: &[&Array], at: &[usize]) -> Step<Vec<Targets<T>>> {
    if case.module == "CTCLoss" {
        return sequences(inputs);
    }
    let one = |&i: &usize| {
        let t = inputs[i];
        if t.float || LABELS_ARE_VALUES.contains(&&*case.module) {
            Targets::Values(t.cast())
        } else {
            Targets::Classes { indices: t.classes(), shape: *t.values.shape() }
        }
    };
    Ok(at.iter().map(one).collect())
}

/// Sequences of PyTorch's (N, S), padded, or one after another; and the number of frames of each sample.
fn sequences<T: Scalar>(inputs: &[&Array]) -> Step<Vec<Targets<T>>> {
    let [_, padded, frames, lengths] = inputs else {
        return Err(Stop::Fail(format!("unexpected number of inputs: {}", inputs.len())));
    };
    let (all, frames, lengths) = (padded.classes(), frames.classes(), lengths.classes());
    let indices = match padded.values.shape()[..] {
        [_, longest] => {
            let rows = all.chunks(longest.max(1)).zip(&lengths);
            rows.flat_map(|(row, &n)| row[..n].iter().copied()).collect()
        }
        _ => all,
    };
    let shape = Shape::from(frames.len());
    Ok(vec![Targets::Sequences { indices, lengths }, Targets::Classes { indices: frames, shape }])
}

fn run_loss<T: Scalar>(case: &Case, loss: &dyn Objective<T = T>, inputs: &[&Array]) -> Step<()> {
    let roles = roles(&case.module);
    if roles.predictions.iter().chain(roles.targets).any(|&i| i >= inputs.len()) {
        return Err(Stop::Fail(format!("unexpected number of inputs: {}", inputs.len())));
    }
    let predictions: Vec<Tensor<T>> = roles.predictions.iter().map(|&i| inputs[i].cast()).collect();
    let owned = targets::<T>(case, inputs, roles.targets)?;
    let ys: Vec<&Tensor<T>> = predictions.iter().collect();
    let targets: Vec<Target<'_, T>> = owned.iter().map(Target::from).collect();
    // The gradient of an input; they are listed for the floating-point inputs.
    let wanted = |i: usize| match inputs[i].float {
        true => case.grad_inputs.get(inputs[..i].iter().filter(|input| input.float).count()),
        false => None,
    };
    let nothing = || vec![Tensor::<T>::default(); ys.len()];
    let mut e = Tensor::default();
    loss.evaluate(&ys, &targets, &mut e)?;
    agree("loss", Kind::Value, &e, &case.outputs[0], false)?;
    let Some(cotangent) = &case.cotangent else { return Ok(()) };
    let mut de = cotangent.cast::<T>();
    de.reshape(*e.shape())?;
    let mut dys = nothing();
    loss.differentiate(&ys, &targets, &de, &mut dys.iter_mut().map(Some).collect::<Vec<_>>())?;
    for (j, &i) in roles.predictions.iter().enumerate() {
        if let Some(want) = wanted(i) {
            gradient(&named("gradient of the prediction", j), dys[j].data(), want.as_ref())?;
        }
    }
    for (j, &i) in roles.targets.iter().enumerate() {
        if let (Some(want), Targets::Values(_)) = (wanted(i), &owned[j]) {
            let mut dts = vec![Tensor::default(); targets.len()];
            let mut requested: Vec<_> =
                dts.iter_mut().enumerate().map(|(k, dt)| (k == j).then_some(dt)).collect();
            loss.differentiate_targets(&ys, &targets, &de, &mut requested)?;
            gradient("gradient of the target", dts[j].data(), want.as_ref())?;
        }
    }
    // The fused pass must say the same.
    if loss.reduced_by() != Reduction::None {
        let mut fused = nothing();
        let value = loss.value_and_gradients(&ys, &targets, &mut fused)?;
        values("loss of the fused pass", Kind::Value, &[value], &case.outputs[0])?;
        let scale = de.data()[0];
        for (j, &i) in roles.predictions.iter().enumerate() {
            fused[j].data_mut().iter_mut().for_each(|d| *d *= scale);
            if let Some(want) = wanted(i) {
                gradient(&named("gradient of the fused pass", j), fused[j].data(), want.as_ref())?;
            }
        }
    }
    Ok(())
}
