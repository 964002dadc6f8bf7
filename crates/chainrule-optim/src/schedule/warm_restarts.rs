//! Half a cosine, again and again (Loshchilov and Hutter, 2017).

use super::{PAGE, Schedule, finite, from_one};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::f64::consts::PI;

/// m + ½ (1 − m)(1 + cos(π s/Tᵢ)), s steps after the last restart. The first period has T₀ steps, each later one k times as many
/// as the one before.
///
/// ```
/// use chainrule_optim::schedule::{Schedule, WarmRestarts};
/// let schedule = WarmRestarts::new(4).multiplier(2);
/// assert_eq!([0, 4, 12].map(|t| schedule.factor(t)), [1.0; 3]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmRestarts {
    first: u64,
    multiplier: u64,
    minimum: f64,
}

impl WarmRestarts {
    /// Periods of `steps` steps, at least one, each from 1 to 0.
    pub fn new(steps: u64) -> Self {
        Self { first: steps, multiplier: 1, minimum: 0.0 }
    }

    /// Each period is k times as long as the one before, k from 1.
    #[must_use]
    pub fn multiplier(mut self, k: u64) -> Self {
        self.multiplier = k;
        self
    }

    /// Ends at this factor instead of 0: PyTorch's eta_min divided by the learning rate.
    #[must_use]
    pub fn minimum(mut self, factor: f64) -> Self {
        self.minimum = factor;
        self
    }
}

impl Schedule for WarmRestarts {
    fn factor(&self, step: u64) -> f64 {
        let (mut length, mut since) = (self.first.max(1), step);
        if self.multiplier < 2 {
            since %= length;
        }
        // At most 64 periods whose lengths at least double.
        while since >= length {
            since -= length;
            length = length.saturating_mul(self.multiplier.max(1));
        }
        self.minimum + 0.5 * (1.0 - self.minimum) * (1.0 + (PI * since as f64 / length as f64).cos())
    }

    fn check(&self) -> Result<()> {
        from_one("WarmRestarts", "steps of the first period", self.first)?;
        from_one("WarmRestarts", "multiplier", self.multiplier)?;
        finite("WarmRestarts", "minimum", self.minimum)
    }

    fn spec(&self) -> Spec {
        Spec::new("WarmRestarts")
            .with("T_0", self.first)
            .with("T_mult", self.multiplier)
            .with("eta_min", self.minimum)
    }
}

impl<T: Scalar> FromSpec<T> for WarmRestarts {
    const FACTS: Facts = Facts::new("WarmRestarts")
        .family("schedule")
        .formula("half a cosine from 1 to m in T₀, k T₀, k² T₀, … steps")
        .page(PAGE)
        .torch("CosineAnnealingWarmRestarts");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        // `eta_min` is a factor here, as every schedule is.
        let restarts = Self::new(args.get("T_0")?).multiplier(args.or("T_mult", 1)?);
        Ok(restarts.minimum(args.or("eta_min", 0.0)?))
    }

    fn examples() -> Vec<Example> {
        let restarts = Spec::new("WarmRestarts").with("T_0", 4).with("T_mult", 2).with("eta_min", 0.1);
        vec![Example::new(restarts, [[0; 0]; 0])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Periods of 2 and 4 steps: 1, ½, then 1, (1 + √½)/2, ½, (1 − √½)/2, then 1 again.
    #[test]
    pub fn by_hand() {
        let (schedule, root) = (WarmRestarts::new(2).multiplier(2), 0.5f64.sqrt());
        let want = [1.0, 0.5, 1.0, 0.5 + 0.5 * root, 0.5, 0.5 - 0.5 * root, 1.0];
        for (t, want) in want.into_iter().enumerate() {
            assert!((schedule.factor(t as u64) - want).abs() < 1e-15, "step {t}");
        }
        assert!((WarmRestarts::new(4).minimum(0.5).factor(6) - 0.75).abs() < 1e-15);
        assert!(WarmRestarts::new(0).check().is_err() && WarmRestarts::new(1).multiplier(0).check().is_err());
    }
}
