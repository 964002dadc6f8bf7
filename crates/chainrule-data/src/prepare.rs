//! Preprocessing: one-hot classes, and scaling that is fitted on one part and applied to others.

use crate::check::check_labels;
use chainrule_tensor::{Error, Result, Scalar, Shape, Tensor};

/// A row for each label, 1 at its class and 0 elsewhere.
///
/// # Shapes
/// (labels, classes)
///
/// # Errors
/// A label that is not below `classes`.
///
/// ```
/// use chainrule_tensor::Tensor;
/// assert_eq!(chainrule_data::one_hot::<f32>(&[2, 0], 3)?, Tensor::from([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]));
/// # Ok::<(), chainrule_data::Error>(())
/// ```
pub fn one_hot<T: Scalar>(labels: &[usize], classes: usize) -> Result<Tensor<T>> {
    check_labels(labels, classes, 1, None)?;
    let mut y = Tensor::zeros(Shape::new(&[labels.len(), classes])?);
    for (i, &c) in labels.iter().enumerate() {
        y.data_mut()[i * classes + c] = T::ONE;
    }
    Ok(y)
}

/// Shifts and scales each feature, y = (x − shift) / scale, by what it saw on the tensor it was made from.
///
/// Make it from the training part alone and apply it to all parts: a scaler that has seen the test part has told the
/// model about it. A feature that was constant gets scale 1, so it becomes 0 where it still is.
///
/// ```
/// use chainrule_data::{Scaler, diabetes};
/// let (train, test) = diabetes::<f32>().split(0.2, 1)?;
/// let scaler = Scaler::standardise(train.x())?;
/// let train = train.map_x(|x| scaler.apply(x))?;
/// let test = test.map_x(|x| scaler.apply(x))?;
/// # Ok::<(), chainrule_data::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler<T = f32> {
    shift: Vec<T>,
    scale: Vec<T>,
}

