//! The rectified linear unit (Fukushima 1969; Nair and Hinton 2010).
//!
//! ```text
//! y = max(x, 0)
//! ∂E/∂x = ∂E/∂y [y > 0]
//! ```
//!
//! At 0 the slope is 0; NaN stays NaN. Keeps nothing. Derivation: docs/layers/activation/relu.md.

use super::elementwise;

/// y = max(x, 0).
///
/// # Shapes
/// y has the shape of x, whatever it is.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Relu;
/// let y = Relu::new().infer(&Tensor::from([-1.0f32, 2.0]))?;
/// assert_eq!(y.data(), [0.0, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Relu;

impl Relu {
    /// max(x, 0).
    pub fn new() -> Self {
        Self
    }
}

impl Default for Relu {
    fn default() -> Self {
        Self::new()
    }
}

elementwise! {
    Relu,
    forward: |x| if x <= T::ZERO { T::ZERO } else { x },
    backward: |y| if y > T::ZERO { T::ONE } else { T::ZERO }, from y,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::tests::by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4)) {
            layer: Relu::new(),
            input: shape,
        }
    }

    /// At −2, 0 and 3: y = 0, 0, 3 and y' = 0, 0, 1. For g = 5: ∂x = 0, 0, 5.
    #[test]
    fn by_hand_values() {
        by_hand(Relu::new(), [-2.0, 0.0, 3.0], [0.0, 0.0, 3.0], [0.0, 0.0, 5.0]);
    }
}
