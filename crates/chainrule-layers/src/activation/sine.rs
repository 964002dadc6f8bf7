//! The sine, with which networks represent signals (Sitzmann, Martel, Bergman, Lindell and Wetzstein, 2020).
//!
//! ```text
//! y = sin(ω x)
//! ∂E/∂x = ∂E/∂y ω cos(ω x)
//! ```
//!
//! Smooth; NaN propagates, in both directions. Stores nothing. Derivation: docs/layers/activation/sine.md.

use super::{
    finite,
    pointwise::{Pointwise, Settings, examples, pointwise},
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar, Spec};
use chainrule_tensor::kernels::math::sin_cos;
use std::marker::PhantomData;

/// y = sin(ω x); ω = 30 by default.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Sine;
/// let y = Sine::new().omega(2.0).infer(&Tensor::from([0.0f32, std::f32::consts::FRAC_PI_4]))?;
/// assert_eq!(y.data(), [0.0, 1.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Sine<T = f32> {
    omega: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> Sine<T> {
    /// ω = 30.
    pub fn new() -> Self {
        Self { omega: 30.0, of: PhantomData }
    }

    /// Sets ω, the frequency that is ω₀ in the paper.
    #[must_use]
    pub fn omega(mut self, omega: f64) -> Self {
        self.omega = omega;
        self
    }
}

impl<T: Scalar> Default for Sine<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Sine<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        sin_cos::<T, FMA>(T::from_f64(self.omega) * x).0
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, x: T) -> T {
        let omega = T::from_f64(self.omega);
        omega * sin_cos::<T, FMA>(omega * x).1
    }
}

impl<T: Scalar> Settings for Sine<T> {
    fn check_settings(&self) -> Result<()> {
        finite("Sine", "omega", self.omega)
    }

    fn settings(&self) -> Spec {
        Spec::new("Sine").with("omega", self.omega)
    }
}

pointwise!(Sine, slope of x);

impl<T: Scalar> FromSpec<T> for Sine<T> {
    const FACTS: Facts =
        Facts::new("Sine").family("activation").formula("sin(ω x)").page("layers/activation/sine.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().omega(args.or("omega", 30.0)?))
    }

    fn examples() -> Vec<Example> {
        examples([Self::new(), Self::new().omega(1.5)])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::activation::tests::assert_by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), omega in -5.0..30.0) {
            layer: Sine::new().omega(omega),
            input: shape,
        }
    }

    /// With ω = 2 at π/12, 0 and π/4: ω x = π/6, 0, π/2, y = ½, 0, 1 and y' = 2 cos(ω x) = √3, 2, 0. For g = 5: ∂x = 5 √3, 10, 0.
    #[test]
    pub fn by_hand() {
        use std::f64::consts::{FRAC_PI_4, PI};
        assert_by_hand(
            Sine::new().omega(2.0),
            [PI / 12.0, 0.0, FRAC_PI_4],
            [0.5, 0.0, 1.0],
            [5.0 * 3f64.sqrt(), 10.0, 0.0],
        );
    }
}
