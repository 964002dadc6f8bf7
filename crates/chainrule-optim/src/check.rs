//! Checks of single settings.

use chainrule_core::{Error, Result, Scalar, StateValue};

/// Whether the parameters' element type holds a setting.
pub fn representable<T: Scalar>(kind: &str, name: &str, value: f64) -> Result<()> {
    if T::from_f64(value).is_finite() {
        return Ok(());
    }
    Err(Error::value(format!("{kind}: expected finite {name} in {}, got {value}", T::NAME.to_lowercase())))
}

pub fn not_negative<T: Scalar>(kind: &str, name: &str, value: f64) -> Result<()> {
    if value < 0.0 {
        return Err(Error::value(format!("{kind}: expected {name} from 0, got {value}")));
    }
    representable::<T>(kind, name, value)
}

pub fn below_one(kind: &str, name: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::value(format!("{kind}: expected {name} in [0, 1), got {value}")))
}

/// ε in T, at least the smallest normal value: where m and v are 0 the update is 0 and not 0/0.
pub fn not_zero<T: Scalar>(eps: f64) -> T {
    let (eps, double, single) =
        (T::from_f64(eps), T::from_f64(f64::MIN_POSITIVE), T::from_f64(f32::MIN_POSITIVE.into()));
    let least = if double > T::ZERO { double } else { single };
    if eps > least { eps } else { least }
}

/// 1 − βᵗ: what the bias correction divides a running mean by.
pub fn bias(beta: f64, t: u64) -> f64 {
    1.0 - beta.powf(t as f64)
}

/// ‖w‖/(‖u‖ + ε) of two sums of squares; 1 if either is 0.
pub fn trust([w, u]: [f64; 2], eps: f64) -> f64 {
    if w > 0.0 && u > 0.0 { w.sqrt() / (u.sqrt() + eps) } else { 1.0 }
}

/// A count of an optimizer's state.
pub fn count_of<V>(value: Option<StateValue<V>>, kind: &str, name: &str) -> Result<u64> {
    match value {
        Some(StateValue::Count(count)) => Ok(count),
        _ => Err(Error::state(format!("{kind}: optimizer state: expected a count as {name}"))),
    }
}

pub fn above_zero(kind: &str, name: &str, value: f64) -> Result<()> {
    if value > 0.0 {
        return Ok(());
    }
    Err(Error::value(format!("{kind}: expected {name} above 0, got {value}")))
}