impl<T: Scalar> Scaler<T> {
    /// To mean 0 and variance 1: shift = μ, scale = σ = √(Σ (x − μ)² / N).
    ///
    /// # Shapes
    /// `x` (N, …): every position of a sample is a feature.
    ///
    /// # Errors
    /// No sample, or values whose mean or spread is not finite.
    pub fn standardise(x: &Tensor<T>) -> Result<Self> {
        Self::fit(x, |column| {
            let n = column.clone().count() as f64;
            let mean = column.clone().sum::<f64>() / n;
            (mean, (column.map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
        })
    }

    /// To the interval [0, 1]: shift = min, scale = max − min.
    ///
    /// # Shapes
    /// `x` (N, …): every position of a sample is a feature.
    ///
    /// # Errors
    /// No sample, or values that are not finite.
    pub fn normalise(x: &Tensor<T>) -> Result<Self> {
        Self::fit(x, |column| {
            let (low, high) = range(column);
            (low, high - low)
        })
    }

    /// y = (x − shift) / scale
    ///
    /// # Errors
    /// Samples of another size than the scaler was made from.
    pub fn apply(&self, x: &mut Tensor<T>) -> Result<()> {
        self.each(x, |v, shift, scale| (v - shift) / scale)
    }

    /// x = y · scale + shift: back to the units of before, for predictions.
    ///
    /// # Errors
    /// Samples of another size than the scaler was made from.
    pub fn undo(&self, y: &mut Tensor<T>) -> Result<()> {
        self.each(y, |v, shift, scale| v * scale + shift)
    }

    /// What is taken off each feature.
    pub fn shift(&self) -> &[T] {
        &self.shift
    }

    /// What each feature is then divided by.
    pub fn scale(&self) -> &[T] {
        &self.scale
    }

    /// `measure` gives (shift, scale) of one feature over all samples.
    fn fit(x: &Tensor<T>, measure: impl Fn(Column<'_, T>) -> (f64, f64)) -> Result<Self> {
        if x.is_empty() || x.shape().is_empty() {
            return Err(Error::value(format!(
                "scaler: expected at least one sample and one feature, got {}",
                x.shape()
            )));
        }
        let width = x.len() / x.shape()[0];
        let (mut shift, mut scale) = (Vec::with_capacity(width), Vec::with_capacity(width));
        for j in 0..width {
            let column = x.data()[j..].iter().step_by(width).map((|v| v.to_f64()) as fn(&T) -> f64);
            let (low, high) = range(column.clone());
            // Rounding in the mean would give a constant a small spread: constants are found by their range.
            let (a, b) = if low == high { (low, 1.0) } else { measure(column) };
            let (a, b) = (T::from_f64(a), T::from_f64(b));
            if !(a.is_finite() && b.is_finite()) {
                return Err(Error::value(format!(
                    "scaler: expected finite values of finite spread, got feature {j} from {low} to {high}"
                )));
            }
            shift.push(a);
            scale.push(if b > T::ZERO { b } else { T::ONE });
        }
        Ok(Self { shift, scale })
    }

    fn each(&self, x: &mut Tensor<T>, f: impl Fn(T, T, T) -> T) -> Result<()> {
        let width = self.shift.len();
        let shape = *x.shape();
        if shape.is_empty() || shape[1..].iter().product::<usize>() != width {
            return Err(Error::shape(format!("scaler: expected (.., {width}) features, got {shape}")));
        }
        for row in x.data_mut().chunks_exact_mut(width) {
            for ((v, &shift), &scale) in row.iter_mut().zip(&self.shift).zip(&self.scale) {
                *v = f(*v, shift, scale);
            }
        }
        Ok(())
    }
}

type Column<'a, T> = std::iter::Map<std::iter::StepBy<std::slice::Iter<'a, T>>, fn(&T) -> f64>;

/// (min, max); NaN when there is one.
fn range(column: impl Iterator<Item = f64>) -> (f64, f64) {
    column.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        if v.is_nan() { (v, v) } else { (if v < low { v } else { low }, if v > high { v } else { high }) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn standardised_by_hand() {
        // 1, 3, 5: μ = 3, σ² = (4 + 0 + 4) / 3; 7, 7, 7 is constant.
        let mut x = Tensor::from([[1.0f64, 7.0], [3.0, 7.0], [5.0, 7.0]]);
        let scaler = Scaler::standardise(&x).unwrap();
        assert_eq!((scaler.shift(), scaler.scale()), (&[3.0, 7.0][..], &[(8.0f64 / 3.0).sqrt(), 1.0][..]));
        scaler.apply(&mut x).unwrap();
        let z = 1.5f64.sqrt();
        x.data().iter().zip([-z, 0.0, 0.0, 0.0, z, 0.0]).for_each(|(a, b)| assert!((a - b).abs() < 1e-15));
    }

    #[test]
    fn a_constant_that_is_not_exact_in_binary_becomes_0() {
        let mut x = Tensor::full([7, 1], 0.1f64);
        for scaler in [Scaler::standardise(&x).unwrap(), Scaler::normalise(&x).unwrap()] {
            let mut y = x.clone();
            scaler.apply(&mut y).unwrap();
            assert_eq!(y, Tensor::zeros([7, 1]));
            assert_eq!(scaler.scale(), [1.0]);
        }
        x.fill(f64::NAN);
        assert!(Scaler::standardise(&x).is_err());
    }

    #[test]
    fn what_cannot_be_scaled_is_an_error() {
        let nan = Tensor::from([[1.0f32, 2.0], [1.0, f32::NAN]]);
        let text = Scaler::standardise(&nan).unwrap_err().to_string();
        assert_eq!(text, "scaler: expected finite values of finite spread, got feature 1 from NaN to NaN");
        assert!(Scaler::normalise(&Tensor::from([[f64::MAX], [f64::MIN]])).is_err());
        assert!(Scaler::standardise(&Tensor::<f32>::zeros([0, 2])).is_err());
        let scaler = Scaler::standardise(&Tensor::<f32>::zeros([4, 2])).unwrap();
        let text = scaler.apply(&mut Tensor::zeros([4, 3])).unwrap_err().to_string();
        assert_eq!(text, "scaler: expected (.., 2) features, got [4, 3]");
    }

    #[test]
    fn a_label_out_of_range_has_no_row() {
        let text = one_hot::<f32>(&[0, 3], 3).unwrap_err().to_string();
        assert_eq!(text, "labels: expected classes below 3, got 3 at sample 1");
    }

    proptest! {
        #[test]
        fn scaling_meets_its_aim_and_can_be_undone(n in 2usize..20, d in 1usize..5, values in prop::collection::vec(-1e3f64..1e3, 100)) {
            let x = Tensor::from_fn([n, d], |i| values[i]);
            for (k, scaler) in [Scaler::standardise(&x).unwrap(), Scaler::normalise(&x).unwrap()].into_iter().enumerate() {
                let mut y = x.clone();
                scaler.apply(&mut y).unwrap();
                for j in 0..d {
                    let column: Vec<f64> = y.data()[j..].iter().step_by(d).copied().collect();
                    if k == 0 {
                        let mean = column.iter().sum::<f64>() / n as f64;
                        let variance = column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
                        prop_assert!(mean.abs() < 1e-9 && (variance - 1.0).abs() < 1e-9);
                    } else {
                        let (low, high) = range(column.into_iter());
                        prop_assert!(low == 0.0 && (high - 1.0).abs() < 1e-12);
                    }
                }
                scaler.undo(&mut y).unwrap();
                for (a, b) in x.data().iter().zip(y.data()) {
                    prop_assert!((a - b).abs() < 1e-9);
                }
            }
        }
    }
}
