//! The scaled exponential linear unit (Klambauer, Unterthiner, Mayr and Hochreiter, 2017).
//!
//! ```text
//! y = λ x for x > 0, λ α (eˣ − 1) otherwise,   α = 1.6732632423543772, λ = 1.0507009873554805
//! ∂E/∂x = ∂E/∂y (λ for x > 0, λ α eˣ otherwise)
//! ```
//!
//! At 0 the slope is the left one, λ α; NaN propagates, in both directions. Stores nothing. Derivation:
//! docs/layers/activation/selu.md.

use super::pointwise::{Pointwise, Settings, examples, pointwise};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// λ, and α λ: with them mean 0 and variance 1 are a fixed point of a layer of independent inputs.
const SCALE: f64 = 1.050_700_987_355_480_5;
const ALPHA_SCALE: f64 = 1.673_263_242_354_377_2 * SCALE;

/// y = λ x for x > 0 and λ α (eˣ − 1) otherwise, with the λ and α that keep the mean at 0 and the variance at 1.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Selu;
/// let y = Selu::new().infer(&Tensor::from([0.0f32, 1.0]))?;
/// assert_eq!(y.data(), [0.0, 1.050701]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Selu<T = f32>(PhantomData<T>);

impl<T: Scalar> Selu<T> {
    /// The constants of the paper.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Scalar> Default for Selu<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Selu<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        let (scale, alpha) = (T::from_f64(SCALE), T::from_f64(ALPHA_SCALE));
        if x > T::ZERO { scale * x } else { alpha * (-x).v_exp_m1_neg::<FMA>() }
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let (scale, alpha) = (T::from_f64(SCALE), T::from_f64(ALPHA_SCALE));
        if x > T::ZERO { scale } else { alpha * (-x).v_exp_neg::<FMA>() }
    }
}

impl<T: Scalar> Settings for Selu<T> {
    fn settings(&self) -> Spec {
        Spec::new("Selu")
    }
}

pointwise!(Selu, slope of x);

impl<T: Scalar> FromSpec<T> for Selu<T> {
    const FACTS: Facts = Facts::new("Selu")
        .family("activation")
        .formula("λ x for x > 0, λ α (eˣ − 1) otherwise")
        .page("layers/activation/selu.md")
        .torch("SELU");

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
            layer: Selu::new(),
            input: shape,
        }
    }

    /// λ α = 1.7580993408473766. At −ln 2: y = λ α (½ − 1) and y' = λ α/2; at 0: y = 0 and y' = λ α; at 2: y = 2 λ and y' = λ.
    /// For g = 5: ∂x = 2.5 λ α, 5 λ α, 5 λ.
    #[test]
    pub fn by_hand() {
        let (scale, alpha) = (1.0507009873554805, 1.7580993408473766);
        assert_by_hand(
            Selu::new(),
            [-std::f64::consts::LN_2, 0.0, 2.0],
            [-0.5 * alpha, 0.0, 2.0 * scale],
            [2.5 * alpha, 5.0 * alpha, 5.0 * scale],
        );
    }
}
