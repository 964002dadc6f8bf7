//! Sharpness-aware minimisation (Foret, Kleiner, Mobahi and Neyshabur, 2021).
//!
//! ```text
//! ŵ = w + ρ g(w)/‖g(w)‖          over all tensors together
//! w ← the step of another optimizer from w, along g(ŵ)
//! ```
//!
//! Derivation: docs/optimizers/sam.md.

use crate::{
    Driver, Rule, StateTensor, Update,
    check::{count_of, not_negative},
    wrapper::{base, ours, split},
};
use chainrule_core::{
    Args, Closure, Error, Example, Facts, FromSpec, Grads, Optimizer, OptimizerState, Parameters, Result,
    Scalar, Shape, Spec, StateValue, StateVisitor,
};
use chainrule_tensor::kernels::layers::optim::{sam_ascend, sam_squares, sum_of_squares};

/// Another optimizer, along the gradient where the loss is highest nearby: two evaluations a step.
///
/// With a closure ([`Optimizer::step_with`]) both happen in one call. Without one two calls of [`Optimizer::step`] make a
/// step: the first moves the weights up to ŵ, the second, with the gradients there, moves them back and steps.
///
/// Defaults: ρ = 0.05, not adaptive.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::{Sam, Sgd};
/// let sam = Sam::<f32, _>::new(Sgd::new(0.1).momentum(0.9)).rho(0.1);
/// assert!(sam.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Sam<T: Scalar = f32, O = Box<dyn Optimizer<T>>> {
    base: O,
    kept: Driver<KeptRule, T>,
    rho: f64,
    up: bool,
}

/// Keeps `old_p`, the weights before they went up.
#[derive(Clone, Debug)]
struct KeptRule {
    adaptive: bool,
    /// ρ/‖g‖ on the way up, none on the way back.
    scale: Option<f64>,
}

impl<T: Scalar> Rule<T> for KeptRule {
    const KIND: &'static str = "Sam";
    const FUSED: bool = true;

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        vec![StateTensor::new("old_p", *shape)]
    }

    fn update(&self, update: Update<'_, T>) {
        let old = update.state[0].data_mut();
        let Some(scale) = self.scale else { return update.w.copy_from_slice(old) };
        old.copy_from_slice(update.w);
        sam_ascend(update.w, update.g, T::from_f64(scale), self.adaptive);
    }
}

/// The names of the kept weights' state, and those that its driver gives them.
const NAMES: &[(&str, &str)] = &[("sam_step", "step"), ("old_p", "old_p")];
const UP: &str = "sam_up";

impl<T: Scalar, O: Optimizer<T>> Sam<T, O> {
    /// The optimizer that steps, and the defaults.
    pub fn new(base: O) -> Self {
        let rule = KeptRule { adaptive: false, scale: None };
        Self { base, kept: Driver::from_rule(rule, 1.0), rho: 0.05, up: false }
    }

    /// How far up ρ.
    #[must_use]
    pub fn rho(mut self, rho: f64) -> Self {
        self.rho = rho;
        self
    }

    /// In units of the weights themselves: ŵ = w + ρ w² g/‖w g‖ (Kwon and others, 2021).
    #[must_use]
    pub fn adaptive(mut self, adaptive: bool) -> Self {
        self.kept.rule_mut().adaptive = adaptive;
        self
    }

    /// The optimizer that steps.
    pub fn base(&self) -> &O {
        &self.base
    }

    fn ascend(&mut self, model: &mut dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
        self.kept.prepare(model, grads, &mut |_, _| ())?;
        let (adaptive, mut squares) = (self.kept.rule().adaptive, 0.0);
        // Those listed for a change are each listed once.
        model.try_visit_mut(&mut |_, p| {
            if let (true, Some(g)) = (p.trainable(), grads.get(p)) {
                squares += if adaptive { sam_squares(p.value()?, g) } else { sum_of_squares(g) };
            }
            Ok(())
        })?;
        self.kept.rule_mut().scale = Some(self.rho / (squares.sqrt() + 1e-12));
        self.kept.step(model, grads)?;
        self.up = true;
        Ok(())
    }

    fn descend(&mut self, model: &mut dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
        self.kept.rule_mut().scale = None;
        self.kept.step(model, grads)?;
        self.up = false;
        self.base.step(model, grads)
    }
}

impl<T: Scalar, O: Optimizer<T>> Optimizer<T> for Sam<T, O> {
    fn step(&mut self, model: &mut dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
        self.check()?;
        if self.up { self.descend(model, grads) } else { self.ascend(model, grads) }
    }

    fn step_with(&mut self, closure: &mut dyn Closure<T>) -> Result<T> {
        self.check()?;
        if self.up {
            return Err(Error::state(
                "Sam: expected weights that are not moved up, got those between two steps",
            ));
        }
        let loss = closure.evaluate()?;
        let (model, grads) = closure.parts();
        self.ascend(model, grads)?;
        closure.evaluate()?;
        let (model, grads) = closure.parts();
        self.descend(model, grads)?;
        Ok(loss)
    }

