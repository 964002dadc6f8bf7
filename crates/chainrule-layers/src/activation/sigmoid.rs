//! The logistic function.
//!
//! ```text
//! y = 1/(1 + e⁻ˣ)
//! ∂E/∂x = ∂E/∂y y (1 − y)
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/activation/sigmoid.md.

use super::elementwise;

/// y = 1/(1 + e⁻ˣ).
///
/// # Shapes
/// y has the shape of x, whatever it is.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Sigmoid;
/// let y = Sigmoid::new().infer(&Tensor::from([0.0f32]))?;
/// assert_eq!(y.data(), [0.5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sigmoid;

impl Sigmoid {
    /// 1/(1 + e⁻ˣ).
    pub fn new() -> Self {
        Self
    }
}

impl Default for Sigmoid {
    fn default() -> Self {
        Self::new()
    }
}

elementwise! {
    Sigmoid,
    forward: |x| x.v_sigmoid_by::<FMA>(),
    backward: |y| y * (T::ONE - y), from y,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::tests::by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4)) {
            layer: Sigmoid::new(),
            input: shape,
        }
    }

    /// At 0, y = ½ and y' = ¼; at ln 3, y = 1/(1 + ⅓) = ¾ and y' = 3/16. For g = 5: ∂x = 1.25, 0.9375.
    #[test]
    fn by_hand_values() {
        by_hand(Sigmoid::new(), [0.0, 3f64.ln()], [0.5, 0.75], [1.25, 0.9375]);
    }
}
