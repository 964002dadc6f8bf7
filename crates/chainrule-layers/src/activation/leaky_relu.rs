//! The leaky rectified linear unit (Maas, Hannun and Ng, 2013).
//!
//! ```text
//! y = x for x > 0, a x otherwise
//! ∂E/∂x = ∂E/∂y (1 for x > 0, a otherwise)
//! ```
//!
//! NaN propagates, in both directions. Stores nothing. Derivation: docs/layers/activation/leaky_relu.md.

use super::{
    finite,
    pointwise::{Pointwise, Settings, examples, pointwise},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = x for x > 0 and a x otherwise; a = 0.01 by default.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::LeakyRelu;
/// let y = LeakyRelu::new().negative_slope(0.1).infer(&Tensor::from([-1.0f32, 2.0]))?;
/// assert_eq!(y.data(), [-0.1, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct LeakyRelu<T = f32> {
    negative_slope: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> LeakyRelu<T> {
    /// a = 0.01.
    pub fn new() -> Self {
        Self { negative_slope: 0.01, of: PhantomData }
    }

    /// Sets the slope a for x ≤ 0.
    #[must_use]
    pub fn negative_slope(mut self, slope: f64) -> Self {
        self.negative_slope = slope;
        self
    }
}

impl<T: Scalar> Default for LeakyRelu<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for LeakyRelu<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        if x > T::ZERO { x } else { T::from_f64(self.negative_slope) * x }
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let slope = if x > T::ZERO { T::ONE } else { T::from_f64(self.negative_slope) };
        if x.is_nan() { x } else { slope }
    }
}

impl<T: Scalar> Settings for LeakyRelu<T> {
    fn check_settings(&self) -> Result<()> {
        finite("LeakyRelu", "negative_slope", self.negative_slope)
    }

    fn settings(&self) -> Spec {
        Spec::new("LeakyRelu").with("negative_slope", self.negative_slope)
    }
}

pointwise!(LeakyRelu, slope of x);

impl<T: Scalar> FromSpec<T> for LeakyRelu<T> {
    const FACTS: Facts = Facts::new("LeakyRelu")
        .family("activation")
        .formula("max(x, 0) + a min(x, 0)")
        .page("layers/activation/leaky_relu.md")
        .torch("LeakyReLU");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.or("inplace", false)?; // ignored: containers decide
        Ok(Self::new().negative_slope(args.or("negative_slope", 0.01)?))
    }

    fn examples() -> Vec<Example> {
        examples([Self::new(), Self::new().negative_slope(-0.5)])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::activation::tests::assert_by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), slope in -1.0..1.5) {
            layer: LeakyRelu::new().negative_slope(slope),
            input: shape,
        }
    }

    /// With a = ½ at −2, 0 and 3: y = −1, 0, 3 and y' = ½, ½, 1. For g = 5: ∂x = 2.5, 2.5, 5.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            LeakyRelu::new().negative_slope(0.5),
            [-2.0, 0.0, 3.0],
            [-1.0, 0.0, 3.0],
            [2.5, 2.5, 5.0],
        );
    }
}
