//! Yogi (Zaheer and others, 2018).
//!
//! ```text
//! m = β₁ m + (1 − β₁) d          d = g + λ w
//! v ← v − (1 − β₂) sign(v − d²) d²
//! w ← w − η m̂/(√v̂ + ε)
//! ```
//!
//! Derivation: docs/optimizers/yogi.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{below_one, bias, not_negative, not_zero},
    rule::{beta, betas, settings},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{YogiStep, yogi};

/// Adam whose second moment moves by steps of bounded size: it forgets slowly.
///
/// Defaults: β₁ = 0.9, β₂ = 0.999, ε = 1e-3, m = v = 1e-6 before the first step, λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Yogi;
/// let yogi: Yogi = Yogi::new(1e-2).betas(0.9, 0.99);
/// assert!(yogi.check().is_ok());
/// ```
pub type Yogi<T = f32> = Driver<YogiRule, T>;

/// The rule of [`Yogi`]; keeps `exp_avg` m and `exp_avg_sq` v.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YogiRule {
    betas: [f64; 2],
    eps: f64,
    initial_accumulator: f64,
}

impl Default for YogiRule {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-3, initial_accumulator: 1e-6 }
    }
}

impl<T: Scalar> Driver<YogiRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(YogiRule::default(), learning_rate)
    }
}

betas!(YogiRule);

settings! { YogiRule {
    /// What is added to the root in the denominator.
    eps: f64,
    /// Both moments before the first step.
    initial_accumulator: f64,
} }

impl<T: Scalar> Rule<T> for YogiRule {
    const KIND: &'static str = "Yogi";
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        beta(&mut self.betas, name)
    }

    fn check(&self) -> Result<()> {
        below_one("Yogi", "β₁", self.betas[0])?;
        below_one("Yogi", "β₂", self.betas[1])?;
        not_negative::<T>("Yogi", "ε", self.eps)?;
        not_negative::<T>("Yogi", "initial accumulator", self.initial_accumulator)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        let start = |name| StateTensor::new(name, *shape).starting_at(self.initial_accumulator);
        ["exp_avg", "exp_avg_sq"].map(start).to_vec()
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [beta1, beta2] = self.betas;
        let step = YogiStep {
            rate: T::from_f64(rate / bias(beta1, t)),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            one_minus_beta2: T::from_f64(1.0 - beta2),
            root: T::from_f64(1.0 / bias(beta2, t).sqrt()),
            eps: not_zero(self.eps),
        };
        match state {
            [m, v] => yogi(w, g, m.data_mut(), v.data_mut(), terms.cast(), step),
            _ => unreachable!("the driver lays out the state that the rule names"),
        }
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("Yogi")
            .with("lr", settings.rate)
            .with("betas", self.betas)
            .with("eps", self.eps)
            .with("initial_accumulator", self.initial_accumulator)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Yogi<T> {
    const FACTS: Facts = Facts::new("Yogi")
        .family("optimizer")
        .formula("v ← v − (1 − β₂) sign(v − d²) d², w ← w − η m̂/(√v̂ + ε)")
        .page("optimizers/yogi.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = YogiRule::default();
        let [beta1, beta2] = args.or("betas", rule.betas)?;
        Self::new(1e-2)
            .betas(beta1, beta2)
            .eps(args.or("eps", rule.eps)?)
            .initial_accumulator(args.or("initial_accumulator", rule.initial_accumulator)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let yogi = || Spec::new("Yogi").with("lr", 0.03);
        vec![
            Example::new(yogi().with("betas", [0.8, 0.95]).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(
                yogi().with("eps", 1e-4).with("initial_accumulator", 1e-3).with("maximize", true),
                [[7]],
            ),
            Example::bench(Spec::new("Yogi").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// From v = 0 the first step adds (1 − β₂) g²: v̂ = g², as Adam's.
    #[test]
    pub fn by_hand() {
        let yogi = Yogi::new(0.1).eps(0.0).initial_accumulator(0.0);
        descends(yogi, &[4.0, -0.5], &mut Bag::new(&[1.0, -2.0]), &[[0.9, -1.9]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for maximize in [false, true] {
            let yogi = Yogi::new(0.03).betas(0.8, 0.95).eps(1e-4).initial_accumulator(0.5).weight_decay(0.1);
            compare(yogi.maximize(maximize), |w, g, s: &mut [f64; 2], t| {
                if t == 1 {
                    *s = [0.5; 2];
                }
                let d = if maximize { -g } else { g } + 0.1 * *w;
                s[0] = 0.8 * s[0] + 0.2 * d;
                let difference: f64 = s[1] - d * d;
                s[1] -= 0.05 * if difference == 0.0 { 0.0 } else { difference.signum() } * d * d;
                *w -= 0.03 * s[0] / (1.0 - 0.8f64.powi(t)) / ((s[1] / (1.0 - 0.95f64.powi(t))).sqrt() + 1e-4);
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Yogi::<f32>::new(0.1).betas(1.0, 0.9).check().is_err());
        assert!(Yogi::<f32>::new(0.1).betas(0.9, f64::NAN).check().is_err());
        assert!(Yogi::<f32>::new(0.1).eps(-1.0).check().is_err());
        assert!(Yogi::<f32>::new(0.1).initial_accumulator(-1.0).check().is_err());
    }
}
