//! Gradients that are kept from growing out of bounds.

use chainrule_core::{Error, Grads, Result, Scalar};
use chainrule_tensor::kernels::{elementwise, reduce::dot};

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
    pub(crate) fn apply<T: Scalar>(self, grads: &mut Grads<T>) {
        let g = grads.values_mut();
        if let Some(limit) = self.value {
            let limit = T::from_f64(limit);
            // g ← min(max(g, −limit), limit)
            g.iter_mut().for_each(|v| *v = v.max(-limit).min(limit));
        }
        if let Some(limit) = self.norm {
            // g ← g · min(1, limit / (‖g‖ + 1e-6)), PyTorch's rule
            let scale = limit / (norm(g) + 1e-6);
            if scale < 1.0 {
                elementwise::scale(g, T::from_f64(scale));
            }
        }
    }
}

/// ‖g‖ = √Σ g²
fn norm<T: Scalar>(g: &[T]) -> f64 {
    let squares = dot(g, g).to_f64();
    if squares.is_finite() {
        return squares.sqrt();
    }
    // The squares of f32 overflow from 1.8e19 on.
    g.iter().map(|v| v.to_f64() * v.to_f64()).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_are_right_beyond_the_range_of_squares() {
        assert_eq!(norm(&[3.0f32, 4.0]), 5.0);
        assert!((norm(&[3e25f32, 4e25]) / 5e25 - 1.0).abs() < 1e-6);
        assert!(Clip { value: Some(0.0), norm: None }.check().is_err());
        assert!(Clip { value: None, norm: Some(f64::NAN) }.check().is_err());
    }
}
