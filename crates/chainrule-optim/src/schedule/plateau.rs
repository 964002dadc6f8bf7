//! A rate that falls when a metric no longer improves.

use super::finite;
use chainrule_core::{Error, Result};

/// PyTorch's ReduceLROnPlateau: the factor falls by f when a metric has not improved for more than p observations. It is not a
/// function of the step, so it is no [`Schedule`](super::Schedule): give it the metric, and it gives the factor.
///
/// Defaults: smaller is better, f = 0.1, p = 10, relative threshold 1e-4, no cool-down, no least factor, ε = 1e-8.
///
/// ```
/// use chainrule_optim::schedule::Plateau;
/// let mut plateau = Plateau::new().patience(1);
/// let factors = [1.0, 0.5, 0.5, 0.5].map(|loss| plateau.observe(loss));
/// assert_eq!(factors, [1.0, 1.0, 1.0, 0.1]); // the second observation without an improvement
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plateau {
    goal: Goal,
    by: f64,
    patience: u64,
    threshold: Threshold,
    cooldown: u64,
    minimum: f64,
    eps: f64,
    state: PlateauState,
}

/// Which way a metric improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Smaller is better: PyTorch's `min`.
    Smaller,
    /// Larger is better: PyTorch's `max`.
    Larger,
}

/// How far a metric has to improve to count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// By this share of the best.
    Relative(f64),
    /// By this difference.
    Absolute(f64),
}

/// What a [`Plateau`] remembers, to be saved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlateauState {
    /// The factor.
    pub factor: f64,
    /// The best metric so far: ±∞ before the first.
    pub best: f64,
    /// Observations since the best one.
    pub bad: u64,
    /// Observations left that do not count.
    pub cooldown: u64,
}

impl Default for Plateau {
    fn default() -> Self {
        Self::new()
    }
}

impl Plateau {
    /// PyTorch's defaults.
    pub fn new() -> Self {
        Self {
            goal: Goal::Smaller,
            by: 0.1,
            patience: 10,
            threshold: Threshold::Relative(1e-4),
            cooldown: 0,
            minimum: 0.0,
            eps: 1e-8,
            state: PlateauState { factor: 1.0, best: f64::INFINITY, bad: 0, cooldown: 0 },
        }
    }

    /// Which way the metric improves.
    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = goal;
        self.state.best = match goal {
            Goal::Smaller => f64::INFINITY,
            Goal::Larger => f64::NEG_INFINITY,
        };
        self
    }

    /// What the factor falls by, from 0 and below 1.
    ///
    /// # Errors
    /// It is not in [0, 1).
    pub fn by(mut self, factor: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&factor) {
            return Err(Error::value(format!("Plateau: expected a factor in [0, 1), got {factor}")));
        }
        self.by = factor;
        Ok(self)
    }

    /// How many observations without an improvement are waited for.
    #[must_use]
    pub fn patience(mut self, observations: u64) -> Self {
        self.patience = observations;
        self
    }

    /// How far a metric has to improve to count.
    ///
    /// # Errors
    /// It is not finite.
    pub fn threshold(mut self, threshold: Threshold) -> Result<Self> {
        let (Threshold::Relative(value) | Threshold::Absolute(value)) = threshold;
        finite("Plateau", "threshold", value)?;
        self.threshold = threshold;
        Ok(self)
    }

    /// How many observations do not count after the factor has fallen.
    #[must_use]
    pub fn cooldown(mut self, observations: u64) -> Self {
        self.cooldown = observations;
        self
    }

    /// The least factor (PyTorch's min_lr divided by the learning rate), and the smallest fall that is carried out.
    ///
    /// # Errors
    /// One of them is negative or not finite.
    pub fn minimum(mut self, factor: f64, eps: f64) -> Result<Self> {
        if factor < 0.0 || eps < 0.0 {
            return Err(Error::value(format!(
                "Plateau: expected a minimum and ε from 0, got {factor} and {eps}"
            )));
        }
        finite("Plateau", "minimum", factor)?;
        finite("Plateau", "ε", eps)?;
        (self.minimum, self.eps) = (factor, eps);
        Ok(self)
    }

    /// Takes the metric of an epoch; returns the factor that holds from now on. NaN is no improvement.
    pub fn observe(&mut self, metric: f64) -> f64 {
        let s = &mut self.state;
        let better = match (self.goal, self.threshold) {
            (Goal::Smaller, Threshold::Relative(share)) => metric < s.best * (1.0 - share),
            (Goal::Smaller, Threshold::Absolute(by)) => metric < s.best - by,
            (Goal::Larger, Threshold::Relative(share)) => metric > s.best * (1.0 + share),
            (Goal::Larger, Threshold::Absolute(by)) => metric > s.best + by,
        };
        if better {
            (s.best, s.bad) = (metric, 0);
        } else {
            s.bad = s.bad.saturating_add(1);
        }
        if s.cooldown > 0 {
            (s.cooldown, s.bad) = (s.cooldown - 1, 0);
        }
        if s.bad > self.patience {
            let lower = (s.factor * self.by).max(self.minimum);
            if s.factor - lower > self.eps {
                s.factor = lower;
            }
            (s.cooldown, s.bad) = (self.cooldown, 0);
        }
        s.factor
    }

    /// The factor that holds now.
    pub fn factor(&self) -> f64 {
        self.state.factor
    }

    /// What it remembers.
    pub fn state(&self) -> PlateauState {
        self.state
    }

    /// Goes on from what was saved.
    #[must_use]
    pub fn with_state(mut self, state: PlateauState) -> Self {
        self.state = state;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patience 1, cool-down 2: the third and fourth observations do not improve, so the factor falls at the fourth; two
    /// more do not count, and the next two do.
    #[test]
    fn by_hand() {
        let mut plateau = Plateau::new().by(0.5).unwrap().patience(1).cooldown(2);
        let want = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25];
        for (i, (metric, want)) in [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0].into_iter().zip(want).enumerate()
        {
            assert_eq!(plateau.observe(metric), want, "observation {i}");
            let mut again = Plateau::new().with_state(plateau.state());
            assert_eq!(again.observe(1.0), want);
        }
    }

    #[test]
    fn larger_is_better_where_that_is_the_goal() {
        let mut plateau = Plateau::new().goal(Goal::Larger).threshold(Threshold::Absolute(0.1)).unwrap();
        plateau = plateau.patience(0).minimum(0.05, 0.0).unwrap();
        let got = [0.5, 0.7, 0.75, f64::NAN, 0.9].map(|metric| plateau.observe(metric));
        for (got, want) in got.into_iter().zip([1.0, 1.0, 0.1, 0.05, 0.05]) {
            assert!((got - want).abs() < 1e-15, "{got} for {want}");
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Plateau::new().by(1.0).is_err() && Plateau::new().by(f64::NAN).is_err());
        assert!(Plateau::new().threshold(Threshold::Relative(f64::NAN)).is_err());
        assert!(Plateau::new().minimum(-1.0, 0.0).is_err() && Plateau::new().minimum(0.0, f64::NAN).is_err());
    }
}
