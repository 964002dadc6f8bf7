//! Optimizer trajectories: gradients are given, so that only the update rule is compared.

use crate::{
    Report, Step, Stop,
    args::Args,
    case::{Array, File},
    compare::{Kind, shapes, values},
    each_case,
};
use chainrule_core::{
    Grads, Init, Optimizer, Param, Parameters, Params, ParamsMut, Registry, Result, Scalar,
};
use serde_json::Value;

/// Runs every trajectory of a file.
pub fn run<T: Scalar>(
    bytes: &[u8],
    registry: &Registry<T>,
    wanted: &dyn Fn(&str) -> bool,
    report: &mut Report,
) -> Result<()> {
    let file = File::parse(bytes)?;
    each_case(&file, "optimizer", wanted, report, &|name, case| trajectory(registry, &file, name, case))
}

fn trajectory<T: Scalar>(registry: &Registry<T>, file: &File<'_>, name: &str, case: &Value) -> Step<()> {
    if name == "Muon" && T::NAME != "F64" {
        return Err(Stop::Skip("its rounding to bfloat16 parts f32 from f64".into()));
    }
    let spec = Args::plain(&case["args"]).spec(registry.optimizers(), name)?;
    let mut optimizer = registry.build_optimizer(&spec.ok_or_else(|| Stop::Skip("optimizer".into()))?)?;
    steps(file, case, &mut optimizer, |_, _, _| Ok(()))
}

/// Steps along the gradients of a case and compares the parameters after each step; `further` compares what else there is of
/// it.
pub fn steps<T: Scalar, O: Optimizer<T>>(
    file: &File<'_>,
    case: &Value,
    optimizer: &mut O,
    mut further: impl FnMut(usize, &O, &mut Bag<T>) -> Step<()>,
) -> Step<()> {
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
            values(&format!("parameter {i} after step {step}"), Kind::Value, p.value()?, &want)?;
        }
        further(step, optimizer, &mut bag)?;
    }
    Ok(())
}

pub fn list(v: &Value) -> Step<&Vec<Value>> {
    v.as_array().ok_or_else(|| Stop::Fail(format!("expected a list, got {v}")))
}

/// The tensors that a list of keys names.
pub fn tensors(file: &File<'_>, keys: &Value) -> Step<Vec<Array>> {
    let one = |key: &Value| match key.as_str() {
        Some(key) => Ok(file.array(key)?),
        None => Err(Stop::Fail(format!("expected the key of a tensor, got {key}"))),
    };
    list(keys)?.iter().map(one).collect()
}

/// Parameters and nothing else.
pub struct Bag<T>(pub Vec<Param<T>>);

impl<T: Scalar> Parameters for Bag<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.0.iter().enumerate().for_each(|(i, p)| out.child(&i.to_string()).add(p));
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.0.iter_mut().enumerate().for_each(|(i, p)| out.child(&i.to_string()).add(p));
    }
}
