//! One step of a small network, told with the equations of each layer filled in with its values.
//!
//! ```
//! use chainrule::{prelude::*, teach::Lesson};
//!
//! let mut model = Sequential::new().add(Linear::new(2, 3)).add(Tanh::new()).add(Linear::new(3, 1)).init(1)?;
//! let (x, t) = (Tensor::from([[1.0, 0.0]]), Tensor::from([[1.0]]));
//! let text = Lesson::new().step(&mut model, &Mse::new(), &mut Sgd::new(0.1), &x, &t, Context::train(1))?;
//! assert!(text.contains("0  Linear: y = x Wᵀ + b"));
//! # Ok::<(), Error>(())
//! ```
//!
//! A guide with the step of a XOR network derived by hand is docs/teaching.md.

mod layer;
mod loss;
mod text;
mod update;

use crate::{core::AnyState, prelude::*};
use chainrule_core::{BoxModule, Registry, TargetList};
use text::{Style, array};

/// Takes a step and tells it: forward, loss, backward and the optimizer's update, with numbers.
///
/// `Linear`, `Tanh`, `Sigmoid`, `Relu`, the losses `Mse` and `CrossEntropy` and plain `Sgd` are told equation by equation. Of every other layer, loss and
/// optimizer stand its formula from the registry and the values that go in and come out. Long sums and lists are cut with an ellipsis, so
/// that a large model gives a readable text, too.
#[derive(Clone, Debug)]
pub struct Lesson {
    style: Style,
}

impl Default for Lesson {
    fn default() -> Self {
        Self::new()
    }
}

/// A layer at work.
struct Played<'m, T: Scalar> {
    path: String,
    module: &'m BoxModule<T>,
    state: AnyState,
    x: Tensor<T>,
    y: Tensor<T>,
    dy: Tensor<T>,
    /// `None` where nothing before the layer learns, or it has no derivative.
    dx: Option<Tensor<T>>,
}

impl Lesson {
    /// Numbers of four decimals, at most twelve equations of a kind.
    pub fn new() -> Self {
        Self { style: Style { decimals: 4, most: 12 } }
    }

    /// The decimals of a number (default 4, at most 17); trailing zeros are left out.
    #[must_use]
    pub fn decimals(mut self, decimals: usize) -> Self {
        self.style.decimals = decimals.min(17);
        self
    }

    /// The most equations of a kind, and rows of an array, that are told (default 12).
    #[must_use]
    pub fn most(mut self, most: usize) -> Self {
        self.style.most = most.max(1);
        self
    }

