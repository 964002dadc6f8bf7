//! A step of an optimizer over 2²⁰ parameters: in one tensor, and in 200.

use crate::workloads::Run;
use chainrule::{
    core::{Grads, Optimizer},
    optim::{Lion, RmsProp},
    prelude::*,
};

/// `opt_kind_1m` or `opt_kind_200`; `None` for another name.
///
/// # Errors
/// A model does not fit: a mistake in this file.
pub fn build(name: &str) -> Result<Option<Run>> {
    let Some((kind, tensors)) = counted(name) else { return Ok(None) };
    Ok(Some(match kind {
        "sgd" => step(Sgd::new(0.01).momentum(0.9), tensors)?,
        "adam" => step(Adam::new(1e-3), tensors)?,
        "adamw" => step(AdamW::new(1e-3), tensors)?,
        "rmsprop" => step(RmsProp::new(1e-2), tensors)?,
        "lion" => step(Lion::new(1e-4), tensors)?,
        _ => return Ok(None),
    }))
}

/// The kind of a name, and the number of tensors.
fn counted(name: &str) -> Option<(&str, usize)> {
    let name = name.strip_prefix("opt_")?;
    let one = name.strip_suffix("_1m").map(|kind| (kind, 1));
    one.or_else(|| name.strip_suffix("_200").map(|kind| (kind, 200)))
}

/// As many tensors as given, with 2²⁰ elements together, or a few more.
pub(crate) fn model(tensors: usize) -> Sequential {
    let each = (1usize << 20).div_ceil(tensors);
    (0..tensors).fold(Sequential::new(), |model, _| model.add(Bias::new([each])))
}

fn step(mut optimizer: impl Optimizer<f32> + 'static, tensors: usize) -> Result<Run> {
    let mut model = model(tensors).init(1)?;
    let mut grads = Grads::new(&model);
    Rng::new(3).fill_normal(grads.values_mut());
    Ok(Box::new(move || optimizer.step(&mut model, &grads).expect("a workload fits together")))
}
