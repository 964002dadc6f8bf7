//! Lookahead (Zhang, Lucas, Hinton and Ba, 2019): slow weights that follow those of another optimizer.
//!
//! ```text
//! every k steps:  s ← s + α (w − s),  w ← s
//! ```
//!
//! Derivation: docs/optimizers/lookahead.md.

use crate::{
    Driver, Rule, StateTensor, Update,
    check::count_of,
    wrapper::{base, ours, split},
};
use chainrule_core::{
    Args, Closure, Error, Example, Facts, FromSpec, Grads, Optimizer, OptimizerState, Parameters, Result,
    Scalar, Shape, Spec, StateValue, StateVisitor,
};
use chainrule_tensor::kernels::layers::optim::lerp;

/// Another optimizer on fast weights, and slow ones that go a part of the way to them every few steps.
///
/// Defaults: k = 6, α = 0.5; the fast optimizer keeps its state.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::{Adam, Lookahead};
/// let lookahead = Lookahead::<f32, _>::new(Adam::new(1e-3)).period(5).step_size(0.8);
/// assert!(lookahead.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Lookahead<T: Scalar = f32, O = Box<dyn Optimizer<T>>> {
    fast: O,
    slow: Driver<SlowRule, T>,
    period: u64,
    reset_state: bool,
    steps: u64,
}

/// Keeps `slow` s; moves only where the wrapper says so.
#[derive(Clone, Debug)]
struct SlowRule {
    step_size: f64,
    sync: bool,
}

impl<T: Scalar> Rule<T> for SlowRule {
    const KIND: &'static str = "Lookahead";
    const FUSED: bool = true;

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        vec![StateTensor::new("slow", *shape)]
    }

    fn update(&self, update: Update<'_, T>) {
        if self.sync {
            let slow = update.state[0].data_mut();
            lerp(slow, update.w, T::from_f64(self.step_size)); // s += α (w − s)
            update.w.copy_from_slice(slow);
        }
    }
}

/// The names of the slow weights' state, and those that its driver gives them.
const NAMES: &[(&str, &str)] = &[("slow_step", "step"), ("slow", "slow")];
const STEPS: &str = "lookahead_step";

impl<T: Scalar, O: Optimizer<T>> Lookahead<T, O> {
    /// The fast optimizer, and the defaults.
    pub fn new(fast: O) -> Self {
        let rule = SlowRule { step_size: 0.5, sync: false };
        Self { fast, slow: Driver::from_rule(rule, 1.0), period: 6, reset_state: false, steps: 0 }
    }

    /// After how many steps k the slow weights follow.
    #[must_use]
    pub fn period(mut self, steps: u64) -> Self {
        self.period = steps;
        self
    }

    /// The part α of the way that they go, in [0, 1].
    #[must_use]
    pub fn step_size(mut self, alpha: f64) -> Self {
        self.slow.rule_mut().step_size = alpha;
        self
    }

    /// Whether the fast optimizer starts anew then.
    #[must_use]
    pub fn reset_state(mut self, reset: bool) -> Self {
        self.reset_state = reset;
        self
    }

    /// The fast optimizer.
    pub fn fast(&self) -> &O {
        &self.fast
    }

    fn begin(&mut self, model: &dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
        self.slow.prepare(model, grads, &mut |w, state| state[0].data_mut().copy_from_slice(w))
    }

    fn end(&mut self, model: &mut dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
        self.steps = self.steps.saturating_add(1);
        let sync = self.steps.is_multiple_of(self.period.max(1));
        self.slow.rule_mut().sync = sync;
        self.slow.step(model, grads)?;
        if sync && self.reset_state {
            self.fast.reset();
        }
        Ok(())
    }
}

impl<T: Scalar, O: Optimizer<T>> Optimizer<T> for Lookahead<T, O> {
    fn step(&mut self, model: &mut dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
        self.check()?;
        self.begin(model, grads)?;
        self.fast.step(model, grads)?;
        self.end(model, grads)
    }

    fn step_with(&mut self, closure: &mut dyn Closure<T>) -> Result<T> {
        self.check()?;
        let (model, grads) = closure.parts();
        self.begin(model, grads)?;
        let loss = self.fast.step_with(closure)?;
        let (model, grads) = closure.parts();
        self.end(model, grads)?;
        Ok(loss)
    }

    fn learning_rate(&self) -> f64 {
        self.fast.learning_rate()
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.fast.set_learning_rate(rate);
    }

    fn setting(&mut self, name: &str) -> Option<f64> {
        self.fast.setting(name)
    }

