//! A rate that falls in steps.

use super::{PAGE, Schedule, finite, from_one};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};

/// γ^⌊t/s⌋: the rate falls by γ every s steps.
///
/// ```
/// use chainrule_optim::schedule::{Schedule, Step};
/// assert_eq!(Step::new(10).gamma(0.5).factor(25), 0.25);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    size: u64,
    gamma: f64,
}

impl Step {
    /// Falls by γ = 0.1 every `size` steps, a size from 1.
    pub fn new(size: u64) -> Self {
        Self { size, gamma: 0.1 }
    }

    /// Another factor γ.
    #[must_use]
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.gamma = gamma;
        self
    }
}

impl Schedule for Step {
    fn factor(&self, step: u64) -> f64 {
        self.gamma.powf((step / self.size.max(1)) as f64)
    }

    fn check(&self) -> Result<()> {
        from_one("Step", "step size", self.size)?;
        finite("Step", "gamma", self.gamma)
    }

    fn spec(&self) -> Spec {
        Spec::new("Step").with("step_size", self.size).with("gamma", self.gamma)
    }
}

impl<T: Scalar> FromSpec<T> for Step {
    const FACTS: Facts = Facts::new("Step").family("schedule").formula("γ^⌊t/s⌋").page(PAGE).torch("StepLR");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("step_size")?).gamma(args.or("gamma", 0.1)?))
    }

    fn examples() -> Vec<Example> {
        vec![Example::new(Spec::new("Step").with("step_size", 10).with("gamma", 0.5), [[0; 0]; 0])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two steps at 1, two at ½, then ¼.
    #[test]
    pub fn by_hand() {
        let schedule = Step::new(2).gamma(0.5);
        assert_eq!([0, 1, 2, 3, 4].map(|t| schedule.factor(t)), [1.0, 1.0, 0.5, 0.5, 0.25]);
        assert!(Step::new(0).check().is_err() && Step::new(1).gamma(f64::INFINITY).check().is_err());
    }
}