    /// Takes one step of the optimizer and returns its text. The step is the model's own: `Pass::forward`, `loss`, `backward` and `update`.
    ///
    /// # Errors
    /// Those of the step; a part of the model whose mode was set to inference, which is not told.
    pub fn step<T: Scalar>(
        &self,
        model: &mut Sequential<T>,
        loss: &impl Objective<T = T>,
        optimizer: &mut impl Optimizer<T>,
        x: &Tensor<T>,
        targets: impl TargetList<T>,
        cx: Context,
    ) -> Result<String> {
        let registry = crate::registry::<T>();
        let (style, mut text) = (&self.style, String::new());
        let mut pass = Pass::new(model);
        pass.forward(model, x, cx)?;
        let e = targets.with(|targets| pass.loss(loss, targets))?;
        let Some(dy) = pass.output_gradients_mut().first().cloned() else {
            return Err(Error::value("teach: expected a loss that reads the output"));
        };
        pass.backward(model, x)?;

        let mut before = Vec::new();
        model.visit(&mut |_, p| before.extend(p.tensor().map(|value| (p.id(), value.clone()))));
        {
            let (mut grads, mut layers) = (Grads::new(model), Vec::new());
            let y = forward(model, "", x.clone(), cx, &mut layers)?;
            if y != pass.outputs()[0] {
                return Err(other_mode());
            }
            backward(&mut layers, &dy, &mut grads)?;
            if grads.values() != pass.grads().values() {
                return Err(other_mode());
            }

            text += &array(style, "x", x);
            text += "\nForward\n";
            for played in &layers {
                let formula = formula(&registry, played.module);
                text += &format!("\n{}  {}: {formula}\n", played.path, played.module.to_spec().kind());
                layer::forward(style, played, &mut text)?;
            }
            text += "\nLoss\n\n";
            targets.with(|targets| loss::tell(style, &registry, loss, &y, targets, e, &dy, &mut text))?;
            text += "\nBackward\n";
            for played in layers.iter().rev() {
                text += &format!("\n{}  {}\n", played.path, played.module.to_spec().kind());
                layer::backward(style, played, &grads, &mut text)?;
            }
        }
        pass.update(model, optimizer)?;
        let rate = optimizer.learning_rate();
        text += &format!("\nUpdate\n\n{}", update::heading(style, &registry, &optimizer.spec(), rate));
        let plain = optimizer.spec().kind() == "Sgd";
        let mut layers = Vec::new();
        forward(model, "", x.clone(), cx, &mut layers)?;
        for played in &layers {
            update::tell(style, played, pass.grads(), &mut before, plain.then_some(rate), &mut text)?;
        }
        pass.forward(model, x, cx)?;
        let after = targets.with(|targets| pass.loss(loss, targets))?;
        text += &format!("\nE = {} before the step, {} after it\n", style.number(e), style.number(after));
        Ok(text)
    }
}

#[cold]
fn other_mode() -> Error {
    Error::value("teach: expected a model that trains as a whole, got a part in inference mode")
}

/// y = the formula of the registry.
fn formula<T: Scalar>(registry: &Registry<T>, module: &BoxModule<T>) -> String {
    let spec = module.to_spec();
    match registry.modules().find(|entry| entry.facts.kind == spec.kind()) {
        Some(entry) if !entry.facts.formula.is_empty() => format!("y = {}", entry.facts.formula),
        _ => "y = f(x)".to_owned(),
    }
}

/// Calls the layers one by one, those of containers within each other too.
fn forward<'m, T: Scalar>(
    model: &'m Sequential<T>,
    path: &str,
    mut x: Tensor<T>,
    cx: Context,
    out: &mut Vec<Played<'m, T>>,
) -> Result<Tensor<T>> {
    for (i, (name, module)) in model.children().enumerate() {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let cx = cx.child(i);
        if let Some(inner) = module.downcast_ref::<Sequential<T>>() {
            x = forward(inner, &path, x, cx, out)?;
            continue;
        }
        let (mut y, mut state) = (Tensor::default(), AnyState::default());
        module.apply_one(&x, &mut y, &mut state, cx).map_err(|e| e.in_layer(&path))?;
        let played = Played { path, module, state, x, y: y.clone(), dy: Tensor::default(), dx: None };
        out.push(played);
        x = y;
    }
    Ok(x)
}

/// From ∂E/∂y of the last layer to that of the first which learns.
fn backward<T: Scalar>(layers: &mut [Played<'_, T>], dy: &Tensor<T>, grads: &mut Grads<T>) -> Result<()> {
    use chainrule_core::Learning;
    let learns = |played: &Played<'_, T>| played.module.learns() == Learning::Active;
    let Some(first) = layers.iter().position(learns) else { return Ok(()) };
    let mut dy = dy.clone();
    for k in (first..layers.len()).rev() {
        let Played { path, module, state, x, y, dy: own, dx } = &mut layers[k];
        let mut wanted = (k > first && module.differentiable_input(0)).then(Tensor::default);
        let call = Call::recorded(x, y, &dy)?;
        module.pull_one(call, state, grads, wanted.as_mut()).map_err(|e| e.in_layer(&*path))?;
        *own = dy;
        match &wanted {
            Some(next) => dy = next.clone(),
            None => break,
        }
        *dx = wanted;
    }
    Ok(())
}
