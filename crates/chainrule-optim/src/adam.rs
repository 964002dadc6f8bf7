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

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{below_one, not_negative, not_zero},
    rule::beta,
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{AdamStep, adam, amsgrad};

/// Steps of about the learning rate in every coordinate; weight decay λ enters the gradient.
///
/// Defaults: β₁ = 0.9, β₂ = 0.999, ε = 1e-8, λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Adam;
/// let adam: Adam = Adam::new(1e-3).betas(0.9, 0.99).amsgrad(true);
/// assert!(adam.check().is_ok());
/// ```
pub type Adam<T = f32> = Driver<AdamRule<false>, T>;

/// The rule of [`Adam`] and of [`AdamW`](crate::AdamW), which differ in whether weight decay is decoupled. Keeps `exp_avg` m, `exp_avg_sq` v,
/// and `max_exp_avg_sq` with AMSGrad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamRule<const DECOUPLED: bool> {
    betas: [f64; 2],
    eps: f64,
    amsgrad: bool,
}

impl<const DECOUPLED: bool> Default for AdamRule<DECOUPLED> {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, amsgrad: false }
    }
}

impl<T: Scalar> Driver<AdamRule<false>, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(AdamRule::default(), learning_rate)
    }
}

impl<const DECOUPLED: bool, T: Scalar> Driver<AdamRule<DECOUPLED>, T> {
    /// How much of the first and of the second moment stays at each step.
    #[must_use]
    pub fn betas(self, beta1: f64, beta2: f64) -> Self {
        self.set(|rule| rule.betas = [beta1, beta2])
    }

    /// What is added to the root in the denominator.
    #[must_use]
    pub fn eps(self, eps: f64) -> Self {
        self.set(|rule| rule.eps = eps)
    }

    /// Divides by the largest second moment so far (Reddi, Kale and Kumar, 2018).
    #[must_use]
    pub fn amsgrad(self, amsgrad: bool) -> Self {
        self.set(|rule| rule.amsgrad = amsgrad)
    }

    /// The arguments of both.
    pub(crate) fn with_all_args(self, args: &Args<'_, T>) -> Result<Self> {
        let [beta1, beta2] = args.or("betas", self.rule().betas)?;
        let (eps, amsgrad) = (args.or("eps", self.rule().eps)?, args.or("amsgrad", false)?);
        self.betas(beta1, beta2).eps(eps).amsgrad(amsgrad).with_args(args)
    }
}

impl<const DECOUPLED: bool, T: Scalar> Rule<T> for AdamRule<DECOUPLED> {
    const KIND: &'static str = if DECOUPLED { "AdamW" } else { "Adam" };
    const DECOUPLED: bool = DECOUPLED;
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        beta(&mut self.betas, name)
    }

    fn check(&self) -> Result<()> {
        let kind = <Self as Rule<T>>::KIND;
        below_one(kind, "β₁", self.betas[0])?;
        below_one(kind, "β₂", self.betas[1])?;
        not_negative::<T>(kind, "ε", self.eps)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        let names = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
        let used = if self.amsgrad { 3 } else { 2 };
        names[..used].iter().map(|name| StateTensor::new(name, *shape)).collect()
    }

    #[inline]
    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [beta1, beta2] = self.betas;
        let t = t as f64;
        let step = AdamStep {
            rate: T::from_f64(rate / (1.0 - beta1.powf(t))),
            root: T::from_f64(1.0 / (1.0 - beta2.powf(t)).sqrt()),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            beta2: T::from_f64(beta2),
            one_minus_beta2: T::from_f64(1.0 - beta2),
            eps: not_zero(self.eps),
            weight_decay: T::from_f64(terms.decay),
            shrink: T::from_f64(terms.shrink),
            sign: T::from_f64(terms.sign),
        };
        match state {
            [m, v] => adam(w, g, m.data_mut(), v.data_mut(), step), // w −= η m̂/(√v̂ + ε)
            [m, v, largest] => amsgrad(w, g, m.data_mut(), v.data_mut(), largest.data_mut(), step),
            _ => unreachable!("the driver lays out the state that the rule names"),
        }
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new(<Self as Rule<T>>::KIND)
            .with("lr", settings.rate)
            .with("betas", self.betas)
            .with("eps", self.eps)
            .with("weight_decay", settings.weight_decay)
            .with("amsgrad", self.amsgrad)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Adam<T> {
    const FACTS: Facts = Facts::new("Adam")
        .family("optimizer")
        .formula("w ← w − η m̂/(√v̂ + ε)")
        .page("optimizers/adam.md")
        .torch("Adam");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Self::new(1e-3).with_all_args(args)
    }

    fn examples() -> Vec<Example> {
        examples("Adam")
    }
}

