//! The lines of a prediction: each holds one distribution over the classes.

use chainrule_core::Scalar;

/// The lines of a prediction (outer, classes, inner): line (o, i) holds one distribution.
#[derive(Clone, Copy)]
pub struct Lines {
    pub outer: usize,
    pub classes: usize,
    pub inner: usize,
}

impl Lines {
    pub fn count(self) -> usize {
        self.outer * self.inner
    }

    /// Where class c of a line stands.
    pub fn at(self, line: usize, c: usize) -> usize {
        (line / self.inner * self.classes + c) * self.inner + line % self.inner
    }

    /// ln Σᶜ exp yᶜ of a line, the maximum subtracted first.
    pub fn log_sum_exp<T: Scalar>(self, y: &[T], line: usize) -> T {
        let each = || (0..self.classes).map(|c| y[self.at(line, c)]);
        let max = each().fold(T::NEG_INFINITY, |m, v| if v > m { v } else { m });
        max + each().map(|v| (max - v).v_exp_neg()).sum::<T>().v_ln()
    }
}
