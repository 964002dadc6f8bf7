//! A rate that falls to 0 by a power.

use super::{PAGE, Schedule, finite, from_one};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Spec};

/// (1 − t/n)ᵖ, 0 from step n on.
///
/// ```
/// use chainrule_optim::schedule::{Polynomial, Schedule};
/// assert_eq!(Polynomial::new(10).power(2.0).factor(5), 0.25);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Polynomial {
    steps: u64,
    power: f64,
}

impl Polynomial {
    /// From 1 to 0 in a line in `steps` steps, at least one.
    pub fn new(steps: u64) -> Self {
        Self { steps, power: 1.0 }
    }

    /// Another power p, from 0.
    #[must_use]
    pub fn power(mut self, power: f64) -> Self {
        self.power = power;
        self
    }
}

impl Schedule for Polynomial {
    fn factor(&self, step: u64) -> f64 {
        let steps = self.steps.max(1);
        (1.0 - step.min(steps) as f64 / steps as f64).powf(self.power)
    }

    fn check(&self) -> Result<()> {
        from_one("Polynomial", "steps", self.steps)?;
        if self.power < 0.0 {
            return Err(Error::value(format!("Polynomial: expected power from 0, got {}", self.power)));
        }
        finite("Polynomial", "power", self.power)
    }

    fn spec(&self) -> Spec {
        Spec::new("Polynomial").with("total_iters", self.steps).with("power", self.power)
    }
}

impl<T: Scalar> FromSpec<T> for Polynomial {
    const FACTS: Facts = Facts::new("Polynomial")
        .family("schedule")
        .formula("(1 − min(t, n)/n)ᵖ")
        .page(PAGE)
        .torch("PolynomialLR");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.or("total_iters", 5)?).power(args.or("power", 1.0)?))
    }

    fn examples() -> Vec<Example> {
        vec![Example::new(Spec::new("Polynomial").with("total_iters", 10).with("power", 2.0), [[0; 0]; 0])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// n = 4, p = 2: 1, 9/16, ¼, 1/16, 0, and stays.
    #[test]
    pub fn by_hand() {
        let schedule = Polynomial::new(4).power(2.0);
        assert_eq!([0, 1, 2, 3, 4, 9].map(|t| schedule.factor(t)), [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]);
        assert!(Polynomial::new(0).check().is_err() && Polynomial::new(1).power(-1.0).check().is_err());
    }
}
