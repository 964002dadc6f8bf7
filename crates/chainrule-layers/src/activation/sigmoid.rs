//! The logistic function.
//!
//! ```text
//! y = 1/(1 + e⁻ˣ)
//! ∂E/∂x = ∂E/∂y y (1 − y)
//! ```
//!
//! Stores nothing. Derivation: docs/layers/activation/sigmoid.md.

use super::pointwise::{Pointwise, Settings, examples, pointwise};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = 1/(1 + e⁻ˣ).
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Sigmoid;
/// let y = Sigmoid::new().infer(&Tensor::from([0.0f32]))?;
/// assert_eq!(y.data(), [0.5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Sigmoid<T = f32>(PhantomData<T>);

impl<T: Scalar> Sigmoid<T> {
    /// 1/(1 + e⁻ˣ).
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for Sigmoid<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Sigmoid<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        x.v_sigmoid::<FMA>()
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, y: T) -> T {
        y * (T::ONE - y)
    }
}

impl<T: Scalar> Settings for Sigmoid<T> {
    fn settings(&self) -> Spec {
        Spec::new("Sigmoid")
    }
}

pointwise!(Sigmoid, slope of y);

impl<T: Scalar> FromSpec<T> for Sigmoid<T> {
    const FACTS: Facts = Facts::new("Sigmoid")
        .family("activation")
        .formula("1/(1 + e⁻ˣ)")
        .page("layers/activation/sigmoid.md")
        .torch("Sigmoid");

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
            layer: Sigmoid::new(),
            input: shape,
        }
    }

    /// At 0, y = ½ and y' = ¼; at ln 3, y = 1/(1 + ⅓) = ¾ and y' = 3/16. For g = 5: ∂x = 1.25, 0.9375.
    #[test]
    pub fn by_hand() {
        assert_by_hand(Sigmoid::new(), [0.0, 3f64.ln()], [0.5, 0.75], [1.25, 0.9375]);
    }
}
