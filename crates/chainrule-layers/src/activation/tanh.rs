//! The hyperbolic tangent.
//!
//! ```text
//! y = tanh x
//! ∂E/∂x = ∂E/∂y (1 − y²)
//! ```
//!
//! Stores nothing. Derivation: docs/layers/activation/tanh.md.

use super::pointwise::{Pointwise, Settings, examples, pointwise};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = tanh x.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Tanh;
/// let y = Tanh::new().infer(&Tensor::from([0.0f32, 30.0]))?;
/// assert_eq!(y.data(), [0.0, 1.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Tanh<T = f32>(PhantomData<T>);

impl<T: Scalar> Tanh<T> {
    /// tanh x.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for Tanh<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Tanh<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        x.v_tanh::<FMA>()
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, y: T) -> T {
        T::ONE - y * y
    }
}

impl<T: Scalar> Settings for Tanh<T> {
    fn settings(&self) -> Spec {
        Spec::new("Tanh")
    }
}

pointwise!(Tanh, slope of y);

impl<T: Scalar> FromSpec<T> for Tanh<T> {
    const FACTS: Facts = Facts::new("Tanh")
        .family("activation")
        .formula("tanh x")
        .page("layers/activation/tanh.md")
        .torch("Tanh");

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
            layer: Tanh::new(),
            input: shape,
        }
    }

    /// At 0, y = 0 and y' = 1. At ln 2, tanh = (2 − ½)/(2 + ½) = 0.6 and y' = 0.64. For g = 5: ∂x = 5, 3.2.
    #[test]
    pub fn by_hand() {
        assert_by_hand(Tanh::new(), [0.0, std::f64::consts::LN_2], [0.0, 0.6], [5.0, 3.2]);
    }
}
