//! NAdam (Dozat, 2016): Adam that looks ahead.
//!
//! ```text
//! μₜ = β₁ (1 − ½ · 0.96^(t ψ))   Π = μ₁ μ₂ … μₜ         d = g + λ w
//! m, v as Adam                   v̂ = v/(1 − β₂ᵗ)
//! w ← w − η [(1 − μₜ)/(1 − Π) d + μₜ₊₁/(1 − Π μₜ₊₁) m]/(√v̂ + ε)
//! ```
//!
//! Derivation: docs/optimizers/nadam.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{below_one, bias, not_negative, not_zero},
    rule::{beta, betas, settings},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{MomentsStep, nadam};

/// Adam with Nesterov's momentum, whose share grows over the first steps.
///
/// Defaults: β₁ = 0.9, β₂ = 0.999, ε = 1e-8, λ = 0, ψ = 0.004.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::NAdam;
/// let nadam: NAdam = NAdam::new(2e-3).momentum_decay(1e-2);
/// assert!(nadam.check().is_ok());
/// ```
pub type NAdam<T = f32> = Driver<NAdamRule, T>;

/// The rule of [`NAdam`]; keeps `mu_product` Π, `exp_avg` m and `exp_avg_sq` v.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NAdamRule {
    betas: [f64; 2],
    eps: f64,
    momentum_decay: f64,
}

impl Default for NAdamRule {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, momentum_decay: 4e-3 }
    }
}

impl<T: Scalar> Driver<NAdamRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(NAdamRule::default(), learning_rate)
    }
}

betas!(NAdamRule);

settings! { NAdamRule {
    /// What is added to the root in the denominator.
    eps: f64,
    /// How fast ψ the momentum rises to β₁.
    momentum_decay: f64,
} }

impl<T: Scalar> Rule<T> for NAdamRule {
    const KIND: &'static str = "NAdam";
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        beta(&mut self.betas, name)
    }

    fn check(&self) -> Result<()> {
        below_one("NAdam", "β₁", self.betas[0])?;
        below_one("NAdam", "β₂", self.betas[1])?;
        not_negative::<T>("NAdam", "ε", self.eps)?;
        not_negative::<T>("NAdam", "momentum decay", self.momentum_decay)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        let mut state = vec![StateTensor::new("mu_product", []).starting_at(1.0)];
        state.extend(["exp_avg", "exp_avg_sq"].map(|name| StateTensor::new(name, *shape)));
        state
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [product, m, v] = state else {
            unreachable!("the driver lays out the state that the rule names")
        };
        let [beta1, beta2] = self.betas;
        let momentum = |t: f64| beta1 * (1.0 - 0.5 * 0.96f64.powf(t * self.momentum_decay));
        let (now, next) = (momentum(t as f64), momentum(t as f64 + 1.0));
        let so_far = product.data()[0].to_f64() * now;
        product.fill(T::from_f64(so_far));
        let step = MomentsStep {
            of_d: T::from_f64(rate * (1.0 - now) / (1.0 - so_far)),
            of_m: T::from_f64(rate * next / (1.0 - so_far * next)),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            beta2: T::from_f64(beta2),
            one_minus_beta2: T::from_f64(1.0 - beta2),
            root: T::from_f64(1.0 / bias(beta2, t).sqrt()),
            eps: not_zero(self.eps),
            eps_root: T::ZERO,
        };
        nadam(w, g, m.data_mut(), v.data_mut(), terms.cast(), step);
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("NAdam")
            .with("lr", settings.rate)
            .with("betas", self.betas)
            .with("eps", self.eps)
            .with("weight_decay", settings.weight_decay)
            .with("momentum_decay", self.momentum_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for NAdam<T> {
    const FACTS: Facts = Facts::new("NAdam")
        .family("optimizer")
        .formula("w ← w − η (a d + b m)/(√v̂ + ε)")
        .page("optimizers/nadam.md")
        .torch("NAdam");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = NAdamRule::default();
        let [beta1, beta2] = args.or("betas", rule.betas)?;
        Self::new(2e-3)
            .betas(beta1, beta2)
            .eps(args.or("eps", rule.eps)?)
            .momentum_decay(args.or("momentum_decay", rule.momentum_decay)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let nadam = || Spec::new("NAdam").with("lr", 0.03);
        vec![
            Example::new(
                nadam().with("betas", [0.8, 0.95]).with("weight_decay", 0.1).with("momentum_decay", 0.01),
                [[3, 2], [2, 5]],
            ),
            Example::new(
                nadam().with("eps", 1e-4).with("weight_decay", 0.1).with("decoupled_weight_decay", true),
                [[7]],
            ),
            Example::new(nadam().with("maximize", true), [[7]]),
            Example::bench(Spec::new("NAdam").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// ψ = 0 makes μ = β₁/2 = ½ throughout. t = 1: Π = ½, v̂ = g², m = g/10: (1 − ½)/(1 − ½) + ½/(1 − ¼)/10 = 1 + 1/15.
    #[test]
    pub fn by_hand() {
        let (beta, mu) = (0.9, 0.45);
        let step = (1.0 - mu) / (1.0 - mu) + mu / (1.0 - mu * mu) * (1.0 - beta);
        let nadam = NAdam::new(0.1).momentum_decay(0.0).eps(0.0);
        descends(nadam, &[4.0], &mut Bag::new(&[1.0]), &[[1.0 - 0.1 * step]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for (decoupled, maximize) in [(false, false), (true, true)] {
            let nadam = NAdam::new(0.03).betas(0.8, 0.95).eps(1e-4).momentum_decay(0.01).weight_decay(0.1);
            compare(
                nadam.decoupled_weight_decay(decoupled).maximize(maximize),
                |w, g, s: &mut [f64; 3], t| {
                    let mut d = if maximize { -g } else { g };
                    if decoupled {
                        *w *= 1.0 - 0.03 * 0.1;
                    } else {
                        d += 0.1 * *w;
                    }
                    let mu = |t: i32| 0.8 * (1.0 - 0.5 * 0.96f64.powf(f64::from(t) * 0.01));
                    s[0] = 0.8 * s[0] + 0.2 * d;
                    s[1] = 0.95 * s[1] + 0.05 * d * d;
                    s[2] = if t == 1 { 1.0 } else { s[2] } * mu(t);
                    let root = (s[1] / (1.0 - 0.95f64.powi(t))).sqrt() + 1e-4;
                    *w -= 0.03 * (1.0 - mu(t)) / (1.0 - s[2]) * d / root;
                    *w -= 0.03 * mu(t + 1) / (1.0 - s[2] * mu(t + 1)) * s[0] / root;
                },
            );
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(NAdam::<f32>::new(0.1).betas(1.0, 0.9).check().is_err());
        assert!(NAdam::<f32>::new(0.1).betas(0.9, f64::NAN).check().is_err());
        assert!(NAdam::<f32>::new(0.1).eps(-1.0).check().is_err());
        assert!(NAdam::<f32>::new(0.1).momentum_decay(-1.0).check().is_err());
    }
}
