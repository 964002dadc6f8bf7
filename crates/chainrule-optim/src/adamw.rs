//! Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
//!
//! ```text
//! w ← (1 − η λ) w, then the step of Adam with d = g
//! ```
//!
//! Derivation: docs/optimizers/adamw.md.

use crate::{AdamRule, Driver, adam::examples};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar};

/// [`Adam`](crate::Adam), with weight decay λ applied to the weights themselves and not through the gradient.
///
/// Defaults: β₁ = 0.9, β₂ = 0.999, ε = 1e-8, λ = 0.01.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::AdamW;
/// let adam: AdamW = AdamW::new(1e-3).betas(0.9, 0.99).amsgrad(true);
/// assert!(adam.check().is_ok());
/// ```
pub type AdamW<T = f32> = Driver<AdamRule<true>, T>;

impl<T: Scalar> Driver<AdamRule<true>, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(AdamRule::default(), learning_rate).weight_decay(0.01)
    }
}

impl<T: Scalar> FromSpec<T> for AdamW<T> {
    const FACTS: Facts = Facts::new("AdamW")
        .family("optimizer")
        .formula("w ← (1 − η λ) w − η m̂/(√v̂ + ε)")
        .page("optimizers/adamw.md")
        .torch("AdamW");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Self::new(1e-3).with_all_args(args)
    }

    fn examples() -> Vec<Example> {
        examples("AdamW")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare};
    use chainrule_core::{Grads, Optimizer};

    /// η = 0.1, λ = ½: w shrinks by 0.95 and then moves by η sign(g): 1 → 0.95 − 0.1 = 0.85 → 0.8075 − 0.1 = 0.7075.
    #[test]
    pub fn by_hand() {
        let (mut bag, mut adam) = (Bag::new(&[1.0]), AdamW::new(0.1).eps(0.0).weight_decay(0.5));
        let mut grads = Grads::new(&bag);
        grads.values_mut()[0] = 4.0;
        for want in [0.85, 0.7075] {
            adam.step(&mut bag, &grads).unwrap();
            assert!((bag.0[0].value().unwrap()[0] - want).abs() < 1e-14);
        }
    }

    #[test]
    pub fn agrees_with_reference() {
        for (amsgrad, maximize) in [(false, false), (true, false), (false, true)] {
            let adam = AdamW::new(0.03).betas(0.8, 0.95).eps(1e-4).weight_decay(0.1).amsgrad(amsgrad);
            compare(adam.maximize(maximize), |w, g, s: &mut [f64; 3], t| {
                let d = if maximize { -g } else { g };
                *w *= 1.0 - 0.03 * 0.1;
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
        assert!(AdamW::<f32>::new(1e-3).betas(1.0, 0.9).check().is_err());
        let text = AdamW::<f32>::new(1e-3).eps(-1.0).check().unwrap_err().to_string();
        assert_eq!(text, "AdamW: expected ε from 0, got -1");
        assert!(AdamW::<f32>::new(1e-3).weight_decay(f64::INFINITY).check().is_err());
    }

    #[test]
    fn adamw_is_adam_with_decoupled_decay() {
        let (mut one, mut two) = (Bag::<f64>::new(&[1.0, -3.0]), Bag::new(&[1.0, -3.0]));
        let mut grads = [Grads::new(&one), Grads::new(&two)];
        grads.iter_mut().for_each(|g| g.values_mut().copy_from_slice(&[0.3, 2.0]));
        let mut adam = crate::Adam::new(0.1).decoupled_weight_decay(true).weight_decay(0.2);
        let mut adamw = AdamW::new(0.1).weight_decay(0.2);
        for _ in 0..3 {
            adam.step(&mut one, &grads[0]).unwrap();
            adamw.step(&mut two, &grads[1]).unwrap();
        }
        assert_eq!(one.0[0].value().unwrap(), two.0[0].value().unwrap());
    }
}
