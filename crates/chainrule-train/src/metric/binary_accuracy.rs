//! The share of right yes-or-no answers.

use super::{Head, Metric, pairs};
use chainrule_core::{Result, Scalar, Target, Tensor};

/// The share of values on their target's side of a threshold, named `accuracy`: for 0 or 1 predicted by one output, and for
/// several labels at once.
#[derive(Clone, Debug)]
pub struct BinaryAccuracy {
    head: Head,
    threshold: f64,
    right: usize,
    all: usize,
}

impl BinaryAccuracy {
    /// Outputs above `threshold` mean 1: 0 for logits, 0.5 for probabilities. Targets above 0.5 mean 1. NaN is on no side, and
    /// never right.
    pub fn new(threshold: f64) -> Self {
        Self { head: Head::new("accuracy", 0), threshold, right: 0, all: 0 }
    }

    /// Of another output, against the target of the same index.
    #[must_use]
    pub fn of(mut self, output: usize) -> Self {
        self.head = Head::new("accuracy", output);
        self
    }

    /// With another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.head.name = name.into();
        self
    }
}

impl<T: Scalar> Metric<T> for BinaryAccuracy {
    fn name(&self) -> &str {
        &self.head.name
    }

    fn output(&self) -> usize {
        self.head.output
    }

    fn reset(&mut self) {
        (self.right, self.all) = (0, 0);
    }

    fn add(&mut self, y: &Tensor<T>, target: Target<'_, T>) -> Result<()> {
        for (y, t) in pairs("binary accuracy", y, target)? {
            self.right += usize::from(!y.is_nan() && (y > self.threshold) == (t > 0.5));
            self.all += 1;
        }
        Ok(())
    }

    fn sums(&self) -> Vec<f64> {
        vec![self.right as f64, self.all as f64]
    }

    fn set_sums(&mut self, sums: &[f64]) {
        if let [right, all] = *sums {
            (self.right, self.all) = (right as usize, all as usize);
        }
    }

    fn value(&self) -> f64 {
        self.right as f64 / self.all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::measured;
    use super::*;

    #[test]
    fn a_threshold_decides() {
        let (y, t) = (Tensor::from([0.4, 0.6]), Tensor::from([1.0, 1.0]));
        assert_eq!(measured(BinaryAccuracy::new(0.5), &y, &t), 0.5);
        assert_eq!(measured(BinaryAccuracy::new(0.0), &y, &t), 1.0);
        let (y, t) = (Tensor::from([f64::NAN, f64::NAN, -1.0]), Tensor::from([0.0, 1.0, 0.0]));
        assert_eq!(measured(BinaryAccuracy::new(0.0), &y, &t), 1.0 / 3.0);
    }
}
