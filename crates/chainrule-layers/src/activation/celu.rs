//! The continuously differentiable exponential linear unit (Barron, 2017).
//!
//! ```text
//! y = x for x > 0, α (exp(x/α) − 1) otherwise
//! ∂E/∂x = ∂E/∂y (1 for x > 0, exp(x/α) otherwise)
//! ```
//!
//! At 0 both sides have the slope 1; NaN propagates, in both directions. Stores nothing. Derivation:
//! docs/layers/activation/celu.md.

use super::{
    finite, nonzero,
    pointwise::{Pointwise, Settings, examples, pointwise},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = x for x > 0 and α (exp(x/α) − 1) otherwise; α = 1 by default.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Celu;
/// let y = Celu::new().alpha(2.0).infer(&Tensor::from([-80.0f32, 2.0]))?;
/// assert_eq!(y.data(), [-2.0, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Celu<T = f32> {
    alpha: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> Celu<T> {
    /// α = 1.
    pub fn new() -> Self {
        Self { alpha: 1.0, of: PhantomData }
    }

    /// Sets α, other than 0: for α > 0, y tends to −α as x → −∞.
    #[must_use]
    pub fn alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }
}

impl<T: Scalar> Default for Celu<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Celu<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        let alpha = T::from_f64(self.alpha);
        if x > T::ZERO { x } else { alpha * (x / alpha).v_exp_m1::<FMA>() }
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let alpha = T::from_f64(self.alpha);
        if x > T::ZERO { T::ONE } else { (x / alpha).v_exp::<FMA>() }
    }
}

impl<T: Scalar> Settings for Celu<T> {
    fn check_settings(&self) -> Result<()> {
        finite("Celu", "alpha", self.alpha)?;
        nonzero("Celu", "alpha", self.alpha)
    }

    fn settings(&self) -> Spec {
        Spec::new("Celu").with("alpha", self.alpha)
    }
}

pointwise!(Celu, slope of x);

impl<T: Scalar> FromSpec<T> for Celu<T> {
    const FACTS: Facts = Facts::new("Celu")
        .family("activation")
        .formula("x for x > 0, α (exp(x/α) − 1) otherwise")
        .page("layers/activation/celu.md")
        .torch("CELU");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.or("inplace", false)?; // ignored: containers decide
        Ok(Self::new().alpha(args.or("alpha", 1.0)?))
    }

    fn examples() -> Vec<Example> {
        examples([Self::new(), Self::new().alpha(0.5)])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::activation::tests::assert_by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), alpha in prop_oneof![-3.0..-0.3, 0.3..3.0]) {
            layer: Celu::new().alpha(alpha),
            input: shape,
        }
    }

    /// With α = 2 at −2 ln 2, 0 and 3: y = 2(½ − 1) = −1, 0, 3 and y' = ½, 1, 1. For g = 5: ∂x = 2.5, 5, 5.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            Celu::new().alpha(2.0),
            [-2.0 * std::f64::consts::LN_2, 0.0, 3.0],
            [-1.0, 0.0, 3.0],
            [2.5, 5.0, 5.0],
        );
    }
}
