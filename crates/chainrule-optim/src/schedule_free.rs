//! What the schedule-free rules share: the warm-up, and the weight of a step in the average.

use chainrule_core::{Scalar, Tensor};

/// A line up to the learning rate.
pub struct Warmup {
    pub steps: u64,
    pub from_zero: bool,
}

impl Warmup {
    /// The rate of step t, and c: the share of the step in the average. `sum` is the sum of all weights so far, `largest` the largest
    /// rate.
    pub fn step<T: Scalar>(
        &self,
        rate: f64,
        t: u64,
        [of_t, of_rate]: [f64; 2],
        sum: &mut Tensor<T>,
        largest: &mut Tensor<T>,
    ) -> [f64; 2] {
        let at = |t: u64| rate * if t < self.steps { t as f64 / self.steps as f64 } else { 1.0 };
        let most = at(t).max(largest.data()[0].to_f64());
        let weight = (t as f64).powf(of_t) * most.powf(of_rate);
        let total = sum.data()[0].to_f64() + weight;
        largest.fill(T::from_f64(most));
        sum.fill(T::from_f64(total));
        let c = if total > 0.0 { weight / total } else { 0.0 };
        [if self.from_zero { at(t - 1) } else { at(t) }, c]
    }
}
