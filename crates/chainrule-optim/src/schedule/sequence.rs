//! Schedules one after another.

use super::{PAGE, Schedule};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::{fmt, sync::Arc};

/// Schedules one after another, each counting from 0; made by `.then(…)`.
///
/// ```
/// use chainrule_optim::schedule::{Constant, Cosine, LinearWarmup, Schedule};
/// let schedule = LinearWarmup::new(10).then(10, Constant::new()).then(50, Cosine::new(50));
/// assert_eq!(schedule.factor(30), 1.0);
/// assert!(LinearWarmup::new(10).then(0, Constant::new()).check().is_err()); // the first would never run
/// ```
#[derive(Clone)]
pub struct Sequence {
    /// (first step, schedule), in order.
    parts: Vec<(u64, Arc<dyn Schedule>)>,
}

impl Sequence {
    /// A schedule that others may follow.
    pub fn new(first: impl Schedule + 'static) -> Self {
        Self { parts: vec![(0, Arc::new(first))] }
    }

    /// One more schedule, from `step` on, which counts from 0 again. The steps must rise.
    #[must_use]
    pub fn then(mut self, step: u64, next: impl Schedule + 'static) -> Self {
        self.parts.push((step, Arc::new(next)));
        self
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.spec())
    }
}

impl Schedule for Sequence {
    fn factor(&self, step: u64) -> f64 {
        let part = self.parts.iter().rev().find(|(start, _)| *start <= step);
        part.map_or(1.0, |(start, schedule)| schedule.factor(step - start))
    }

    fn check(&self) -> Result<()> {
        if let Some(at) = self.parts.windows(2).position(|pair| pair[0].0 >= pair[1].0) {
            return Err(Error::value(format!(
                "Sequence: expected steps that rise, got part {at} from step {} and the next from step {}: it would never run",
                self.parts[at].0,
                self.parts[at + 1].0
            )));
        }
        self.parts.iter().enumerate().try_for_each(|(i, (_, part))| {
            part.check().map_err(|e| Error::value(format!("Sequence: part {i}: {e}")))
        })
    }

    fn spec(&self) -> Spec {
        let milestones: Vec<u64> = self.parts[1..].iter().map(|(start, _)| *start).collect();
        let spec = Spec::new("Sequence").with("milestones", milestones);
        let parts = self.parts.iter().enumerate();
        parts.fold(spec, |spec, (i, (_, part))| spec.child(i.to_string(), part.spec()))
    }
}

impl<T: Scalar> FromSpec<T> for Sequence {
    const FACTS: Facts = Facts::new("Sequence")
        .family("schedule")
        .formula("one until step s, then the next from its own 0")
        .page(PAGE)
        .torch("SequentialLR");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let milestones: Vec<u64> = args.get("milestones")?;
        let parts = args.spec().children();
        if parts.len() != milestones.len() + 1 {
            return Err(Error::value(format!(
                "Sequence: expected one schedule more than milestones, got {} and {}",
                parts.len(),
                milestones.len()
            )));
        }
        let build = |(name, spec): &(String, Spec)| {
            args.registry()
                .build_schedule(spec)
                .map_err(|e| Error::value(format!("Sequence: part {name}: {e}")))
        };
        let mut sequence = Self::new(build(&parts[0])?);
        for (step, part) in milestones.into_iter().zip(&parts[1..]) {
            sequence = sequence.then(step, build(part)?);
        }
        Ok(sequence)
    }

    fn examples() -> Vec<Example> {
        use super::{Constant, Cosine, LinearWarmup};
        let spec = LinearWarmup::new(4).then(4, Constant::new()).then(9, Cosine::new(6)).spec();
        vec![Example::new(spec, [[0; 0]; 0])]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::{Constant, Cosine, LinearWarmup, Step};
    use super::*;

    /// Warm-up of 4 from 0.2 to 1: 0.2, 0.4, 0.6, 0.8; then half a cosine of 4: 1, (1 + √½)/2, ½, …
    #[test]
    pub fn by_hand() {
        let schedule = LinearWarmup::new(4).from(0.2).then(4, Cosine::new(4));
        let want = [0.2, 0.4, 0.6, 0.8, 1.0, 0.5 * (1.0 + 0.5f64.sqrt()), 0.5];
        for (step, want) in want.into_iter().enumerate() {
            assert!((schedule.factor(step as u64) - want).abs() < 1e-15);
        }
        let three = schedule.then(8, Step::new(2).gamma(0.5));
        assert_eq!([three.factor(9), three.factor(10)], [1.0, 0.5]);
        assert!(three.check().is_ok());
    }

    #[test]
    fn a_part_that_can_never_run_is_an_error() {
        for (first, second) in [(0, 5), (5, 5), (5, 4)] {
            let schedule = LinearWarmup::new(3).then(first, Cosine::new(4)).then(second, Constant::new());
            let text = schedule.check().unwrap_err().to_string();
            assert!(text.contains("it would never run"), "{text}");
        }
        let text = LinearWarmup::new(3).then(3, Step::new(0)).check().unwrap_err().to_string();
        assert_eq!(text, "Sequence: part 1: Step: expected step size from 1, got 0");
    }
}
