//! The sigmoid linear unit (Elfwing, Uchibe and Doya, 2017), also called swish.
//!
//! ```text
//! y = x s,   s = σ(x)
//! ∂E/∂x = ∂E/∂y s (1 + x (1 − s))
//! ```
//!
//! Stores nothing. Derivation: docs/layers/activation/silu.md.

use super::pointwise::{Pointwise, Settings, above, examples, pointwise, within};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = x σ(x).
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Silu;
/// let y = Silu::new().infer(&Tensor::from([0.0f32, 30.0]))?;
/// assert_eq!(y.data(), [0.0, 30.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Silu<T = f32>(PhantomData<T>);

impl<T: Scalar> Silu<T> {
    /// x σ(x).
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for Silu<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Silu<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        above(x) * x.v_sigmoid::<FMA>()
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let s = x.v_sigmoid::<FMA>();
        s * (T::ONE + within(x) * (T::ONE - s))
    }
}

impl<T: Scalar> Settings for Silu<T> {
    fn settings(&self) -> Spec {
        Spec::new("Silu")
    }
}

pointwise!(Silu, slope of x);

impl<T: Scalar> FromSpec<T> for Silu<T> {
    const FACTS: Facts = Facts::new("Silu")
        .family("activation")
        .formula("x σ(x)")
        .page("layers/activation/silu.md")
        .torch("SiLU");

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
            layer: Silu::new(),
            input: shape,
        }
    }

    /// σ(0) = ½, σ(ln 3) = ¾: at 0, y = 0 and y' = ½; at ln 3, y = ¾ ln 3 and y' = ¾ (1 + ¼ ln 3).
    #[test]
    pub fn by_hand() {
        let l = 3f64.ln();
        assert_by_hand(Silu::new(), [0.0, l], [0.0, 0.75 * l], [2.5, 3.75 * (1.0 + 0.25 * l)]);
    }
}
