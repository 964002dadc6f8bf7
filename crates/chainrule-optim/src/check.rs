//! Checks of single settings.

use chainrule_core::{Error, Result, Scalar};

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
