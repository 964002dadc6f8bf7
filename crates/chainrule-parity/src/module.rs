//! Running one case of a layer or a loss.

use crate::{
    Step, Stop,
    case::{Array, Case, Input},
    compare::{Kind, agree, gradient, numbers, shapes},
    layers, losses,
};
use chainrule_core::{
    AnyCache, BoxLayer, Call, Context, Grads, Layer, Loss, Param, Parameters, Path, Reduction, Scalar, Shape,
    Target, Tensor,
};

/// What a module's arguments built.
pub enum Built<T: Scalar> {
    /// A layer, and the number of axes of its input, if that is fixed: an input with one axis fewer has no batch.
    Layer(BoxLayer<T>, Option<usize>),
    Loss(Box<dyn Loss<T>>),
}

/// Builds, runs and compares.
pub fn run<T: Scalar>(case: &Case) -> Step<()> {
    let target = match case.inputs.get(1) {
        Some((_, Input::Array(target))) => Some(target),
        _ => None,
    };
    let built = match layers::build::<T>(&case.module, &case.args)? {
        Some(layer) => layer,
        None => match losses::build(&case.module, &case.args, target)? {
            Some(loss) => Built::Loss(loss),
            None => return Err(Stop::Skip("module".into())),
        },
    };
    case.args.finish()?;
    let inputs = tensors(case)?;
    if case.outputs.is_empty() {
        return Err(Stop::Fail("the case has no output".into()));
    }
    match (built, &inputs[..]) {
        (Built::Layer(layer, rank), [x]) => run_layer(case, layer, rank, x),
        (Built::Loss(loss), [y, t]) => run_loss(case, &*loss, y, t),
        (_, inputs) => Err(Stop::Fail(format!("unexpected number of inputs: {}", inputs.len()))),
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
    Ok(case.inputs.iter().filter_map(|(_, i)| if let Input::Array(a) = i { Some(a) } else { None }).collect())
}

fn run_layer<T: Scalar>(case: &Case, mut layer: BoxLayer<T>, rank: Option<usize>, x: &Array) -> Step<()> {
    layer.check()?;
    set_state(case, &mut layer)?;
    let mut input = x.cast::<T>();
    // Inputs without a batch get one.
    let batched = rank.is_some_and(|rank| input.shape().len() + 1 == rank) || input.shape().is_empty();
    if batched {
        let shape: Vec<usize> = std::iter::once(1).chain(input.shape().iter().copied()).collect();
        input.reshape(Shape::new(&shape)?)?;
    }
    shapes("output", &layer.output_shape(input.shape())?, case.outputs[0].values.shape(), batched)?;
    let (mut y, mut cache) = (Tensor::default(), Default::default());
    let mut cx = if case.training { Context::train(0) } else { Context::frozen() };
    layer.forward(&input, &mut y, &mut cache, &mut cx)?;
    agree("output", Kind::Value, &y, &case.outputs[0], batched)?;
    if let Some(cotangent) = &case.cotangent {
        let mut dy = cotangent.cast::<T>();
        dy.reshape(*y.shape())?;
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        layer.backward(Call { x: &input, y: &y, dy: &dy }, &mut cache, &mut grads, Some(&mut dx))?;
        if let Some(want) = case.grad_inputs.first() {
            gradient("gradient of the input", dx.data(), want.as_ref())?;
        }
        each(&layer, &mut |path, p| match case.grad_params.get(path) {
            Some(want) => {
                gradient(&format!("gradient of {path}"), grads.get(p).unwrap_or_default(), want.as_ref())
            }
            None => Ok(()),
        })?;
    }
    match &case.outputs[1..] {
        [] => {}
        [indices] if case.module == "MaxPool2d" => {
            winners(&layer, &input, &y, &mut cache, indices)?;
        }
        _ => return Err(Stop::Fail(format!("unexpected number of outputs: {}", case.outputs.len()))),
    }
    layer.absorb(&cache);
    each(&layer, &mut |path, p| match case.buffers_after.get(path) {
        Some(want) => numbers(&format!("{path} after the pass"), Kind::Value, p.value()?, want),
        None => Ok(()),
    })
}

/// Where each maximum was found, as an index into its plane: where its gradient goes.
fn winners<T: Scalar>(
    layer: &BoxLayer<T>,
    x: &Tensor<T>,
    y: &Tensor<T>,
    cache: &mut AnyCache,
    want: &Array,
) -> Step<()> {
    let (mut dy, mut dx, mut grads) = (Tensor::<T>::zeros(*y.shape()), Tensor::default(), Grads::new(layer));
    let plane: usize = x.shape().iter().rev().take(2).product();
    let mut indices = Vec::with_capacity(y.len());
    for o in 0..y.len() {
        dy.data_mut()[o] = T::ONE;
        layer.backward(Call { x, y, dy: &dy }, cache, &mut grads, Some(&mut dx))?;
        dy.data_mut()[o] = T::ZERO;
        let winner = dx.data().iter().position(|&d| d != T::ZERO);
        indices.push(winner.map_or(-T::ONE, |i| T::from_usize(i % plane)));
    }
    numbers("index", Kind::Value, &indices, want)
}

/// Sets every parameter and buffer; a name that only one side has is a failure.
fn set_state<T: Scalar>(case: &Case, layer: &mut BoxLayer<T>) -> Step<()> {
    let mut left: Vec<&str> = case.state.keys().map(String::as_str).collect();
    let mut result = Ok(());
    layer.visit_mut(&mut |path: &Path<'_>, p: &mut Param<T>| {
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
        Some(name) => Err(Stop::Fail(format!("the layer has no parameter `{name}`"))),
        None => Ok(()),
    }
}

fn each<T: Scalar>(layer: &BoxLayer<T>, f: &mut dyn FnMut(&str, &Param<T>) -> Step<()>) -> Step<()> {
    let mut result = Ok(());
    layer.visit(&mut |path, p| {
        if result.is_ok() {
            result = f(&path.to_string(), p);
        }
    });
    result
}

fn run_loss<T: Scalar>(case: &Case, loss: &dyn Loss<T>, y: &Array, t: &Array) -> Step<()> {
    loss.check()?;
    let (prediction, values, classes) = (y.cast::<T>(), t.cast::<T>(), t.classes());
    let target = if t.float { Target::Values(&values) } else { Target::Classes(&classes) };
    shapes("loss", &loss.output_shape(prediction.shape(), target)?, case.outputs[0].values.shape(), false)?;
    let mut e = Tensor::default();
    loss.forward(&prediction, target, &mut e)?;
    agree("loss", Kind::Value, &e, &case.outputs[0], false)?;
    let Some(cotangent) = &case.cotangent else { return Ok(()) };
    let mut de = cotangent.cast::<T>();
    de.reshape(*e.shape())?;
    let (mut dy, mut dt) = (Tensor::default(), Tensor::default());
    // Gradients are listed for the floating-point inputs.
    let want_dt = t.float.then(|| case.grad_inputs.get(1)).flatten();
    loss.backward(&prediction, target, &de, Some(&mut dy), want_dt.is_some().then_some(&mut dt))?;
    if let Some(want) = case.grad_inputs.first() {
        gradient("gradient of the prediction", dy.data(), want.as_ref())?;
    }
    if let Some(want) = want_dt {
        gradient("gradient of the target", dt.data(), want.as_ref())?;
    }
    // The fused pass must say the same.
    if loss.reduction() != Reduction::None {
        let fused = loss.value_and_gradient(&prediction, target, &mut dt)?;
        numbers("loss of the fused pass", Kind::Value, &[fused], &case.outputs[0])?;
        let scale = de.data()[0];
        dt.data_mut().iter_mut().for_each(|d| *d *= scale);
        if let Some(want) = case.grad_inputs.first() {
            gradient("gradient of the fused pass", dt.data(), want.as_ref())?;
        }
    }
    Ok(())
}
