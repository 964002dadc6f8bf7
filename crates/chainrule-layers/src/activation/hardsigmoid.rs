//! The hard sigmoid (Courbariaux, Bengio and David, 2015; with these slopes Howard et al., 2019).
//!
//! ```text
//! y = min(max(x + 3, 0), 6)/6
//! ∂E/∂x = ∂E/∂y (1/6 for −3 < x < 3, 0 otherwise)
//! ```
//!
//! At the kinks ±3 the slope is 0; NaN propagates, in both directions. Stores nothing. Derivation:
//! docs/layers/activation/hardsigmoid.md.

use super::pointwise::{Pointwise, Settings, clamp, examples, inside, pointwise};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = min(max(x + 3, 0), 6)/6.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Hardsigmoid;
/// let y = Hardsigmoid::new().infer(&Tensor::from([-4.0f32, 0.0, 4.0]))?;
/// assert_eq!(y.data(), [0.0, 0.5, 1.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Hardsigmoid<T = f32>(PhantomData<T>);

impl<T: Scalar> Hardsigmoid<T> {
    /// min(max(x + 3, 0), 6)/6.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for Hardsigmoid<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Hardsigmoid<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        clamp(x + T::from_f64(3.0), T::ZERO, T::from_f64(6.0)) / T::from_f64(6.0)
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let three = T::from_f64(3.0);
        inside(x, -three, three) / T::from_f64(6.0)
    }
}

impl<T: Scalar> Settings for Hardsigmoid<T> {
    fn settings(&self) -> Spec {
        Spec::new("Hardsigmoid")
    }
}

pointwise!(Hardsigmoid, slope of x);

impl<T: Scalar> FromSpec<T> for Hardsigmoid<T> {
    const FACTS: Facts = Facts::new("Hardsigmoid")
        .family("activation")
        .formula("min(max(x + 3, 0), 6)/6")
        .page("layers/activation/hardsigmoid.md")
        .torch("Hardsigmoid");

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
            layer: Hardsigmoid::new(),
            input: shape,
            values: Values::Uniform(-5.0..5.0),
        }
    }

    /// At −4, −3, 0, 1.5, 3 and 5: y = 0, 0, ½, ¾, 1, 1 and y' = 0, 0, 1/6, 1/6, 0, 0. For g = 5: ∂x = 0, 0, 5/6, 5/6, 0, 0.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            Hardsigmoid::new(),
            [-4.0, -3.0, 0.0, 1.5, 3.0, 5.0],
            [0.0, 0.0, 0.5, 0.75, 1.0, 1.0],
            [0.0, 0.0, 5.0 / 6.0, 5.0 / 6.0, 0.0, 0.0],
        );
    }
}
