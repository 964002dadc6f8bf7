//! A rate that falls at given steps.

use super::{PAGE, Schedule, finite};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Spec};

/// γⁿ with n the number of milestones up to the step.
///
/// ```
/// use chainrule_optim::schedule::{MultiStep, Schedule};
/// assert_eq!(MultiStep::new([10, 20]).gamma(0.5).factor(15), 0.5);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MultiStep {
    milestones: Vec<u64>,
    gamma: f64,
}

impl MultiStep {
    /// Falls by γ = 0.1 at each of these steps, which must not fall; one that stands twice counts twice.
    pub fn new(milestones: impl Into<Vec<u64>>) -> Self {
        Self { milestones: milestones.into(), gamma: 0.1 }
    }

    /// Another factor γ.
    #[must_use]
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.gamma = gamma;
        self
    }
}

impl Schedule for MultiStep {
    fn factor(&self, step: u64) -> f64 {
        let passed = self.milestones.partition_point(|&at| at <= step);
        self.gamma.powf(passed as f64)
    }

    fn check(&self) -> Result<()> {
        if let Some(pair) = self.milestones.windows(2).find(|pair| pair[0] > pair[1]) {
            return Err(Error::value(format!(
                "MultiStep: expected milestones that rise, got {} after {}",
                pair[1], pair[0]
            )));
        }
        finite("MultiStep", "gamma", self.gamma)
    }

    fn spec(&self) -> Spec {
        Spec::new("MultiStep").with("milestones", self.milestones.clone()).with("gamma", self.gamma)
    }
}

impl<T: Scalar> FromSpec<T> for MultiStep {
    const FACTS: Facts = Facts::new("MultiStep")
        .family("schedule")
        .formula("γ^(milestones passed)")
        .page(PAGE)
        .torch("MultiStepLR");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get::<Vec<u64>>("milestones")?).gamma(args.or("gamma", 0.1)?))
    }

    fn examples() -> Vec<Example> {
        vec![Example::new(
            Spec::new("MultiStep").with("milestones", vec![3u64, 9]).with("gamma", 0.5),
            [[0; 0]; 0],
        )]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 1 before step 2, ½ from it on, ⅛ from step 4 on, where two milestones stand.
    #[test]
    pub fn by_hand() {
        let schedule = MultiStep::new([2, 4, 4]).gamma(0.5);
        assert_eq!([0, 1, 2, 3, 4, 9].map(|t| schedule.factor(t)), [1.0, 1.0, 0.5, 0.5, 0.125, 0.125]);
        assert!(
            MultiStep::new([4, 2]).check().is_err() && MultiStep::new([]).gamma(f64::NAN).check().is_err()
        );
    }
}
