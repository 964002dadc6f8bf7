//! Up once and down once (Smith and Topin, 2018).

use super::{PAGE, Schedule, finite};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::f64::consts::PI;

/// From M/D up to M in the first share p of the n steps, then down to M/(D F) at the last; after it the rate stays. In three
/// phases it goes down to M/D first, as long as it went up, and then to M/(D F).
///
/// PyTorch gives M as a rate; here it is a factor of the optimizer's, as every schedule is.
///
/// ```
/// use chainrule_optim::schedule::{OneCycle, Schedule};
/// let schedule = OneCycle::new(11).peak_at(0.5);
/// assert!((schedule.factor(0) - 0.04).abs() < 1e-15 && schedule.factor(10) < 1e-5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneCycle {
    steps: u64,
    peak: f64,
    peak_at: f64,
    linear: bool,
    divisor: f64,
    final_divisor: f64,
    three_phase: bool,
}

impl OneCycle {
    /// `steps` steps, at least two, by half cosines: M = 1, p = 0.3, D = 25, F = 10⁴, two phases.
    pub fn new(steps: u64) -> Self {
        let (divisor, final_divisor) = (25.0, 1e4);
        Self { steps, peak: 1.0, peak_at: 0.3, linear: false, divisor, final_divisor, three_phase: false }
    }

    /// The largest factor M.
    #[must_use]
    pub fn peak(mut self, factor: f64) -> Self {
        self.peak = factor;
        self
    }

    /// The share p of the steps in which the rate rises.
    #[must_use]
    pub fn peak_at(mut self, share: f64) -> Self {
        self.peak_at = share;
        self
    }

    /// In lines rather than half cosines.
    #[must_use]
    pub fn linear(mut self, linear: bool) -> Self {
        self.linear = linear;
        self
    }

    /// What M is divided by at first, D, and that by at the end, F.
    #[must_use]
    pub fn divisors(mut self, first: f64, last: f64) -> Self {
        (self.divisor, self.final_divisor) = (first, last);
        self
    }

    /// Goes down as long as it went up, and then on to the end.
    #[must_use]
    pub fn three_phase(mut self, three_phase: bool) -> Self {
        self.three_phase = three_phase;
        self
    }
}

impl Schedule for OneCycle {
    fn factor(&self, step: u64) -> f64 {
        let (steps, first) = (self.steps.max(2) as f64, self.peak / self.divisor);
        let (rise, last) = (self.peak_at * steps - 1.0, first / self.final_divisor);
        let down = (steps - 1.0, self.peak, last);
        let mut phases = [(rise, first, self.peak), down, down];
        if self.three_phase {
            phases[1] = (2.0 * self.peak_at * steps - 2.0, self.peak, first);
            phases[2] = (steps - 1.0, first, last);
        }
        let (at, mut start) = ((step as f64).min(steps - 1.0), 0.0);
        for (i, &(end, from, to)) in phases.iter().enumerate() {
            if at <= end || i + 1 == phases.len() {
                let share = if end > start { (at - start) / (end - start) } else { 1.0 };
                return match self.linear {
                    true => from + (to - from) * share,
                    false => to + 0.5 * (from - to) * (1.0 + (PI * share).cos()),
                };
            }
            start = end;
        }
        last
    }

    fn check(&self) -> Result<()> {
        if self.steps < 2 {
            return Err(Error::value(format!("OneCycle: expected steps from 2, got {}", self.steps)));
        }
        if !(0.0..=1.0).contains(&self.peak_at) {
            return Err(Error::value(format!(
                "OneCycle: expected pct_start in [0, 1], got {}",
                self.peak_at
            )));
        }
        for (name, divisor) in [("div_factor", self.divisor), ("final_div_factor", self.final_divisor)] {
            if divisor == 0.0 || divisor.is_nan() {
                return Err(Error::value(format!("OneCycle: expected {name} other than 0, got {divisor}")));
            }
        }
        let first = self.peak / self.divisor;
        finite("OneCycle", "max_lr", self.peak)?;
        finite("OneCycle", "max_lr / div_factor", first)?;
        finite("OneCycle", "max_lr / (div_factor final_div_factor)", first / self.final_divisor)?;
        finite("OneCycle", "spread of factors", 2.0 * self.peak.abs() + 2.0 * first.abs())
    }

    fn spec(&self) -> Spec {
        Spec::new("OneCycle")
            .with("max_lr", self.peak)
            .with("total_steps", self.steps)
            .with("pct_start", self.peak_at)
            .with("anneal_strategy", if self.linear { "linear" } else { "cos" })
            .with("div_factor", self.divisor)
            .with("final_div_factor", self.final_divisor)
            .with("three_phase", self.three_phase)
    }
}

impl<T: Scalar> FromSpec<T> for OneCycle {
    const FACTS: Facts = Facts::new("OneCycle")
        .family("schedule")
        .formula("M/D up to M, then down to M/(D F)")
        .page(PAGE)
        .torch("OneCycleLR");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let linear = match args.or("anneal_strategy", "cos".to_owned())?.as_str() {
            "cos" => false,
            "linear" => true,
            other => {
                let other = chainrule_core::text::quote(other);
                return Err(Error::value(format!(
                    "OneCycle: expected anneal_strategy cos or linear, got {other}"
                )));
            }
        };
        let cycle = Self::new(args.get("total_steps")?).peak(args.or("max_lr", 1.0)?);
        let cycle = cycle.divisors(args.or("div_factor", 25.0)?, args.or("final_div_factor", 1e4)?);
        let cycle = cycle.peak_at(args.or("pct_start", 0.3)?).linear(linear);
        Ok(cycle.three_phase(args.or("three_phase", false)?))
    }

    fn examples() -> Vec<Example> {
        let one = OneCycle::new(20).peak(2.0).peak_at(0.25).divisors(20.0, 100.0);
        vec![one, one.linear(true).three_phase(true)]
            .into_iter()
            .map(|s| Example::new(s.spec(), [[0; 0]; 0]))
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Eight steps, p = ½: up in a line from ¼ to 1 at step 3, down to 0.025 at step 7.
    #[test]
    pub fn by_hand() {
        let schedule = OneCycle::new(8).peak_at(0.5).linear(true).divisors(4.0, 10.0);
        let want = [0.25, 0.5, 0.75, 1.0, 0.75625, 0.5125, 0.26875, 0.025, 0.025];
        for (t, want) in want.into_iter().enumerate() {
            assert!(
                (schedule.factor(t as u64) - want).abs() < 1e-15,
                "step {t}: {}",
                schedule.factor(t as u64)
            );
        }
        // Three phases of ten steps: up to step 3, down to step 6, then to the end.
        let three = OneCycle::new(10).peak_at(0.4).three_phase(true).divisors(4.0, 10.0);
        for (t, want) in [(0, 0.25), (3, 1.0), (6, 0.25), (9, 0.025)] {
            assert!((three.factor(t) - want).abs() < 1e-15, "step {t}");
        }
        for wrong in [OneCycle::new(1), OneCycle::new(9).peak_at(1.5), OneCycle::new(9).divisors(0.0, 1.0)] {
            assert!(wrong.check().is_err());
        }
    }
}
