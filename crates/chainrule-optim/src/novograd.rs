//! NovoGrad (Ginsburg and others, 2019).
//!
//! ```text
//! v = β₂ v + (1 − β₂) ‖g‖²       one number a tensor; ‖g‖² on the first step
//! u = g/(√(v + ε_root) + ε) + λ w
//! m = β₁ m + u                   u on the first step
//! w ← w − η m
//! ```
//!
//! Derivation: docs/optimizers/novograd.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Terms, Update,
    check::{below_one, not_negative},
    rule::{beta, betas, settings},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{NovogradStep, novograd, sum_of_squares};

/// Gradients divided by the norm of their tensor: one moment for each element, as few as momentum has.
///
/// Defaults: β₁ = 0.9, β₂ = 0.25, ε = 1e-6, ε_root = 0, λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::NovoGrad;
/// let novograd: NovoGrad = NovoGrad::new(1e-2).weight_decay(0.01);
/// assert!(novograd.check().is_ok());
/// ```
pub type NovoGrad<T = f32> = Driver<NovoGradRule, T>;

/// The rule of [`NovoGrad`]; keeps `exp_avg` m and `exp_avg_sq` v.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NovoGradRule {
    betas: [f64; 2],
    eps: f64,
    eps_root: f64,
}

impl Default for NovoGradRule {
    fn default() -> Self {
        Self { betas: [0.9, 0.25], eps: 1e-6, eps_root: 0.0 }
    }
}

impl<T: Scalar> Driver<NovoGradRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(NovoGradRule::default(), learning_rate)
    }
}

betas!(NovoGradRule);

settings! { NovoGradRule {
    /// What is added to the root in the denominator.
    eps: f64,
    /// What is added under the root.
    eps_root: f64,
} }

impl<T: Scalar> Rule<T> for NovoGradRule {
    const KIND: &'static str = "NovoGrad";
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        beta(&mut self.betas, name)
    }

    fn check(&self) -> Result<()> {
        below_one("NovoGrad", "β₁", self.betas[0])?;
        below_one("NovoGrad", "β₂", self.betas[1])?;
        not_negative::<T>("NovoGrad", "ε", self.eps)?;
        not_negative::<T>("NovoGrad", "ε under the root", self.eps_root)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        vec![StateTensor::new("exp_avg", *shape), StateTensor::new("exp_avg_sq", [])]
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [m, v] = state else { unreachable!("the driver lays out the state that the rule names") };
        let [beta1, beta2] = self.betas;
        let (squares, old) = (sum_of_squares(g), v.data()[0].to_f64());
        let now = if t == 1 { squares } else { beta2 * old + (1.0 - beta2) * squares };
        v.fill(T::from_f64(now));
        let step = NovogradStep {
            rate: T::from_f64(rate),
            beta1: if t == 1 { T::ZERO } else { T::from_f64(beta1) },
            scale: T::from_f64(1.0 / ((now + self.eps_root).sqrt() + self.eps).max(f32::MIN_POSITIVE.into())),
            decay: T::from_f64(terms.decay),
        };
        novograd(w, g, m.data_mut(), Terms { decay: 0.0, ..terms }.cast(), step);
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("NovoGrad")
            .with("lr", settings.rate)
            .with("betas", self.betas)
            .with("eps", self.eps)
            .with("eps_root", self.eps_root)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for NovoGrad<T> {
    const FACTS: Facts = Facts::new("NovoGrad")
        .family("optimizer")
        .formula("m ← β₁ m + g/(√v + ε) + λ w with v a mean of ‖g‖²")
        .page("optimizers/novograd.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = NovoGradRule::default();
        let [beta1, beta2] = args.or("betas", rule.betas)?;
        Self::new(1e-3)
            .betas(beta1, beta2)
            .eps(args.or("eps", rule.eps)?)
            .eps_root(args.or("eps_root", rule.eps_root)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let novograd = || Spec::new("NovoGrad").with("lr", 0.03);
        vec![
            Example::new(novograd().with("betas", [0.8, 0.5]).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(novograd().with("eps", 1e-4).with("eps_root", 1e-4).with("maximize", true), [[7]]),
            Example::bench(Spec::new("NovoGrad").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, descends};
    use crate::testing::{compare_whole, norm};
    use chainrule_core::Optimizer;

    /// ‖g‖ = 5: u = (0.6, 0.8) twice; m = u, then 1.5 u with β₁ = ½.
    #[test]
    pub fn by_hand() {
        let novograd = NovoGrad::new(0.1).betas(0.5, 0.25).eps(0.0);
        descends(novograd, &[3.0, 4.0], &mut Bag::new(&[1.0, 1.0]), &[[0.94, 0.92], [0.85, 0.8]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for maximize in [false, true] {
            let novograd = NovoGrad::new(0.03).betas(0.8, 0.5).eps(1e-4).eps_root(1e-3).weight_decay(0.1);
            compare_whole(novograd.maximize(maximize), |w, g, [m, v, _], t| {
                let squares = norm(g) * norm(g);
                v[0] = if t == 1 { squares } else { 0.5 * v[0] + 0.5 * squares };
                for i in 0..w.len() {
                    let d = if maximize { -g[i] } else { g[i] };
                    let u = d / ((v[0] + 1e-3).sqrt() + 1e-4) + 0.1 * w[i];
                    m[i] = if t == 1 { u } else { 0.8 * m[i] + u };
                    w[i] -= 0.03 * m[i];
                }
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(NovoGrad::<f32>::new(0.1).betas(1.0, 0.9).check().is_err());
        assert!(NovoGrad::<f32>::new(0.1).betas(0.9, f64::NAN).check().is_err());
        assert!(NovoGrad::<f32>::new(0.1).eps(-1.0).check().is_err());
    }
}
