//! The Gaussian error linear unit (Hendrycks and Gimpel, 2016).
//!
//! ```text
//! y = x Φ(x),   Φ(x) = ½ (1 + erf(x/√2))
//! ∂E/∂x = ∂E/∂y (Φ(x) + x φ(x)),   φ(x) = exp(−x²/2)/√(2π)
//!
//! Approximated:  y = ½ x (1 + t),   t = tanh u,   u = √(2/π) (x + 0.044715 x³)
//! ∂E/∂x = ∂E/∂y (½ (1 + t) + ½ x (1 − t²) √(2/π) (1 + 3·0.044715 x²))
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/activation/gelu.md.

use super::elementwise;
use chainrule_core::Scalar;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// y = x Φ(x), with Φ the distribution function of the standard normal; exact unless approximated by tanh.
///
/// # Shapes
/// y has the shape of x, whatever it is.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Gelu;
/// let y = Gelu::new().infer(&Tensor::from([-30.0f32, 0.0, 30.0]))?;
/// assert_eq!(y.data(), [0.0, 0.0, 30.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Gelu {
    tanh: bool,
}

impl Gelu {
    /// The exact function.
    pub fn new() -> Self {
        Self { tanh: false }
    }

    /// The approximation by tanh, as networks of the GPT-2 family were trained with.
    #[must_use]
    pub fn approximate_tanh(mut self) -> Self {
        self.tanh = true;
        self
    }
}

impl Default for Gelu {
    fn default() -> Self {
        Self::new()
    }
}

elementwise! {
    Gelu,
    flag: tanh,
    forward: |x| {
        let half = T::from_f64(0.5);
        if tanh {
            half * x * (T::ONE + inner(x).0.v_tanh_by::<FMA>())
        } else {
            half * x * (T::ONE + (x * T::from_f64(FRAC_1_SQRT_2)).v_erf_by::<FMA>()) // x Φ(x)
        }
    },
    backward: |x| {
        let half = T::from_f64(0.5);
        if tanh {
            let (u, du) = inner(x);
            let t = u.v_tanh_by::<FMA>();
            half * (T::ONE + t) + half * x * (T::ONE - t * t) * du
        } else {
            let phi = T::from_f64(0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2) * (half * x * x).v_exp_neg_by::<FMA>();
            half * (T::ONE + (x * T::from_f64(FRAC_1_SQRT_2)).v_erf_by::<FMA>()) + x * phi // Φ + x φ
        }
    }, from x,
}

/// (u, du/dx) of u = √(2/π) (x + 0.044715 x³).
#[inline(always)]
fn inner<T: Scalar>(x: T) -> (T, T) {
    let (a, c) = (T::from_f64(FRAC_2_SQRT_PI * FRAC_1_SQRT_2), T::from_f64(0.044715));
    let cxx = c * x * x;
    (a * x * (T::ONE + cxx), a * (T::ONE + cxx + cxx + cxx))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::tests::by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), tanh in any::<bool>()) {
            layer: if tanh { Gelu::new().approximate_tanh() } else { Gelu::new() },
            input: shape,
        }
    }

    /// Φ(0) = ½ and φ(0) = 1/√(2π): y = 0 and y' = ½. At 1, Φ = 0.841344746068543 and φ = 0.241970724519143: y = 0.841344746068543
    /// and y' = 1.083315470587686. For g = 5: ∂x = 2.5 and 5.41657735293843. Φ(−1) = 1 − Φ(1): y = −0.158655253931457,
    /// y' = 0.158655253931457 − 0.241970724519143.
    #[test]
    fn by_hand_values() {
        by_hand(
            Gelu::new(),
            [0.0, 1.0, -1.0],
            [0.0, 0.841344746068543, -0.158655253931457],
            [2.5, 5.41657735293843, 5.0 * (0.158655253931457 - 0.241970724519143)],
        );
    }

    /// √(2/π) (1 + 0.044715) = 0.833562..., its tanh 0.682384...: y(1) = ½ (1 + 0.682384) = 0.841192.
    #[test]
    fn the_approximation_by_hand() {
        use chainrule_core::{Layer, Tensor};
        let y = Gelu::new().approximate_tanh().infer(&Tensor::from([1.0f64])).unwrap();
        assert!((y.data()[0] - 0.841191990608).abs() < 1e-11);
    }
}
