//! Clipping of gradients.

use chainrule_core::{Error, Grads, Result, Scalar};
use chainrule_tensor::kernels::layers::optim::sum_of_squares;

/// Limits every gradient to [−limit, limit].
///
/// # Errors
/// The limit is negative or NaN.
///
/// ```
/// # use chainrule_core::Grads;
/// # fn f(grads: &mut Grads<f32>) -> chainrule_core::Result<()> {
/// chainrule_optim::clip_value(grads, 0.5)
/// # }
/// ```
pub fn clip_value<T: Scalar>(grads: &mut Grads<T>, limit: f64) -> Result<()> {
    check(limit)?;
    let limit = T::from_f64(limit);
    for g in grads.values_mut() {
        *g = if *g > limit {
            limit
        } else if *g < -limit {
            -limit
        } else {
            *g
        };
    }
    Ok(())
}

/// Scales all gradients together so that their Euclidean norm is at most `limit`; returns the norm before.
///
/// A norm beyond the limit is multiplied by limit/(norm + 10⁻⁶), as PyTorch does (Pascanu, Mikolov and Bengio, 2013).
///
/// # Errors
/// The limit is negative or NaN, or the norm is not finite: the gradients are then left as they are.
pub fn clip_norm<T: Scalar>(grads: &mut Grads<T>, limit: f64) -> Result<f64> {
    check(limit)?;
    let norm = sum_of_squares(grads.values()).sqrt();
    if !norm.is_finite() {
        return Err(Error::value(format!("expected finite gradients, got a norm of {norm}")));
    }
    let factor = limit / (norm + 1e-6);
    if factor < 1.0 {
        grads.scale(T::from_f64(factor));
    }
    Ok(norm)
}

fn check(limit: f64) -> Result<()> {
    if limit >= 0.0 {
        return Ok(());
    }
    Err(Error::value(format!("expected a limit from 0, got {limit}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bag;

    /// (3, 4) has the norm 5; clipped to 1 it is (0.6, 0.8) up to the 10⁻⁶.
    #[test]
    fn the_norm_is_global_and_small_gradients_stay() {
        let mut grads = Grads::new(&Bag::<f64>::new(&[0.0, 0.0]));
        grads.values_mut().copy_from_slice(&[3.0, 4.0]);
        assert_eq!(clip_norm(&mut grads, 10.0).unwrap(), 5.0);
        assert_eq!(grads.values(), [3.0, 4.0]);
        clip_norm(&mut grads, 1.0).unwrap();
        assert!((grads.values()[0] - 0.6).abs() < 1e-6 && (grads.values()[1] - 0.8).abs() < 1e-6);
        clip_value(&mut grads, 0.7).unwrap();
        assert_eq!(grads.values()[1], 0.7);
        grads.values_mut()[0] = f64::NAN;
        assert!(clip_norm(&mut grads, 1.0).is_err());
        assert!(clip_value(&mut grads, -1.0).is_err());
    }

    #[test]
    fn norms_are_right_beyond_the_range_of_squares() {
        // The squares of f32 overflow from 1.8e19 on; they are summed in f64.
        assert!((sum_of_squares(&[3e25f32, 4e25]).sqrt() / 5e25 - 1.0).abs() < 1e-6);
    }
}
