//! AdEMAMix (Pagliardini and others, 2024).
//!
//! ```text
//! m = β₁ m + (1 − β₁) g          s = β₃ s + (1 − β₃) g
//! v = β₂ v + (1 − β₂) g²
//! w ← (1 − η λ) w − η (m̂ + α s)/(√(v̂ + ε_root) + ε)
//! ```
//!
//! Derivation: docs/optimizers/ademamix.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{below_one, bias, not_negative, not_zero},
    rule::{beta, settings},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{AdemamixStep, ademamix};

/// AdamW with a second, much slower momentum.
///
/// Defaults: β = (0.9, 0.999, 0.9999), α = 5, ε = 1e-8, ε_root = 0, λ = 0. α and β₃ are constant.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::AdEMAMix;
/// let ademamix: AdEMAMix = AdEMAMix::new(1e-3).alpha(2.0);
/// assert!(ademamix.check().is_ok());
/// ```
pub type AdEMAMix<T = f32> = Driver<AdEMAMixRule, T>;

/// The rule of [`AdEMAMix`]; keeps `exp_avg_fast` m, `exp_avg_slow` s and `exp_avg_sq` v.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdEMAMixRule {
    betas: [f64; 3],
    alpha: f64,
    eps: f64,
    eps_root: f64,
}

impl Default for AdEMAMixRule {
    fn default() -> Self {
        Self { betas: [0.9, 0.999, 0.9999], alpha: 5.0, eps: 1e-8, eps_root: 0.0 }
    }
}

impl<T: Scalar> Driver<AdEMAMixRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(AdEMAMixRule::default(), learning_rate)
    }
}

impl<T: Scalar> Driver<AdEMAMixRule, T> {
    /// How much of the three running means stays at each step.
    #[must_use]
    pub fn betas(self, betas: [f64; 3]) -> Self {
        self.set(|rule| rule.betas = betas)
    }
}

settings! { AdEMAMixRule {
    /// The share α of the slow momentum.
    alpha: f64,
    /// What is added to the root in the denominator.
    eps: f64,
    /// What is added under the root.
    eps_root: f64,
} }

impl<T: Scalar> Rule<T> for AdEMAMixRule {
    const KIND: &'static str = "AdEMAMix";
    const DECOUPLED: bool = true;
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        beta(&mut self.betas, name)
    }

    fn check(&self) -> Result<()> {
        for (name, beta) in ["β₁", "β₂", "β₃"].into_iter().zip(self.betas) {
            below_one("AdEMAMix", name, beta)?;
        }
        not_negative::<T>("AdEMAMix", "α", self.alpha)?;
        not_negative::<T>("AdEMAMix", "ε", self.eps)?;
        not_negative::<T>("AdEMAMix", "ε under the root", self.eps_root)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        let names = ["exp_avg_fast", "exp_avg_slow", "exp_avg_sq"];
        names.map(|name| StateTensor::new(name, *shape)).to_vec()
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [beta1, beta2, beta3] = self.betas;
        let step = AdemamixStep {
            of_fast: T::from_f64(rate / bias(beta1, t)),
            of_slow: T::from_f64(rate * self.alpha),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            beta2: T::from_f64(beta2),
            one_minus_beta2: T::from_f64(1.0 - beta2),
            one_minus_beta3: T::from_f64(1.0 - beta3),
            of_v: T::from_f64(1.0 / bias(beta2, t)),
            eps: not_zero(self.eps),
            eps_root: T::from_f64(self.eps_root),
        };
        match state {
            [m, s, v] => ademamix(w, g, m.data_mut(), s.data_mut(), v.data_mut(), terms.cast(), step),
            _ => unreachable!("the driver lays out the state that the rule names"),
        }
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("AdEMAMix")
            .with("lr", settings.rate)
            .with("betas", self.betas)
            .with("alpha", self.alpha)
            .with("eps", self.eps)
            .with("eps_root", self.eps_root)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for AdEMAMix<T> {
    const FACTS: Facts = Facts::new("AdEMAMix")
        .family("optimizer")
        .formula("w ← (1 − η λ) w − η (m̂ + α s)/(√v̂ + ε)")
        .page("optimizers/ademamix.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = AdEMAMixRule::default();
        Self::new(1e-3)
            .betas(args.or("betas", rule.betas)?)
            .alpha(args.or("alpha", rule.alpha)?)
            .eps(args.or("eps", rule.eps)?)
            .eps_root(args.or("eps_root", rule.eps_root)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let ademamix = || Spec::new("AdEMAMix").with("lr", 0.03);
        vec![
            Example::new(
                ademamix().with("betas", [0.8, 0.95, 0.99]).with("weight_decay", 0.1),
                [[3, 2], [2, 5]],
            ),
            Example::new(
                ademamix().with("alpha", 2.0).with("eps", 1e-4).with("eps_root", 1e-4).with("maximize", true),
                [[7]],
            ),
            Example::bench(Spec::new("AdEMAMix").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// β₃ = ½, α = 2: m̂ = g, s = g/2, v̂ = g²: w = 1 − 0.1 (1 + 1); then s = ¾ g: w = 0.8 − 0.1 (1 + 1.5).
    #[test]
    pub fn by_hand() {
        let ademamix = AdEMAMix::new(0.1).betas([0.9, 0.999, 0.5]).alpha(2.0).eps(0.0);
        descends(ademamix, &[4.0], &mut Bag::new(&[1.0]), &[[0.8], [0.55]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for maximize in [false, true] {
            let ademamix = AdEMAMix::new(0.03).betas([0.8, 0.95, 0.99]).alpha(2.0).eps(1e-4).eps_root(1e-3);
            compare(ademamix.weight_decay(0.1).maximize(maximize), |w, g, s: &mut [f64; 3], t| {
                let d = if maximize { -g } else { g };
                s[0] = 0.8 * s[0] + 0.2 * d;
                s[1] = 0.99 * s[1] + 0.01 * d;
                s[2] = 0.95 * s[2] + 0.05 * d * d;
                let root = (s[2] / (1.0 - 0.95f64.powi(t)) + 1e-3).sqrt() + 1e-4;
                *w -= 0.03 * ((s[0] / (1.0 - 0.8f64.powi(t)) + 2.0 * s[1]) / root + 0.1 * *w);
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(AdEMAMix::<f32>::new(0.1).betas([0.9, 1.0, 0.9]).check().is_err());
        assert!(AdEMAMix::<f32>::new(0.1).alpha(f64::NAN).check().is_err());
    }
}
