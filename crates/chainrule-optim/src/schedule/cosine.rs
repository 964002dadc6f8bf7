//! Half a cosine (Loshchilov and Hutter, 2017).

use super::{PAGE, Schedule, finite, from_one};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::f64::consts::PI;

/// m + ½ (1 − m)(1 + cos(π t/T)): half a cosine from 1 to m in T steps. Beyond T the cosine goes on, up again, as
/// PyTorch's CosineAnnealingLR does.
///
/// ```
/// use chainrule_optim::schedule::{Cosine, Schedule};
/// assert_eq!(Cosine::new(10).factor(0), 1.0);
/// assert!(Cosine::new(10).factor(10).abs() < 1e-15);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    steps: u64,
    minimum: f64,
}

impl Cosine {
    /// From 1 to 0 in `steps` steps, at least one.
    pub fn new(steps: u64) -> Self {
        Self { steps, minimum: 0.0 }
    }

    /// Ends at this factor instead of 0: PyTorch's eta_min divided by the learning rate.
    #[must_use]
    pub fn minimum(mut self, factor: f64) -> Self {
        self.minimum = factor;
        self
    }
}

impl Schedule for Cosine {
    fn factor(&self, step: u64) -> f64 {
        let cosine = (PI * step as f64 / self.steps.max(1) as f64).cos();
        self.minimum + 0.5 * (1.0 - self.minimum) * (1.0 + cosine)
    }

    fn check(&self) -> Result<()> {
        from_one("Cosine", "steps", self.steps)?;
        finite("Cosine", "minimum", self.minimum)
    }

    fn spec(&self) -> Spec {
        Spec::new("Cosine").with("T_max", self.steps).with("eta_min", self.minimum)
    }
}

impl<T: Scalar> FromSpec<T> for Cosine {
    const FACTS: Facts = Facts::new("Cosine")
        .family("schedule")
        .formula("m + ½ (1 − m)(1 + cos(π t/T))")
        .page(PAGE)
        .torch("CosineAnnealingLR");

    /// `eta_min` is a factor here, as every schedule is.
    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("T_max")?).minimum(args.or("eta_min", 0.0)?))
    }

    fn examples() -> Vec<Example> {
        vec![Example::new(Spec::new("Cosine").with("T_max", 10).with("eta_min", 0.1), [[0; 0]; 0])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// T = 4, m = ½: 1, ½ + ¼ (1 + √½), ¾, …, ½, and up again.
    #[test]
    pub fn by_hand() {
        let schedule = Cosine::new(4).minimum(0.5);
        let want = [1.0, 0.5 + 0.25 * (1.0 + 0.5f64.sqrt()), 0.75, 0.75 - 0.25 * 0.5f64.sqrt(), 0.5];
        for (t, want) in want.into_iter().enumerate() {
            assert!((schedule.factor(t as u64) - want).abs() < 1e-15, "step {t}");
        }
        assert!((schedule.factor(8) - 1.0).abs() < 1e-15);
        assert!(Cosine::new(0).check().is_err());
    }
}
