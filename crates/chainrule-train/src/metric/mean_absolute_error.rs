//! The mean of |y − t|.

use super::{Head, Metric, pairs};
use chainrule_core::{Result, Scalar, Target, Tensor};

/// The mean of |y − t|, named `mae`.
#[derive(Clone, Debug)]
pub struct MeanAbsoluteError {
    head: Head,
    sum: f64,
    all: usize,
}

impl Default for MeanAbsoluteError {
    fn default() -> Self {
        Self::of(0)
    }
}

impl MeanAbsoluteError {
    /// Of the first output.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of an output, against the target of the same index.
    pub fn of(output: usize) -> Self {
        Self { head: Head::new("mae", output), sum: 0.0, all: 0 }
    }

    /// With another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.head.name = name.into();
        self
    }
}

impl<T: Scalar> Metric<T> for MeanAbsoluteError {
    fn name(&self) -> &str {
        &self.head.name
    }

    fn output(&self) -> usize {
        self.head.output
    }

    fn reset(&mut self) {
        (self.sum, self.all) = (0.0, 0);
    }

    fn add(&mut self, y: &Tensor<T>, target: Target<'_, T>) -> Result<()> {
        self.sum += pairs("mean absolute error", y, target)?.map(|(y, t)| (y - t).abs()).sum::<f64>();
        self.all += y.len();
        Ok(())
    }

    fn sums(&self) -> Vec<f64> {
        vec![self.sum, self.all as f64]
    }

    fn set_sums(&mut self, sums: &[f64]) {
        if let [sum, all] = *sums {
            (self.sum, self.all) = (sum, all as usize);
        }
    }

    fn value(&self) -> f64 {
        self.sum / self.all.max(1) as f64
    }

    fn higher_is_better(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::measured;
    use super::*;

    #[test]
    fn agrees_with_its_formula() {
        let (y, t) = (Tensor::from([[1.0, 2.0], [3.0, 5.0]]), Tensor::from([[1.0, 3.0], [3.0, 3.0]]));
        assert_eq!(measured(MeanAbsoluteError::new(), &y, &t), 0.75);
        assert!(MeanAbsoluteError::new().add(&y, (&[1, 2]).into()).is_err());
    }
}
