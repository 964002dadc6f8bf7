//! Learning rates over time, as factors of the optimizer's own rate. Step 0 is the first. Derivations: docs/optimizers/schedules.md.

use std::f64::consts::PI;

/// A factor of the learning rate for every step, in closed form: any step can be asked for, in any order.
pub trait Schedule: Send + Sync {
    /// The factor that holds at a step, counted from 0.
    fn factor(&self, step: u64) -> f64;

    /// This schedule until `step`, then `next`, which counts from 0 again.
    fn then(self, step: u64, next: impl Schedule + 'static) -> Sequence
    where
        Self: Sized + 'static,
    {
        Sequence { parts: vec![(0, Box::new(self)), (step, Box::new(next))] }
    }
}

/// The same rate throughout, or a fraction of it for the first steps.
///
/// ```
/// use chainrule_optim::{Constant, Schedule};
/// assert_eq!(Constant::new().factor(7), 1.0);
/// assert_eq!(Constant::new().at_first(0.5, 3).factor(2), 0.5);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    first: f64,
    steps: u64,
}

impl Constant {
    /// The factor 1.
    pub fn new() -> Self {
        Self { first: 1.0, steps: 0 }
    }

    /// Another factor for the first steps (PyTorch's ConstantLR).
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
}

/// γ^⌊t/size⌋: the rate falls by γ every `size` steps (PyTorch's StepLR).
///
/// ```
/// use chainrule_optim::{Schedule, Step};
/// assert_eq!(Step::new(10).gamma(0.5).factor(25), 0.25);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Step {
    size: u64,
    gamma: f64,
}

impl Step {
    /// Falls by γ = 0.1 every `size` steps; a size of 0 counts as 1.
    pub fn new(size: u64) -> Self {
        Self { size: size.max(1), gamma: 0.1 }
    }

    /// Another factor γ.
    #[must_use]
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.gamma = gamma;
        self
    }
}

impl Schedule for Step {
    fn factor(&self, step: u64) -> f64 {
        self.gamma.powf((step / self.size) as f64)
    }
}

/// m + ½ (1 − m)(1 + cos(π t/T)): half a cosine from 1 to m in T steps (Loshchilov and Hutter, 2017). Beyond T the cosine goes on, up again, as
/// PyTorch's CosineAnnealingLR does.
///
/// ```
/// use chainrule_optim::{Cosine, Schedule};
/// assert_eq!(Cosine::new(10).factor(0), 1.0);
/// assert!(Cosine::new(10).factor(10).abs() < 1e-15);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cosine {
    steps: u64,
    minimum: f64,
}

impl Cosine {
    /// From 1 to 0 in `steps` steps; 0 steps count as 1.
    pub fn new(steps: u64) -> Self {
        Self { steps: steps.max(1), minimum: 0.0 }
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
        let cosine = (PI * step as f64 / self.steps as f64).cos();
        self.minimum + 0.5 * (1.0 - self.minimum) * (1.0 + cosine)
    }
}

/// A line from one factor to another in the first steps (PyTorch's LinearLR).
///
/// ```
/// use chainrule_optim::{Cosine, LinearWarmup, Schedule};
/// let schedule = LinearWarmup::new(5).from(0.1).then(5, Cosine::new(95));
/// assert!(schedule.factor(0) < schedule.factor(4) && schedule.factor(99) < 0.01);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LinearWarmup {
    steps: u64,
    from: f64,
    to: f64,
}

impl LinearWarmup {
    /// From ⅓ to 1 in `steps` steps; 0 steps count as 1.
    pub fn new(steps: u64) -> Self {
        Self { steps: steps.max(1), from: 1.0 / 3.0, to: 1.0 }
    }

    /// Another factor to start from.
    #[must_use]
    pub fn from(mut self, factor: f64) -> Self {
        self.from = factor;
        self
    }

    /// Another factor to end at.
    #[must_use]
    pub fn to(mut self, factor: f64) -> Self {
        self.to = factor;
        self
    }
}

impl Schedule for LinearWarmup {
    fn factor(&self, step: u64) -> f64 {
        let share = step.min(self.steps) as f64 / self.steps as f64;
        self.from + (self.to - self.from) * share
    }
}

/// Schedules one after another; made by [`Schedule::then`].
pub struct Sequence {
    /// (first step, schedule), in order.
    parts: Vec<(u64, Box<dyn Schedule>)>,
}

impl Sequence {
    /// One more schedule, from `step` on.
    #[must_use]
    pub fn and_then(mut self, step: u64, next: impl Schedule + 'static) -> Self {
        self.parts.push((step, Box::new(next)));
        self
    }
}

impl std::fmt::Debug for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|(start, _)| start)).finish()
    }
}

impl Schedule for Sequence {
    fn factor(&self, step: u64) -> f64 {
        let part = self.parts.iter().rev().find(|(start, _)| *start <= step);
        part.map_or(1.0, |(start, schedule)| schedule.factor(step - start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Warm-up of 4 from 0.2 to 1: 0.2, 0.4, 0.6, 0.8; then half a cosine of 4: 1, (1 + √½)/2, ½, …
    #[test]
    fn a_warm_up_and_a_cosine_by_hand() {
        let schedule = LinearWarmup::new(4).from(0.2).then(4, Cosine::new(4));
        let want = [0.2, 0.4, 0.6, 0.8, 1.0, 0.5 * (1.0 + 0.5f64.sqrt()), 0.5];
        for (step, want) in want.into_iter().enumerate() {
            assert!((schedule.factor(step as u64) - want).abs() < 1e-15);
        }
        let three = schedule.and_then(8, Step::new(2).gamma(0.5));
        assert_eq!([three.factor(9), three.factor(10)], [1.0, 0.5]);
    }
}
