//! Several schedules at once.

use super::{PAGE, Schedule};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::{fmt, sync::Arc};

/// The product of schedules that run side by side.
///
/// ```
/// use chainrule_optim::schedule::{Chained, Constant, Exponential, Schedule};
/// let schedule = Chained::new(Constant::new().at_first(0.5, 2)).and(Exponential::new(0.5));
/// assert_eq!([0, 1, 2].map(|t| schedule.factor(t)), [0.5, 0.25, 0.25]);
/// ```
#[derive(Clone)]
pub struct Chained {
    parts: Vec<Arc<dyn Schedule>>,
}

impl Chained {
    /// A schedule that others may stand beside.
    pub fn new(first: impl Schedule + 'static) -> Self {
        Self { parts: vec![Arc::new(first)] }
    }

    /// One more schedule.
    #[must_use]
    pub fn and(mut self, other: impl Schedule + 'static) -> Self {
        self.parts.push(Arc::new(other));
        self
    }
}

impl fmt::Debug for Chained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.spec())
    }
}

impl Schedule for Chained {
    fn factor(&self, step: u64) -> f64 {
        let factors = self.parts.iter().map(|part| part.factor(step));
        // A factor of 0 is the end, also beside one that has grown beyond all bounds.
        factors.fold(1.0, |all, factor| if all == 0.0 || factor == 0.0 { 0.0 } else { all * factor })
    }

    fn check(&self) -> Result<()> {
        self.parts.iter().enumerate().try_for_each(|(i, part)| {
            part.check().map_err(|e| Error::value(format!("Chained: part {i}: {e}")))
        })
    }

    fn spec(&self) -> Spec {
        let parts = self.parts.iter().enumerate();
        parts.fold(Spec::new("Chained"), |spec, (i, part)| spec.child(i.to_string(), part.spec()))
    }
}

impl<T: Scalar> FromSpec<T> for Chained {
    const FACTS: Facts = Facts::new("Chained")
        .family("schedule")
        .formula("the product of several")
        .page(PAGE)
        .torch("ChainedScheduler");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let build = |(name, spec): &(String, Spec)| {
            let part = args.registry().build_schedule(spec);
            part.map_err(|e| Error::value(format!("Chained: part {name}: {e}")))
        };
        let [first, rest @ ..] = args.spec().children() else {
            return Err(Error::value("Chained: expected a schedule, got none"));
        };
        rest.iter().try_fold(Self::new(build(first)?), |all, part| Ok(all.and(build(part)?)))
    }

    fn examples() -> Vec<Example> {
        use super::{Constant, Step};
        let chained = Self::new(Constant::new().at_first(0.5, 3)).and(Step::new(4));
        vec![Example::new(chained.spec(), [[0; 0]; 0])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::{Constant, Step};
    use super::*;

    /// ½ at first and γ = ½ every two steps: ½, ½, ½ · ½, then ½, ¼.
    #[test]
    pub fn by_hand() {
        let schedule = Chained::new(Constant::new().at_first(0.5, 3)).and(Step::new(2).gamma(0.5));
        assert_eq!([0, 1, 2, 3, 4].map(|t| schedule.factor(t)), [0.5, 0.5, 0.25, 0.5, 0.25]);
        let text = schedule.and(Step::new(0)).check().unwrap_err().to_string();
        assert_eq!(text, "Chained: part 2: Step: expected step size from 1, got 0");
    }
}