/// The cases of both.
pub(crate) fn examples(kind: &str) -> Vec<Example> {
    let adam = || Spec::new(kind).with("lr", 0.03);
    vec![
        Example::new(adam().with("betas", [0.8, 0.95]).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
        Example::new(adam().with("amsgrad", true).with("eps", 1e-4).with("maximize", true), [[7]]),
        Example::bench(Spec::new(kind).with("lr", 1e-3), [[1, 1 << 20]]),
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare};
    use chainrule_core::{Grads, Optimizer};

    /// On the first step m̂ = g and v̂ = g², so w moves by η sign(g) (up to ε): 1 − 0.1 and −2 + 0.1.
    /// The same gradient again keeps m̂ = g and v̂ = g²: the same step.
    #[test]
    pub fn by_hand() {
        let (mut bag, mut adam) = (Bag::new(&[1.0, -2.0]), Adam::new(0.1).eps(0.0));
        let mut grads = Grads::new(&bag);
        grads.values_mut().copy_from_slice(&[4.0, -0.25]);
        for want in [[0.9, -1.9], [0.8, -1.8]] {
            adam.step(&mut bag, &grads).unwrap();
            assert!(bag.0[0].value().unwrap().iter().zip(want).all(|(w, want)| (w - want).abs() < 1e-14));
        }
    }

    #[test]
    pub fn agrees_with_reference() {
        for (amsgrad, maximize) in [(false, false), (true, false), (false, true)] {
            let adam = Adam::new(0.03).betas(0.8, 0.95).eps(1e-4).weight_decay(0.1).amsgrad(amsgrad);
            compare(adam.maximize(maximize), |w, g, s: &mut [f64; 3], t| {
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

    /// 1 − β is formed in f64, where β₂ = 1 − 1e-9 does not round to 1: the first steps are η sign(g) whatever β₂ is.
    #[test]
    fn betas_that_round_to_one_in_single_precision_still_learn() {
        for beta2 in [0.999, 0.9999999, 1.0 - 1e-9] {
            let mut bag = Bag::<f32>::new(&[1.0]);
            let (mut adam, mut grads) = (Adam::new(0.1).betas(0.9, beta2), Grads::new(&bag));
            grads.values_mut()[0] = 4.0;
            for want in [0.9, 0.8, 0.7] {
                adam.step(&mut bag, &grads).unwrap();
                let w = bag.0[0].value().unwrap()[0];
                assert!((w - want).abs() < 1e-5, "β₂ = {beta2}: {w} for {want}");
            }
        }
    }

    #[test]
    fn a_zero_gradient_moves_nothing_however_small_epsilon_is() {
        for eps in [1e-8, 1e-50, 0.0] {
            let mut bag = Bag::<f32>::new(&[1.0]);
            let grads = Grads::new(&bag);
            Adam::new(0.1).eps(eps).step(&mut bag, &grads).unwrap();
            Adam::new(0.1).eps(eps).amsgrad(true).step(&mut bag, &grads).unwrap();
            assert_eq!(bag.0[0].value().unwrap(), [1.0], "ε = {eps}");
        }
    }
}
