//! The rectifier that saturates at 6 (Krizhevsky, 2010).
//!
//! ```text
//! y = min(max(x, 0), 6)
//! ∂E/∂x = ∂E/∂y [0 < y < 6]
//! ```
//!
//! At the kinks 0 and 6 the slope is 0; NaN propagates, in both directions. Stores nothing. Derivation:
//! docs/layers/activation/relu6.md.

use super::pointwise::{Pointwise, Settings, clamp, examples, inside, pointwise};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = min(max(x, 0), 6).
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Relu6;
/// let y = Relu6::new().infer(&Tensor::from([-1.0f32, 2.0, 7.0]))?;
/// assert_eq!(y.data(), [0.0, 2.0, 6.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Relu6<T = f32>(PhantomData<T>);

impl<T: Scalar> Relu6<T> {
    /// min(max(x, 0), 6).
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for Relu6<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Relu6<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        clamp(x, T::ZERO, T::from_f64(6.0))
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, y: T) -> T {
        inside(y, T::ZERO, T::from_f64(6.0))
    }
}

impl<T: Scalar> Settings for Relu6<T> {
    fn settings(&self) -> Spec {
        Spec::new("Relu6")
    }
}

pointwise!(Relu6, slope of y);

impl<T: Scalar> FromSpec<T> for Relu6<T> {
    const FACTS: Facts = Facts::new("Relu6")
        .family("activation")
        .formula("min(max(x, 0), 6)")
        .page("layers/activation/relu6.md")
        .torch("ReLU6");

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
            layer: Relu6::new(),
            input: shape,
            values: Values::Uniform(-3.0..9.0),
        }
    }

    /// At −1, 0, 2, 6 and 7: y = 0, 0, 2, 6, 6 and y' = 0, 0, 1, 0, 0. For g = 5: ∂x = 0, 0, 5, 0, 0.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            Relu6::new(),
            [-1.0, 0.0, 2.0, 6.0, 7.0],
            [0.0, 0.0, 2.0, 6.0, 6.0],
            [0.0, 0.0, 5.0, 0.0, 0.0],
        );
    }
}
