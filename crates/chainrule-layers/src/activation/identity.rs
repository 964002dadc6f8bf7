//! Nothing: a placeholder.
//!
//! ```text
//! y = x        ∂E/∂x = ∂E/∂y
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/activation/identity.md.

use chainrule_core::{Call, Context, Grads, Layer, Result, Scalar, Shape, Tensor};

/// y = x.
///
/// # Shapes
/// y has the shape of x, whatever it is.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Identity;
/// let x = Tensor::from([1.0f32, 2.0]);
/// assert_eq!(Identity::new().infer(&x)?, x);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Identity {
    /// y = x.
    pub fn new() -> Self {
        Self
    }
}

impl<T: Scalar> Layer<T> for Identity {
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
        y.copy_from(x);
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        dx.into_iter().for_each(|dx| dx.copy_from(call.dy)); // dx = dy
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::tests::by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4)) {
            layer: Identity::new(),
            input: shape,
        }
    }

    /// y = x and y' = 1. For g = 5: ∂x = 5.
    #[test]
    fn by_hand_values() {
        by_hand(Identity::new(), [-1.0, 2.0], [-1.0, 2.0], [5.0, 5.0]);
    }
}
