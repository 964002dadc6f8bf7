//! Mish (Misra, 2019).
//!
//! ```text
//! y = x t,   t = tanh ln(1 + eˣ)
//! ∂E/∂x = ∂E/∂y (t + x (1 − t²) σ(x))
//! ```
//!
//! Smooth; NaN propagates, in both directions. Stores nothing. Derivation: docs/layers/activation/mish.md.

use super::pointwise::{Pointwise, Settings, above, examples, pointwise, within};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = x tanh ln(1 + eˣ).
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Mish;
/// let y = Mish::new().infer(&Tensor::from([-200.0f32, 0.0, 30.0]))?;
/// assert_eq!(y.data(), [0.0, 0.0, 30.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Mish<T = f32>(PhantomData<T>);

impl<T: Scalar> Mish<T> {
    /// x tanh ln(1 + eˣ).
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for Mish<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// (t, 1 − t, σ) with t = tanh ln(1 + eˣ) = n/(n + 2) for n = eˣ (eˣ + 2), by e⁻|ˣ|, which does not overflow. σ = σ(x).
#[inline(always)]
fn parts<const FMA: bool, T: Scalar>(x: T) -> (T, T, T) {
    let e = x.abs().v_exp_neg::<FMA>();
    let (two, ee) = (T::ONE + T::ONE, e * e);
    let negative = x < T::ZERO;
    let n = if negative { ee + two * e } else { T::ONE + two * e }; // times e⁻²ˣ for x ≥ 0
    let rest = if negative { two } else { two * ee };
    let d = n + rest;
    (n / d, rest / d, (if negative { e } else { T::ONE }) / (T::ONE + e))
}

impl<T: Scalar> Pointwise<T> for Mish<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        above(x) * parts::<FMA, T>(x).0
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let (t, rest, sigmoid) = parts::<FMA, T>(x);
        t + within(x) * rest * (T::ONE + t) * sigmoid // 1 − t² = (1 − t)(1 + t)
    }
}

impl<T: Scalar> Settings for Mish<T> {
    fn settings(&self) -> Spec {
        Spec::new("Mish")
    }
}

pointwise!(Mish, slope of x);

impl<T: Scalar> FromSpec<T> for Mish<T> {
    const FACTS: Facts = Facts::new("Mish")
        .family("activation")
        .formula("x tanh ln(1 + eˣ)")
        .page("layers/activation/mish.md")
        .torch("Mish");

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
            layer: Mish::new(),
            input: shape,
        }
    }

    /// n = eˣ (eˣ + 2), t = n/(n + 2). At 0: n = 3, t = 3/5, y' = t. At ln 2: n = 8, t = 4/5, σ = 2/3, y' = 4/5 + ln 2 (1 − 16/25)(2/3).
    /// At −ln 2: n = 5/4, t = 5/13, σ = 1/3, y' = 5/13 − ln 2 (1 − 25/169)/3. For g = 5: ∂x = 5 y'.
    #[test]
    pub fn by_hand() {
        let l = std::f64::consts::LN_2;
        assert_by_hand(
            Mish::new(),
            [0.0, l, -l],
            [0.0, 0.8 * l, -5.0 / 13.0 * l],
            [3.0, 5.0 * (0.8 + l * 0.24), 5.0 * (5.0 / 13.0 - l * 48.0 / 169.0)],
        );
    }
}
