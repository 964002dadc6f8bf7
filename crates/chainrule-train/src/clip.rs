//! Gradients that are kept from growing out of bounds.

use chainrule_core::{Error, Grads, Result, Scalar};
use chainrule_optim::{clip_norm, clip_value};

/// How gradients are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Clip {
    /// The largest |g| of one number.
    pub(crate) value: Option<f64>,
    /// The largest ‖g‖ of all together.
    pub(crate) norm: Option<f64>,
}

impl Clip {
    pub(crate) fn check(self) -> Result<()> {
        for (what, limit) in [("clip_value", self.value), ("clip_norm", self.norm)] {
            if let Some(limit) = limit.filter(|limit| !(*limit > 0.0 && limit.is_finite())) {
                return Err(Error::value(format!("{what}: expected a finite limit above 0, got {limit}")));
            }
        }
        Ok(())
    }

    /// Limits single numbers first, then all together.
    ///
    /// # Errors
    /// As [`Clip::check`], or the norm is not finite.
    pub(crate) fn apply<T: Scalar>(self, grads: &mut Grads<T>) -> Result<()> {
        self.check()?;
        if let Some(limit) = self.value {
            clip_value(grads, limit)?;
        }
        if let Some(limit) = self.norm {
            clip_norm(grads, limit)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_make_no_sense_are_errors() {
        assert!(Clip { value: Some(0.0), norm: None }.check().is_err());
        assert!(Clip { value: None, norm: Some(f64::NAN) }.check().is_err());
    }
}
