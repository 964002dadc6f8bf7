//! Lion (Chen and others, 2023).
//!
//! ```text
//! c = β₁ m + (1 − β₁) g
//! w ← (1 − η λ) w − η sign(c)
//! m = β₂ m + (1 − β₂) g
//! ```
//!
//! Derivation: docs/optimizers/lion.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::below_one,
    rule::{beta, betas},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{LionStep, lion};

/// Steps of η along the sign of a momentum; one value of state for each element.
///
/// Defaults: β₁ = 0.9, β₂ = 0.99, λ = 0. η is some tenth of what AdamW takes, and λ ten times as much.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Lion;
/// let lion: Lion = Lion::new(1e-4).betas(0.95, 0.98);
/// assert!(lion.check().is_ok());
/// ```
pub type Lion<T = f32> = Driver<LionRule, T>;

/// The rule of [`Lion`]; keeps `exp_avg` m.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LionRule {
    betas: [f64; 2],
}

impl Default for LionRule {
    fn default() -> Self {
        Self { betas: [0.9, 0.99] }
    }
}

impl<T: Scalar> Driver<LionRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(LionRule::default(), learning_rate)
    }
}

betas!(LionRule);

impl<T: Scalar> Rule<T> for LionRule {
    const KIND: &'static str = "Lion";
    const DECOUPLED: bool = true;
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        beta(&mut self.betas, name)
    }

    fn check(&self) -> Result<()> {
        below_one("Lion", "β₁", self.betas[0])?;
        below_one("Lion", "β₂", self.betas[1])
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        vec![StateTensor::new("exp_avg", *shape)]
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, rate, terms, .. } = update;
        let [beta1, beta2] = self.betas;
        let step = LionStep {
            rate: T::from_f64(rate),
            beta1: T::from_f64(beta1),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            beta2: T::from_f64(beta2),
            one_minus_beta2: T::from_f64(1.0 - beta2),
        };
        lion(w, g, state[0].data_mut(), terms.cast(), step);
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("Lion")
            .with("lr", settings.rate)
            .with("betas", self.betas)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Lion<T> {
    const FACTS: Facts = Facts::new("Lion")
        .family("optimizer")
        .formula("w ← (1 − η λ) w − η sign(β₁ m + (1 − β₁) g)")
        .page("optimizers/lion.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = LionRule::default();
        let [beta1, beta2] = args.or("betas", rule.betas)?;
        Self::new(1e-4).betas(beta1, beta2).with_args(args)
    }

    fn examples() -> Vec<Example> {
        let lion = || Spec::new("Lion").with("lr", 0.03);
        vec![
            Example::new(lion().with("betas", [0.8, 0.95]).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(lion().with("maximize", true), [[7]]),
            Example::bench(Spec::new("Lion").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// λ = 1: w = 0.9 − 0.1 = 0.8, then 0.72 − 0.1; where the gradient is 0 it only decays.
    #[test]
    pub fn by_hand() {
        let lion = Lion::new(0.1).weight_decay(1.0);
        descends(lion, &[5.0, 0.0], &mut Bag::new(&[1.0, 1.0]), &[[0.8, 0.9], [0.62, 0.81]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for maximize in [false, true] {
            let lion = Lion::new(0.03).betas(0.8, 0.95).weight_decay(0.1).maximize(maximize);
            compare(lion, |w, g, m: &mut f64, _| {
                let d = if maximize { -g } else { g };
                let c = 0.8 * *m + (1.0 - 0.8) * d;
                *w -= 0.03 * (0.1 * *w + if c == 0.0 { 0.0 } else { c.signum() });
                *m = 0.95 * *m + (1.0 - 0.95) * d;
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Lion::<f32>::new(0.1).betas(1.0, 0.9).check().is_err());
        assert!(Lion::<f32>::new(0.1).betas(0.9, f64::NAN).check().is_err());
    }
}
