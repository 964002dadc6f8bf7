//! Gradient descent with momentum (Robbins and Monro 1951; Polyak 1964; Nesterov 1983).
//!
//! ```text
//! d = g + λ w
//! v = d on the first step, μ v + (1 − τ) d after it
//! w ← w − η v        or, looking ahead,  w − η (d + μ v)
//! ```
//!
//! Derivation: docs/optimizers/sgd.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{not_negative, representable},
};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{SgdStep, sgd, sgd_momentum};

/// Gradient descent with momentum μ, dampening τ and weight decay λ, all 0 unless set.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Sgd;
/// let sgd: Sgd = Sgd::new(0.1).momentum(0.9).nesterov(true).weight_decay(1e-4);
/// assert!(sgd.check().is_ok());
/// ```
pub type Sgd<T = f32> = Driver<SgdRule, T>;

/// The rule of [`Sgd`]; keeps `momentum_buffer` with momentum, and nothing without.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdRule {
    momentum: f64,
    dampening: f64,
    nesterov: bool,
}

impl<T: Scalar> Driver<SgdRule, T> {
    /// Plain gradient descent at a learning rate η.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(SgdRule { momentum: 0.0, dampening: 0.0, nesterov: false }, learning_rate)
    }

    /// How much μ of the velocity stays at each step.
    #[must_use]
    pub fn momentum(self, momentum: f64) -> Self {
        self.set(|rule| rule.momentum = momentum)
    }

    /// How much τ of the gradient does not enter the velocity.
    #[must_use]
    pub fn dampening(self, dampening: f64) -> Self {
        self.set(|rule| rule.dampening = dampening)
    }

    /// Looks ahead along the velocity. Needs momentum, and no dampening.
    #[must_use]
    pub fn nesterov(self, nesterov: bool) -> Self {
        self.set(|rule| rule.nesterov = nesterov)
    }
}

impl<T: Scalar> Rule<T> for SgdRule {
    const KIND: &'static str = "Sgd";
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        match name {
            "momentum" => Some(&mut self.momentum),
            "dampening" => Some(&mut self.dampening),
            _ => None,
        }
    }

    fn check(&self) -> Result<()> {
        not_negative::<T>("Sgd", "momentum", self.momentum)?;
        representable::<T>("Sgd", "dampening", self.dampening)?;
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            return Err(Error::value(format!(
                "Sgd: expected momentum and no dampening with nesterov, got momentum {} and dampening {}",
                self.momentum, self.dampening
            )));
        }
        Ok(())
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        if self.momentum == 0.0 { Vec::new() } else { vec![StateTensor::new("momentum_buffer", *shape)] }
    }

    #[inline]
    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let step = SgdStep {
            rate: T::from_f64(rate),
            weight_decay: T::from_f64(terms.decay),
            shrink: T::from_f64(terms.shrink),
            sign: T::from_f64(terms.sign),
            momentum: T::from_f64(self.momentum),
            gain: T::from_f64(if t == 1 { 1.0 } else { 1.0 - self.dampening }),
            nesterov: self.nesterov,
        };
        match state {
            [v] => sgd_momentum(w, g, v.data_mut(), step), // v = μ v + (1 − τ) d, w −= η v
            _ => sgd(w, g, step),                          // w −= η d
        }
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("Sgd")
            .with("lr", settings.rate)
            .with("momentum", self.momentum)
            .with("dampening", self.dampening)
            .with("weight_decay", settings.weight_decay)
            .with("nesterov", self.nesterov)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Sgd<T> {
    const FACTS: Facts = Facts::new("Sgd")
        .family("optimizer")
        .formula("v ← μ v + (1 − τ) d, w ← w − η v")
        .page("optimizers/sgd.md")
        .torch("SGD");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let sgd = Self::new(1e-3)
            .momentum(args.or("momentum", 0.0)?)
            .dampening(args.or("dampening", 0.0)?)
            .nesterov(args.or("nesterov", false)?);
        sgd.with_args(args)
    }

    fn examples() -> Vec<Example> {
        let sgd = || Spec::new("Sgd").with("lr", 0.1);
        vec![
            Example::new(sgd().with("weight_decay", 0.01).with("maximize", true), [[3, 2]]),
            Example::new(sgd().with("momentum", 0.9).with("dampening", 0.3), [[3, 2], [2, 5]]),
            Example::new(sgd().with("momentum", 0.9).with("nesterov", true), [[7]]),
            Example::bench(Spec::new("Sgd").with("lr", 0.01).with("momentum", 0.9), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare};
    use chainrule_core::{Grads, Optimizer};

    /// η = ½, μ = ½, w = 1, g = 2 twice: v = 2, w = 1 − 1 = 0; v = 1 + 2 = 3, w = 0 − 1.5.
    #[test]
    pub fn by_hand() {
        let (mut bag, mut sgd) = (Bag::new(&[1.0]), Sgd::new(0.5).momentum(0.5));
        let mut grads = Grads::new(&bag);
        grads.values_mut()[0] = 2.0;
        for want in [0.0, -1.5] {
            sgd.step(&mut bag, &grads).unwrap();
            assert_eq!(bag.0[0].value().unwrap(), [want]);
        }
    }

    #[test]
    pub fn agrees_with_reference() {
        compare(Sgd::new(0.1).weight_decay(0.01), |w, g, _: &mut (), _| *w -= 0.1 * (g + 0.01 * *w));
        compare(Sgd::new(0.1).decoupled_weight_decay(true).weight_decay(0.01), |w, g, _: &mut (), _| {
            *w = (1.0 - 0.1 * 0.01) * *w - 0.1 * g;
        });
        for (dampening, nesterov, maximize) in [(0.0, false, false), (0.3, false, true), (0.0, true, false)] {
            let sgd = Sgd::new(0.1).momentum(0.9).dampening(dampening).nesterov(nesterov).maximize(maximize);
            compare(sgd, |w, g, v: &mut f64, t| {
                let d = if maximize { -g } else { g };
                *v = if t == 1 { d } else { 0.9 * *v + (1.0 - dampening) * d };
                *w -= 0.1 * if nesterov { d + 0.9 * *v } else { *v };
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Sgd::<f32>::new(0.1).nesterov(true).check().is_err());
        assert!(Sgd::<f32>::new(0.1).momentum(0.9).dampening(0.1).nesterov(true).check().is_err());
        assert!(Sgd::<f32>::new(f64::NAN).check().is_err());
        assert!(Sgd::<f32>::new(0.1).dampening(f64::NAN).check().is_err());
        let text = Sgd::<f32>::new(1e300).check().unwrap_err().to_string();
        assert!(text.starts_with("Sgd: expected finite learning rate in f32, got 1"), "{text}");
        assert!(Sgd::<f64>::new(1e300).check().is_ok());
    }
}
