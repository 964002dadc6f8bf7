//! The identity: a placeholder.
//!
//! ```text
//! y = x        ∂E/∂x = ∂E/∂y
//! ```
//!
//! Stores nothing. Derivation: docs/layers/activation/identity.md.

use super::pointwise::examples;
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

/// y = x.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Identity;
/// let x = Tensor::from([1.0f32, 2.0]);
/// assert_eq!(Identity::new().infer(&x)?, x);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Default)]
pub struct Identity<T = f32>(PhantomData<T>);

impl<T: Scalar> Identity<T> {
    /// y = x.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Layer for Identity<T> {
    type T = T;
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
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

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new("Identity")
    }
}

impl<T: Scalar> FromSpec<T> for Identity<T> {
    const FACTS: Facts = Facts::new("Identity")
        .family("activation")
        .formula("x")
        .page("layers/activation/identity.md")
        .torch("Identity");

    fn from_spec(_: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new())
    }

    fn examples() -> Vec<Example> {
        examples([Self::new()])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::activation::tests::assert_by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4)) {
            layer: Identity::new(),
            input: shape,
        }
    }

    /// y = x and y' = 1. For g = 5: ∂x = 5.
    #[test]
    pub fn by_hand() {
        assert_by_hand(Identity::new(), [-1.0, 2.0], [-1.0, 2.0], [5.0, 5.0]);
    }
}
