//! Schedules of the caller's own.

use super::Schedule;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// A function of the step: PyTorch's LambdaLR. It cannot be built from a spec.
///
/// ```
/// use chainrule_optim::schedule::{Lambda, Schedule};
/// assert_eq!(Lambda::new(|step| 1.0 / (step + 1) as f64).factor(3), 0.25);
/// ```
#[derive(Clone)]
pub struct Lambda(Arc<dyn Fn(u64) -> f64 + Send + Sync>);

impl Lambda {
    /// The factor at each step.
    pub fn new(factor: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(factor))
    }
}

impl fmt::Debug for Lambda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.spec())
    }
}

impl Schedule for Lambda {
    fn factor(&self, step: u64) -> f64 {
        (self.0)(step)
    }
}

/// The product of a function's values at the steps 1 to t: PyTorch's MultiplicativeLR. It cannot be built from a spec.
///
/// The product up to the last step asked for is kept, so that asking for one step after the other takes one call each.
///
/// ```
/// use chainrule_optim::schedule::{Multiplicative, Schedule};
/// let schedule = Multiplicative::new(|_| 0.5);
/// assert_eq!([0, 1, 3].map(|t| schedule.factor(t)), [1.0, 0.5, 0.125]);
/// ```
#[derive(Clone)]
pub struct Multiplicative {
    factor: Arc<dyn Fn(u64) -> f64 + Send + Sync>,
    /// (t, the product up to t).
    last: Arc<Mutex<(u64, f64)>>,
}

impl Multiplicative {
    /// What the factor is multiplied by at each step from 1 on.
    pub fn new(factor: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Self {
        Self { factor: Arc::new(factor), last: Arc::new(Mutex::new((0, 1.0))) }
    }
}

impl fmt::Debug for Multiplicative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.spec())
    }
}

impl Schedule for Multiplicative {
    fn factor(&self, step: u64) -> f64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if step < last.0 {
            *last = (0, 1.0);
        }
        while last.0 < step {
            *last = (last.0 + 1, last.1 * (self.factor)(last.0 + 1));
        }
        last.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_the_same_in_whatever_order_it_is_asked_for() {
        let schedule = Multiplicative::new(|t| 1.0 / t as f64);
        assert_eq!([3, 1, 0, 2, 3].map(|t| schedule.factor(t)), [1.0 / 6.0, 1.0, 1.0, 0.5, 1.0 / 6.0]);
        assert!(schedule.spec().is_opaque() && Lambda::new(|_| 1.0).spec().is_opaque());
    }
}
