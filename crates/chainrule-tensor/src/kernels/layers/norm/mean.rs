//! Means to twice the precision: of values far from 0 that differ little, the rounding of the mean would be a part of σ.

use crate::Scalar;

/// A mean as the sum of two: the nearest value, and what that leaves.
pub type Mean<T> = [T; 2];

/// a + b for |b| ≤ |a|, or a = 0.
#[inline(always)]
pub(super) fn sum_of<T: Scalar>(a: T, b: T) -> Mean<T> {
    let high = a + b;
    [high, b - (high - a)]
}
