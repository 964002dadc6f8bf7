//! Hard swish (Howard et al., 2019): swish with σ(x) replaced by straight lines.
//!
//! ```text
//! y = x h,   h = min(max(x + 3, 0), 6)/6
//! ∂E/∂x = ∂E/∂y s,   s = 0 for x ≤ −3,  1 for x ≥ 3,  (2x + 3)/6 between
//! ```
//!
//! At the kinks ±3 the slope is that of the outer side; NaN stays NaN. Stores nothing. Derivation:
//! docs/layers/activation/hardswish.md.

use super::pointwise::{Pointwise, Settings, examples, pointwise};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = x min(max(x + 3, 0), 6)/6.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Hardswish;
/// let y = Hardswish::new().infer(&Tensor::from([-4.0f32, 0.0, 1.5, 4.0]))?;
/// assert_eq!(y.data(), [0.0, 0.0, 1.125, 4.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Hardswish<T = f32>(PhantomData<T>);

impl<T: Scalar> Hardswish<T> {
    /// x min(max(x + 3, 0), 6)/6.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for Hardswish<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// `low` for x ≤ −3, `high` for x ≥ 3, `between` elsewhere and at NaN.
#[inline(always)]
fn pieces<T: Scalar>(x: T, low: T, between: T, high: T) -> T {
    let three = T::from_f64(3.0);
    if x <= -three {
        low
    } else if x >= three {
        high
    } else {
        between
    }
}

impl<T: Scalar> Pointwise<T> for Hardswish<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        pieces(x, T::ZERO, x * (x + T::from_f64(3.0)) / T::from_f64(6.0), x)
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        pieces(x, T::ZERO, (x + x + T::from_f64(3.0)) / T::from_f64(6.0), T::ONE)
    }
}

impl<T: Scalar> Settings for Hardswish<T> {
    fn settings(&self) -> Spec {
        Spec::new("Hardswish")
    }
}

pointwise!(Hardswish, slope of x);

impl<T: Scalar> FromSpec<T> for Hardswish<T> {
    const FACTS: Facts = Facts::new("Hardswish")
        .family("activation")
        .formula("x min(max(x + 3, 0), 6)/6")
        .page("layers/activation/hardswish.md")
        .torch("Hardswish");

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
    use chainrule_core::{Module, Tensor};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4)) {
            layer: Hardswish::new(),
            input: shape,
            values: Values::Uniform(-5.0..5.0),
        }
    }

    /// At −4, −3, 0, 1.5, 3 and 5: y = 0, 0, 0, 1.5·4.5/6 = 1.125, 3, 5 and y' = 0, 0, 3/6, 6/6, 1, 1. For g = 5: ∂x = 5 y'.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            Hardswish::new(),
            [-4.0, -3.0, 0.0, 1.5, 3.0, 5.0],
            [0.0, 0.0, 0.0, 1.125, 3.0, 5.0],
            [0.0, 0.0, 2.5, 5.0, 5.0, 5.0],
        );
    }

    #[test]
    fn infinities_have_their_limits_and_nan_stays() {
        let x = Tensor::from([f32::NEG_INFINITY, f32::INFINITY, f32::NAN]);
        let y = Hardswish::new().infer(&x).unwrap();
        assert_eq!(y.data()[..2], [0.0, f32::INFINITY]);
        assert!(y.data()[2].is_nan());
    }
}
