//! The schedule of the transformer (Vaswani and others, 2017).

use super::{PAGE, Schedule, finite, from_one};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};

/// s D^(−½) min((t + 1)^(−½), (t + 1) n^(−3/2)): a line up to step n, then the inverse root. For a learning rate of 1.
///
/// ```
/// use chainrule_optim::schedule::{Noam, Schedule};
/// assert!(Noam::new(512, 4000).factor(3999) > Noam::new(512, 4000).factor(4000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noam {
    width: u64,
    warmup: u64,
    scale: f64,
}

impl Noam {
    /// For a model of a width D, with `warmup` steps n; both at least one.
    pub fn new(width: u64, warmup: u64) -> Self {
        Self { width, warmup, scale: 1.0 }
    }

    /// Another factor s of all.
    #[must_use]
    pub fn scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }
}

impl Schedule for Noam {
    fn factor(&self, step: u64) -> f64 {
        let (at, warmup) = (step as f64 + 1.0, self.warmup.max(1) as f64);
        self.scale / (self.width.max(1) as f64).sqrt() * (1.0 / at.sqrt()).min(at / warmup.powf(1.5))
    }

    fn check(&self) -> Result<()> {
        from_one("Noam", "width of the model", self.width)?;
        from_one("Noam", "warm-up steps", self.warmup)?;
        finite("Noam", "scale", self.scale)
    }

    fn spec(&self) -> Spec {
        Spec::new("Noam")
            .with("model_size", self.width)
            .with("warmup_steps", self.warmup)
            .with("scale", self.scale)
    }
}

impl<T: Scalar> FromSpec<T> for Noam {
    const FACTS: Facts = Facts::new("Noam")
        .family("schedule")
        .formula("s D^(−½) min((t + 1)^(−½), (t + 1) n^(−3/2))")
        .page(PAGE);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("model_size")?, args.get("warmup_steps")?).scale(args.or("scale", 1.0)?))
    }

    fn examples() -> Vec<Example> {
        let noam = Spec::new("Noam").with("model_size", 64).with("warmup_steps", 10).with("scale", 2.0);
        vec![Example::new(noam, [[0; 0]; 0])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// D = 4, n = 4: ½ (t + 1)/8 up to ½ · ½ at step 3, then ½/√(t + 1): ⅙ at step 8.
    #[test]
    pub fn by_hand() {
        let schedule = Noam::new(4, 4);
        for (t, want) in [(0, 0.0625), (1, 0.125), (3, 0.25), (8, 1.0 / 6.0)] {
            assert!((schedule.factor(t) - want).abs() < 1e-15, "step {t}");
        }
        assert!(Noam::new(0, 1).check().is_err() && Noam::new(1, 0).check().is_err());
    }
}
