//! Adam (Kingma and Ba, 2015).
//!
//! ```text
//! d = g + λ w
//! m = β₁ m + (1 − β₁) d          m̂ = m/(1 − β₁ᵗ)
//! v = β₂ v + (1 − β₂) d²         v̂ = v/(1 − β₂ᵗ)
//! w ← w − η m̂/(√v̂ + ε)
//! ```
//!
//! Derivation: docs/optimizers/adam.md.

use crate::driver::{Driver, below_one, common_settings, not_negative};
use chainrule_core::{Grads, Optimizer, Parameters, Result, Scalar};
use chainrule_tensor::kernels::optim::{AdamStep, adam, amsgrad};

/// Steps of about the learning rate in every coordinate; weight decay λ enters the gradient.
///
/// Defaults: β₁ = 0.9, β₂ = 0.999, ε = 1e-8, λ = 0.0.
///
/// # Examples
/// ```
/// use chainrule_optim::Adam;
/// let adam: Adam = Adam::new(1e-3).betas(0.9, 0.99).amsgrad(true);
/// assert!(adam.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Adam<T = f32> {
    betas: (f64, f64),
    eps: f64,
    amsgrad: bool,
    driver: Driver<T, 3>,
}

impl<T: Scalar> Adam<T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self { betas: (0.9, 0.999), eps: 1e-8, amsgrad: false, driver: Driver::new(learning_rate, 0.0) }
    }

    /// How much of the first and of the second moment stays at each step.
    #[must_use]
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        self.betas = (beta1, beta2);
        self
    }

    /// What is added to the root in the denominator.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Divides by the largest second moment so far (Reddi, Kale and Kumar, 2018).
    #[must_use]
    pub fn amsgrad(mut self, amsgrad: bool) -> Self {
        self.amsgrad = amsgrad;
        self
    }

    /// Whether the settings make sense; every step asks.
    ///
    /// # Errors
    /// A negative or infinite setting, or a β of 1 or more.
    pub fn check(&self) -> Result<()> {
        self.driver.check("Adam")?;
        below_one("Adam", "β₁", self.betas.0)?;
        below_one("Adam", "β₂", self.betas.1)?;
        not_negative("Adam", "ε", self.eps)
    }
}

common_settings!(Adam);

impl<T: Scalar> Optimizer<T> for Adam<T> {
    fn step(&mut self, model: &mut dyn Parameters<T>, grads: &Grads<T>) -> Result<()> {
        self.check()?;
        let ((beta1, beta2), eps, keep_largest) = (self.betas, self.eps, self.amsgrad);
        self.driver.step(model, grads, |turn| {
            let [m, v, largest] = turn.state;
            let t = turn.t as f64;
            let step = AdamStep {
                rate: T::from_f64(turn.rate / (1.0 - beta1.powf(t))),
                root: T::from_f64(1.0 / (1.0 - beta2.powf(t)).sqrt()),
                beta1: T::from_f64(beta1),
                beta2: T::from_f64(beta2),
                eps: T::from_f64(eps),
                weight_decay: T::from_f64(turn.weight_decay),
                shrink: T::ONE,
                sign: turn.sign,
            };
            if keep_largest {
                amsgrad(turn.w, turn.g, m, v, largest, step);
            } else {
                adam(turn.w, turn.g, m, v, step); // w −= η m̂/(√v̂ + ε)
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

    /// On the first step m̂ = g and v̂ = g², so w moves by η sign(g) (up to ε): 1 − 0.1 and −2 + 0.1.
    /// The same gradient again keeps m̂ = g and v̂ = g²: the same step.
    #[test]
    fn two_steps_by_hand() {
        let (mut bag, mut adam) = (Bag::new(&[1.0, -2.0]), Adam::new(0.1).eps(0.0));
        let mut grads = Grads::new(&bag);
        grads.values_mut().copy_from_slice(&[4.0, -0.25]);
        for want in [[0.9, -1.9], [0.8, -1.8]] {
            adam.step(&mut bag, &grads).unwrap();
            assert!(bag.0[0].value().unwrap().iter().zip(want).all(|(w, want)| (w - want).abs() < 1e-14));
        }
    }

    #[test]
    fn every_option_agrees_with_the_reference() {
        for (amsgrad, maximize) in [(false, false), (true, false), (false, true)] {
            let adam = Adam::new(0.03).betas(0.8, 0.95).eps(1e-4).weight_decay(0.1).amsgrad(amsgrad);
            agrees_with_reference(adam.maximize(maximize), |w, g, s: &mut [f64; 3], t| {
                let d = if maximize { -g } else { g } + 0.1 * *w;
                s[0] = 0.8 * s[0] + 0.2 * d;
                s[1] = 0.95 * s[1] + 0.05 * d * d;
                s[2] = s[2].max(s[1]);
                let v = if amsgrad { s[2] } else { s[1] } / (1.0 - 0.95f64.powi(t));
                *w -= 0.03 * (s[0] / (1.0 - 0.8f64.powi(t))) / (v.sqrt() + 1e-4);
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Adam::<f32>::new(1e-3).betas(1.0, 0.9).check().is_err());
        assert!(Adam::<f32>::new(1e-3).eps(-1.0).check().is_err());
        assert!(Adam::<f32>::new(1e-3).weight_decay(f64::INFINITY).check().is_err());
    }
}
