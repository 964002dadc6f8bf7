//! Averaged stochastic gradient descent (Polyak and Juditsky, 1992).
//!
//! ```text
//! w ← (1 − κ ηₜ) w − ηₜ d        d = g + λ w
//! a ← a + μₜ (w − a)             μₜ = 1/max(1, t − 1 − t₀)
//! ηₜ₊₁ = η/(1 + κ η t)^α         η₁ = η
//! ```
//!
//! Derivation: docs/optimizers/asgd.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{not_negative, representable},
    rule::settings,
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{AsgdStep, asgd};

/// Gradient descent with a falling rate, and the mean of the weights from step t₀ on.
///
/// Defaults: κ = 1e-4, α = ¾, t₀ = 1e6, λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Asgd;
/// let asgd: Asgd = Asgd::new(1e-2).t0(100.0);
/// assert!(asgd.check().is_ok());
/// ```
pub type Asgd<T = f32> = Driver<AsgdRule, T>;

/// The rule of [`Asgd`]; keeps `eta` ηₜ and `ax`, the mean a.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AsgdRule {
    lambd: f64,
    alpha: f64,
    t0: f64,
}

impl Default for AsgdRule {
    fn default() -> Self {
        Self { lambd: 1e-4, alpha: 0.75, t0: 1e6 }
    }
}

impl<T: Scalar> Driver<AsgdRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(AsgdRule::default(), learning_rate)
    }
}

settings! { AsgdRule {
    /// How fast κ the rate falls; κ ηₜ is the decay of the weights too.
    lambd: f64,
    /// The power α by which the rate falls.
    alpha: f64,
    /// The step from which the mean is taken; before it the mean is w itself.
    t0: f64,
} }

impl<T: Scalar> Rule<T> for AsgdRule {
    const KIND: &'static str = "Asgd";
    const FUSED: bool = true;

    fn check(&self) -> Result<()> {
        for (name, value) in [("lambd", self.lambd), ("alpha", self.alpha), ("t0", self.t0)] {
            representable::<T>("Asgd", name, value)?;
        }
        not_negative::<T>("Asgd", "lambd", self.lambd)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        vec![StateTensor::new("eta", []), StateTensor::new("ax", *shape)]
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [eta, a] = state else { unreachable!("the driver lays out the state that the rule names") };
        let now = if t == 1 { rate } else { eta.data()[0].to_f64() };
        let step = AsgdStep {
            eta: T::from_f64(now),
            keep: T::from_f64(1.0 - self.lambd * now),
            mu: T::from_f64(1.0 / ((t - 1) as f64 - self.t0).max(1.0)),
        };
        eta.fill(T::from_f64(rate / (1.0 + self.lambd * rate * t as f64).powf(self.alpha)));
        asgd(w, g, a.data_mut(), terms.cast(), step);
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("Asgd")
            .with("lr", settings.rate)
            .with("lambd", self.lambd)
            .with("alpha", self.alpha)
            .with("t0", self.t0)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Asgd<T> {
    const FACTS: Facts = Facts::new("Asgd")
        .family("optimizer")
        .formula("w ← (1 − κ η) w − η d, a ← a + μ (w − a)")
        .page("optimizers/asgd.md")
        .torch("ASGD");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = AsgdRule::default();
        Self::new(1e-2)
            .lambd(args.or("lambd", rule.lambd)?)
            .alpha(args.or("alpha", rule.alpha)?)
            .t0(args.or("t0", rule.t0)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let asgd = || Spec::new("Asgd").with("lr", 0.03);
        vec![
            Example::new(
                asgd().with("lambd", 0.01).with("t0", 3).with("weight_decay", 0.1),
                [[3, 2], [2, 5]],
            ),
            Example::new(asgd().with("alpha", 0.5).with("maximize", true), [[7]]),
            Example::bench(Spec::new("Asgd").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// κ = 1, α = 1, η = ½, g = 1: w = ½ · 1 − ½ = 0, η₂ = ½/(1 + ½) = ⅓; then w = −⅓.
    #[test]
    pub fn by_hand() {
        let asgd = Asgd::new(0.5).lambd(1.0).alpha(1.0);
        descends(asgd, &[1.0], &mut Bag::new(&[1.0]), &[[0.0], [-1.0 / 3.0]]);
    }

    #[test]
    fn the_mean_is_taken_from_step_t0_on() {
        let (mut bag, mut asgd) = (Bag::<f64>::new(&[1.0]), Asgd::new(0.5).lambd(0.0).t0(1.0));
        let mut grads = chainrule_core::Grads::new(&bag);
        grads.values_mut()[0] = 1.0;
        // w = ½, 0, −½, −1, −3/2; μ = 1, 1, 1, ½, ⅓.
        for want in [0.5, 0.0, -0.5, -0.75, -1.0] {
            asgd.step(&mut bag, &grads).unwrap();
            let state = chainrule_core::OptimizerState::of(&asgd, &bag).unwrap();
            let Some(chainrule_core::StateValue::Values(a)) = state.get("weight", "ax") else {
                panic!("{state:?}")
            };
            assert!((a.data()[0] - want).abs() < 1e-15, "{a:?} for {want}");
        }
    }

    #[test]
    pub fn agrees_with_reference() {
        compare(Asgd::new(0.1).lambd(0.1).alpha(0.5).t0(2.0).weight_decay(0.1), |w, g, eta: &mut f64, t| {
            let d = g + 0.1 * *w;
            let now = if t == 1 { 0.1 } else { *eta };
            *w = (1.0 - 0.1 * now) * *w - now * d;
            *eta = 0.1 / (1.0 + 0.1 * 0.1 * f64::from(t)).sqrt();
        });
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Asgd::<f32>::new(0.1).lambd(-1.0).check().is_err());
        assert!(Asgd::<f32>::new(0.1).alpha(f64::NAN).check().is_err());
        assert!(Asgd::<f32>::new(0.1).t0(f64::INFINITY).check().is_err());
    }
}
