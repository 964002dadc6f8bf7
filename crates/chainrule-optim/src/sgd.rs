//! Gradient descent with momentum (Robbins and Monro 1951; Polyak 1964; Nesterov 1983).
//!
//! ```text
//! d = g + λ w
//! v = d on the first step, μ v + (1 − τ) d after it
//! w ← w − η v        or, looking ahead,  w − η (d + μ v)
//! ```
//!
//! Derivation: docs/optimizers/sgd.md.

use crate::driver::{Driver, common_settings, not_negative};
use chainrule_core::{Error, Grads, Optimizer, Parameters, Result, Scalar};
use chainrule_tensor::kernels::optim::{SgdStep, sgd, sgd_momentum};

/// Gradient descent with momentum μ, dampening τ and weight decay λ, all 0 unless set.
///
/// # Examples
/// ```
/// use chainrule_optim::Sgd;
/// let sgd: Sgd = Sgd::new(0.1).momentum(0.9).nesterov(true).weight_decay(1e-4);
/// assert!(sgd.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Sgd<T = f32> {
    momentum: f64,
    dampening: f64,
    nesterov: bool,
    driver: Driver<T, 1>,
}

impl<T: Scalar> Sgd<T> {
    /// Plain gradient descent at a learning rate η.
    pub fn new(learning_rate: f64) -> Self {
        Self { momentum: 0.0, dampening: 0.0, nesterov: false, driver: Driver::new(learning_rate, 0.0) }
    }

    /// How much μ of the velocity stays at each step.
    #[must_use]
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        self
    }

    /// How much τ of the gradient does not enter the velocity.
    #[must_use]
    pub fn dampening(mut self, dampening: f64) -> Self {
        self.dampening = dampening;
        self
    }

    /// Looks ahead along the velocity. Needs momentum, and no dampening.
    #[must_use]
    pub fn nesterov(mut self, nesterov: bool) -> Self {
        self.nesterov = nesterov;
        self
    }

    /// Whether the settings make sense together; every step asks.
    ///
    /// # Errors
    /// A negative or infinite setting, or look-ahead without momentum or with dampening.
    pub fn check(&self) -> Result<()> {
        self.driver.check("Sgd")?;
        not_negative("Sgd", "momentum", self.momentum)?;
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            return Err(Error::value(format!(
                "Sgd: expected momentum and no dampening with nesterov, got momentum {} and dampening {}",
                self.momentum, self.dampening
            )));
        }
        Ok(())
    }
}

common_settings!(Sgd);

impl<T: Scalar> Optimizer<T> for Sgd<T> {
    fn step(&mut self, model: &mut dyn Parameters<T>, grads: &Grads<T>) -> Result<()> {
        self.check()?;
        let (momentum, gain, nesterov) = (T::from_f64(self.momentum), 1.0 - self.dampening, self.nesterov);
        self.driver.step(model, grads, |turn| {
            let [v] = turn.state;
            let step = SgdStep {
                rate: T::from_f64(turn.rate),
                weight_decay: T::from_f64(turn.weight_decay),
                sign: turn.sign,
                momentum,
                gain: if turn.t == 1 { T::ONE } else { T::from_f64(gain) },
                nesterov,
            };
            if momentum == T::ZERO {
                sgd(turn.w, turn.g, step); // w −= η d
            } else {
                sgd_momentum(turn.w, turn.g, v, step); // v = μ v + (1 − τ) d, w −= η v
            }
        })
    }

    fn learning_rate(&self) -> f64 {
        self.driver.rate
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.driver.rate = rate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::tests::{Bag, agrees_with_reference};

    /// η = ½, μ = ½, w = 1, g = 2 twice: v = 2, w = 1 − 1 = 0; v = 1 + 2 = 3, w = 0 − 1.5.
    #[test]
    fn two_steps_by_hand() {
        let (mut bag, mut sgd) = (Bag::new(&[1.0]), Sgd::new(0.5).momentum(0.5));
        let mut grads = Grads::new(&bag);
        grads.values_mut()[0] = 2.0;
        for want in [0.0, -1.5] {
            sgd.step(&mut bag, &grads).unwrap();
            assert_eq!(bag.0[0].value().unwrap(), [want]);
        }
    }

    #[test]
    fn every_option_agrees_with_the_reference() {
        agrees_with_reference(Sgd::new(0.1).weight_decay(0.01), |w, g, _: &mut (), _| {
            *w -= 0.1 * (g + 0.01 * *w)
        });
        for (dampening, nesterov, maximize) in [(0.0, false, false), (0.3, false, true), (0.0, true, false)] {
            let sgd = Sgd::new(0.1).momentum(0.9).dampening(dampening).nesterov(nesterov).maximize(maximize);
            agrees_with_reference(sgd, |w, g, v: &mut f64, t| {
                let d = if maximize { -g } else { g };
                *v = if t == 1 { d } else { 0.9 * *v + (1.0 - dampening) * d };
                *w -= 0.1 * if nesterov { d + 0.9 * *v } else { *v };
            });
        }
    }

    #[test]
    fn nesterov_without_momentum_is_an_error() {
        assert!(Sgd::<f32>::new(0.1).nesterov(true).check().is_err());
        assert!(Sgd::<f32>::new(0.1).momentum(0.9).dampening(0.1).nesterov(true).check().is_err());
        assert!(Sgd::<f32>::new(f64::NAN).check().is_err());
    }
}
