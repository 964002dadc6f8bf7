//! Whether two arrays agree.

use crate::{Step, Stop, case::Array};
use chainrule_core::tensor::position;
use chainrule_core::{Scalar, Tensor};

/// What a value is, and so how closely it must agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Value,
    Gradient,
    /// A gradient that PyTorch takes with a constant rounded to f32, in f64 too.
    Rounded,
}

impl Kind {
    /// The error allowed, in units of max(1, |reference|).
    fn tolerance<T: Scalar>(self) -> f64 {
        match (T::NAME, self) {
            ("F64", Self::Value) => 1e-9,
            ("F64", Self::Gradient) => 1e-8,
            ("F64", Self::Rounded) => 1e-7,
            (_, Self::Value) => 1e-4,
            (_, Self::Gradient | Self::Rounded) => 1e-3,
        }
    }
}

/// Whether two values agree within `tolerance` of max(1, |want|). NaN agrees with NaN alone, infinities with themselves.
pub fn close(got: f64, want: f64, tolerance: f64) -> bool {
    let error = (got - want).abs() / want.abs().max(1.0);
    got == want || (got.is_nan() && want.is_nan()) || error <= tolerance // false for NaN
}

/// Fails where shapes differ. With `batched`, ours has a leading axis of length 1 that the reference lacks.
pub fn shapes(what: &str, ours: &[usize], theirs: &[usize], batched: bool) -> Step<()> {
    if ours == theirs || (batched && ours.split_first() == Some((&1, theirs))) {
        return Ok(());
    }
    Err(Stop::Fail(format!("{what}: expected shape {theirs:?}, got {ours:?}")))
}

/// Fails at the first coordinate that differs, or when shapes do.
pub fn agree<T: Scalar>(what: &str, kind: Kind, got: &Tensor<T>, want: &Array, batched: bool) -> Step<()> {
    shapes(what, got.shape(), want.values.shape(), batched)?;
    values(what, kind, got.data(), want)
}

/// [`agree`] without regard to shapes.
pub fn values<T: Scalar>(what: &str, kind: Kind, got: &[T], want: &Array) -> Step<()> {
    if got.len() != want.values.len() {
        return Err(Stop::Fail(format!("{what}: expected {} values, got {}", want.values.len(), got.len())));
    }
    let pairs = got.iter().map(|v| v.to_f64()).zip(want.values.data());
    for (i, (got, &want_i)) in pairs.enumerate() {
        if !close(got, want_i, kind.tolerance::<T>()) {
            let at = position(want.values.shape(), i);
            return Err(Stop::Fail(format!("{what}{at:?}: expected {want_i:e}, got {got:e}")));
        }
    }
    Ok(())
}

/// Fails unless the gradient agrees; where PyTorch has none, ours must be 0.
pub fn gradient<T: Scalar>(what: &str, got: &[T], want: Option<&Array>) -> Step<()> {
    match want {
        Some(want) => values(what, Kind::Gradient, got, want),
        None => match got.iter().position(|&g| g != T::ZERO) {
            Some(i) => Err(Stop::Fail(format!("{what}: expected none, got {} at {i}", got[i]))),
            None => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_its_coordinate_and_nan_agrees_with_nan_alone() {
        let want = Array { values: Tensor::from([[1.0, 2.0], [3.0, f64::NAN]]), float: true };
        let check = |got: Tensor<f64>| match agree("y", Kind::Value, &got, &want, false) {
            Ok(()) => String::new(),
            Err(Stop::Fail(why) | Stop::Skip(why)) => why,
        };
        assert_eq!(check(want.values.clone()), "");
        assert_eq!(check(Tensor::from([[1.0, 2.0], [3.1, f64::NAN]])), "y[1, 0]: expected 3e0, got 3.1e0");
        assert_ne!(check(Tensor::from([[1.0, 2.0], [3.0, 4.0]])), "");
        assert_ne!(check(Tensor::from([[1.0, f64::NAN], [3.0, f64::NAN]])), "");
        assert_eq!(check(Tensor::from([1.0, 2.0])), "y: expected shape [2, 2], got [2]");
    }

    #[test]
    fn a_leading_axis_is_overlooked_where_the_runner_added_it() {
        assert!(shapes("y", &[1, 3], &[3], true).is_ok() && shapes("y", &[1], &[], true).is_ok());
        assert!(shapes("y", &[1, 3], &[3], false).is_err() && shapes("y", &[2, 3], &[3], true).is_err());
    }

    #[test]
    fn tolerances_are_relative_above_one() {
        assert!(close(1e6 + 1e-4, 1e6, 1e-9) && !close(1e-3 + 1e-8, 1e-3, 1e-9));
        assert!(close(f64::INFINITY, f64::INFINITY, 0.0) && !close(f64::INFINITY, 1e300, 1e-9));
    }

    #[test]
    fn where_no_gradient_flows_ours_must_be_zero() {
        assert!(
            gradient("dx", &[0.0f64, -0.0], None).is_ok() && gradient("dx", &[0.0, 1e-30], None).is_err()
        );
    }
}
