//! A rate that rises in a line.

use super::{PAGE, Schedule, finite, from_one};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};

/// a + (b − a) min(t, n)/n: a line from one factor to another in the first n steps.
///
/// ```
/// use chainrule_optim::schedule::{LinearWarmup, Schedule};
/// let warmup = LinearWarmup::new(4).from(0.2);
/// assert_eq!([warmup.factor(0), warmup.factor(9)], [0.2, 1.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearWarmup {
    steps: u64,
    from: f64,
    to: f64,
}

impl LinearWarmup {
    /// From ⅓ to 1 in `steps` steps, at least one.
    pub fn new(steps: u64) -> Self {
        Self { steps, from: 1.0 / 3.0, to: 1.0 }
    }

    /// Another factor to start from.
    #[must_use]
    pub fn from(mut self, factor: f64) -> Self {
        self.from = factor;
        self
    }

    /// Another factor to end at.
    #[must_use]
    pub fn to(mut self, factor: f64) -> Self {
        self.to = factor;
        self
    }
}

impl Schedule for LinearWarmup {
    fn factor(&self, step: u64) -> f64 {
        let steps = self.steps.max(1);
        self.from + (self.to - self.from) * (step.min(steps) as f64 / steps as f64)
    }

    fn check(&self) -> Result<()> {
        from_one("LinearWarmup", "steps", self.steps)?;
        finite("LinearWarmup", "start factor", self.from)?;
        finite("LinearWarmup", "end factor", self.to)
    }

    fn spec(&self) -> Spec {
        Spec::new("LinearWarmup")
            .with("start_factor", self.from)
            .with("end_factor", self.to)
            .with("total_iters", self.steps)
    }
}

impl<T: Scalar> FromSpec<T> for LinearWarmup {
    const FACTS: Facts = Facts::new("LinearWarmup")
        .family("schedule")
        .formula("a + (b − a) min(t, n)/n")
        .page(PAGE)
        .torch("LinearLR");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let warmup = Self::new(args.or("total_iters", 5)?);
        Ok(warmup.from(args.or("start_factor", 1.0 / 3.0)?).to(args.or("end_factor", 1.0)?))
    }

    fn examples() -> Vec<Example> {
        let warmup = Spec::new("LinearWarmup");
        let warmup = warmup.with("start_factor", 0.25).with("end_factor", 0.75).with("total_iters", 4);
        vec![Example::new(warmup, [[0; 0]; 0])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// From ¼ to ¾ in 4 steps: ¼, ⅜, ½, ⅝, ¾, and stays.
    #[test]
    pub fn by_hand() {
        let schedule = LinearWarmup::new(4).from(0.25).to(0.75);
        assert_eq!([0, 1, 2, 3, 4, 9].map(|t| schedule.factor(t)), [0.25, 0.375, 0.5, 0.625, 0.75, 0.75]);
        assert!(LinearWarmup::new(0).check().is_err());
        assert!(LinearWarmup::new(3).to(f64::INFINITY).check().is_err());
    }
}
