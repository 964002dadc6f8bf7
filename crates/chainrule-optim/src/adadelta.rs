//! Adadelta (Zeiler, 2012).
//!
//! ```text
//! v = ρ v + (1 − ρ) d²           d = g + λ w
//! δ = d √(a + ε)/√(v + ε)
//! a = ρ a + (1 − ρ) δ²
//! w ← w − η δ
//! ```
//!
//! Derivation: docs/optimizers/adadelta.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{not_negative, not_zero},
    rule::settings,
};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{AdadeltaStep, adadelta};

/// Steps whose unit is that of the weights: the root mean square of past steps over that of the gradients.
///
/// Defaults: ρ = 0.9, ε = 1e-6, λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Adadelta;
/// let adadelta: Adadelta = Adadelta::new(1.0).rho(0.95);
/// assert!(adadelta.check().is_ok());
/// ```
pub type Adadelta<T = f32> = Driver<AdadeltaRule, T>;

/// The rule of [`Adadelta`]; keeps `square_avg` v and `acc_delta` a.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdadeltaRule {
    rho: f64,
    eps: f64,
}

impl Default for AdadeltaRule {
    fn default() -> Self {
        Self { rho: 0.9, eps: 1e-6 }
    }
}

impl<T: Scalar> Driver<AdadeltaRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(AdadeltaRule::default(), learning_rate)
    }
}

settings! { AdadeltaRule {
    /// How much ρ of both mean squares stays at each step.
    rho: f64,
    /// What is added under both roots.
    eps: f64,
} }

impl<T: Scalar> Rule<T> for AdadeltaRule {
    const KIND: &'static str = "Adadelta";
    const FUSED: bool = true;

    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.rho) {
            return Err(Error::value(format!("Adadelta: expected ρ in [0, 1], got {}", self.rho)));
        }
        not_negative::<T>("Adadelta", "ε", self.eps)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        ["square_avg", "acc_delta"].map(|name| StateTensor::new(name, *shape)).to_vec()
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, rate, terms, .. } = update;
        let step = AdadeltaStep {
            rate: T::from_f64(rate),
            rho: T::from_f64(self.rho),
            one_minus_rho: T::from_f64(1.0 - self.rho),
            eps: not_zero(self.eps),
        };
        match state {
            [v, a] => adadelta(w, g, v.data_mut(), a.data_mut(), terms.cast(), step),
            _ => unreachable!("the driver lays out the state that the rule names"),
        }
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("Adadelta")
            .with("lr", settings.rate)
            .with("rho", self.rho)
            .with("eps", self.eps)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Adadelta<T> {
    const FACTS: Facts = Facts::new("Adadelta")
        .family("optimizer")
        .formula("δ = d √(a + ε)/√(v + ε), w ← w − η δ")
        .page("optimizers/adadelta.md")
        .torch("Adadelta");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = AdadeltaRule::default();
        Self::new(1.0).rho(args.or("rho", rule.rho)?).eps(args.or("eps", rule.eps)?).with_args(args)
    }

    fn examples() -> Vec<Example> {
        let adadelta = || Spec::new("Adadelta").with("lr", 0.03);
        vec![
            Example::new(adadelta().with("rho", 0.8).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(adadelta().with("eps", 1e-4).with("maximize", true), [[7]]),
            Example::bench(Spec::new("Adadelta").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// ρ = 0, ε = 1: v = 3, δ = √3 · 1/√4 = √3/2, w = 1 − √3/2, a = ¾; then δ = √3 √(7/4)/2.
    #[test]
    pub fn by_hand() {
        let (adadelta, d) = (Adadelta::new(1.0).rho(0.0).eps(1.0), 3f64.sqrt());
        let first = 1.0 - d / 2.0;
        descends(adadelta, &[d], &mut Bag::new(&[1.0]), &[[first], [first - d * 1.75f64.sqrt() / 2.0]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for maximize in [false, true] {
            let adadelta = Adadelta::new(0.5).rho(0.8).eps(1e-3).weight_decay(0.1).maximize(maximize);
            compare(adadelta, |w, g, s: &mut [f64; 2], _| {
                let d = if maximize { -g } else { g } + 0.1 * *w;
                s[0] = 0.8 * s[0] + 0.2 * d * d;
                let delta = d * (s[1] + 1e-3).sqrt() / (s[0] + 1e-3).sqrt();
                s[1] = 0.8 * s[1] + 0.2 * delta * delta;
                *w -= 0.5 * delta;
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Adadelta::<f32>::new(0.1).rho(1.5).check().is_err());
        assert!(Adadelta::<f32>::new(0.1).eps(f64::NAN).check().is_err());
    }
}
