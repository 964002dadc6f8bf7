//! The leaky rectified linear unit (Maas, Hannun and Ng, 2013).
//!
//! ```text
//! y = x for x > 0, a x otherwise
//! ∂E/∂x = ∂E/∂y (1 for x > 0, a otherwise)
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/activation/leaky_relu.md.

use super::elementwise;

/// y = x above 0 and a x below, with a = 0.01 unless said otherwise.
///
/// # Shapes
/// y has the shape of x, whatever it is.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::LeakyRelu;
/// let y = LeakyRelu::new().negative_slope(0.1).infer(&Tensor::from([-1.0f32, 2.0]))?;
/// assert_eq!(y.data(), [-0.1, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LeakyRelu {
    negative_slope: f64,
}

impl LeakyRelu {
    /// Slope 0.01 below 0.
    pub fn new() -> Self {
        Self { negative_slope: 0.01 }
    }

    /// Another slope a below 0.
    #[must_use]
    pub fn negative_slope(mut self, slope: f64) -> Self {
        self.negative_slope = slope;
        self
    }
}

impl Default for LeakyRelu {
    fn default() -> Self {
        Self::new()
    }
}

elementwise! {
    LeakyRelu,
    numbers: [negative_slope],
    forward: |x| if x > T::ZERO { x } else { negative_slope * x },
    backward: |x| if x > T::ZERO { T::ONE } else { negative_slope }, from x,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::tests::by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), slope in -1.0..1.5) {
            layer: LeakyRelu::new().negative_slope(slope),
            input: shape,
        }
    }

    /// With a = ½ at −2, 0 and 3: y = −1, 0, 3 and y' = ½, ½, 1. For g = 5: ∂x = 2.5, 2.5, 5.
    #[test]
    fn by_hand_values() {
        by_hand(LeakyRelu::new().negative_slope(0.5), [-2.0, 0.0, 3.0], [-1.0, 0.0, 3.0], [2.5, 2.5, 5.0]);
    }
}
