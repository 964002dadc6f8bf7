//! The Gaussian error linear unit (Hendrycks and Gimpel, 2016).
//!
//! ```text
//! y = x Φ(x),   Φ(x) = ½ (1 + erf(x/√2))
//! ∂E/∂x = ∂E/∂y (Φ(x) + x φ(x)),   φ(x) = exp(−x²/2)/√(2π)
//!
//! Approximate:   y = ½ x (1 + t),   t = tanh u,   u = √(2/π) (x + 0.044715 x³)
//! ∂E/∂x = ∂E/∂y (½ (1 + t) + ½ x (1 − t²) √(2/π) (1 + 3·0.044715 x²))
//! ```
//!
//! Stores nothing. Derivation: docs/layers/activation/gelu.md.

use super::pointwise::{self, Pointwise, above, within};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
    text,
};
use chainrule_tensor::compiled;
use std::{
    f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI},
    marker::PhantomData,
};

/// y = x Φ(x), where Φ is the cumulative distribution function of the standard normal; exact by default.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Gelu;
/// let y = Gelu::new().infer(&Tensor::from([-30.0f32, 0.0, 30.0]))?;
/// assert_eq!(y.data(), [0.0, 0.0, 30.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Gelu<T = f32> {
    tanh: bool,
    of: PhantomData<T>,
}

impl<T: Scalar> Gelu<T> {
    /// The exact function.
    pub fn new() -> Self {
        Self { tanh: false, of: PhantomData }
    }

    /// The approximation by tanh, with which networks of the GPT-2 family were trained.
    #[must_use]
    pub fn approximate_tanh(mut self) -> Self {
        self.tanh = true;
        self
    }
}

impl<T: Scalar> Default for Gelu<T> {
    fn default() -> Self {
        Self::new()
    }
}

compiled! {
    fn forward[T](f: Gelu<T>, x: &Tensor<T>, y: &mut Tensor<T>) {
        match f.tanh {
            true => pointwise::forward(ByTanh, x, y),
            false => pointwise::forward(Exact, x, y),
        }
    }
}

compiled! {
    fn backward[T](f: Gelu<T>, call: Call<'_, T>, dx: &mut Tensor<T>) {
        match f.tanh {
            true => pointwise::backward(ByTanh, call.x, call, dx),
            false => pointwise::backward(Exact, call.x, call, dx),
        }
    }
}

impl<T: Scalar> Layer for Gelu<T> {
    type T = T;
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        forward(*self, x, y);
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if let Some(dx) = dx {
            backward(*self, call, dx);
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new("Gelu").with("approximate", if self.tanh { "tanh" } else { "none" })
    }
}

impl<T: Scalar> FromSpec<T> for Gelu<T> {
    const FACTS: Facts = Facts::new("Gelu")
        .family("activation")
        .formula("x Φ(x)")
        .page("layers/activation/gelu.md")
        .torch("GELU");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(if by_tanh("Gelu", args)? { Self::new().approximate_tanh() } else { Self::new() })
    }

    fn examples() -> Vec<Example> {
        pointwise::examples([Self::new(), Self::new().approximate_tanh()])
    }
}

/// Whether a spec asks for the approximation by tanh.
pub(super) fn by_tanh<T: Scalar>(layer: &str, args: &Args<'_, T>) -> Result<bool> {
    match args.or("approximate", "none".to_owned())?.as_str() {
        "none" => Ok(false),
        "tanh" => Ok(true),
        other => {
            let other = text::quote(other);
            Err(Error::value(format!("{layer}: expected approximate none or tanh, got {other}")))
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Exact;

impl<T: Scalar> Pointwise<T> for Exact {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        T::from_f64(0.5) * above(x) * (T::ONE + (x * T::from_f64(FRAC_1_SQRT_2)).v_erf::<FMA>()) // x Φ(x)
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let (x, half) = (within(x), T::from_f64(0.5));
        let phi = T::from_f64(0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2) * (half * x * x).v_exp_neg::<FMA>();
        half * (T::ONE + (x * T::from_f64(FRAC_1_SQRT_2)).v_erf::<FMA>()) + x * phi // Φ + x φ
    }
}

#[derive(Clone, Copy)]
pub(super) struct ByTanh;

impl<T: Scalar> Pointwise<T> for ByTanh {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        T::from_f64(0.5) * above(x) * (T::ONE + inner(x).0.v_tanh::<FMA>())
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let (x, half) = (within(x), T::from_f64(0.5));
        let (u, du) = inner(x);
        let t = u.v_tanh::<FMA>();
        half * (T::ONE + t) + half * x * (T::ONE - t * t) * du
    }
}

/// (u, du/dx) of u = √(2/π) (x + 0.044715 x³).
#[inline(always)]
fn inner<T: Scalar>(x: T) -> (T, T) {
    let (a, c) = (T::from_f64(FRAC_2_SQRT_PI * FRAC_1_SQRT_2), T::from_f64(0.044715));
    let cxx = c * x * x;
    (a * x * (T::ONE + cxx), a * (T::ONE + cxx + cxx + cxx))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::activation::tests::assert_by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), tanh in any::<bool>()) {
            layer: if tanh { Gelu::new().approximate_tanh() } else { Gelu::new() },
            input: shape,
        }
    }

    /// Φ(0) = ½ and φ(0) = 1/√(2π): y = 0 and y' = ½. At 1, Φ = 0.841344746068543 and φ = 0.241970724519143: y = 0.841344746068543
    /// and y' = 1.083315470587686. For g = 5: ∂x = 2.5 and 5.41657735293843. Φ(−1) = 1 − Φ(1): y = −0.158655253931457,
    /// y' = 0.158655253931457 − 0.241970724519143.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            Gelu::new(),
            [0.0, 1.0, -1.0],
            [0.0, 0.841344746068543, -0.158655253931457],
            [2.5, 5.41657735293843, 5.0 * (0.158655253931457 - 0.241970724519143)],
        );
    }

    /// √(2/π) (1 + 0.044715) = 0.833562..., its tanh 0.682384...: y(1) = ½ (1 + 0.682384) = 0.841192.
    #[test]
    fn the_approximation_by_hand() {
        use chainrule_core::Module;
        let y = Gelu::new().approximate_tanh().infer(&Tensor::from([1.0f64])).unwrap();
        assert!((y.data()[0] - 0.841191990608).abs() < 1e-11);
    }
}