    fn set_setting(&mut self, name: &str, value: f64) -> Result<()> {
        self.fast.set_setting(name, value)
    }

    fn check(&self) -> Result<()> {
        let alpha = self.slow.rule().step_size;
        if self.period == 0 || !(0.0..=1.0).contains(&alpha) {
            return Err(Error::value(format!(
                "Lookahead: expected a period from 1 and a step size in [0, 1], got {} and {alpha}",
                self.period
            )));
        }
        self.fast.check()
    }

    fn reset(&mut self) {
        self.fast.reset();
        self.slow.reset();
        self.steps = 0;
    }

    fn visit_state(&self, model: &dyn Parameters<T = T>, visit: &mut StateVisitor<'_, T>) -> Result<()> {
        self.slow.visit_state(model, &mut |path, name, value| {
            visit(path, ours(NAMES, name), value);
        })?;
        visit("", STEPS, StateValue::Count(self.steps));
        self.fast.visit_state(model, visit)
    }

    fn restore_state(&mut self, model: &dyn Parameters<T = T>, mut state: OptimizerState<T>) -> Result<()> {
        let steps = count_of(state.remove("", STEPS), "Lookahead", STEPS)?;
        let mut slow = Driver::from_rule(self.slow.rule().clone(), 1.0);
        slow.restore_state(model, split(&mut state, NAMES))?;
        self.fast.restore_state(model, state)?;
        (self.slow, self.steps) = (slow, steps);
        Ok(())
    }

    fn adopt(&mut self, from: &dyn Parameters<T = T>, to: &dyn Parameters<T = T>) -> Result<()> {
        self.slow.adopt(from, to)?;
        self.fast.adopt(from, to).inspect_err(|_| {
            let _ = self.slow.adopt(to, from);
        })
    }

    fn spec(&self) -> Spec {
        Spec::new("Lookahead")
            .with("sync_period", self.period)
            .with("slow_step_size", self.slow.rule().step_size)
            .with("reset_state", self.reset_state)
            .child("fast", self.fast.spec())
    }
}

impl<T: Scalar> FromSpec<T> for Lookahead<T> {
    const FACTS: Facts = Facts::new("Lookahead")
        .family("optimizer")
        .formula("every k steps s ← s + α (w − s), w ← s")
        .page("optimizers/lookahead.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let lookahead = Self::new(base(args, "Lookahead")?).period(args.or("sync_period", 6)?);
        Ok(lookahead.step_size(args.or("slow_step_size", 0.5)?).reset_state(args.or("reset_state", false)?))
    }

    fn examples() -> Vec<Example> {
        let over = |fast: Spec| Spec::new("Lookahead").child("fast", fast);
        let sgd = Spec::new("Sgd").with("lr", 0.1).with("momentum", 0.9);
        vec![
            Example::new(over(Spec::new("Adam").with("lr", 0.03)).with("sync_period", 3), [[3, 2], [2, 5]]),
            Example::new(over(sgd).with("slow_step_size", 0.8).with("reset_state", true), [[7]]),
            Example::bench(over(Spec::new("Adam")), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        Sgd,
        testing::{Bag, compare, descends},
    };

    /// η g = 1, k = 2, α = ½: w = 9, then 8 → 10 + ½ (8 − 10) = 9, then 8, then 7 → 9 + ½ (7 − 9) = 8.
    #[test]
    pub fn by_hand() {
        let lookahead = Lookahead::new(Sgd::new(0.5)).period(2);
        descends(lookahead, &[2.0], &mut Bag::new(&[10.0]), &[[9.0], [9.0], [8.0], [8.0]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for reset in [false, true] {
            let lookahead = Lookahead::new(Sgd::new(0.1).momentum(0.9)).period(3).step_size(0.8);
            compare(lookahead.reset_state(reset), |w, g, s: &mut [f64; 2], t| {
                if t == 1 {
                    s[1] = *w;
                }
                s[0] = 0.9 * s[0] + g;
                *w -= 0.1 * s[0];
                if t % 3 == 0 {
                    s[1] += 0.8 * (*w - s[1]);
                    *w = s[1];
                    s[0] *= if reset { 0.0 } else { 1.0 };
                }
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Lookahead::<f32, _>::new(Sgd::new(0.1)).period(0).check().is_err());
        assert!(Lookahead::<f32, _>::new(Sgd::new(0.1)).step_size(1.5).check().is_err());
        assert!(Lookahead::<f32, _>::new(Sgd::new(f64::NAN)).check().is_err());
    }
}
