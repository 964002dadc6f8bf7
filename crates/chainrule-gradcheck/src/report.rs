//! What a check found.

use chainrule_core::{Error, Result};
use chainrule_tensor::position;
use std::fmt;

/// The most coordinates that are printed of what disagrees.
const COORDINATES: usize = 8;
/// How far ratios may be apart, relatively, and still count as one factor.
const SAME_FACTOR: f64 = 1e-4;

/// A derivative that differs from central differences.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Disagreement {
    /// Which one: `weight[3, 1]`, `x[0, 2]`, or `weight along direction 4`.
    pub name: String,
    /// The derivative by backward.
    pub analytic: f64,
    /// The derivative by central differences.
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

/// What was found for one tensor: an input, a parameter, a prediction, a target.
///
/// Printed: `weight: 12 of 12 wrong, numeric = 2 × analytic`.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    name: String,
    pub(crate) checked: usize,
    pub(crate) skipped: usize,
    pub(crate) largest: f64,
    pub(crate) wrong: Vec<Disagreement>,
}

impl Comparison {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), checked: 0, skipped: 0, largest: 0.0, wrong: Vec::new() }
    }

    /// The tensor: `x`, or the path of a parameter.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Derivatives that were compared.
    pub fn checked(&self) -> usize {
        self.checked
    }

    /// Derivatives that were not compared because the function has a kink there.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The derivatives that disagree.
    pub fn disagreements(&self) -> &[Disagreement] {
        &self.wrong
    }

    /// numeric/analytic, if it is the same wherever they disagree: the factor that backward forgot.
    pub fn common_factor(&self) -> Option<f64> {
        // A single ratio among several derivatives says nothing.
        let telling = self.wrong.len() > 1 || self.checked == 1;
        let mut ratios = self.wrong.iter().map(|d| d.numeric / d.analytic);
        let first = ratios.next().filter(|ratio| telling && ratio.is_finite())?;
        ratios.all(|ratio| (ratio - first).abs() <= SAME_FACTOR * first.abs()).then_some(first)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} wrong", self.name, self.wrong.len(), self.checked)?;
        if let Some(factor) = self.common_factor() {
            // Four significant digits, and no zeros at the end: 2, 0.3333.
            let rounded: f64 = format!("{factor:.3e}").parse().unwrap_or(factor);
            write!(f, ", numeric = {rounded} × analytic")?;
        } else if self.wrong.len() > 1 && self.wrong.iter().all(|d| d.analytic == 0.0) {
            write!(f, ", analytic = 0")?;
        }
        Ok(())
    }
}

/// What a [`crate::Check`] found: how many derivatives were compared, and which disagree.
///
/// Printed, it is one line when all is well. Otherwise it has a line for each wrong tensor, and then the first wrong
/// derivatives of each:
///
/// ```text
/// 6 of 36 derivatives disagree with central differences
///   weight: 2 of 12 wrong
///   bias: 4 of 4 wrong, numeric = 2 × analytic
///   weight[3, 1]: analytic 0.4127, numeric 0.4131
///   weight[3, 2]: analytic 0.1032, numeric 0.1003
///   bias[0]: analytic 0.5000, numeric 1.0000
///   …
/// ```
#[derive(Clone, Debug, Default)]
pub struct Report {
    tensors: Vec<Comparison>,
}

impl Report {
    /// What was found for each tensor, inputs first.
    pub fn tensors(&self) -> &[Comparison] {
        &self.tensors
    }

    /// Derivatives that were compared.
    pub fn checked(&self) -> usize {
        self.tensors.iter().map(|t| t.checked).sum()
    }

    /// Derivatives that were not compared because the function has a kink there.
    pub fn skipped(&self) -> usize {
        self.tensors.iter().map(|t| t.skipped).sum()
    }

    /// The largest |analytic − numeric|/max(1, |analytic|, |numeric|) of what agrees.
    pub fn largest_error(&self) -> f64 {
        self.tensors.iter().fold(0.0, |largest, t| largest.max(t.largest))
    }

    /// The derivatives that disagree.
    pub fn disagreements(&self) -> impl Iterator<Item = &Disagreement> {
        self.tensors.iter().flat_map(|t| &t.wrong)
    }

    /// Whether more than one derivative in twenty was skipped.
    fn too_many_kinks(&self) -> bool {
        self.skipped() * 20 > self.checked() + self.skipped()
    }

    /// Whether something was compared, everything agrees, and at most 5 % was skipped.
    pub fn passed(&self) -> bool {
        self.checked() > 0 && self.disagreements().next().is_none() && !self.too_many_kinks()
    }

