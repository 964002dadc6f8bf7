//! The threshold: what is not above it becomes a constant.
//!
//! ```text
//! y = x for x > θ, v otherwise
//! ∂E/∂x = ∂E/∂y [x > θ]
//! ```
//!
//! At the jump θ the slope is 0; NaN propagates, in both directions. Stores nothing. Derivation:
//! docs/layers/activation/threshold.md.

use super::{
    finite,
    pointwise::{Pointwise, Settings, examples, pointwise},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = x for x > θ and v otherwise.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Threshold;
/// let y = Threshold::new(0.5, -1.0).infer(&Tensor::from([0.25f32, 2.0]))?;
/// assert_eq!(y.data(), [-1.0, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Threshold<T = f32> {
    threshold: f64,
    value: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> Threshold<T> {
    /// The threshold θ, and the value v of all that is not above it.
    pub fn new(threshold: f64, value: f64) -> Self {
        Self { threshold, value, of: PhantomData }
    }
}

impl<T: Scalar> Pointwise<T> for Threshold<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        if x <= T::from_f64(self.threshold) { T::from_f64(self.value) } else { x }
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let slope = if x > T::from_f64(self.threshold) { T::ONE } else { T::ZERO };
        if x.is_nan() { x } else { slope }
    }
}

impl<T: Scalar> Settings for Threshold<T> {
    fn check_settings(&self) -> Result<()> {
        finite("Threshold", "threshold", self.threshold)?;
        finite("Threshold", "value", self.value)
    }

    fn settings(&self) -> Spec {
        Spec::new("Threshold").with("threshold", self.threshold).with("value", self.value)
    }
}

pointwise!(Threshold, slope of x);

impl<T: Scalar> FromSpec<T> for Threshold<T> {
    const FACTS: Facts = Facts::new("Threshold")
        .family("activation")
        .formula("x for x > θ, v otherwise")
        .page("layers/activation/threshold.md")
        .torch("Threshold");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.or("inplace", false)?; // ignored: containers decide
        Ok(Self::new(args.get("threshold")?, args.get("value")?))
    }

    fn examples() -> Vec<Example> {
        examples([Self::new(0.1, 20.0), Self::new(0.0, -0.5)])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::activation::tests::assert_by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), threshold in -1.0..1.0, value in -2.0..2.0) {
            layer: Threshold::new(threshold, value),
            input: shape,
        }
    }

    /// With θ = 1 and v = 20 at −2, 1 and 3: y = 20, 20, 3 and y' = 0, 0, 1. For g = 5: ∂x = 0, 0, 5.
    #[test]
    pub fn by_hand() {
        assert_by_hand(Threshold::new(1.0, 20.0), [-2.0, 1.0, 3.0], [20.0, 20.0, 3.0], [0.0, 0.0, 5.0]);
    }
}
