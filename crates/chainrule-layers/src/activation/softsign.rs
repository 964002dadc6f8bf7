//! Softsign (Bergstra, Desjardins, Lamblin and Bengio, 2009).
//!
//! ```text
//! y = x/(1 + |x|)
//! ∂E/∂x = ∂E/∂y/(1 + |x|)²
//! ```
//!
//! Smooth to the first order, with slope 1 at 0; NaN propagates, in both directions. Stores nothing. Derivation:
//! docs/layers/activation/softsign.md.

use super::pointwise::{Pointwise, Settings, examples, pointwise};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = x/(1 + |x|).
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Softsign;
/// let y = Softsign::new().infer(&Tensor::from([-3.0f32, 0.0, 1.0]))?;
/// assert_eq!(y.data(), [-0.75, 0.0, 0.5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Softsign<T = f32>(PhantomData<T>);

impl<T: Scalar> Softsign<T> {
    /// x/(1 + |x|).
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for Softsign<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Softsign<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        let a = x.abs();
        let limit = if x < T::ZERO { -T::ONE } else { T::ONE };
        if a == T::INFINITY { limit } else { x / (T::ONE + a) }
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let r = T::ONE / (T::ONE + x.abs());
        r * r
    }
}

impl<T: Scalar> Settings for Softsign<T> {
    fn settings(&self) -> Spec {
        Spec::new("Softsign")
    }
}

pointwise!(Softsign, slope of x);

impl<T: Scalar> FromSpec<T> for Softsign<T> {
    const FACTS: Facts = Facts::new("Softsign")
        .family("activation")
        .formula("x/(1 + |x|)")
        .page("layers/activation/softsign.md")
        .torch("Softsign");

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
            layer: Softsign::new(),
            input: shape,
        }
    }

    /// At −3, 0 and 1: y = −¾, 0, ½ and y' = 1/16, 1, ¼. For g = 5: ∂x = 5/16, 5, 5/4.
    #[test]
    pub fn by_hand() {
        assert_by_hand(Softsign::new(), [-3.0, 0.0, 1.0], [-0.75, 0.0, 0.5], [0.3125, 5.0, 1.25]);
    }
}
