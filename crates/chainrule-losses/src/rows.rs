//! The rows of a prediction: each holds one distribution over the classes.

use chainrule_core::Scalar;

/// The rows of a prediction (outer, classes, inner).
#[derive(Clone, Copy)]
pub struct Rows {
    pub outer: usize,
    pub classes: usize,
    pub inner: usize,
}

/// One of them: where its first class stands, and how far apart its classes are.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its number, row-major over (outer, inner).
    pub index: usize,
    first: usize,
    stride: usize,
    classes: usize,
}

impl Rows {
    pub fn count(self) -> usize {
        self.outer * self.inner
    }

    pub fn each(self) -> impl Iterator<Item = Row> {
        let Self { outer, classes, inner } = self;
        (0..outer).flat_map(move |o| {
            (0..inner).map(move |i| Row {
                index: o * inner + i,
                first: o * classes * inner + i,
                stride: inner,
                classes,
            })
        })
    }
}

impl Row {
    /// Where class c stands.
    #[inline]
    pub fn at(self, c: usize) -> usize {
        self.first + c * self.stride
    }

    /// The maximum m of a row and ln Σᶜ exp(yᶜ − m): −ln pᶜ = (m − yᶜ) + ln Σ, exact for rows far from 0.
    pub fn log_sum_exp<T: Scalar>(self, y: &[T]) -> (T, T) {
        let each = || (0..self.classes).map(|c| y[self.at(c)]);
        let max = each().fold(T::NEG_INFINITY, |m, v| if v > m { v } else { m });
        let sum = each().map(|v| (max - v).v_exp_neg::<false>().to_f64()).sum();
        (max, T::from_f64(sum).v_ln::<false>())
    }
}
