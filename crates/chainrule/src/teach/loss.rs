//! What a loss computes, and ∂E/∂y.

use super::text::{Style, array, element, inset, sum};
use crate::{core::Value, prelude::*};
use chainrule_core::Registry;

/// E of y and t, and ∂E/∂y.
pub(super) fn tell<T: Scalar>(
    style: &Style,
    registry: &Registry<T>,
    loss: &impl Objective<T = T>,
    y: &Tensor<T>,
    targets: &[Target<'_, T>],
    e: T,
    dy: &Tensor<T>,
    out: &mut String,
) -> Result<()> {
    let spec = loss.to_spec();
    let mean = loss.reduced_by() == Reduction::Mean;
    match (spec.kind(), targets) {
        ("Mse", [Target::Values(t)]) if t.shape() == y.shape() => squared(style, mean, y, t, e, dy, out),
        ("CrossEntropy", [Target::Classes(classes)])
            if y.shape().len() == 2 && plain(&spec) && classes.iter().all(|&c| c < y.shape()[1]) =>
        {
            cross_entropy(style, mean, y, classes, e, dy, out);
        }
        (kind, targets) => {
            let entry = registry.losses().find(|entry| entry.facts.kind == kind);
            let formula = entry.map_or("f(y, t)", |entry| entry.facts.formula);
            *out += &format!("{kind}: E = {}{formula}\n", if mean { "the mean of " } else { "" });
            *out += &inset(&array(style, "y", y));
            for target in targets {
                *out += &match target {
                    Target::Values(t) => inset(&array(style, "t", t)),
                    other => format!("   t = {other:?}\n"),
                };
            }
            *out += &format!("   E = {}\n", style.number(e));
            *out += &inset(&array(style, "∂E/∂y", dy));
        }
    }
    Ok(())
}

/// A cross-entropy without weights, smoothing and an ignored class.
fn plain(spec: &Spec) -> bool {
    let off = |name| matches!(spec.get(name), None | Some(Value::None));
    let zero = matches!(spec.get("label_smoothing"), None | Some(Value::Float(0.0)));
    off("weight") && off("ignore_index") && off("classes_last") && zero
}

/// E = 1/n Σ (y − t)²
fn squared<T: Scalar>(
    style: &Style,
    mean: bool,
    y: &Tensor<T>,
    t: &Tensor<T>,
    e: T,
    dy: &Tensor<T>,
    out: &mut String,
) {
    let n = y.len();
    let many = if mean && n > 1 { format!("/{n}") } else { String::new() };
    let difference = |at: usize| format!("{} − {}", style.number(y.data()[at]), style.factor(t.data()[at]));
    let terms = sum((0..n).map(|at| format!("({})²", difference(at))).collect());
    let terms = if many.is_empty() { terms } else { format!("({terms}){many}") };
    *out += &format!("Mse: E = {}(y − t)²\n", if mean { "the mean of " } else { "the sum of " });
    *out += &inset(&array(style, "t", t));
    *out += &format!("   E = {terms} = {}\n", style.number(e));
    *out += &format!("   ∂E/∂y = 2 (y − t){many}\n");
    *out += &style.lines(n, |at| {
        let value = style.number(dy.data()[at]);
        format!("{} = 2·({}){many} = {value}", element("∂E/∂y", dy.shape(), at, true), difference(at))
    });
}

/// E = −1/N Σ ln p[n, t], p = softmax(y)
fn cross_entropy<T: Scalar>(
    style: &Style,
    mean: bool,
    y: &Tensor<T>,
    classes: &[usize],
    e: T,
    dy: &Tensor<T>,
    out: &mut String,
) {
    let [samples, width] = [y.shape()[0], y.shape()[1]];
    let many = if mean && samples > 1 { format!("/{samples}") } else { String::new() };
    let p = |at: usize| {
        let row: Vec<f64> = y.row(at / width).iter().map(|y| y.to_f64()).collect();
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = row.iter().map(|y| (y - largest).exp()).sum();
        (row[at % width] - largest).exp() / total
    };
    let terms: Vec<String> =
        classes.iter().enumerate().map(|(n, c)| format!("ln {}", style.number(p(n * width + c)))).collect();
    let terms = if samples > 1 { format!("−({}){many}", sum(terms)) } else { format!("−{}", sum(terms)) };
    let over = if mean { "the mean of " } else { "the sum of " };
    *out += &format!("CrossEntropy: E = {over}−ln p[t], p[c] = e^y[c] / Σ e^y[k]\n");
    *out += &format!("   t = {classes:?}\n");
    *out += &style.lines(y.len(), |at| {
        let powers = y.row(at / width).iter().map(|&y| format!("e^{}", style.factor(y))).collect();
        let own = style.factor(y.data()[at]);
        format!("{} = e^{own}/({}) = {}", element("p", y.shape(), at, true), sum(powers), style.number(p(at)))
    });
    *out += &format!("   E = {terms} = {}\n", style.number(e));
    *out += &format!("   ∂E/∂y[c] = (p[c] − [c = t]){many}\n");
    *out += &style.lines(dy.len(), |at| {
        let hit = usize::from(classes[at / width] == at % width);
        let value = style.number(dy.data()[at]);
        format!(
            "{} = ({} − {hit}){many} = {value}",
            element("∂E/∂y", dy.shape(), at, true),
            style.number(p(at))
        )
    });
}
