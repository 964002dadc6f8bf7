//! A rate that falls by the same factor at every step.

use super::{PAGE, Schedule, finite};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};

/// γᵗ
///
/// ```
/// use chainrule_optim::schedule::{Exponential, Schedule};
/// assert_eq!(Exponential::new(0.5).factor(3), 0.125);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponential {
    gamma: f64,
}

impl Exponential {
    /// Falls by γ at every step.
    pub fn new(gamma: f64) -> Self {
        Self { gamma }
    }
}

impl Schedule for Exponential {
    fn factor(&self, step: u64) -> f64 {
        self.gamma.powf(step as f64)
    }

    fn check(&self) -> Result<()> {
        finite("Exponential", "gamma", self.gamma)
    }

    fn spec(&self) -> Spec {
        Spec::new("Exponential").with("gamma", self.gamma)
    }
}

impl<T: Scalar> FromSpec<T> for Exponential {
    const FACTS: Facts =
        Facts::new("Exponential").family("schedule").formula("γᵗ").page(PAGE).torch("ExponentialLR");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("gamma")?))
    }

    fn examples() -> Vec<Example> {
        vec![Example::new(Spec::new("Exponential").with("gamma", 0.9), [[0; 0]; 0])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 1, ½, ¼.
    #[test]
    pub fn by_hand() {
        let schedule = Exponential::new(0.5);
        assert_eq!([0, 1, 2].map(|t| schedule.factor(t)), [1.0, 0.5, 0.25]);
        assert!(Exponential::new(f64::NAN).check().is_err());
    }
}
