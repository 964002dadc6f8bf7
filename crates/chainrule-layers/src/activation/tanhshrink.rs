//! What tanh takes away from x.
//!
//! ```text
//! y = x − tanh x
//! ∂E/∂x = ∂E/∂y tanh² x
//! ```
//!
//! Smooth; NaN propagates, in both directions. Stores nothing. Derivation: docs/layers/activation/tanhshrink.md.

use super::pointwise::{Pointwise, Settings, examples, pointwise};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = x − tanh x.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Tanhshrink;
/// let y = Tanhshrink::new().infer(&Tensor::from([0.0f32, 30.0]))?;
/// assert_eq!(y.data(), [0.0, 29.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Tanhshrink<T = f32>(PhantomData<T>);

impl<T: Scalar> Tanhshrink<T> {
    /// x − tanh x.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for Tanhshrink<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Tanhshrink<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        x - x.v_tanh::<FMA>()
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let t = x.v_tanh::<FMA>();
        t * t
    }
}

impl<T: Scalar> Settings for Tanhshrink<T> {
    fn settings(&self) -> Spec {
        Spec::new("Tanhshrink")
    }
}

pointwise!(Tanhshrink, slope of x);

impl<T: Scalar> FromSpec<T> for Tanhshrink<T> {
    const FACTS: Facts = Facts::new("Tanhshrink")
        .family("activation")
        .formula("x − tanh x")
        .page("layers/activation/tanhshrink.md")
        .torch("Tanhshrink");

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
            layer: Tanhshrink::new(),
            input: shape,
        }
    }

    /// tanh(ln 2) = (2 − ½)/(2 + ½) = 3/5. At 0, ln 2 and −ln 2: y = 0, ln 2 − 3/5, 3/5 − ln 2 and y' = 0, 9/25, 9/25. For g = 5: ∂x = 0, 9/5, 9/5.
    #[test]
    pub fn by_hand() {
        let l = std::f64::consts::LN_2;
        assert_by_hand(Tanhshrink::new(), [0.0, l, -l], [0.0, l - 0.6, 0.6 - l], [0.0, 1.8, 1.8]);
    }
}
