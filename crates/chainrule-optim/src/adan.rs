//! Adan (Xie and others, 2022).
//!
//! ```text
//! δ = g − g_before                 0 on the first step
//! m = β₁ m + (1 − β₁) g            v = β₂ v + (1 − β₂) δ
//! n = β₃ n + (1 − β₃)(g + (1 − β₂) δ)²
//! w ← (1 − η λ) w − η (m̂ + (1 − β₂) v̂)/(√(n̂ + ε_root) + ε)
//! ```
//!
//! Derivation: docs/optimizers/adan.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{below_one, bias, not_negative, not_zero},
    rule::{beta, settings},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{AdanStep, adan};

/// Nesterov's momentum from the change of the gradient, without a gradient elsewhere.
///
/// Defaults: β = (0.98, 0.92, 0.99), ε = ε_root = 1e-8, λ = 0. All β say how much stays, as those of Adam do.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Adan;
/// let adan: Adan = Adan::new(1e-3).betas([0.9, 0.9, 0.99]);
/// assert!(adan.check().is_ok());
/// ```
pub type Adan<T = f32> = Driver<AdanRule, T>;

/// The rule of [`Adan`]; keeps `exp_avg` m, `exp_avg_diff` v, `exp_avg_sq` n and `pre_grad`, the gradient before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdanRule {
    betas: [f64; 3],
    eps: f64,
    eps_root: f64,
}

impl Default for AdanRule {
    fn default() -> Self {
        Self { betas: [0.98, 0.92, 0.99], eps: 1e-8, eps_root: 1e-8 }
    }
}

impl<T: Scalar> Driver<AdanRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(AdanRule::default(), learning_rate)
    }
}

impl<T: Scalar> Driver<AdanRule, T> {
    /// How much of the three running means stays at each step.
    #[must_use]
    pub fn betas(self, betas: [f64; 3]) -> Self {
        self.set(|rule| rule.betas = betas)
    }
}

settings! { AdanRule {
    /// What is added to the root in the denominator.
    eps: f64,
    /// What is added under the root.
    eps_root: f64,
} }

impl<T: Scalar> Rule<T> for AdanRule {
    const KIND: &'static str = "Adan";
    const DECOUPLED: bool = true;
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        beta(&mut self.betas, name)
    }

    fn check(&self) -> Result<()> {
        for (name, beta) in ["β₁", "β₂", "β₃"].into_iter().zip(self.betas) {
            below_one("Adan", name, beta)?;
        }
        not_negative::<T>("Adan", "ε", self.eps)?;
        not_negative::<T>("Adan", "ε under the root", self.eps_root)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        let names = ["exp_avg", "exp_avg_diff", "exp_avg_sq", "pre_grad"];
        names.map(|name| StateTensor::new(name, *shape)).to_vec()
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [beta1, beta2, beta3] = self.betas;
        let step = AdanStep {
            rate: T::from_f64(rate),
            of_m: T::from_f64(1.0 / bias(beta1, t)),
            of_v: T::from_f64((1.0 - beta2) / bias(beta2, t)),
            of_n: T::from_f64(1.0 / bias(beta3, t)),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            one_minus_beta2: T::from_f64(1.0 - beta2),
            one_minus_beta3: T::from_f64(1.0 - beta3),
            beta3: T::from_f64(beta3),
            change: if t == 1 { T::ZERO } else { T::ONE },
            eps: not_zero(self.eps),
            eps_root: T::from_f64(self.eps_root),
        };
        match state {
            [m, v, n, p] => {
                adan(w, g, m.data_mut(), v.data_mut(), n.data_mut(), p.data_mut(), terms.cast(), step);
            }
            _ => unreachable!("the driver lays out the state that the rule names"),
        }
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("Adan")
            .with("lr", settings.rate)
            .with("betas", self.betas)
            .with("eps", self.eps)
            .with("eps_root", self.eps_root)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Adan<T> {
    const FACTS: Facts = Facts::new("Adan")
        .family("optimizer")
        .formula("w ← (1 − η λ) w − η (m̂ + (1 − β₂) v̂)/(√n̂ + ε)")
        .page("optimizers/adan.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = AdanRule::default();
        Self::new(1e-3)
            .betas(args.or("betas", rule.betas)?)
            .eps(args.or("eps", rule.eps)?)
            .eps_root(args.or("eps_root", rule.eps_root)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let adan = || Spec::new("Adan").with("lr", 0.03);
        vec![
            Example::new(adan().with("betas", [0.9, 0.8, 0.95]).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(adan().with("eps", 1e-4).with("eps_root", 1e-4).with("maximize", true), [[7]]),
            Example::bench(Spec::new("Adan").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// While g stays the same, δ = 0, m̂ = g and n̂ = g²: steps of η sign(g).
    #[test]
    pub fn by_hand() {
        let adan = Adan::new(0.1).eps(0.0).eps_root(0.0);
        descends(adan, &[4.0, -0.5], &mut Bag::new(&[1.0, -2.0]), &[[0.9, -1.9], [0.8, -1.8]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for maximize in [false, true] {
            let adan = Adan::new(0.03).betas([0.9, 0.8, 0.95]).eps(1e-4).eps_root(1e-3).weight_decay(0.1);
            compare(adan.maximize(maximize), |w, g, s: &mut [f64; 4], t| {
                let d = if maximize { -g } else { g };
                let change = if t == 1 { 0.0 } else { d - s[3] };
                s[0] = 0.9 * s[0] + 0.1 * d;
                s[1] = 0.8 * s[1] + 0.2 * change;
                s[2] = 0.95 * s[2] + 0.05 * (d + 0.2 * change).powi(2);
                s[3] = d;
                let hat = |v: f64, beta: f64| v / (1.0 - beta.powi(t));
                let u = (hat(s[0], 0.9) + 0.2 * hat(s[1], 0.8)) / ((hat(s[2], 0.95) + 1e-3).sqrt() + 1e-4);
                *w -= 0.03 * (u + 0.1 * *w);
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Adan::<f32>::new(0.1).betas([0.9, 1.0, 0.9]).check().is_err());
        assert!(Adan::<f32>::new(0.1).eps_root(f64::NAN).check().is_err());
    }
}
