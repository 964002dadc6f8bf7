//! What the values of a tensor are like.

use crate::history::number;
use chainrule_core::Scalar;
use chainrule_tensor::compiled;
use std::fmt;

/// Mean, deviation, extremes, zeros and what is not finite, of the values of a tensor, or of several together.
///
/// ```
/// use chainrule_train::Statistics;
/// let s = Statistics::of(&[0.0f32, 2.0, 4.0, f32::NAN]);
/// assert_eq!((s.mean, s.min, s.max, s.zeros, s.not_finite, s.count), (2.0, 0.0, 4.0, 1, 1, 4));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// How many values there are.
    pub count: u64,
    /// The mean of those that are finite.
    pub mean: f64,
    /// Their standard deviation, that of all and not of a sample.
    pub deviation: f64,
    /// The least of them; 0 if there are none.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many are 0.
    pub zeros: u64,
    /// How many are infinite or NaN.
    pub not_finite: u64,
}

compiled! {
    /// The finite values: their number, sum, least and largest, and how many are 0.
    fn first_pass[T](x: &[T]) -> ([u64; 2], [f64; 3]) {
        let (mut finite, mut zeros, mut sum) = (0u64, 0u64, 0.0f64);
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for v in x.iter().filter(|v| v.is_finite()).map(|v| v.to_f64()) {
            finite += 1;
            zeros += u64::from(v == 0.0);
            sum += v;
            min = min.min(v);
            max = max.max(v);
        }
        ([finite, zeros], [sum, min, max])
    }
}

compiled! {
    /// Σ (x − m)² of the finite values.
    fn squares[T](x: &[T], mean: f64) -> f64 {
        x.iter().filter(|v| v.is_finite()).map(|v| (v.to_f64() - mean) * (v.to_f64() - mean)).sum()
    }
}

impl Statistics {
    /// Of these values.
    pub fn of<T: Scalar>(x: &[T]) -> Self {
        let ([finite, zeros], [sum, min, max]) = first_pass(x);
        let count = x.len() as u64;
        if finite == 0 {
            return Self { count, not_finite: count, ..Self::default() };
        }
        let mean = sum / finite as f64;
        let deviation = (squares(x, mean) / finite as f64).sqrt();
        Self { count, mean, deviation, min, max, zeros, not_finite: count - finite }
    }

    /// Of both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let [n, m] = [self, other].map(|s| (s.count - s.not_finite) as f64);
        let counts = Self {
            count: self.count + other.count,
            zeros: self.zeros + other.zeros,
            not_finite: self.not_finite + other.not_finite,
            ..self
        };
        if m == 0.0 {
            return counts;
        }
        if n == 0.0 {
            let Self { count, zeros, not_finite, .. } = counts;
            return Self { count, zeros, not_finite, ..other };
        }
        let (all, apart) = (n + m, other.mean - self.mean);
        let variance = (n * self.deviation.powi(2) + m * other.deviation.powi(2)) / all
            + apart.powi(2) * (n / all) * (m / all);
        Self {
            mean: self.mean + apart * m / all,
            deviation: variance.sqrt(),
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            ..counts
        }
    }

    /// √(mean of x²) of the finite values.
    pub fn rms(&self) -> f64 {
        self.mean.hypot(self.deviation)
    }

    /// The share of zeros.
    pub fn share_of_zeros(&self) -> f64 {
        self.zeros as f64 / self.count.max(1) as f64
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [mean, deviation, min, max] = [self.mean, self.deviation, self.min, self.max].map(number);
        write!(f, "mean {mean}, deviation {deviation}, from {min} to {max}")?;
        if self.zeros > 0 {
            write!(f, ", {:.1} % zeros", 100.0 * self.share_of_zeros())?;
        }
        if self.not_finite > 0 {
            write!(f, ", {} of {} not finite", self.not_finite, self.count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x = 1, 2, 4, 5: mean 3, variance (4 + 1 + 1 + 4)/4 = 2.5.
    #[test]
    fn of_two_together_is_of_all() {
        let all = Statistics::of(&[1.0, f64::INFINITY, 2.0, 4.0, 5.0, f64::NAN]);
        assert_eq!((all.mean, all.deviation, all.not_finite), (3.0, 2.5f64.sqrt(), 2));
        let parts = Statistics::of(&[1.0, f64::INFINITY, 2.0]).and(Statistics::of(&[4.0, 5.0, f64::NAN]));
        assert!((parts.deviation - all.deviation).abs() < 1e-15);
        assert_eq!(Statistics { deviation: all.deviation, ..parts }, all);
        let none = Statistics::of::<f64>(&[f64::NAN]);
        assert_eq!((none.and(all).mean, all.and(none).mean, all.and(none).count), (3.0, 3.0, 7));
        assert_eq!(Statistics::of::<f32>(&[]).rms(), 0.0);
        let text = "mean 3.0000, deviation 1.5811, from 1.0000 to 5.0000, 2 of 6 not finite";
        assert_eq!(all.to_string(), text);
    }
}
