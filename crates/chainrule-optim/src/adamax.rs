//! Adamax (Kingma and Ba, 2015, section 7.1).
//!
//! ```text
//! m = β₁ m + (1 − β₁) d          d = g + λ w
//! u = max(β₂ u, |d| + ε)
//! w ← w − η/(1 − β₁ᵗ) m/u
//! ```
//!
//! Derivation: docs/optimizers/adamax.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{below_one, bias, not_negative, not_zero},
    rule::{beta, betas, settings},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{AdamaxStep, adamax};

/// Adam with the largest recent gradient in place of the root of the mean square.
///
/// Defaults: β₁ = 0.9, β₂ = 0.999, ε = 1e-8, λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Adamax;
/// let adamax: Adamax = Adamax::new(2e-3).betas(0.9, 0.99);
/// assert!(adamax.check().is_ok());
/// ```
pub type Adamax<T = f32> = Driver<AdamaxRule, T>;

/// The rule of [`Adamax`]; keeps `exp_avg` m and `exp_inf` u.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamaxRule {
    betas: [f64; 2],
    eps: f64,
}

impl Default for AdamaxRule {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8 }
    }
}

impl<T: Scalar> Driver<AdamaxRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(AdamaxRule::default(), learning_rate)
    }
}

betas!(AdamaxRule);

settings! { AdamaxRule {
    /// What is added to the size of the gradient.
    eps: f64,
} }

impl<T: Scalar> Rule<T> for AdamaxRule {
    const KIND: &'static str = "Adamax";
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        beta(&mut self.betas, name)
    }

    fn check(&self) -> Result<()> {
        below_one("Adamax", "β₁", self.betas[0])?;
        below_one("Adamax", "β₂", self.betas[1])?;
        not_negative::<T>("Adamax", "ε", self.eps)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        ["exp_avg", "exp_inf"].map(|name| StateTensor::new(name, *shape)).to_vec()
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [beta1, beta2] = self.betas;
        let step = AdamaxStep {
            rate: T::from_f64(rate / bias(beta1, t)),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            beta2: T::from_f64(beta2),
            eps: not_zero(self.eps),
        };
        match state {
            [m, u] => adamax(w, g, m.data_mut(), u.data_mut(), terms.cast(), step),
            _ => unreachable!("the driver lays out the state that the rule names"),
        }
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("Adamax")
            .with("lr", settings.rate)
            .with("betas", self.betas)
            .with("eps", self.eps)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Adamax<T> {
    const FACTS: Facts = Facts::new("Adamax")
        .family("optimizer")
        .formula("u ← max(β₂ u, |d| + ε), w ← w − η m̂/u")
        .page("optimizers/adamax.md")
        .torch("Adamax");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = AdamaxRule::default();
        let [beta1, beta2] = args.or("betas", rule.betas)?;
        Self::new(2e-3).betas(beta1, beta2).eps(args.or("eps", rule.eps)?).with_args(args)
    }

    fn examples() -> Vec<Example> {
        let adamax = || Spec::new("Adamax").with("lr", 0.03);
        vec![
            Example::new(adamax().with("betas", [0.8, 0.95]).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(adamax().with("eps", 1e-4).with("maximize", true), [[7]]),
            Example::bench(Spec::new("Adamax").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// m̂ = g and u = |g| as long as g stays the same: two steps of η sign(g).
    #[test]
    pub fn by_hand() {
        let adamax = Adamax::new(0.1).eps(0.0);
        descends(adamax, &[4.0, -0.25], &mut Bag::new(&[1.0, -2.0]), &[[0.9, -1.9], [0.8, -1.8]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for maximize in [false, true] {
            let adamax = Adamax::new(0.03).betas(0.8, 0.95).eps(1e-4).weight_decay(0.1).maximize(maximize);
            compare(adamax, |w, g, s: &mut [f64; 2], t| {
                let d = if maximize { -g } else { g } + 0.1 * *w;
                s[0] = 0.8 * s[0] + 0.2 * d;
                s[1] = (0.95 * s[1]).max(d.abs() + 1e-4);
                *w -= 0.03 * s[0] / (1.0 - 0.8f64.powi(t)) / s[1];
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Adamax::<f32>::new(0.1).betas(1.0, 0.9).check().is_err());
        assert!(Adamax::<f32>::new(0.1).betas(0.9, f64::NAN).check().is_err());
        assert!(Adamax::<f32>::new(0.1).eps(-1.0).check().is_err());
    }
}
