//! The exponential linear unit (Clevert, Unterthiner and Hochreiter, 2016).
//!
//! ```text
//! y = x for x > 0, α (eˣ − 1) otherwise
//! ∂E/∂x = ∂E/∂y (1 for x > 0, α eˣ otherwise)
//! ```
//!
//! Stores nothing. Derivation: docs/layers/activation/elu.md.

use super::{
    finite,
    pointwise::{Pointwise, Settings, examples, pointwise},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = x for x > 0 and α (eˣ − 1) otherwise; α = 1 by default.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Elu;
/// let y = Elu::new().infer(&Tensor::from([-30.0f32, 2.0]))?;
/// assert_eq!(y.data(), [-1.0, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Elu<T = f32> {
    alpha: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> Elu<T> {
    /// α = 1.
    pub fn new() -> Self {
        Self { alpha: 1.0, of: PhantomData }
    }

    /// Sets α: y tends to −α as x → −∞.
    #[must_use]
    pub fn alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }
}

impl<T: Scalar> Default for Elu<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Elu<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        let alpha = T::from_f64(self.alpha);
        if x > T::ZERO { x } else { alpha * (-x).v_exp_m1_neg::<FMA>() }
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let alpha = T::from_f64(self.alpha);
        if x > T::ZERO { T::ONE } else { alpha * (-x).v_exp_neg::<FMA>() }
    }
}

impl<T: Scalar> Settings for Elu<T> {
    fn check_settings(&self) -> Result<()> {
        finite("Elu", "alpha", self.alpha)
    }

    fn settings(&self) -> Spec {
        Spec::new("Elu").with("alpha", self.alpha)
    }
}

pointwise!(Elu, slope of x);

impl<T: Scalar> FromSpec<T> for Elu<T> {
    const FACTS: Facts = Facts::new("Elu")
        .family("activation")
        .formula("x for x > 0, α (eˣ − 1) otherwise")
        .page("layers/activation/elu.md")
        .torch("ELU");

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
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), alpha in -2.0..2.0) {
            layer: Elu::new().alpha(alpha),
            input: shape,
        }
    }

    /// With α = 2 at −ln 2, 0 and 3: y = 2(½ − 1) = −1, 0, 3 and y' = 2·½ = 1, 2, 1. For g = 5: ∂x = 5, 10, 5.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            Elu::new().alpha(2.0),
            [-std::f64::consts::LN_2, 0.0, 3.0],
            [-1.0, 0.0, 3.0],
            [5.0, 10.0, 5.0],
        );
    }
}
