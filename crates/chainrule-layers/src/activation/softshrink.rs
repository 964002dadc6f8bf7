//! Soft shrinkage (Donoho and Johnstone, 1994): the minimiser of ½ (y − x)² + λ |y|.
//!
//! ```text
//! y = x − λ for x > λ,  x + λ for x < −λ,  0 otherwise
//! ∂E/∂x = ∂E/∂y [y ≠ 0]
//! ```
//!
//! At the kinks ±λ the slope is 0; NaN propagates, in both directions. Stores nothing. Derivation:
//! docs/layers/activation/softshrink.md.

use super::{
    at_least_0,
    pointwise::{Pointwise, Settings, examples, pointwise},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = x − λ for x > λ, x + λ for x < −λ and 0 otherwise; λ = ½ by default.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Softshrink;
/// let y = Softshrink::new().infer(&Tensor::from([-2.0f32, 0.25, 1.0]))?;
/// assert_eq!(y.data(), [-1.5, 0.0, 0.5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Softshrink<T = f32> {
    lambd: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> Softshrink<T> {
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

impl<T: Scalar> Default for Softshrink<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Softshrink<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        let lambda = T::from_f64(self.lambd);
        let middle = if x.is_nan() { x } else { T::ZERO };
        let lower = if x < -lambda { x + lambda } else { middle };
        if x > lambda { x - lambda } else { lower }
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, y: T) -> T {
        let slope = if y == T::ZERO { T::ZERO } else { T::ONE };
        if y.is_nan() { y } else { slope }
    }
}

impl<T: Scalar> Settings for Softshrink<T> {
    fn check_settings(&self) -> Result<()> {
        at_least_0("Softshrink", "lambd", self.lambd)
    }

    fn settings(&self) -> Spec {
        Spec::new("Softshrink").with("lambd", self.lambd)
    }
}

pointwise!(Softshrink, slope of y);

impl<T: Scalar> FromSpec<T> for Softshrink<T> {
    const FACTS: Facts = Facts::new("Softshrink")
        .family("activation")
        .formula("x − λ for x > λ, x + λ for x < −λ, 0 otherwise")
        .page("layers/activation/softshrink.md")
        .torch("Softshrink");

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
            layer: Softshrink::new().lambd(lambd),
            input: shape,
        }
    }

    /// With λ = 1 at −3, −1, ½, 1 and 3: y = −2, 0, 0, 0, 2 and y' = 1, 0, 0, 0, 1. For g = 5: ∂x = 5, 0, 0, 0, 5.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            Softshrink::new().lambd(1.0),
            [-3.0, -1.0, 0.5, 1.0, 3.0],
            [-2.0, 0.0, 0.0, 0.0, 2.0],
            [5.0, 0.0, 0.0, 0.0, 5.0],
        );
    }
}
