//! Factors from given steps on.

use super::{PAGE, Schedule, finite};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Spec};

/// A factor for each of the intervals between given steps, or lines between them.
///
/// ```
/// use chainrule_optim::schedule::{Piecewise, Schedule};
/// let schedule = Piecewise::new(1.0).at(10, 0.5).at(20, 0.1);
/// assert_eq!([9, 10, 25].map(|t| schedule.factor(t)), [1.0, 0.5, 0.1]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Piecewise {
    /// (first step, factor), in order.
    parts: Vec<(u64, f64)>,
    linear: bool,
}

impl Piecewise {
    /// This factor from step 0 on.
    pub fn new(factor: f64) -> Self {
        Self { parts: vec![(0, factor)], linear: false }
    }

    /// Another factor from `step` on. The steps must rise.
    #[must_use]
    pub fn at(mut self, step: u64, factor: f64) -> Self {
        self.parts.push((step, factor));
        self
    }

    /// Goes in lines from one factor to the next, which is reached at its step.
    #[must_use]
    pub fn linear(mut self, linear: bool) -> Self {
        self.linear = linear;
        self
    }
}

impl Schedule for Piecewise {
    fn factor(&self, step: u64) -> f64 {
        let next = self.parts.partition_point(|&(at, _)| at <= step);
        let (from, factor) = self.parts[next.saturating_sub(1)];
        match self.parts.get(next) {
            Some(&(to, end)) if self.linear => {
                factor + (end - factor) * ((step - from) as f64 / (to - from) as f64)
            }
            _ => factor,
        }
    }

    fn check(&self) -> Result<()> {
        if let Some(pair) = self.parts.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(Error::value(format!(
                "Piecewise: expected steps that rise, got {} after {}",
                pair[1].0, pair[0].0
            )));
        }
        let steps = self
            .parts
            .windows(2)
            .try_for_each(|p| finite("Piecewise", "difference of factors", p[1].1 - p[0].1));
        steps.and(self.parts.iter().try_for_each(|&(_, factor)| finite("Piecewise", "factor", factor)))
    }

    fn spec(&self) -> Spec {
        let milestones: Vec<u64> = self.parts[1..].iter().map(|&(at, _)| at).collect();
        let factors: Vec<f64> = self.parts.iter().map(|&(_, factor)| factor).collect();
        Spec::new("Piecewise")
            .with("milestones", milestones)
            .with("factors", factors)
            .with("linear", self.linear)
    }
}

impl<T: Scalar> FromSpec<T> for Piecewise {
    const FACTS: Facts =
        Facts::new("Piecewise").family("schedule").formula("a factor for each interval").page(PAGE);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let (milestones, factors): (Vec<u64>, Vec<f64>) = (args.get("milestones")?, args.get("factors")?);
        let [first, rest @ ..] = &factors[..] else {
            return Err(Error::value("Piecewise: expected a factor, got none"));
        };
        if rest.len() != milestones.len() {
            return Err(Error::value(format!(
                "Piecewise: expected one factor more than milestones, got {} and {}",
                factors.len(),
                milestones.len()
            )));
        }
        let piecewise = Self::new(*first).linear(args.or("linear", false)?);
        Ok(milestones.into_iter().zip(rest).fold(piecewise, |all, (at, factor)| all.at(at, *factor)))
    }

    fn examples() -> Vec<Example> {
        let piecewise = Piecewise::new(1.0).at(4, 0.5).at(9, 0.1);
        [piecewise.clone(), piecewise.linear(true)].map(|s| Example::new(s.spec(), [[0; 0]; 0])).to_vec()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 1, then ½ from step 2 on, then 0 from step 4; in lines 1, ¾, ½, ¼, 0.
    #[test]
    pub fn by_hand() {
        let schedule = Piecewise::new(1.0).at(2, 0.5).at(4, 0.0);
        assert_eq!([0, 1, 2, 3, 4, 9].map(|t| schedule.factor(t)), [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]);
        let lines = schedule.clone().linear(true);
        assert_eq!([0, 1, 2, 3, 4, 9].map(|t| lines.factor(t)), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
        assert!(schedule.at(4, 1.0).check().is_err() && Piecewise::new(f64::NAN).check().is_err());
    }
}
