//! Softplus, a smooth rectifier (Dugas, Bengio, Bélisle, Nadeau and Garcia, 2001).
//!
//! ```text
//! y = ln(1 + exp(βx))/β,   and y = x where βx exceeds the threshold
//! ∂E/∂x = ∂E/∂y σ(βx),         and ∂E/∂y there
//! ```
//!
//! Stores nothing. Derivation: docs/layers/activation/softplus.md.

use super::{
    finite, nonzero,
    pointwise::{Pointwise, Settings, examples, pointwise},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = ln(1 + exp(βx))/β, and y = x where βx > 20; β = 1 by default.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Softplus;
/// let y = Softplus::new().infer(&Tensor::from([30.0f32, 0.0]))?;
/// assert_eq!(y.data(), [30.0, 2f32.ln()]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Softplus<T = f32> {
    beta: f64,
    threshold: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> Softplus<T> {
    /// β = 1, threshold 20.
    pub fn new() -> Self {
        Self { beta: 1.0, threshold: 20.0, of: PhantomData }
    }

    /// Sets β; the larger, the closer to max(x, 0).
    #[must_use]
    pub fn beta(mut self, beta: f64) -> Self {
        self.beta = beta;
        self
    }

    /// Sets the threshold: y = x where βx exceeds it.
    #[must_use]
    pub fn threshold(mut self, threshold: f64) -> Self {
        self.threshold = threshold;
        self
    }
}

impl<T: Scalar> Default for Softplus<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Softplus<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        let (beta, threshold) = (T::from_f64(self.beta), T::from_f64(self.threshold));
        let z = beta * x;
        let above = if z > T::ZERO { z } else { T::ZERO };
        let soft = (above + z.abs().v_exp_neg::<FMA>().v_ln_1p::<FMA>()) / beta; // ln(1 + eᶻ) = max(z, 0) + ln(1 + e^−|z|)
        if z > threshold || x.is_nan() { x } else { soft }
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let (beta, threshold) = (T::from_f64(self.beta), T::from_f64(self.threshold));
        let z = beta * x;
        if z > threshold { T::ONE } else { z.v_sigmoid::<FMA>() }
    }
}

impl<T: Scalar> Settings for Softplus<T> {
    fn check_settings(&self) -> Result<()> {
        finite("Softplus", "beta", self.beta)?;
        finite("Softplus", "threshold", self.threshold)?;
        nonzero("Softplus", "beta", self.beta)
    }

    fn settings(&self) -> Spec {
        Spec::new("Softplus").with("beta", self.beta).with("threshold", self.threshold)
    }
}

pointwise!(Softplus, slope of x);

impl<T: Scalar> FromSpec<T> for Softplus<T> {
    const FACTS: Facts = Facts::new("Softplus")
        .family("activation")
        .formula("ln(1 + exp(βx))/β")
        .page("layers/activation/softplus.md")
        .torch("Softplus");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().beta(args.or("beta", 1.0)?).threshold(args.or("threshold", 20.0)?))
    }

    fn examples() -> Vec<Example> {
        examples([Self::new(), Self::new().beta(2.0).threshold(1.0)])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::activation::tests::assert_by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), beta in prop_oneof![-3.0..-0.2, 0.2..3.0], threshold in prop_oneof![Just(20.0), 0.5..40.0]) {
            layer: Softplus::new().beta(beta).threshold(threshold),
            input: shape,
        }
    }

    /// With β = 2 at 0 and ½ ln 3: y = ½ ln 2 and ½ ln 4; y' = σ(0) = ½ and σ(ln 3) = ¾. For g = 5: ∂x = 2.5, 3.75.
    /// At 30, βx = 60 exceeds 20: y = 30 and ∂x = 5.
    #[test]
    pub fn by_hand() {
        let l = std::f64::consts::LN_2;
        assert_by_hand(
            Softplus::new().beta(2.0),
            [0.0, 0.5 * 3f64.ln(), 30.0],
            [0.5 * l, l, 30.0],
            [2.5, 3.75, 5.0],
        );
    }
}
