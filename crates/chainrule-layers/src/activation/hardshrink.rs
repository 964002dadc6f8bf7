//! Hard shrinkage (Donoho and Johnstone, 1994): what is small becomes 0.
//!
//! ```text
//! y = x for |x| > λ, 0 otherwise
//! ∂E/∂x = ∂E/∂y [y ≠ 0]
//! ```
//!
//! At the jumps ±λ the slope is 0; NaN propagates, in both directions. Stores nothing. Derivation:
//! docs/layers/activation/hardshrink.md.

use super::{
    at_least_0,
    pointwise::{Pointwise, Settings, examples, pointwise},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = x for |x| > λ and 0 otherwise; λ = ½ by default.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Hardshrink;
/// let y = Hardshrink::new().infer(&Tensor::from([-2.0f32, 0.25, 1.0]))?;
/// assert_eq!(y.data(), [-2.0, 0.0, 1.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Hardshrink<T = f32> {
    lambd: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> Hardshrink<T> {
    /// λ = ½.
    pub fn new() -> Self {
        Self { lambd: 0.5, of: PhantomData }
    }

    /// Sets λ ≥ 0.
    #[must_use]
    pub fn lambd(mut self, lambd: f64) -> Self {
        self.lambd = lambd;
        self
    }
}

impl<T: Scalar> Default for Hardshrink<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Hardshrink<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        if x.abs() <= T::from_f64(self.lambd) { T::ZERO } else { x }
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, y: T) -> T {
        let slope = if y == T::ZERO { T::ZERO } else { T::ONE };
        if y.is_nan() { y } else { slope }
    }
}

impl<T: Scalar> Settings for Hardshrink<T> {
    fn check_settings(&self) -> Result<()> {
        at_least_0("Hardshrink", "lambd", self.lambd)
    }

    fn settings(&self) -> Spec {
        Spec::new("Hardshrink").with("lambd", self.lambd)
    }
}

pointwise!(Hardshrink, slope of y);

impl<T: Scalar> FromSpec<T> for Hardshrink<T> {
    const FACTS: Facts = Facts::new("Hardshrink")
        .family("activation")
        .formula("x for |x| > λ, 0 otherwise")
        .page("layers/activation/hardshrink.md")
        .torch("Hardshrink");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().lambd(args.or("lambd", 0.5)?))
    }

    fn examples() -> Vec<Example> {
        examples([Self::new(), Self::new().lambd(0.3)])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::activation::tests::assert_by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), lambd in 0.0..1.5) {
            layer: Hardshrink::new().lambd(lambd),
            input: shape,
        }
    }

    /// With λ = 1 at −3, −1, ½, 1 and 2: y = −3, 0, 0, 0, 2 and y' = 1, 0, 0, 0, 1. For g = 5: ∂x = 5, 0, 0, 0, 5.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            Hardshrink::new().lambd(1.0),
            [-3.0, -1.0, 0.5, 1.0, 2.0],
            [-3.0, 0.0, 0.0, 0.0, 2.0],
            [5.0, 0.0, 0.0, 0.0, 5.0],
        );
    }
}
