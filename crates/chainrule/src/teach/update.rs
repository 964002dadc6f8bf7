//! What an optimizer does to each parameter.

use super::{
    Played,
    layer::symbol,
    text::{Style, element},
};
use crate::prelude::*;
use chainrule_core::{ParamId, Registry};

/// The optimizer, its formula and its learning rate.
pub(super) fn heading<T: Scalar>(style: &Style, registry: &Registry<T>, spec: &Spec, rate: f64) -> String {
    let entry = registry.optimizers().find(|entry| entry.facts.kind == spec.kind());
    let formula = match entry {
        _ if spec.kind() == "Sgd" && is_plain(spec) => "w ← w − η ∂E/∂w",
        Some(entry) => entry.facts.formula,
        None => "w ← f(w, ∂E/∂w)",
    };
    format!("{}: {formula}, η = {}\n", spec.kind(), style.number(rate))
}

/// Whether no setting but the learning rate is on.
fn is_plain(spec: &Spec) -> bool {
    let zero = |name| spec.get(name).is_none_or(|value| value.to_string().parse() == Ok(0.0));
    zero("momentum") && zero("weight_decay")
}

/// The parameters of a layer before and after; as w − η g where that is what happened. What was told is taken from `before`: a parameter that stands in
/// several layers is told once.
pub(super) fn tell<T: Scalar>(
    style: &Style,
    played: &Played<'_, T>,
    grads: &Grads<T>,
    before: &mut Vec<(ParamId, Tensor<T>)>,
    rate: Option<f64>,
    out: &mut String,
) -> Result<()> {
    let mut heading = format!("\n{}  {}\n", played.path, played.module.to_spec().kind());
    played.module.try_visit(&mut |path, p| {
        let Some(at) = before.iter().position(|(id, _)| *id == p.id()) else { return Ok(()) };
        let (_, old) = before.swap_remove(at);
        let (new, name) = (p.value()?, symbol(played, &path.to_string()));
        let gradient = grads.get(p).filter(|_| p.trainable());
        if gradient.is_none() && old.data() == new {
            return Ok(()); // frozen
        }
        *out += &std::mem::take(&mut heading);
        let stepped = |(rate, g): (f64, &[T])| {
            let near = |((&old, &g), &new): ((&T, &T), &T)| {
                let (old, step) = (old.to_f64(), rate * g.to_f64());
                (old - step - new.to_f64()).abs() <= 4.0 * T::EPSILON.to_f64() * (old.abs() + step.abs())
            };
            old.data().iter().zip(g).zip(new).all(near)
        };
        let plain = rate.zip(gradient).filter(|&plain| stepped(plain));
        *out += &style.lines(new.len(), |at| {
            let left = element(&name, p.shape(), at, false);
            let (old, new) = (style.number(old.data()[at]), style.number(new[at]));
            match (plain, gradient) {
                (Some((rate, g)), _) => {
                    format!("{left} ← {old} − {}·{} = {new}", style.number(rate), style.factor(g[at]))
                }
                (_, Some(g)) => {
                    format!("{left} ← {new}, from {old} with ∂E/∂{left} = {}", style.number(g[at]))
                }
                (_, None) => format!("{left} ← {new}, from {old}"), // a statistic
            }
        });
        Ok(())
    })
}
