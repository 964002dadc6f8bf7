//! Warm-up, plateau and cool-down.

use super::{PAGE, Schedule};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Spec};

/// A line from 0 up to 1 in the first a steps, 1, and a line down to 0 in the last z of n steps (warm-up, stable, decay).
/// The first step has the factor 1/a already, and the last 1/z.
///
/// ```
/// use chainrule_optim::schedule::{Schedule, Trapezoid};
/// let schedule = Trapezoid::new(100).warmup(10).cooldown(20);
/// assert_eq!([0, 9, 50, 99, 100].map(|t| schedule.factor(t)), [0.1, 1.0, 1.0, 0.05, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trapezoid {
    steps: u64,
    warmup: u64,
    cooldown: u64,
}

impl Trapezoid {
    /// The factor 1 for `steps` steps n, and 0 after them.
    pub fn new(steps: u64) -> Self {
        Self { steps, warmup: 0, cooldown: 0 }
    }

    /// The number a of steps in which it rises.
    #[must_use]
    pub fn warmup(mut self, steps: u64) -> Self {
        self.warmup = steps;
        self
    }

    /// The number z of steps in which it falls.
    #[must_use]
    pub fn cooldown(mut self, steps: u64) -> Self {
        self.cooldown = steps;
        self
    }
}

impl Schedule for Trapezoid {
    fn factor(&self, step: u64) -> f64 {
        let left = self.steps.saturating_sub(step);
        if step < self.warmup {
            (step + 1) as f64 / self.warmup as f64
        } else if left < self.cooldown {
            left as f64 / self.cooldown as f64
        } else {
            f64::from(u8::from(left > 0))
        }
    }

    fn check(&self) -> Result<()> {
        match self.warmup.checked_add(self.cooldown) {
            Some(lines) if lines <= self.steps => Ok(()),
            _ => Err(Error::value(format!(
                "Trapezoid: expected warm-up and cool-down within {} steps, got {} and {}",
                self.steps, self.warmup, self.cooldown
            ))),
        }
    }

    fn spec(&self) -> Spec {
        Spec::new("Trapezoid")
            .with("total_steps", self.steps)
            .with("warmup_steps", self.warmup)
            .with("cooldown_steps", self.cooldown)
    }
}

impl<T: Scalar> FromSpec<T> for Trapezoid {
    const FACTS: Facts =
        Facts::new("Trapezoid").family("schedule").formula("min((t + 1)/a, 1, (n − t)/z)").page(PAGE);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let trapezoid = Self::new(args.get("total_steps")?).warmup(args.or("warmup_steps", 0)?);
        Ok(trapezoid.cooldown(args.or("cooldown_steps", 0)?))
    }

    fn examples() -> Vec<Example> {
        vec![Example::new(Trapezoid::new(20).warmup(4).cooldown(6).spec(), [[0; 0]; 0])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// n = 6, a = z = 2: ½, 1, 1, 1, 1, ½, 0.
    #[test]
    pub fn by_hand() {
        let schedule = Trapezoid::new(6).warmup(2).cooldown(2);
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|t| schedule.factor(t)), [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0]);
        assert!(Trapezoid::new(3).warmup(2).cooldown(2).check().is_err());
        assert!(Trapezoid::new(3).warmup(u64::MAX).cooldown(2).check().is_err());
    }
}
