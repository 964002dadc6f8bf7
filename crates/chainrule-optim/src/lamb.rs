//! LAMB (You and others, 2020).
//!
//! ```text
//! m, v as Adam                   u = m̂/(√(v̂ + ε_root) + ε) + λ w
//! r = ‖w‖/‖u‖                    over the whole tensor; 1 if either is 0
//! w ← w − η r u
//! ```
//!
//! Derivation: docs/optimizers/lamb.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Terms, Update,
    check::{below_one, bias, not_negative, not_zero, trust},
    rule::{beta, betas, settings},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{LambStep, lamb, lamb_moments, lamb_norms};

/// AdamW whose step has, for each tensor, the length η ‖w‖. For large batches.
///
/// Defaults: β₁ = 0.9, β₂ = 0.999, ε = 1e-6, ε_root = 0, λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Lamb;
/// let lamb: Lamb = Lamb::new(1e-2).weight_decay(0.01);
/// assert!(lamb.check().is_ok());
/// ```
pub type Lamb<T = f32> = Driver<LambRule, T>;

/// The rule of [`Lamb`]; keeps `exp_avg` m and `exp_avg_sq` v.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LambRule {
    betas: [f64; 2],
    eps: f64,
    eps_root: f64,
}

impl Default for LambRule {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-6, eps_root: 0.0 }
    }
}

impl<T: Scalar> Driver<LambRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(LambRule::default(), learning_rate)
    }
}

betas!(LambRule);

settings! { LambRule {
    /// What is added to the root in the denominator.
    eps: f64,
    /// What is added under the root.
    eps_root: f64,
} }

impl<T: Scalar> Rule<T> for LambRule {
    const KIND: &'static str = "Lamb";
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        beta(&mut self.betas, name)
    }

    fn check(&self) -> Result<()> {
        below_one("Lamb", "β₁", self.betas[0])?;
        below_one("Lamb", "β₂", self.betas[1])?;
        not_negative::<T>("Lamb", "ε", self.eps)?;
        not_negative::<T>("Lamb", "ε under the root", self.eps_root)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        ["exp_avg", "exp_avg_sq"].map(|name| StateTensor::new(name, *shape)).to_vec()
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [m, v] = state else { unreachable!("the driver lays out the state that the rule names") };
        let (m, v) = (m.data_mut(), v.data_mut());
        let [beta1, beta2] = self.betas;
        let mut step = LambStep {
            rate: T::ZERO,
            of_m: T::from_f64(1.0 / bias(beta1, t)),
            of_v: T::from_f64(1.0 / bias(beta2, t)),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            beta2: T::from_f64(beta2),
            one_minus_beta2: T::from_f64(1.0 - beta2),
            decay: T::from_f64(terms.decay), // in u, whose norm it is part of
            eps: not_zero(self.eps),
            eps_root: T::from_f64(self.eps_root),
        };
        let terms = Terms { decay: 0.0, ..terms };
        lamb_moments(w, g, m, v, terms.cast(), step);
        step.rate = T::from_f64(rate * trust(lamb_norms(w, m, v, step), 0.0));
        lamb(w, g, m, v, Terms::NEUTRAL.cast(), step);
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("Lamb")
            .with("lr", settings.rate)
            .with("betas", self.betas)
            .with("eps", self.eps)
            .with("eps_root", self.eps_root)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Lamb<T> {
    const FACTS: Facts = Facts::new("Lamb")
        .family("optimizer")
        .formula("w ← w − η (‖w‖/‖u‖) u, u = m̂/(√v̂ + ε) + λ w")
        .page("optimizers/lamb.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = LambRule::default();
        let [beta1, beta2] = args.or("betas", rule.betas)?;
        Self::new(1e-3)
            .betas(beta1, beta2)
            .eps(args.or("eps", rule.eps)?)
            .eps_root(args.or("eps_root", rule.eps_root)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let lamb = || Spec::new("Lamb").with("lr", 0.03);
        vec![
            Example::new(lamb().with("betas", [0.8, 0.95]).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(lamb().with("eps", 1e-4).with("eps_root", 1e-4).with("maximize", true), [[7]]),
            Example::bench(Spec::new("Lamb").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, descends};
    use crate::testing::{compare_whole, norm};
    use chainrule_core::Optimizer;

    /// u = sign(g), ‖u‖ = √2, ‖w‖ = 5: each element moves by 0.1 · 5/√2.
    #[test]
    pub fn by_hand() {
        let (lamb, step) = (Lamb::new(0.1).eps(0.0), 0.5 / 2f64.sqrt());
        descends(lamb, &[2.0, -7.0], &mut Bag::new(&[3.0, 4.0]), &[[3.0 - step, 4.0 + step]]);
    }

    #[test]
    fn a_norm_of_zero_leaves_the_rate_alone() {
        let lamb = Lamb::new(0.1).eps(0.0);
        descends(lamb, &[2.0, -7.0], &mut Bag::new(&[0.0, 0.0]), &[[-0.1, 0.1]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for maximize in [false, true] {
            let lamb = Lamb::new(0.03).betas(0.8, 0.95).eps(1e-4).eps_root(1e-3).weight_decay(0.1);
            compare_whole(lamb.maximize(maximize), |w, g, [m, v, _], t| {
                let mut u = vec![0.0; w.len()];
                for i in 0..w.len() {
                    let d = if maximize { -g[i] } else { g[i] };
                    m[i] = 0.8 * m[i] + 0.2 * d;
                    v[i] = 0.95 * v[i] + 0.05 * d * d;
                    let (m, v) = (m[i] / (1.0 - 0.8f64.powi(t)), v[i] / (1.0 - 0.95f64.powi(t)));
                    u[i] = m / ((v + 1e-3).sqrt() + 1e-4) + 0.1 * w[i];
                }
                let ratio = norm(w) / norm(&u);
                w.iter_mut().zip(u).for_each(|(w, u)| *w -= 0.03 * ratio * u);
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Lamb::<f32>::new(0.1).betas(1.0, 0.9).check().is_err());
        assert!(Lamb::<f32>::new(0.1).betas(0.9, f64::NAN).check().is_err());
        assert!(Lamb::<f32>::new(0.1).eps(-1.0).check().is_err());
    }
}
