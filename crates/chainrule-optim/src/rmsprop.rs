//! RMSprop (Tieleman and Hinton, 2012; centred: Graves, 2013).
//!
//! ```text
//! v = α v + (1 − α) d²          d = g + λ w
//! a = α a + (1 − α) d           centred: v − a² in place of v
//! b = μ b + d/(√v + ε)          without momentum d/(√v + ε) itself
//! w ← w − η b
//! ```
//!
//! Derivation: docs/optimizers/rmsprop.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{not_negative, not_zero},
    rule::settings,
};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{
    RmspropStep, rmsprop, rmsprop_centered, rmsprop_centered_momentum, rmsprop_momentum,
};

/// Gradients divided by the root of their mean square.
///
/// Defaults: α = 0.99, ε = 1e-8, μ = λ = 0, not centred.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::RmsProp;
/// let rmsprop: RmsProp = RmsProp::new(1e-2).momentum(0.9).centered(true);
/// assert!(rmsprop.check().is_ok());
/// ```
pub type RmsProp<T = f32> = Driver<RmsPropRule, T>;

/// The rule of [`RmsProp`]; keeps `square_avg` v, `momentum_buffer` b with momentum, and `grad_avg` a if centred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsPropRule {
    alpha: f64,
    eps: f64,
    momentum: f64,
    centered: bool,
}

impl Default for RmsPropRule {
    fn default() -> Self {
        Self { alpha: 0.99, eps: 1e-8, momentum: 0.0, centered: false }
    }
}

impl<T: Scalar> Driver<RmsPropRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(RmsPropRule::default(), learning_rate)
    }
}

settings! { RmsPropRule {
    /// How much α of the mean square stays at each step.
    alpha: f64,
    /// What is added to the root in the denominator.
    eps: f64,
    /// How much μ of the velocity stays at each step.
    momentum: f64,
    /// Divides by the estimated standard deviation, not by the root of the mean square.
    centered: bool,
} }

impl<T: Scalar> Rule<T> for RmsPropRule {
    const KIND: &'static str = "RmsProp";
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        match name {
            "momentum" => Some(&mut self.momentum),
            "alpha" => Some(&mut self.alpha),
            _ => None,
        }
    }

    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.alpha) {
            return Err(Error::value(format!("RmsProp: expected α in [0, 1], got {}", self.alpha)));
        }
        not_negative::<T>("RmsProp", "ε", self.eps)?;
        not_negative::<T>("RmsProp", "momentum", self.momentum)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        let used =
            [("square_avg", true), ("momentum_buffer", self.momentum > 0.0), ("grad_avg", self.centered)];
        used.into_iter().filter(|(_, used)| *used).map(|(name, _)| StateTensor::new(name, *shape)).collect()
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, rate, terms, .. } = update;
        let (terms, step) = (
            terms.cast(),
            RmspropStep {
                rate: T::from_f64(rate),
                alpha: T::from_f64(self.alpha),
                one_minus_alpha: T::from_f64(1.0 - self.alpha),
                momentum: T::from_f64(self.momentum),
                eps: not_zero(self.eps),
            },
        );
        match (state, self.centered) {
            ([v], _) => rmsprop(w, g, v.data_mut(), terms, step),
            ([v, a], true) => rmsprop_centered(w, g, v.data_mut(), a.data_mut(), terms, step),
            ([v, b], false) => rmsprop_momentum(w, g, v.data_mut(), b.data_mut(), terms, step),
            ([v, b, a], _) => {
                rmsprop_centered_momentum(w, g, v.data_mut(), b.data_mut(), a.data_mut(), terms, step);
            }
            _ => unreachable!("the driver lays out the state that the rule names"),
        }
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("RmsProp")
            .with("lr", settings.rate)
            .with("alpha", self.alpha)
            .with("eps", self.eps)
            .with("weight_decay", settings.weight_decay)
            .with("momentum", self.momentum)
            .with("centered", self.centered)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for RmsProp<T> {
    const FACTS: Facts = Facts::new("RmsProp")
        .family("optimizer")
        .formula("v ← α v + (1 − α) d², w ← w − η d/(√v + ε)")
        .page("optimizers/rmsprop.md")
        .torch("RMSprop");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = RmsPropRule::default();
        Self::new(1e-2)
            .alpha(args.or("alpha", rule.alpha)?)
            .eps(args.or("eps", rule.eps)?)
            .momentum(args.or("momentum", 0.0)?)
            .centered(args.or("centered", false)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let rmsprop = || Spec::new("RmsProp").with("lr", 0.03);
        vec![
            Example::new(rmsprop().with("alpha", 0.9).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(rmsprop().with("momentum", 0.9).with("eps", 1e-4).with("maximize", true), [[7]]),
            Example::new(rmsprop().with("centered", true), [[7]]),
            Example::new(rmsprop().with("centered", true).with("momentum", 0.5), [[7]]),
            Example::bench(Spec::new("RmsProp").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// α = ¾, w = 1, g = 2: v = ¼ · 4 = 1, w = 1 − η 2/1 = 0.8; again: v = ¾ + 1 = 7/4, w = 0.8 − 0.2/√(7/4).
    #[test]
    pub fn by_hand() {
        let rmsprop = RmsProp::new(0.1).alpha(0.75).eps(0.0);
        descends(rmsprop, &[2.0], &mut Bag::new(&[1.0]), &[[0.8], [0.8 - 0.2 / 1.75f64.sqrt()]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for (momentum, centered) in [(0.0, false), (0.5, false), (0.0, true), (0.5, true)] {
            let rmsprop = RmsProp::new(0.03).alpha(0.8).eps(1e-2).weight_decay(0.1);
            compare(rmsprop.momentum(momentum).centered(centered), |w, g, s: &mut [f64; 3], _| {
                let d = g + 0.1 * *w;
                s[0] = 0.8 * s[0] + 0.2 * d * d;
                s[1] = 0.8 * s[1] + 0.2 * d;
                let v = if centered { s[0] - s[1] * s[1] } else { s[0] };
                s[2] = momentum * s[2] + d / (v.sqrt() + 1e-2);
                *w -= 0.03 * s[2];
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(RmsProp::<f32>::new(0.1).alpha(1.5).check().is_err());
        assert!(RmsProp::<f32>::new(0.1).alpha(f64::NAN).check().is_err());
        assert!(RmsProp::<f32>::new(0.1).momentum(-0.1).check().is_err());
        assert!(RmsProp::<f32>::new(0.1).eps(f64::INFINITY).check().is_err());
    }
}
