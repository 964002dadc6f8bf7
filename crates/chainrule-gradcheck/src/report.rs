//! What a check found.

use chainrule_core::{Error, Result};
use std::fmt;

/// The most lines that are printed of what disagrees.
const LINES: usize = 8;

/// A derivative that is not what central differences say.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Disagreement {
    /// Which one: `weight[3, 1]`, `x[0, 2]`, or `weight along direction 4`.
    pub name: String,
    /// What backward said.
    pub analytic: f64,
    /// What central differences say.
    pub numeric: f64,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, analytic, numeric } = self;
        // As many digits as it takes to tell them apart.
        let large = analytic.abs().max(numeric.abs());
        let (a, n) = (4..=17)
            .map(|digits| {
                if (1e-3..1e6).contains(&large) || large == 0.0 {
                    (format!("{analytic:.digits$}"), format!("{numeric:.digits$}"))
                } else {
                    (format!("{analytic:.digits$e}"), format!("{numeric:.digits$e}"))
                }
            })
            .find(|(a, n)| a != n)
            .unwrap_or_else(|| (analytic.to_string(), numeric.to_string()));
        write!(f, "{name}: analytic {a}, numeric {n}")
    }
}

/// What a [`crate::Check`] found: how many derivatives were compared, and which disagree.
///
/// Printed, it is one line when all is well, and otherwise names each wrong derivative:
///
/// ```text
/// 2 of 36 derivatives disagree with central differences
///   weight[3, 1]: analytic 0.4127, numeric 0.4131
///   bias[0]: analytic 1.0000, numeric 2.0000
/// ```
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub(crate) checked: usize,
    pub(crate) skipped: usize,
    pub(crate) largest: f64,
    pub(crate) wrong: Vec<Disagreement>,
}

impl Report {
    /// Derivatives that were compared.
    pub fn checked(&self) -> usize {
        self.checked
    }

    /// Derivatives that were not compared because the function has a kink there.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The largest |analytic − numeric|/max(1, |analytic|, |numeric|) of what agrees.
    pub fn largest_error(&self) -> f64 {
        self.largest
    }

    /// The derivatives that disagree.
    pub fn disagreements(&self) -> &[Disagreement] {
        &self.wrong
    }

    /// Whether more than one derivative in twenty was skipped.
    fn too_many_kinks(&self) -> bool {
        self.skipped * 20 > self.checked + self.skipped
    }

    /// Whether something was compared, everything agrees, and at most 5 % was skipped.
    pub fn passed(&self) -> bool {
        self.checked > 0 && self.wrong.is_empty() && !self.too_many_kinks()
    }

    /// The report, if it passed.
    ///
    /// # Errors
    /// The report's text, if it did not.
    pub fn into_result(self) -> Result<Self> {
        if self.passed() { Ok(self) } else { Err(Error::value(self.to_string())) }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.checked += other.checked;
        self.skipped += other.skipped;
        self.largest = self.largest.max(other.largest);
        self.wrong.extend(other.wrong);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checked, skipped, largest, wrong } = self;
        if wrong.is_empty() {
            write!(f, "{checked} derivatives agree with central differences, largest error {largest:.1e}")?;
        } else {
            write!(f, "{} of {checked} derivatives disagree with central differences", wrong.len())?;
        }
        if *skipped > 0 {
            write!(f, "; {skipped} skipped at kinks")?;
        }
        if self.too_many_kinks() {
            write!(f, ", which is more than 5 %")?;
        }
        wrong.iter().take(LINES).try_for_each(|w| write!(f, "\n  {w}"))?;
        if wrong.len() > LINES {
            write!(f, "\n  and {} more", wrong.len() - LINES)?;
        }
        Ok(())
    }
}

/// `weight[3, 1]`: a name, and a flat position as coordinates of a shape.
pub(crate) fn coordinate(name: &str, shape: &[usize], mut at: usize) -> String {
    let mut place = shape.to_vec();
    for axis in place.iter_mut().rev() {
        let n = (*axis).max(1);
        (at, *axis) = (at / n, at % n);
    }
    if place.is_empty() { name.to_owned() } else { format!("{name}{place:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disagreement_shows_the_digits_that_differ() {
        let text = |analytic, numeric| {
            Disagreement { name: coordinate("weight", &[5, 2], 7), analytic, numeric }.to_string()
        };
        assert_eq!(text(0.4127, 0.4131), "weight[3, 1]: analytic 0.4127, numeric 0.4131");
        assert_eq!(text(0.0, 1.0), "weight[3, 1]: analytic 0.0000, numeric 1.0000");
        assert_eq!(text(0.12345671, 0.12345679), "weight[3, 1]: analytic 0.1234567, numeric 0.1234568");
        assert_eq!(text(1.0, f64::NAN), "weight[3, 1]: analytic 1.0000, numeric NaN");
        assert_eq!(text(3e-9, 4e-9), "weight[3, 1]: analytic 3.0000e-9, numeric 4.0000e-9");
        assert_eq!(coordinate("x", &[], 0), "x");
    }

    #[test]
    fn one_kink_in_twenty_is_the_most() {
        let report = |checked, skipped| Report { checked, skipped, ..Report::default() };
        assert!(report(19, 1).passed() && !report(18, 1).passed() && !report(0, 0).passed());
        assert!(report(18, 1).into_result().unwrap_err().to_string().contains("more than 5 %"));
    }
}
