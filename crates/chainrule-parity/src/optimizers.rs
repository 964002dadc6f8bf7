//! Optimizer trajectories: gradients are given, so that only the update rule is compared.

use crate::{
    Report, Step, Stop,
    args::Args,
    case::{Array, File, text},
    compare::{Kind, numbers, shapes},
    outcome,
};
use chainrule_core::{
    Call, Context, Error, Grads, Init, Layer, Optimizer, Param, Params, ParamsMut, Result, Scalar, Shape,
    Tensor,
};
use chainrule_optim as ours;
use serde_json::Value;

/// Runs every trajectory of a file.
pub fn run<T: Scalar>(bytes: &[u8], wanted: &dyn Fn(&str) -> bool, report: &mut Report) -> Result<()> {
    let file = File::parse(bytes)?;
    for case in &file.cases {
        let (name, id) = (text(case, "optimizer")?, text(case, "id")?);
        if wanted(name) {
            report.add(name, id, outcome(|| trajectory::<T>(&file, name, case)));
        }
    }
    Ok(())
}

fn build<T: Scalar>(name: &str, a: &Args) -> Step<Box<dyn Optimizer<T>>> {
    a.ignore(&["foreach", "fused", "capturable", "differentiable"]); // how PyTorch runs it
    Ok(match name {
        "SGD" => Box::new(
            ours::Sgd::new(a.f64("lr")?)
                .momentum(a.f64("momentum")?)
                .dampening(a.f64("dampening")?)
                .nesterov(a.bool("nesterov")?)
                .weight_decay(a.f64("weight_decay")?)
                .maximize(a.bool("maximize")?),
        ),
        "Adam" if !a.bool("decoupled_weight_decay")? => Box::new(
            ours::Adam::new(a.f64("lr")?)
                .betas(a.at("betas", 0)?, a.at("betas", 1)?)
                .eps(a.f64("eps")?)
                .weight_decay(a.f64("weight_decay")?)
                .amsgrad(a.bool("amsgrad")?)
                .maximize(a.bool("maximize")?),
        ),
        "Adam" | "AdamW" => {
            a.ignore(&["decoupled_weight_decay"]);
            Box::new(
                ours::AdamW::new(a.f64("lr")?)
                    .betas(a.at("betas", 0)?, a.at("betas", 1)?)
                    .eps(a.f64("eps")?)
                    .weight_decay(a.f64("weight_decay")?)
                    .amsgrad(a.bool("amsgrad")?)
                    .maximize(a.bool("maximize")?),
            )
        }
        _ => return Err(Stop::Skip("optimizer".into())),
    })
}

fn trajectory<T: Scalar>(file: &File<'_>, name: &str, case: &Value) -> Step<()> {
    let args = Args::plain(&case["args"]);
    let mut optimizer = build::<T>(name, &args)?;
    args.finish()?;
    let mut bag = Bag(Vec::new());
    for value in tensors(file, &case["params"])? {
        let value = value.cast::<T>();
        let mut p = Param::new("weight", *value.shape(), Init::ZEROS);
        p.set(value)?;
        bag.0.push(p);
    }
    let mut grads = Grads::new(&bag);
    let (given, after) = (list(&case["grads"])?, list(&case["after"])?);
    if given.len() != after.len() || given.is_empty() {
        return Err(Stop::Fail(format!("the case has {} gradients and {} steps", given.len(), after.len())));
    }
    for (step, (given, after)) in given.iter().zip(after).enumerate() {
        let (given, after) = (tensors(file, given)?, tensors(file, after)?);
        if given.len() != bag.0.len() || after.len() != bag.0.len() {
            return Err(Stop::Fail(format!("step {step} is not of {} parameters", bag.0.len())));
        }
        for (i, (p, g)) in bag.0.iter().zip(given).enumerate() {
            shapes(&format!("gradient {i} of step {step}"), g.values.shape(), p.shape(), false)?;
            if let Some(to) = grads.of(p) {
                to.copy_from_slice(g.cast::<T>().data());
            }
        }
        optimizer.step(&mut bag, &grads)?;
        for (i, (p, want)) in bag.0.iter().zip(after).enumerate() {
            numbers(&format!("parameter {i} after step {step}"), Kind::Value, p.value()?, &want)?;
        }
    }
    Ok(())
}

fn list(v: &Value) -> Step<&Vec<Value>> {
    v.as_array().ok_or_else(|| Stop::Fail(format!("expected a list, got {v}")))
}

/// The tensors that a list of keys names.
fn tensors(file: &File<'_>, keys: &Value) -> Step<Vec<Array>> {
    let one = |key: &Value| match key.as_str() {
        Some(key) => Ok(file.array(key)?),
        None => Err(Stop::Fail(format!("expected the key of a tensor, got {key}"))),
    };
    list(keys)?.iter().map(one).collect()
}

/// Parameters and nothing else.
struct Bag<T>(Vec<Param<T>>);

impl<T: Scalar> Layer<T> for Bag<T> {
    type Cache = ();
    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }
    fn forward(&self, _: &Tensor<T>, _: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
        Err(Error::value("a bag of parameters computes nothing"))
    }
    fn backward(
        &self,
        _: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        _: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        Err(Error::value("a bag of parameters computes nothing"))
    }
    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.0.iter().for_each(|p| out.add(p));
    }
    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.0.iter_mut().for_each(|p| out.add(p));
    }
}
