//! Adagrad (Duchi, Hazan and Singer, 2011).
//!
//! ```text
//! s ← s + d²                     d = g + λ w
//! w ← w − η/(1 + (t − 1) κ) d/(√s + ε)
//! ```
//!
//! Derivation: docs/optimizers/adagrad.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{not_negative, not_zero},
    rule::settings,
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{AdagradStep, adagrad};

/// Gradients divided by the root of the sum of all squares so far.
///
/// Defaults: κ = λ = 0, ε = 1e-10, s = 0 before the first step.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Adagrad;
/// let adagrad: Adagrad = Adagrad::new(1e-2).lr_decay(1e-3);
/// assert!(adagrad.check().is_ok());
/// ```
pub type Adagrad<T = f32> = Driver<AdagradRule, T>;

/// The rule of [`Adagrad`]; keeps `sum` s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdagradRule {
    lr_decay: f64,
    initial_accumulator_value: f64,
    eps: f64,
}

impl Default for AdagradRule {
    fn default() -> Self {
        Self { lr_decay: 0.0, initial_accumulator_value: 0.0, eps: 1e-10 }
    }
}

impl<T: Scalar> Driver<AdagradRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(AdagradRule::default(), learning_rate)
    }
}

settings! { AdagradRule {
    /// How fast κ the learning rate falls: η/(1 + (t − 1) κ).
    lr_decay: f64,
    /// The sum of squares before the first step.
    initial_accumulator_value: f64,
    /// What is added to the root in the denominator.
    eps: f64,
} }

impl<T: Scalar> Rule<T> for AdagradRule {
    const KIND: &'static str = "Adagrad";
    const FUSED: bool = true;

    fn check(&self) -> Result<()> {
        not_negative::<T>("Adagrad", "lr_decay", self.lr_decay)?;
        not_negative::<T>("Adagrad", "initial accumulator", self.initial_accumulator_value)?;
        not_negative::<T>("Adagrad", "ε", self.eps)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        vec![StateTensor::new("sum", *shape).starting_at(self.initial_accumulator_value)]
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let rate = rate / (1.0 + (t - 1) as f64 * self.lr_decay);
        let step = AdagradStep { rate: T::from_f64(rate), eps: not_zero(self.eps) };
        adagrad(w, g, state[0].data_mut(), terms.cast(), step);
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("Adagrad")
            .with("lr", settings.rate)
            .with("lr_decay", self.lr_decay)
            .with("weight_decay", settings.weight_decay)
            .with("initial_accumulator_value", self.initial_accumulator_value)
            .with("eps", self.eps)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Adagrad<T> {
    const FACTS: Facts = Facts::new("Adagrad")
        .family("optimizer")
        .formula("s ← s + d², w ← w − η d/(√s + ε)")
        .page("optimizers/adagrad.md")
        .torch("Adagrad");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = AdagradRule::default();
        Self::new(1e-2)
            .lr_decay(args.or("lr_decay", rule.lr_decay)?)
            .initial_accumulator_value(args.or("initial_accumulator_value", rule.initial_accumulator_value)?)
            .eps(args.or("eps", rule.eps)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let adagrad = || Spec::new("Adagrad").with("lr", 0.03);
        vec![
            Example::new(adagrad().with("lr_decay", 0.1).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(
                adagrad().with("initial_accumulator_value", 0.1).with("eps", 1e-4).with("maximize", true),
                [[7]],
            ),
            Example::bench(Spec::new("Adagrad").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// g = 2: s = 4, w = 1 − 0.1 · 2/2 = 0.9; then s = 8, the rate 0.1/2, w = 0.9 − 0.05 · 2/√8.
    #[test]
    pub fn by_hand() {
        let adagrad = Adagrad::new(0.1).lr_decay(1.0).eps(0.0);
        descends(adagrad, &[2.0], &mut Bag::new(&[1.0]), &[[0.9], [0.9 - 0.1 / 8f64.sqrt()]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for (maximize, start) in [(false, 0.0), (true, 0.1)] {
            let adagrad = Adagrad::new(0.1).lr_decay(0.1).initial_accumulator_value(start).eps(1e-4);
            compare(adagrad.weight_decay(0.1).maximize(maximize), |w, g, s: &mut f64, t| {
                let d = if maximize { -g } else { g } + 0.1 * *w;
                *s += d * d;
                *w -= 0.1 / (1.0 + f64::from(t - 1) * 0.1) * d / ((*s + start).sqrt() + 1e-4);
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Adagrad::<f32>::new(0.1).lr_decay(-1.0).check().is_err());
        assert!(Adagrad::<f32>::new(0.1).initial_accumulator_value(f64::NAN).check().is_err());
        assert!(Adagrad::<f32>::new(0.1).eps(-1.0).check().is_err());
    }
}