    fn learning_rate(&self) -> f64 {
        self.base.learning_rate()
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.base.set_learning_rate(rate);
    }

    fn setting(&mut self, name: &str) -> Option<f64> {
        self.base.setting(name)
    }

    fn set_setting(&mut self, name: &str, value: f64) -> Result<()> {
        self.base.set_setting(name, value)
    }

    fn check(&self) -> Result<()> {
        not_negative::<T>("Sam", "ρ", self.rho)?;
        self.base.check()
    }

    fn reset(&mut self) {
        self.base.reset();
        self.kept.reset();
        self.up = false;
    }

    fn visit_state(&self, model: &dyn Parameters<T = T>, visit: &mut StateVisitor<'_, T>) -> Result<()> {
        self.kept.visit_state(model, &mut |path, name, value| {
            visit(path, ours(NAMES, name), value);
        })?;
        visit("", UP, StateValue::Count(self.up.into()));
        self.base.visit_state(model, visit)
    }

    fn restore_state(&mut self, model: &dyn Parameters<T = T>, mut state: OptimizerState<T>) -> Result<()> {
        let up = count_of(state.remove("", UP), "Sam", UP)?;
        let mut kept = Driver::from_rule(self.kept.rule().clone(), 1.0);
        kept.restore_state(model, split(&mut state, NAMES))?;
        self.base.restore_state(model, state)?;
        (self.kept, self.up) = (kept, up != 0);
        Ok(())
    }

    fn adopt(&mut self, from: &dyn Parameters<T = T>, to: &dyn Parameters<T = T>) -> Result<()> {
        self.kept.adopt(from, to)?;
        self.base.adopt(from, to).inspect_err(|_| {
            let _ = self.kept.adopt(to, from);
        })
    }

    fn spec(&self) -> Spec {
        Spec::new("Sam")
            .with("rho", self.rho)
            .with("adaptive", self.kept.rule().adaptive)
            .child("base", self.base.spec())
    }
}

impl<T: Scalar> FromSpec<T> for Sam<T> {
    const FACTS: Facts = Facts::new("Sam")
        .family("optimizer")
        .formula("a step along the gradient at w + ρ g/‖g‖")
        .page("optimizers/sam.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let sam = Self::new(base(args, "Sam")?);
        Ok(sam.rho(args.or("rho", 0.05)?).adaptive(args.or("adaptive", false)?))
    }

    fn examples() -> Vec<Example> {
        let over = |base: Spec| Spec::new("Sam").child("base", base);
        let sgd = || Spec::new("Sgd").with("lr", 0.1).with("momentum", 0.9);
        vec![
            Example::new(over(Spec::new("Adam").with("lr", 0.03)).with("rho", 0.5), [[3, 2], [2, 5]]),
            Example::new(over(sgd()).with("adaptive", true), [[7]]),
            Example::bench(over(sgd()), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        Sgd,
        testing::{Bag, descends},
    };
    use chainrule_core::Evaluation;

    /// g = (3, 4), ρ = ½: up by (0.3, 0.4), then w − 0.1 g from where it was.
    #[test]
    pub fn by_hand() {
        let sam = Sam::new(Sgd::new(0.1)).rho(0.5);
        descends(sam, &[3.0, 4.0], &mut Bag::new(&[1.0, 1.0]), &[[1.3, 1.4], [0.7, 0.6]]);
    }

    /// E = ½ w² a: the gradient at w (1 + ρ/|w|) is a w (1 + ρ/|w|), or a w (1 + ρ |w|) in units of the weight.
    #[test]
    pub fn agrees_with_reference() {
        for adaptive in [false, true] {
            let mut bag = Bag::<f64>::new(&[2.0]);
            let (mut grads, mut want) = (Grads::new(&bag), 2.0f64);
            let mut sam = Sam::new(Sgd::new(0.1)).rho(0.25).adaptive(adaptive);
            for _ in 0..5 {
                let mut evaluation = Evaluation::new(&mut bag, &mut grads, |bag: &Bag, grads| {
                    let w = bag.0[0].value()?[0];
                    grads.values_mut()[0] = 3.0 * w;
                    Ok(1.5 * w * w)
                });
                assert!((sam.step_with(&mut evaluation).unwrap() - 1.5 * want * want).abs() < 1e-9);
                let up = if adaptive { 0.25 * want.abs() } else { 0.25 };
                want -= 0.3 * (want + up * want.signum());
                assert!((bag.0[0].value().unwrap()[0] - want).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Sam::<f32, _>::new(Sgd::new(0.1)).rho(-1.0).check().is_err());
        assert!(Sam::<f32, _>::new(Sgd::new(f64::NAN)).check().is_err());
    }
}
