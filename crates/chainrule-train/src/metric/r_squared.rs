//! The coefficient of determination.

use super::{Head, Metric, pairs};
use chainrule_core::{Result, Scalar, Target, Tensor};

/// The coefficient of determination, R² = 1 − Σ (y − t)² / Σ (t − t̄)²: 1 is perfect, 0 is what predicting the mean gives.
/// Named `r2`.
///
/// Over all elements of an output together; 0 if the targets do not vary.
#[derive(Clone, Debug)]
pub struct RSquared {
    head: Head,
    /// Σ (y − t)²
    residual: f64,
    /// t̄ so far.
    mean: f64,
    /// Σ (t − t̄)² so far (Welford, 1962).
    spread: f64,
    all: usize,
}

impl Default for RSquared {
    fn default() -> Self {
        Self::of(0)
    }
}

impl RSquared {
    /// Of the first output.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of an output, against the target of the same index.
    pub fn of(output: usize) -> Self {
        Self { head: Head::new("r2", output), residual: 0.0, mean: 0.0, spread: 0.0, all: 0 }
    }

    /// With another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.head.name = name.into();
        self
    }
}

impl<T: Scalar> Metric<T> for RSquared {
    fn name(&self) -> &str {
        &self.head.name
    }

    fn output(&self) -> usize {
        self.head.output
    }

    fn reset(&mut self) {
        (self.residual, self.mean, self.spread, self.all) = (0.0, 0.0, 0.0, 0);
    }

    fn add(&mut self, y: &Tensor<T>, target: Target<'_, T>) -> Result<()> {
        for (y, t) in pairs("R²", y, target)? {
            self.residual += (y - t) * (y - t);
            self.all += 1;
            let off = t - self.mean;
            self.mean += off / self.all as f64;
            self.spread += off * (t - self.mean);
        }
        Ok(())
    }

    fn sums(&self) -> Vec<f64> {
        vec![self.residual, self.mean, self.spread, self.all as f64]
    }

    fn set_sums(&mut self, sums: &[f64]) {
        if let [residual, mean, spread, all] = *sums {
            (self.residual, self.mean, self.spread, self.all) = (residual, mean, spread, all as usize);
        }
    }

    fn value(&self) -> f64 {
        // A residual that is NaN stays one: a broken model is not a perfect one.
        if self.spread > 0.0 { 1.0 - self.residual / self.spread } else { self.residual * 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::measured;
    use super::*;

    #[test]
    fn agrees_with_its_formula() {
        let (y, t) = (Tensor::from([[1.0, 2.0], [3.0, 5.0]]), Tensor::from([[1.0, 3.0], [3.0, 3.0]]));
        // t̄ = 2.5: 1 − (1 + 4) / (2.25 + 3 · 0.25)
        assert!((measured(RSquared::new(), &y, &t) - (1.0 - 5.0 / 3.0)).abs() < 1e-15);
        assert_eq!(measured(RSquared::new(), &t, &t), 1.0);
        let constant = Tensor::from([[1.0, 1.0], [1.0, 1.0]]);
        assert_eq!(measured(RSquared::new(), &y, &constant), 0.0);
        assert!(RSquared::new().add(&y, (&Tensor::from([1.0])).into()).is_err());
    }
}
