//! The sigmoid-weighted linear unit (Elfwing, Uchibe and Doya, 2017), also called swish.
//!
//! ```text
//! y = x s,   s = σ(x)
//! ∂E/∂x = ∂E/∂y s (1 + x (1 − s))
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/activation/silu.md.

use super::elementwise;

/// y = x σ(x).
///
/// # Shapes
/// y has the shape of x, whatever it is.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Silu;
/// let y = Silu::new().infer(&Tensor::from([0.0f32, 30.0]))?;
/// assert_eq!(y.data(), [0.0, 30.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Silu;

impl Silu {
    /// x σ(x).
    pub fn new() -> Self {
        Self
    }
}

impl Default for Silu {
    fn default() -> Self {
        Self::new()
    }
}

elementwise! {
    Silu,
    forward: |x| x * x.v_sigmoid_by::<FMA>(),
    backward: |x| {
        let s = x.v_sigmoid_by::<FMA>();
        s * (T::ONE + x * (T::ONE - s))
    }, from x,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::tests::by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4)) {
            layer: Silu::new(),
            input: shape,
        }
    }

    /// σ(0) = ½, σ(ln 3) = ¾: at 0, y = 0 and y' = ½; at ln 3, y = ¾ ln 3 and y' = ¾ (1 + ¼ ln 3).
    #[test]
    fn by_hand_values() {
        let l = 3f64.ln();
        by_hand(Silu::new(), [0.0, l], [0.0, 0.75 * l], [2.5, 3.75 * (1.0 + 0.25 * l)]);
    }
}
