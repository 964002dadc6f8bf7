//! RAdam (Liu and others, 2020): Adam whose first steps wait for the variance.
//!
//! ```text
//! m, v as Adam                   d = g + λ w
//! ρ∞ = 2/(1 − β₂) − 1            ρ = ρ∞ − 2 t β₂ᵗ/(1 − β₂ᵗ)
//! r² = (ρ − 4)(ρ − 2) ρ∞/((ρ∞ − 4)(ρ∞ − 2) ρ)
//! w ← w − η m̂ r √(1 − β₂ᵗ)/(√v + ε)  if ρ > 5, else w − η m̂
//! ```
//!
//! Derivation: docs/optimizers/radam.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{below_one, bias, not_negative, not_zero},
    rule::{beta, betas, settings},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{RadamStep, radam};

/// Adam with a step that is rectified by how well the second moment is known.
///
/// Defaults: β₁ = 0.9, β₂ = 0.999, ε = 1e-8, λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::RAdam;
/// let radam: RAdam = RAdam::new(1e-3).betas(0.9, 0.99);
/// assert!(radam.check().is_ok());
/// ```
pub type RAdam<T = f32> = Driver<RAdamRule, T>;

/// The rule of [`RAdam`]; keeps `exp_avg` m and `exp_avg_sq` v.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RAdamRule {
    betas: [f64; 2],
    eps: f64,
}

impl Default for RAdamRule {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8 }
    }
}

impl<T: Scalar> Driver<RAdamRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(RAdamRule::default(), learning_rate)
    }
}

betas!(RAdamRule);

settings! { RAdamRule {
    /// What is added to the root in the denominator.
    eps: f64,
} }

impl<T: Scalar> Rule<T> for RAdamRule {
    const KIND: &'static str = "RAdam";
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        beta(&mut self.betas, name)
    }

    fn check(&self) -> Result<()> {
        below_one("RAdam", "β₁", self.betas[0])?;
        below_one("RAdam", "β₂", self.betas[1])?;
        not_negative::<T>("RAdam", "ε", self.eps)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        ["exp_avg", "exp_avg_sq"].map(|name| StateTensor::new(name, *shape)).to_vec()
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [beta1, beta2] = self.betas;
        let (rate, at) = (rate / bias(beta1, t), t as f64);
        let longest = 2.0 / (1.0 - beta2) - 1.0;
        let length = longest - 2.0 * at * beta2.powf(at) / bias(beta2, t); // ρ
        let (mut plain, mut adaptive) = (rate, 0.0);
        if length > 5.0 {
            let rectified =
                (length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length); // r²
            (plain, adaptive) = (0.0, rate * (rectified * bias(beta2, t)).sqrt());
        }
        let step = RadamStep {
            plain: T::from_f64(plain),
            adaptive: T::from_f64(adaptive),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            beta2: T::from_f64(beta2),
            one_minus_beta2: T::from_f64(1.0 - beta2),
            eps: not_zero(self.eps),
        };
        match state {
            [m, v] => radam(w, g, m.data_mut(), v.data_mut(), terms.cast(), step),
            _ => unreachable!("the driver lays out the state that the rule names"),
        }
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("RAdam")
            .with("lr", settings.rate)
            .with("betas", self.betas)
            .with("eps", self.eps)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for RAdam<T> {
    const FACTS: Facts = Facts::new("RAdam")
        .family("optimizer")
        .formula("w ← w − η r m̂/√v̂ once v̂ is known, w − η m̂ before")
        .page("optimizers/radam.md")
        .torch("RAdam");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = RAdamRule::default();
        let [beta1, beta2] = args.or("betas", rule.betas)?;
        Self::new(1e-3).betas(beta1, beta2).eps(args.or("eps", rule.eps)?).with_args(args)
    }

    fn examples() -> Vec<Example> {
        let radam = || Spec::new("RAdam").with("lr", 0.03);
        vec![
            Example::new(radam().with("betas", [0.8, 0.95]).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(
                radam().with("eps", 1e-4).with("weight_decay", 0.1).with("decoupled_weight_decay", true),
                [[7]],
            ),
            Example::new(radam().with("maximize", true), [[7]]),
            Example::bench(Spec::new("RAdam").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// m̂ = g as long as g stays the same, and ρ ≤ 5 on the first five steps of β₂ = 0.999: w falls by η g.
    #[test]
    pub fn by_hand() {
        descends(RAdam::new(0.1), &[2.0], &mut Bag::new(&[1.0]), &[[0.8], [0.6], [0.4], [0.2], [0.0]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for (decoupled, maximize) in [(false, false), (true, true)] {
            let radam = RAdam::new(0.03).betas(0.8, 0.95).eps(1e-4).weight_decay(0.1);
            compare(
                radam.decoupled_weight_decay(decoupled).maximize(maximize),
                |w, g, s: &mut [f64; 2], t| {
                    let mut d = if maximize { -g } else { g };
                    if decoupled {
                        *w *= 1.0 - 0.03 * 0.1;
                    } else {
                        d += 0.1 * *w;
                    }
                    s[0] = 0.8 * s[0] + 0.2 * d;
                    s[1] = 0.95 * s[1] + 0.05 * d * d;
                    let (m, correction) = (s[0] / (1.0 - 0.8f64.powi(t)), 1.0 - 0.95f64.powi(t));
                    let longest = 2.0 / (1.0 - 0.95) - 1.0;
                    let rho = longest - 2.0 * f64::from(t) * 0.95f64.powi(t) / correction;
                    if rho > 5.0 {
                        let r =
                            (rho - 4.0) * (rho - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * rho);
                        *w -= 0.03 * m * r.sqrt() * correction.sqrt() / (s[1].sqrt() + 1e-4);
                    } else {
                        *w -= 0.03 * m;
                    }
                },
            );
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(RAdam::<f32>::new(0.1).betas(1.0, 0.9).check().is_err());
        assert!(RAdam::<f32>::new(0.1).betas(0.9, f64::NAN).check().is_err());
        assert!(RAdam::<f32>::new(0.1).eps(-1.0).check().is_err());
    }
}
