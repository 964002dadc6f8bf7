//! A rate that falls as one over time.

use super::{PAGE, Schedule, finite, from_one};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Spec};

/// 1/(1 + κ t/n), in steps of n if it is a staircase.
///
/// ```
/// use chainrule_optim::schedule::{InverseTime, Schedule};
/// assert_eq!(InverseTime::new(1.0, 10).factor(10), 0.5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InverseTime {
    decay: f64,
    steps: u64,
    staircase: bool,
}

impl InverseTime {
    /// The rate κ of the decay, from 0, over `steps` steps n, at least one.
    pub fn new(decay: f64, steps: u64) -> Self {
        Self { decay, steps, staircase: false }
    }

    /// Falls once every n steps only.
    #[must_use]
    pub fn staircase(mut self, staircase: bool) -> Self {
        self.staircase = staircase;
        self
    }
}

impl Schedule for InverseTime {
    fn factor(&self, step: u64) -> f64 {
        let steps = self.steps.max(1);
        let time = if self.staircase { (step / steps) as f64 } else { step as f64 / steps as f64 };
        1.0 / (1.0 + self.decay * time)
    }

    fn check(&self) -> Result<()> {
        if self.decay < 0.0 {
            return Err(Error::value(format!("InverseTime: expected decay rate from 0, got {}", self.decay)));
        }
        finite("InverseTime", "decay rate", self.decay)?;
        from_one("InverseTime", "decay steps", self.steps)
    }

    fn spec(&self) -> Spec {
        Spec::new("InverseTime")
            .with("decay_rate", self.decay)
            .with("decay_steps", self.steps)
            .with("staircase", self.staircase)
    }
}

impl<T: Scalar> FromSpec<T> for InverseTime {
    const FACTS: Facts = Facts::new("InverseTime").family("schedule").formula("1/(1 + κ t/n)").page(PAGE);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let inverse = Self::new(args.get("decay_rate")?, args.or("decay_steps", 1)?);
        Ok(inverse.staircase(args.or("staircase", false)?))
    }

    fn examples() -> Vec<Example> {
        let inverse =
            Spec::new("InverseTime").with("decay_rate", 0.5).with("decay_steps", 4).with("staircase", true);
        vec![Example::new(inverse, [[0; 0]; 0])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// κ = 1, n = 2: 1, ⅔, ½, ⅖; as a staircase 1, 1, ½, ½.
    #[test]
    pub fn by_hand() {
        let schedule = InverseTime::new(1.0, 2);
        assert_eq!([0, 1, 2, 3].map(|t| schedule.factor(t)), [1.0, 1.0 / 1.5, 0.5, 0.4]);
        assert_eq!([0, 1, 2, 3].map(|t| schedule.staircase(true).factor(t)), [1.0, 1.0, 0.5, 0.5]);
        assert!(InverseTime::new(-1.0, 2).check().is_err() && InverseTime::new(1.0, 0).check().is_err());
    }
}
