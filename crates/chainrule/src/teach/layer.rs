//! What a layer computes, and its gradients.

use super::{
    Played,
    text::{Style, array, element, inset, sum},
};
use crate::prelude::*;
use std::marker::PhantomData;

/// An activation whose derivative is told: y of x, and y′ of x and y, as texts.
struct Told<T> {
    value: fn(&Style, T) -> String,
    slope: &'static str,
    at: fn(&Style, T, T) -> String,
    scalar: PhantomData<T>,
}

fn told<T: Scalar>(played: &Played<'_, T>) -> Option<Told<T>> {
    let module = played.module;
    let new = |value, slope, at| Some(Told { value, slope, at, scalar: PhantomData });
    if module.downcast_ref::<Tanh<T>>().is_some() {
        let slope = |style: &Style, _: T, y: T| format!("1 − {}²", style.factor(y));
        return new(|style, x| format!("tanh {}", style.factor(x)), "1 − y²", slope);
    }
    if module.downcast_ref::<Sigmoid<T>>().is_some() {
        let value = |style: &Style, x: T| format!("1/(1 + e^{})", style.factor(-x));
        let slope = |style: &Style, _: T, y: T| format!("{0}·(1 − {0})", style.number(y));
        return new(value, "y (1 − y)", slope);
    }
    if module.downcast_ref::<Relu<T>>().is_some() {
        let slope = |_: &Style, x: T, _: T| if x > T::ZERO { "1".to_owned() } else { "0".to_owned() };
        return new(|style, x| format!("max(0, {})", style.number(x)), "[x > 0]", slope);
    }
    None
}

/// Weight (O, I) and bias of a linear layer.
fn linear<T: Scalar>(played: &Played<'_, T>) -> Option<(Tensor<T>, Option<Tensor<T>>)> {
    played.module.downcast_ref::<Linear<T>>()?;
    let (mut w, mut b) = (None, None);
    played.module.visit(&mut |_, p| {
        let place = if p.name() == "weight" { &mut w } else { &mut b };
        *place = p.tensor().cloned();
    });
    w.map(|w| (w, b))
}

/// The name of a parameter in equations.
pub(super) fn symbol<T: Scalar>(played: &Played<'_, T>, path: &str) -> String {
    let linear = played.module.downcast_ref::<Linear<T>>().is_some();
    match path {
        "weight" if linear => "W".to_owned(),
        "bias" if linear => "b".to_owned(),
        path => path.to_owned(),
    }
}

/// y of x.
pub(super) fn forward<T: Scalar>(style: &Style, played: &Played<'_, T>, out: &mut String) -> Result<()> {
    let Played { x, y, .. } = played;
    if let Some((w, b)) = linear(played) {
        let (outputs, inputs) = (w.shape()[0], w.shape()[1]);
        *out += &inset(&array(style, "W", &w));
        b.iter().for_each(|b| *out += &inset(&array(style, "b", b)));
        *out += &style.lines(y.len(), |at| {
            let (n, o) = (at / outputs, at % outputs);
            let (x, w) = (&x.data()[n * inputs..][..inputs], w.row(o));
            let mut terms = vec![style.products(x.iter().copied().zip(w.iter().copied()))];
            terms.extend(b.as_ref().map(|b| style.factor(b.data()[o])));
            format!("{} = {} = {}", element("y", y.shape(), at, true), sum(terms), style.number(y.data()[at]))
        });
        return Ok(());
    }
    if let Some(told) = told(played) {
        *out += &style.lines(y.len(), |at| {
            let value = (told.value)(style, x.data()[at]);
            format!("{} = {value} = {}", element("y", y.shape(), at, true), style.number(y.data()[at]))
        });
        return Ok(());
    }
    played.module.visit(&mut |path, p| {
        p.tensor().into_iter().for_each(|value| *out += &inset(&array(style, &path.to_string(), value)));
    });
    *out += &inset(&array(style, "x", x));
    *out += &inset(&array(style, "y", y));
    Ok(())
}

