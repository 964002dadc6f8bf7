//! The exponential linear unit (Clevert, Unterthiner and Hochreiter, 2016).
//!
//! ```text
//! y = x for x > 0, α (eˣ − 1) otherwise
//! ∂E/∂x = ∂E/∂y (1 for x > 0, α eˣ otherwise)
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/activation/elu.md.

use super::elementwise;

/// y = x above 0 and α (eˣ − 1) below, with α = 1 unless said otherwise.
///
/// # Shapes
/// y has the shape of x, whatever it is.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Elu;
/// let y = Elu::new().infer(&Tensor::from([-30.0f32, 2.0]))?;
/// assert_eq!(y.data(), [-1.0, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Elu {
    alpha: f64,
}

impl Elu {
    /// α = 1.
    pub fn new() -> Self {
        Self { alpha: 1.0 }
    }

    /// Another limit −α for large negative x.
    #[must_use]
    pub fn alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }
}

impl Default for Elu {
    fn default() -> Self {
        Self::new()
    }
}

elementwise! {
    Elu,
    numbers: [alpha],
    forward: |x| if x > T::ZERO { x } else { alpha * (-x).v_exp_m1_neg_by::<FMA>() },
    backward: |x| if x > T::ZERO { T::ONE } else { alpha * (-x).v_exp_neg_by::<FMA>() }, from x,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::tests::by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), alpha in -2.0..2.0) {
            layer: Elu::new().alpha(alpha),
            input: shape,
        }
    }

    /// With α = 2 at −ln 2, 0 and 3: y = 2(½ − 1) = −1, 0, 3 and y' = 2·½ = 1, 2, 1. For g = 5: ∂x = 5, 10, 5.
    #[test]
    fn by_hand_values() {
        by_hand(
            Elu::new().alpha(2.0),
            [-std::f64::consts::LN_2, 0.0, 3.0],
            [-1.0, 0.0, 3.0],
            [5.0, 10.0, 5.0],
        );
    }
}
