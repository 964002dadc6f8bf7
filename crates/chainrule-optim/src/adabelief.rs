//! AdaBelief (Zhuang and others, 2020).
//!
//! ```text
//! m = β₁ m + (1 − β₁) d          d = g + λ w
//! s = β₂ s + (1 − β₂)(d − m)² + ε_root
//! w ← w − η m̂/(√ŝ + ε)
//! ```
//!
//! Derivation: docs/optimizers/adabelief.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{below_one, bias, not_negative, not_zero},
    rule::{beta, betas, settings},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{MomentsStep, adabelief};

/// Adam that divides by how far gradients are from what was expected of them.
///
/// Defaults: β₁ = 0.9, β₂ = 0.999, ε = ε_root = 1e-16, λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::AdaBelief;
/// let adabelief: AdaBelief = AdaBelief::new(1e-3).nesterov(true);
/// assert!(adabelief.check().is_ok());
/// ```
pub type AdaBelief<T = f32> = Driver<AdaBeliefRule, T>;

/// The rule of [`AdaBelief`]; keeps `exp_avg` m and `exp_avg_var` s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaBeliefRule {
    betas: [f64; 2],
    eps: f64,
    eps_root: f64,
    nesterov: bool,
}

impl Default for AdaBeliefRule {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-16, eps_root: 1e-16, nesterov: false }
    }
}

impl<T: Scalar> Driver<AdaBeliefRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(AdaBeliefRule::default(), learning_rate)
    }
}

betas!(AdaBeliefRule);

settings! { AdaBeliefRule {
    /// What is added to the root in the denominator.
    eps: f64,
    /// What is added to s at every step, and kept in it.
    eps_root: f64,
    /// Looks ahead along m.
    nesterov: bool,
} }

impl<T: Scalar> Rule<T> for AdaBeliefRule {
    const KIND: &'static str = "AdaBelief";
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        beta(&mut self.betas, name)
    }

    fn check(&self) -> Result<()> {
        below_one("AdaBelief", "β₁", self.betas[0])?;
        below_one("AdaBelief", "β₂", self.betas[1])?;
        not_negative::<T>("AdaBelief", "ε", self.eps)?;
        not_negative::<T>("AdaBelief", "ε under the root", self.eps_root)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        ["exp_avg", "exp_avg_var"].map(|name| StateTensor::new(name, *shape)).to_vec()
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [beta1, beta2] = self.betas;
        let (of_d, of_m) = match self.nesterov {
            true => ((1.0 - beta1) / bias(beta1, t), beta1 / bias(beta1, t.saturating_add(1))),
            false => (0.0, 1.0 / bias(beta1, t)),
        };
        let step = MomentsStep {
            of_d: T::from_f64(rate * of_d),
            of_m: T::from_f64(rate * of_m),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            beta2: T::from_f64(beta2),
            one_minus_beta2: T::from_f64(1.0 - beta2),
            root: T::from_f64(1.0 / bias(beta2, t).sqrt()),
            eps: not_zero(self.eps),
            eps_root: T::from_f64(self.eps_root),
        };
        match state {
            [m, s] => adabelief(w, g, m.data_mut(), s.data_mut(), terms.cast(), step),
            _ => unreachable!("the driver lays out the state that the rule names"),
        }
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("AdaBelief")
            .with("lr", settings.rate)
            .with("betas", self.betas)
            .with("eps", self.eps)
            .with("eps_root", self.eps_root)
            .with("nesterov", self.nesterov)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for AdaBelief<T> {
    const FACTS: Facts = Facts::new("AdaBelief")
        .family("optimizer")
        .formula("s ← β₂ s + (1 − β₂)(d − m)², w ← w − η m̂/(√ŝ + ε)")
        .page("optimizers/adabelief.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = AdaBeliefRule::default();
        let [beta1, beta2] = args.or("betas", rule.betas)?;
        Self::new(1e-3)
            .betas(beta1, beta2)
            .eps(args.or("eps", rule.eps)?)
            .eps_root(args.or("eps_root", rule.eps_root)?)
            .nesterov(args.or("nesterov", rule.nesterov)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let adabelief = || Spec::new("AdaBelief").with("lr", 0.03);
        vec![
            Example::new(adabelief().with("betas", [0.8, 0.95]).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(
                adabelief()
                    .with("eps", 1e-8)
                    .with("eps_root", 1e-8)
                    .with("nesterov", true)
                    .with("maximize", true),
                [[7]],
            ),
            Example::bench(Spec::new("AdaBelief").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// β₁ = ½, g = 2: m = 1, m̂ = 2, ŝ = (2 − 1)² = 1: w = 1 − 0.1 · 2.
    #[test]
    pub fn by_hand() {
        let adabelief = AdaBelief::new(0.1).betas(0.5, 0.9).eps(0.0).eps_root(0.0);
        descends(adabelief, &[2.0], &mut Bag::new(&[1.0]), &[[0.8]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for (nesterov, maximize) in [(false, false), (true, true)] {
            let adabelief = AdaBelief::new(0.03).betas(0.8, 0.95).eps(1e-4).eps_root(1e-3).weight_decay(0.1);
            compare(adabelief.nesterov(nesterov).maximize(maximize), |w, g, s: &mut [f64; 2], t| {
                let d = if maximize { -g } else { g } + 0.1 * *w;
                s[0] = 0.8 * s[0] + 0.2 * d;
                s[1] = 0.95 * s[1] + 0.05 * (d - s[0]) * (d - s[0]) + 1e-3;
                let hat = |t: i32| 1.0 - 0.8f64.powi(t);
                let m = match nesterov {
                    true => 0.8 * s[0] / hat(t + 1) + 0.2 * d / hat(t),
                    false => s[0] / hat(t),
                };
                *w -= 0.03 * m / ((s[1] / (1.0 - 0.95f64.powi(t))).sqrt() + 1e-4);
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(AdaBelief::<f32>::new(0.1).betas(1.0, 0.9).check().is_err());
        assert!(AdaBelief::<f32>::new(0.1).betas(0.9, f64::NAN).check().is_err());
        assert!(AdaBelief::<f32>::new(0.1).eps(-1.0).check().is_err());
    }
}