/// ∂E/∂θ and ∂E/∂x of ∂E/∂y.
pub(super) fn backward<T: Scalar>(
    style: &Style,
    played: &Played<'_, T>,
    grads: &Grads<T>,
    out: &mut String,
) -> Result<()> {
    let Played { x, y, dy, dx, .. } = played;
    if dy.shape() != y.shape() {
        *out += "   nothing here or before it learns\n";
        return Ok(());
    }
    if let Some((w, _)) = linear(played) {
        let (outputs, inputs) = (w.shape()[0], w.shape()[1]);
        let rows = dy.len() / outputs.max(1);
        let over_rows = if rows == 1 { "" } else { "Σₙ " };
        let index = |inner: &str| if rows == 1 { format!("[{inner}]") } else { format!("[n,{inner}]") };
        played.module.visit(&mut |path, p| {
            let Some(g) = grads.get(p).filter(|_| p.trainable()) else { return };
            let name = format!("∂E/∂{}", symbol(played, &path.to_string()));
            let of_weight = p.name() == "weight";
            let (left, right) = match of_weight {
                true => ("[o,i]", format!("{over_rows}∂E/∂y{} x{}", index("o"), index("i"))),
                false => ("[o]", format!("{over_rows}∂E/∂y{}", index("o"))),
            };
            *out += &format!("   {name}{left} = {right}\n");
            *out += &style.lines(g.len(), |at| {
                let value = style.number(g[at]);
                let terms = if of_weight {
                    let (o, i) = (at / inputs, at % inputs);
                    style.products((0..rows).map(|n| (dy.data()[n * outputs + o], x.data()[n * inputs + i])))
                } else {
                    let of = |n: usize| {
                        let v = dy.data()[n * outputs + at];
                        if n == 0 { style.number(v) } else { style.factor(v) }
                    };
                    sum((0..rows).map(of).collect())
                };
                let left = element(&name, p.shape(), at, false);
                if terms == value {
                    format!("{left} = {value}")
                } else {
                    format!("{left} = {terms} = {value}")
                }
            });
        });
        if let Some(dx) = dx {
            *out += &format!("   ∂E/∂x{} = Σₒ ∂E/∂y{} W[o,i]\n", index("i"), index("o"));
            *out += &style.lines(dx.len(), |at| {
                let (n, i) = (at / inputs, at % inputs);
                let terms = style
                    .products((0..outputs).map(|o| (dy.data()[n * outputs + o], w.data()[o * inputs + i])));
                format!(
                    "{} = {terms} = {}",
                    element("∂E/∂x", dx.shape(), at, true),
                    style.number(dx.data()[at])
                )
            });
        }
        return Ok(());
    }
    if let (Some(told), Some(dx)) = (told(played), dx) {
        *out += &format!("   ∂E/∂x = ∂E/∂y y′, y′ = {}\n", told.slope);
        *out += &style.lines(dx.len(), |at| {
            let (x, y, dy, value) = (x.data()[at], y.data()[at], dy.data()[at], style.number(dx.data()[at]));
            let slope = (told.at)(style, x, y);
            let slope = if slope.contains(" − ") { format!("({slope})") } else { slope };
            format!("{} = {}·{slope} = {value}", element("∂E/∂x", dx.shape(), at, true), style.number(dy))
        });
        return Ok(());
    }
    *out += &inset(&array(style, "∂E/∂y", dy));
    let mut gradients = Ok(());
    played.module.visit(&mut |path, p| {
        let Some(g) = grads.get(p).filter(|_| p.trainable()) else { return };
        match Tensor::from_vec(*p.shape(), g.to_vec()) {
            Ok(g) => *out += &inset(&array(style, &format!("∂E/∂{path}"), &g)),
            Err(error) => gradients = Err(error),
        }
    });
    dx.iter().for_each(|dx| *out += &inset(&array(style, "∂E/∂x", dx)));
    gradients
}
