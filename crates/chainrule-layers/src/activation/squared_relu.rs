//! The squared rectifier (So, Mańke, Liu, Dai, Shazeer and Le, 2021).
//!
//! ```text
//! y = max(x, 0)²
//! ∂E/∂x = ∂E/∂y 2 max(x, 0)
//! ```
//!
//! Smooth to the first order, with slope 0 at 0; NaN propagates, in both directions. Stores nothing. Derivation:
//! docs/layers/activation/squared_relu.md.

use super::pointwise::{Pointwise, Settings, examples, pointwise};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = max(x, 0)².
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::SquaredRelu;
/// let y = SquaredRelu::new().infer(&Tensor::from([-1.0f32, 3.0]))?;
/// assert_eq!(y.data(), [0.0, 9.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct SquaredRelu<T = f32>(PhantomData<T>);

impl<T: Scalar> SquaredRelu<T> {
    /// max(x, 0)².
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for SquaredRelu<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for SquaredRelu<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        let r = if x <= T::ZERO { T::ZERO } else { x };
        r * r
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let r = if x <= T::ZERO { T::ZERO } else { x };
        r + r
    }
}

impl<T: Scalar> Settings for SquaredRelu<T> {
    fn settings(&self) -> Spec {
        Spec::new("SquaredRelu")
    }
}

pointwise!(SquaredRelu, slope of x);

impl<T: Scalar> FromSpec<T> for SquaredRelu<T> {
    const FACTS: Facts = Facts::new("SquaredRelu")
        .family("activation")
        .formula("max(x, 0)²")
        .page("layers/activation/squared_relu.md");

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
            layer: SquaredRelu::new(),
            input: shape,
        }
    }

    /// At −2, 0 and 3: y = 0, 0, 9 and y' = 0, 0, 6. For g = 5: ∂x = 0, 0, 30.
    #[test]
    pub fn by_hand() {
        assert_by_hand(SquaredRelu::new(), [-2.0, 0.0, 3.0], [0.0, 0.0, 9.0], [0.0, 0.0, 30.0]);
    }
}
