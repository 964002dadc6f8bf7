//! The same rate throughout, or another one at first.

use super::{PAGE, Schedule, finite};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};

/// 1, or another factor f for the first n steps.
///
/// ```
/// use chainrule_optim::schedule::{Constant, Schedule};
/// assert_eq!(Constant::new().factor(7), 1.0);
/// assert_eq!(Constant::new().at_first(0.5, 3).factor(2), 0.5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constant {
    first: f64,
    steps: u64,
}

impl Constant {
    /// The factor 1.
    pub fn new() -> Self {
        Self { first: 1.0, steps: 0 }
    }

    /// Another factor for the first steps.
    #[must_use]
    pub fn at_first(self, factor: f64, steps: u64) -> Self {
        Self { first: factor, steps }
    }
}

impl Default for Constant {
    fn default() -> Self {
        Self::new()
    }
}

impl Schedule for Constant {
    fn factor(&self, step: u64) -> f64 {
        if step < self.steps { self.first } else { 1.0 }
    }

    fn check(&self) -> Result<()> {
        finite("Constant", "factor", self.first)
    }

    fn spec(&self) -> Spec {
        Spec::new("Constant").with("factor", self.first).with("total_iters", self.steps)
    }
}

impl<T: Scalar> FromSpec<T> for Constant {
    const FACTS: Facts = Facts::new("Constant")
        .family("schedule")
        .formula("1, or f for the first n steps")
        .page(PAGE)
        .torch("ConstantLR");

    /// PyTorch's defaults, ⅓ for 5 steps.
    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().at_first(args.or("factor", 1.0 / 3.0)?, args.or("total_iters", 5)?))
    }

    fn examples() -> Vec<Example> {
        let constant = Spec::new("Constant").with("factor", 0.5).with("total_iters", 3);
        vec![Example::new(constant, [[0; 0]; 0])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// ½, ½, then 1.
    #[test]
    pub fn by_hand() {
        let schedule = Constant::new().at_first(0.5, 2);
        assert_eq!([0, 1, 2, 9].map(|t| schedule.factor(t)), [0.5, 0.5, 1.0, 1.0]);
        assert!(Constant::new().at_first(f64::NAN, 1).check().is_err());
    }
}
