//! The hyperbolic tangent.
//!
//! ```text
//! y = tanh x
//! ∂E/∂x = ∂E/∂y (1 − y²)
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/activation/tanh.md.

use super::elementwise;

/// y = tanh x.
///
/// # Shapes
/// y has the shape of x, whatever it is.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Tanh;
/// let y = Tanh::new().infer(&Tensor::from([0.0f32, 30.0]))?;
/// assert_eq!(y.data(), [0.0, 1.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tanh;

impl Tanh {
    /// tanh x.
    pub fn new() -> Self {
        Self
    }
}

impl Default for Tanh {
    fn default() -> Self {
        Self::new()
    }
}

elementwise! {
    Tanh,
    forward: |x| x.v_tanh_by::<FMA>(),
    backward: |y| T::ONE - y * y, from y,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::tests::by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4)) {
            layer: Tanh::new(),
            input: shape,
        }
    }

    /// At 0, y = 0 and y' = 1. At ln 2, tanh = (2 − ½)/(2 + ½) = 0.6 and y' = 0.64. For g = 5: ∂x = 5, 3.2.
    #[test]
    fn by_hand_values() {
        by_hand(Tanh::new(), [0.0, std::f64::consts::LN_2], [0.0, 0.6], [5.0, 3.2]);
    }
}