    /// The report, if it passed.
    ///
    /// # Errors
    /// The report's text, if it did not.
    pub fn into_result(self) -> Result<Self> {
        if self.passed() { Ok(self) } else { Err(Error::value(self.to_string())) }
    }

    pub(crate) fn push(&mut self, tensor: Comparison) {
        self.tensors.push(tensor);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.tensors.extend(other.tensors);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong: Vec<&Comparison> = self.tensors.iter().filter(|t| !t.wrong.is_empty()).collect();
        let total: usize = wrong.iter().map(|t| t.wrong.len()).sum();
        let checked = self.checked();
        if total == 0 {
            let largest = self.largest_error();
            write!(f, "{checked} derivatives agree with central differences, largest error {largest:.1e}")?;
        } else {
            write!(f, "{total} of {checked} derivatives disagree with central differences")?;
        }
        if self.skipped() > 0 {
            write!(f, "; {} skipped at kinks", self.skipped())?;
        }
        if self.too_many_kinks() {
            write!(f, ", which is more than 5 %")?;
        }
        wrong.iter().try_for_each(|tensor| write!(f, "\n  {tensor}"))?;
        // Each tensor has its share of the coordinates; what one does not need goes to those after it.
        let mut left = COORDINATES;
        for (i, tensor) in wrong.iter().enumerate() {
            let share = left.div_ceil(wrong.len() - i).min(tensor.wrong.len());
            tensor.wrong[..share].iter().try_for_each(|d| write!(f, "\n  {d}"))?;
            left -= share;
        }
        let shown = COORDINATES - left;
        if total > shown {
            write!(f, "\n  and {} more", total - shown)?;
        }
        Ok(())
    }
}

/// `weight[3, 1]`: a name, and a flat position as coordinates of a shape.
pub(crate) fn coordinate(name: &str, shape: &[usize], at: usize) -> String {
    if shape.is_empty() { name.to_owned() } else { format!("{name}{:?}", position(shape, at)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, checked: usize, wrong: &[(f64, f64)]) -> Comparison {
        let wrong = wrong.iter().enumerate().map(|(i, &(analytic, numeric))| Disagreement {
            name: coordinate(name, &[checked], i),
            analytic,
            numeric,
        });
        Comparison { checked, wrong: wrong.collect(), ..Comparison::new(name) }
    }

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
    fn a_common_factor_is_named() {
        let text = |wrong: &[(f64, f64)]| tensor("weight", 4, wrong).to_string();
        assert_eq!(text(&[(1.0, 2.0), (-3.0, -6.0)]), "weight: 2 of 4 wrong, numeric = 2 × analytic");
        assert_eq!(text(&[(3.0, 1.0), (-6.0, -2.0)]), "weight: 2 of 4 wrong, numeric = 0.3333 × analytic");
        assert_eq!(text(&[(1.0, 2.0), (-3.0, -5.0)]), "weight: 2 of 4 wrong");
        assert_eq!(text(&[(0.0, 2.0), (0.0, -5.0)]), "weight: 2 of 4 wrong, analytic = 0");
        assert_eq!(text(&[(1.0, 2.0)]), "weight: 1 of 4 wrong");
        assert_eq!(
            tensor("gain", 1, &[(1.0, -1.0)]).to_string(),
            "gain: 1 of 1 wrong, numeric = -1 × analytic"
        );
    }

    #[test]
    fn every_wrong_tensor_is_named_before_at_most_eight_coordinates() {
        let mut report = Report::default();
        report.push(tensor("x", 6, &[]));
        report.push(tensor("weight", 12, &[(1.0, 2.0); 12]));
        report.push(tensor("bias", 3, &[(0.0, 1.0); 3]));
        let text = report.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "15 of 21 derivatives disagree with central differences");
        assert_eq!(lines[1], "  weight: 12 of 12 wrong, numeric = 2 × analytic");
        assert_eq!(lines[2], "  bias: 3 of 3 wrong, analytic = 0");
        assert_eq!(lines[6], "  weight[3]: analytic 1.0000, numeric 2.0000");
        assert_eq!(lines[7], "  bias[0]: analytic 0.0000, numeric 1.0000");
        assert_eq!(lines[10..], ["  and 8 more"]);
    }

    #[test]
    fn one_kink_in_twenty_is_the_most() {
        let report = |checked, skipped| {
            let mut report = Report::default();
            report.push(Comparison { checked, skipped, ..Comparison::new("x") });
            report
        };
        assert!(report(19, 1).passed() && !report(18, 1).passed() && !report(0, 0).passed());
        assert!(report(18, 1).into_result().unwrap_err().to_string().contains("more than 5 %"));
    }
}
