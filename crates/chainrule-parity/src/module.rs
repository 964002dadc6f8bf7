//! Running one case of a layer or a loss.

use crate::{
    Step, Stop,
    case::{Array, Case, Input},
    compare::{Kind, agree, gradient, shapes, values},
};
use chainrule_core::{
    AnyState, BoxModule, Call, Classes, Context, Grads, Module, ModuleCall, Objective, Param, Parameters,
    Path, Reduction, Registry, Scalar, Shape, Target, Tensor,
};

/// Builds, runs and compares.
pub fn run<T: Scalar>(registry: &Registry<T>, case: &Case) -> Step<()> {
    if let Some(spec) = case.args.spec(registry.modules(), &case.module)? {
        let module = registry.build_module(&spec)?;
        return run_module(case, module, &tensors(case)?);
    }
    let Some(spec) = case.args.spec(registry.losses(), &case.module)? else {
        return Err(Stop::Skip("module".into()));
    };
    let loss = registry.build_loss(&spec)?;
    match tensors(case)?[..] {
        [y, t] => run_loss(case, &*loss, y, t),
        ref inputs => Err(Stop::Fail(format!("unexpected number of inputs: {}", inputs.len()))),
    }
}

/// The inputs, each of which must be one tensor.
fn tensors(case: &Case) -> Step<Vec<&Array>> {
    let one = |(name, input): &'_ (Option<String>, Input)| match input {
        Input::Array(_) => Ok(()),
        Input::Other(what) => {
            Err(Stop::Skip(format!("{what} as argument {} of forward", name.as_deref().unwrap_or("input"))))
        }
    };
    case.inputs.iter().try_for_each(one)?;
    if case.outputs.is_empty() {
        return Err(Stop::Fail("the case has no output".into()));
    }
    Ok(case.inputs.iter().filter_map(|(_, i)| if let Input::Array(a) = i { Some(a) } else { None }).collect())
}

fn run_module<T: Scalar>(case: &Case, mut module: BoxModule<T>, arrays: &[&Array]) -> Step<()> {
    set_state(case, &mut module)?;
    let (inputs, batched) = inputs(case, &module, arrays)?;
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
            gradient(&named("gradient of the input", i), dx.data(), want.as_ref())?;
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
fn set_state<T: Scalar>(case: &Case, module: &mut BoxModule<T>) -> Step<()> {
    let mut left: Vec<&str> = case.state.keys().map(String::as_str).collect();
    let mut result = Ok(());
    module.visit_mut(&mut |path: &Path<'_>, p: &mut Param<T>| {
        let path = path.to_string();
        left.retain(|name| *name != path);
        let set = match case.state.get(&path) {
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

fn each<T: Scalar>(module: &BoxModule<T>, f: &mut dyn FnMut(&str, &Param<T>) -> Step<()>) -> Step<()> {
    let mut result = Ok(());
    module.visit(&mut |path, p| {
        if result.is_ok() {
            result = f(&path.to_string(), p);
        }
    });
    result
}

fn run_loss<T: Scalar>(case: &Case, loss: &dyn Objective<T = T>, y: &Array, t: &Array) -> Step<()> {
    let (prediction, wanted, indices) = (y.cast::<T>(), t.cast::<T>(), t.classes());
    let classes = Classes::new(&indices, *t.values.shape())?;
    let target = if t.float { Target::Values(&wanted) } else { Target::Classes(classes) };
    let (ys, targets) = ([&prediction], [target]);
    let mut e = Tensor::default();
    loss.evaluate(&ys, &targets, &mut e)?;
    agree("loss", Kind::Value, &e, &case.outputs[0], false)?;
    let Some(cotangent) = &case.cotangent else { return Ok(()) };
    let mut de = cotangent.cast::<T>();
    de.reshape(*e.shape())?;
    let mut dy = Tensor::default();
    loss.differentiate(&ys, &targets, &de, &mut [Some(&mut dy)])?;
    if let Some(want) = case.grad_inputs.first() {
        gradient("gradient of the prediction", dy.data(), want.as_ref())?;
    }
    // Gradients are listed for the floating-point inputs.
    if let Some(want) = t.float.then(|| case.grad_inputs.get(1)).flatten() {
        let mut dt = Tensor::default();
        loss.differentiate_targets(&ys, &targets, &de, &mut [Some(&mut dt)])?;
        gradient("gradient of the target", dt.data(), want.as_ref())?;
    }
    // The fused pass must say the same.
    if loss.reduced_by() != Reduction::None {
        let mut fused = [Tensor::default()];
        let value = loss.value_and_gradients(&ys, &targets, &mut fused)?;
        values("loss of the fused pass", Kind::Value, &[value], &case.outputs[0])?;
        let [dy] = &mut fused;
        let scale = de.data()[0];
        dy.data_mut().iter_mut().for_each(|d| *d *= scale);
        if let Some(want) = case.grad_inputs.first() {
            gradient("gradient of the fused pass", dy.data(), want.as_ref())?;
        }
    }
    Ok(())
}
