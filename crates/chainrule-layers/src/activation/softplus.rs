//! A smooth rectifier (Dugas, Bengio, Bélisle, Nadeau and Garcia, 2001).
//!
//! ```text
//! y = ln(1 + exp(βx))/β,   and y = x where βx exceeds the threshold
//! ∂E/∂x = ∂E/∂y σ(βx),         and ∂E/∂y there
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/activation/softplus.md.

use super::elementwise;

/// y = ln(1 + exp(βx))/β, with β = 1 and linear beyond βx = 20 unless said otherwise.
///
/// # Shapes
/// y has the shape of x, whatever it is.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Softplus;
/// let y = Softplus::new().infer(&Tensor::from([30.0f32, 0.0]))?;
/// assert_eq!(y.data(), [30.0, 2f32.ln()]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Softplus {
    beta: f64,
    threshold: f64,
}

impl Softplus {
    /// β = 1, linear beyond 20.
    pub fn new() -> Self {
        Self { beta: 1.0, threshold: 20.0 }
    }

    /// Another sharpness β.
    #[must_use]
    pub fn beta(mut self, beta: f64) -> Self {
        self.beta = beta;
        self
    }

    /// y = x where βx exceeds this.
    #[must_use]
    pub fn threshold(mut self, threshold: f64) -> Self {
        self.threshold = threshold;
        self
    }
}

impl Default for Softplus {
    fn default() -> Self {
        Self::new()
    }
}

elementwise! {
    Softplus,
    numbers: [beta, threshold],
    nonzero: beta,
    forward: |x| {
        let z = beta * x;
        let above = if z > T::ZERO { z } else { T::ZERO };
        let soft = (above + z.abs().v_exp_neg_by::<FMA>().v_ln_1p_by::<FMA>()) / beta; // ln(1 + eᶻ) = max(z, 0) + ln(1 + e^−|z|)
        if z > threshold || x.is_nan() { x } else { soft }
    },
    backward: |x| {
        let z = beta * x;
        if z > threshold { T::ONE } else { z.v_sigmoid_by::<FMA>() }
    }, from x,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::tests::by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), beta in prop_oneof![-3.0..-0.2, 0.2..3.0], threshold in prop_oneof![Just(20.0), 0.5..40.0]) {
            layer: Softplus::new().beta(beta).threshold(threshold),
            input: shape,
        }
    }

    /// With β = 2 at 0 and ½ ln 3: y = ½ ln 2 and ½ ln 4; y' = σ(0) = ½ and σ(ln 3) = ¾. For g = 5: ∂x = 2.5, 3.75.
    /// At 30, βx = 60 exceeds 20: y = 30 and ∂x = 5.
    #[test]
    fn by_hand_values() {
        let l = std::f64::consts::LN_2;
        by_hand(
            Softplus::new().beta(2.0),
            [0.0, 0.5 * 3f64.ln(), 30.0],
            [0.5 * l, l, 30.0],
            [2.5, 3.75, 5.0],
        );
    }
}
