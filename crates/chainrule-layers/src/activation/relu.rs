//! The rectified linear unit (Fukushima 1969; Nair and Hinton 2010).
//!
//! ```text
//! y = max(x, 0)
//! ∂E/∂x = ∂E/∂y [y > 0]
//! ```
//!
//! At 0 the derivative is 0; NaN propagates, in both directions. Stores nothing. Derivation: docs/layers/activation/relu.md.

use super::pointwise::{Pointwise, Settings, examples, pointwise};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = max(x, 0).
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Relu;
/// let y = Relu::new().infer(&Tensor::from([-1.0f32, 2.0]))?;
/// assert_eq!(y.data(), [0.0, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Relu<T = f32>(PhantomData<T>);

impl<T: Scalar> Relu<T> {
    /// max(x, 0).
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for Relu<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Relu<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        if x <= T::ZERO { T::ZERO } else { x }
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, y: T) -> T {
        if y > T::ZERO { T::ONE } else { y } // y is 0 or NaN
    }
}

impl<T: Scalar> Settings for Relu<T> {
    fn settings(&self) -> Spec {
        Spec::new("Relu")
    }
}

pointwise!(Relu, slope of y);

impl<T: Scalar> FromSpec<T> for Relu<T> {
    const FACTS: Facts = Facts::new("Relu")
        .family("activation")
        .formula("max(x, 0)")
        .page("layers/activation/relu.md")
        .torch("ReLU");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.or("inplace", false)?; // ignored: containers decide
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
            layer: Relu::new(),
            input: shape,
        }
    }

    /// At −2, 0 and 3: y = 0, 0, 3 and y' = 0, 0, 1. For g = 5: ∂x = 0, 0, 5.
    #[test]
    pub fn by_hand() {
        assert_by_hand(Relu::new(), [-2.0, 0.0, 3.0], [0.0, 0.0, 3.0], [0.0, 0.0, 5.0]);
    }
}
