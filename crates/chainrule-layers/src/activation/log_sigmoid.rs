//! The logarithm of the logistic function.
//!
//! ```text
//! y = ln σ(x) = min(x, 0) − ln(1 + e^−|x|)
//! ∂E/∂x = ∂E/∂y σ(−x)
//! ```
//!
//! Smooth; NaN propagates, in both directions. Stores nothing. Derivation: docs/layers/activation/log_sigmoid.md.

use super::pointwise::{Pointwise, Settings, examples, pointwise};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = ln σ(x) = −ln(1 + e⁻ˣ).
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::LogSigmoid;
/// let y = LogSigmoid::new().infer(&Tensor::from([-90.0f32, 0.0]))?;
/// assert_eq!(y.data(), [-90.0, -(2f32.ln())]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct LogSigmoid<T = f32>(PhantomData<T>);

impl<T: Scalar> LogSigmoid<T> {
    /// ln σ(x).
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for LogSigmoid<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for LogSigmoid<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        let below = if x < T::ZERO { x } else { T::ZERO };
        let y = below - x.abs().v_exp_neg::<FMA>().v_ln_1p::<FMA>();
        if x.is_nan() { x } else { y }
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        (-x).v_sigmoid::<FMA>()
    }
}

impl<T: Scalar> Settings for LogSigmoid<T> {
    fn settings(&self) -> Spec {
        Spec::new("LogSigmoid")
    }
}

pointwise!(LogSigmoid, slope of x);

impl<T: Scalar> FromSpec<T> for LogSigmoid<T> {
    const FACTS: Facts = Facts::new("LogSigmoid")
        .family("activation")
        .formula("ln σ(x)")
        .page("layers/activation/log_sigmoid.md")
        .torch("LogSigmoid");

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
            layer: LogSigmoid::new(),
            input: shape,
        }
    }

    /// σ(0) = ½, σ(ln 3) = ¾, σ(−ln 3) = ¼. At 0, ln 3 and −ln 3: y = −ln 2, ln ¾, −ln 4 and y' = ½, ¼, ¾. For g = 5: ∂x = 2.5, 1.25, 3.75.
    #[test]
    pub fn by_hand() {
        let (l, m) = (std::f64::consts::LN_2, 3f64.ln());
        assert_by_hand(LogSigmoid::new(), [0.0, m, -m], [-l, m - 2.0 * l, -2.0 * l], [2.5, 1.25, 3.75]);
    }
}
