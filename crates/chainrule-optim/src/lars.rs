//! LARS (You, Gitman and Ginsburg, 2017).
//!
//! ```text
//! u = g + λ w
//! r = κ ‖w‖/(‖u‖ + ε)            over the whole tensor; 1 if either is 0
//! b = μ b + η r u
//! w ← w − b                      or, looking ahead,  w − (η r u + μ b)
//! ```
//!
//! Derivation: docs/optimizers/lars.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{not_negative, trust},
    rule::settings,
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{LarsStep, lars, lars_norms};

/// Gradient descent with momentum whose step has, for each tensor, a length of η κ ‖w‖.
///
/// Defaults: μ = 0.9, κ = 0.001, ε = λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Lars;
/// let lars: Lars = Lars::new(1e-1).momentum(0.9);
/// assert!(lars.check().is_ok());
/// ```
pub type Lars<T = f32> = Driver<LarsRule, T>;

/// The rule of [`Lars`]; keeps `momentum_buffer` b with momentum, the learning rate inside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LarsRule {
    momentum: f64,
    nesterov: bool,
    trust_coefficient: f64,
    eps: f64,
}

impl Default for LarsRule {
    fn default() -> Self {
        Self { momentum: 0.9, nesterov: false, trust_coefficient: 0.001, eps: 0.0 }
    }
}

impl<T: Scalar> Driver<LarsRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(LarsRule::default(), learning_rate)
    }
}

settings! { LarsRule {
    /// How much μ of the velocity stays at each step.
    momentum: f64,
    /// Looks ahead along the velocity.
    nesterov: bool,
    /// The length κ of a step, as a share of that of the weights.
    trust_coefficient: f64,
    /// What is added to the norm in the denominator.
    eps: f64,
} }

impl<T: Scalar> Rule<T> for LarsRule {
    const KIND: &'static str = "Lars";
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        match name {
            "momentum" => Some(&mut self.momentum),
            _ => None,
        }
    }

    fn check(&self) -> Result<()> {
        not_negative::<T>("Lars", "momentum", self.momentum)?;
        not_negative::<T>("Lars", "trust coefficient", self.trust_coefficient)?;
        not_negative::<T>("Lars", "ε", self.eps)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        vec![StateTensor::new("momentum_buffer", *shape)]
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, rate, terms, .. } = update;
        let norms = lars_norms(w, g, terms.cast());
        let ratio = match norms {
            [w, u] if w > 0.0 && u > 0.0 => self.trust_coefficient * trust(norms, self.eps),
            _ => 1.0,
        };
        let (of_d, of_b) = if self.nesterov { (1.0, self.momentum) } else { (0.0, 1.0) };
        let step = LarsStep {
            rate: T::from_f64(rate * ratio),
            momentum: T::from_f64(self.momentum),
            of_d: T::from_f64(of_d),
            of_b: T::from_f64(of_b),
        };
        lars(w, g, state[0].data_mut(), terms.cast(), step);
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("Lars")
            .with("lr", settings.rate)
            .with("momentum", self.momentum)
            .with("nesterov", self.nesterov)
            .with("trust_coefficient", self.trust_coefficient)
            .with("eps", self.eps)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Lars<T> {
    const FACTS: Facts = Facts::new("Lars")
        .family("optimizer")
        .formula("b ← μ b + η (κ ‖w‖/‖u‖) u, w ← w − b")
        .page("optimizers/lars.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = LarsRule::default();
        Self::new(1e-3)
            .momentum(args.or("momentum", rule.momentum)?)
            .nesterov(args.or("nesterov", rule.nesterov)?)
            .trust_coefficient(args.or("trust_coefficient", rule.trust_coefficient)?)
            .eps(args.or("eps", rule.eps)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let lars = || Spec::new("Lars").with("lr", 0.03);
        vec![
            Example::new(lars().with("momentum", 0.5).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(
                lars()
                    .with("trust_coefficient", 0.02)
                    .with("eps", 1e-8)
                    .with("nesterov", true)
                    .with("maximize", true),
                [[7]],
            ),
            Example::bench(Spec::new("Lars").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, descends};
    use crate::testing::{compare_whole, norm};
    use chainrule_core::Optimizer;

    /// ‖w‖ = 5, ‖g‖ = 10, κ = 1: r = ½, b = 0.1 · ½ g = (0.3, 0.4), w = (2.7, 3.6).
    #[test]
    pub fn by_hand() {
        let lars = Lars::new(0.1).trust_coefficient(1.0).momentum(0.5);
        descends(lars, &[6.0, 8.0], &mut Bag::new(&[3.0, 4.0]), &[[2.7, 3.6]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for (nesterov, maximize) in [(false, false), (true, true)] {
            let lars = Lars::new(0.1).momentum(0.5).trust_coefficient(0.2).eps(1e-3).weight_decay(0.1);
            compare_whole(lars.nesterov(nesterov).maximize(maximize), |w, g, [b, ..], _| {
                let u: Vec<f64> =
                    w.iter().zip(g).map(|(w, g)| if maximize { -g } else { *g } + 0.1 * w).collect();
                let ratio = 0.2 * norm(w) / (norm(&u) + 1e-3);
                for i in 0..w.len() {
                    b[i] = 0.5 * b[i] + 0.1 * ratio * u[i];
                    w[i] -= if nesterov { 0.1 * ratio * u[i] + 0.5 * b[i] } else { b[i] };
                }
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Lars::<f32>::new(0.1).momentum(-1.0).check().is_err());
        assert!(Lars::<f32>::new(0.1).trust_coefficient(f64::NAN).check().is_err());
        assert!(Lars::<f32>::new(0.1).eps(f64::INFINITY).check().is_err());
    }
}
