//! Resilient backpropagation (Riedmiller and Braun, 1993).
//!
//! ```text
//! d p > 0: σ = min(η⁺ σ, σ_max)
//! d p < 0: σ = max(η⁻ σ, σ_min), d = 0
//! w ← w − σ sign(d)              p = d
//! ```
//!
//! Derivation: docs/optimizers/rprop.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{not_negative, representable},
};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{RpropStep, rprop};

/// Step sizes of each element's own, that follow the signs of its gradients. For whole batches: noise changes signs.
///
/// Defaults: η⁻ = ½, η⁺ = 1.2, step sizes from 1e-6 to 50, σ = η before the first step.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Rprop;
/// let rprop: Rprop = Rprop::new(1e-2).etas(0.5, 1.1);
/// assert!(rprop.check().is_ok());
/// ```
pub type Rprop<T = f32> = Driver<RpropRule, T>;

/// The rule of [`Rprop`]; keeps `prev` p and `step_size` σ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RpropRule {
    etas: [f64; 2],
    step_sizes: [f64; 2],
}

impl Default for RpropRule {
    fn default() -> Self {
        Self { etas: [0.5, 1.2], step_sizes: [1e-6, 50.0] }
    }
}

impl<T: Scalar> Driver<RpropRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(RpropRule::default(), learning_rate)
    }
}

impl<T: Scalar> Driver<RpropRule, T> {
    /// The factors η⁻ and η⁺ of a step size whose gradient has changed its sign, and has not.
    #[must_use]
    pub fn etas(self, minus: f64, plus: f64) -> Self {
        self.set(|rule| rule.etas = [minus, plus])
    }

    /// The smallest and the largest step size.
    #[must_use]
    pub fn step_sizes(self, least: f64, most: f64) -> Self {
        self.set(|rule| rule.step_sizes = [least, most])
    }
}

impl<T: Scalar> Rule<T> for RpropRule {
    const KIND: &'static str = "Rprop";
    const FUSED: bool = true;

    fn check(&self) -> Result<()> {
        let [minus, plus] = self.etas;
        if !(0.0 < minus && minus < 1.0 && 1.0 < plus && plus.is_finite()) {
            return Err(Error::value(format!("Rprop: expected 0 < η⁻ < 1 < η⁺, got {minus} and {plus}")));
        }
        not_negative::<T>("Rprop", "smallest step size", self.step_sizes[0])?;
        not_negative::<T>("Rprop", "largest step size", self.step_sizes[1])?;
        representable::<T>("Rprop", "η⁺", plus)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        ["prev", "step_size"].map(|name| StateTensor::new(name, *shape)).to_vec()
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [p, size] = state else { unreachable!("the driver lays out the state that the rule names") };
        if t == 1 {
            size.fill(T::from_f64(rate)); // σ = η before the first step
        }
        let [[minus, plus], [least, most]] = [self.etas, self.step_sizes].map(|pair| pair.map(T::from_f64));
        rprop(w, g, p.data_mut(), size.data_mut(), terms.cast(), RpropStep { minus, plus, least, most });
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("Rprop")
            .with("lr", settings.rate)
            .with("etas", self.etas)
            .with("step_sizes", self.step_sizes)
            .with_unless(0.0, "weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Rprop<T> {
    const FACTS: Facts = Facts::new("Rprop")
        .family("optimizer")
        .formula("w ← w − σ sign(d), σ by whether the sign has changed")
        .page("optimizers/rprop.md")
        .torch("Rprop");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = RpropRule::default();
        let ([minus, plus], [least, most]) =
            (args.or("etas", rule.etas)?, args.or("step_sizes", rule.step_sizes)?);
        Self::new(1e-2).etas(minus, plus).step_sizes(least, most).with_args(args)
    }

    fn examples() -> Vec<Example> {
        let rprop = || Spec::new("Rprop").with("lr", 0.03);
        vec![
            Example::new(rprop().with("etas", [0.4, 1.3]).with("maximize", true), [[3, 2], [2, 5]]),
            Example::new(rprop().with("step_sizes", [1e-3, 0.04]), [[7]]),
            Example::bench(Spec::new("Rprop").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// σ = 0.1, then 0.12: w = 1 − 0.1 = 0.9, 0.9 − 0.12 = 0.78, and for a gradient below 0 the other way.
    #[test]
    pub fn by_hand() {
        let mut bag = Bag::new(&[1.0, 0.0]);
        descends(Rprop::new(0.1), &[2.0, -3.0], &mut bag, &[[0.9, 0.1], [0.78, 0.22]]);
    }

    #[test]
    pub fn agrees_with_reference() {
        compare(Rprop::new(0.1).etas(0.4, 1.3).step_sizes(0.05, 0.15), |w, g, s: &mut [f64; 2], t| {
            if t == 1 {
                s[1] = 0.1;
            }
            let (agrees, mut d) = (g * s[0], g);
            if agrees > 0.0 {
                s[1] *= 1.3;
            } else if agrees < 0.0 {
                s[1] *= 0.4;
                d = 0.0;
            }
            s[1] = s[1].clamp(0.05, 0.15);
            *w -= if d == 0.0 { 0.0 } else { s[1] * d.signum() };
            s[0] = d;
        });
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Rprop::<f32>::new(0.1).etas(1.0, 1.2).check().is_err());
        assert!(Rprop::<f32>::new(0.1).etas(0.5, f64::INFINITY).check().is_err());
        assert!(Rprop::<f32>::new(0.1).step_sizes(f64::NAN, 1.0).check().is_err());
    }
}
