//! The hard tanh (Collobert, 2004): the identity within an interval, constant outside.
//!
//! ```text
//! y = min(max(x, a), b)
//! ∂E/∂x = ∂E/∂y [a < y < b]
//! ```
//!
//! At the kinks a and b the slope is 0; NaN propagates, in both directions. Stores nothing. Derivation:
//! docs/layers/activation/hardtanh.md.

use super::{
    finite,
    pointwise::{Pointwise, Settings, clamp, examples, inside, pointwise},
};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Spec};
use std::marker::PhantomData;

/// y = min(max(x, a), b); a = −1 and b = 1 by default.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Hardtanh;
/// let y = Hardtanh::new().infer(&Tensor::from([-2.0f32, 0.5, 3.0]))?;
/// assert_eq!(y.data(), [-1.0, 0.5, 1.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Hardtanh<T = f32> {
    min_val: f64,
    max_val: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> Hardtanh<T> {
    /// a = −1, b = 1.
    pub fn new() -> Self {
        Self { min_val: -1.0, max_val: 1.0, of: PhantomData }
    }

    /// Sets a, the smallest y.
    #[must_use]
    pub fn min_val(mut self, min_val: f64) -> Self {
        self.min_val = min_val;
        self
    }

    /// Sets b > a, the largest y.
    #[must_use]
    pub fn max_val(mut self, max_val: f64) -> Self {
        self.max_val = max_val;
        self
    }
}

impl<T: Scalar> Default for Hardtanh<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Pointwise<T> for Hardtanh<T> {
    #[inline(always)]
    fn value<const FMA: bool>(self, x: T) -> T {
        clamp(x, T::from_f64(self.min_val), T::from_f64(self.max_val))
    }

    #[inline(always)]
    fn slope<const FMA: bool>(self, y: T) -> T {
        inside(y, T::from_f64(self.min_val), T::from_f64(self.max_val))
    }
}

impl<T: Scalar> Settings for Hardtanh<T> {
    fn check_settings(&self) -> Result<()> {
        finite("Hardtanh", "min_val", self.min_val)?;
        finite("Hardtanh", "max_val", self.max_val)?;
        if self.min_val < self.max_val {
            return Ok(());
        }
        let (min, max) = (self.min_val, self.max_val);
        Err(Error::value(format!("Hardtanh: expected min_val < max_val, got {min} and {max}")))
    }

    fn settings(&self) -> Spec {
        Spec::new("Hardtanh").with("min_val", self.min_val).with("max_val", self.max_val)
    }
}

pointwise!(Hardtanh, slope of y);

impl<T: Scalar> FromSpec<T> for Hardtanh<T> {
    const FACTS: Facts = Facts::new("Hardtanh")
        .family("activation")
        .formula("min(max(x, a), b)")
        .page("layers/activation/hardtanh.md")
        .torch("Hardtanh");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.or("inplace", false)?; // ignored: containers decide
        Ok(Self::new().min_val(args.or("min_val", -1.0)?).max_val(args.or("max_val", 1.0)?))
    }

    fn examples() -> Vec<Example> {
        examples([Self::new(), Self::new().min_val(-0.5).max_val(2.0)])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::activation::tests::assert_by_hand;
    use chainrule_core::Layer;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4), min in -2.0..0.5, width in 0.1..3.0) {
            layer: Hardtanh::new().min_val(min).max_val(min + width),
            input: shape,
        }
    }

    /// With a = −2 and b = 3 at −4, −2, 1, 3 and 5: y = −2, −2, 1, 3, 3 and y' = 0, 0, 1, 0, 0. For g = 5: ∂x = 0, 0, 5, 0, 0.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            Hardtanh::new().min_val(-2.0).max_val(3.0),
            [-4.0, -2.0, 1.0, 3.0, 5.0],
            [-2.0, -2.0, 1.0, 3.0, 3.0],
            [0.0, 0.0, 5.0, 0.0, 0.0],
        );
    }

    #[test]
    fn an_empty_interval_is_an_error() {
        let text = Hardtanh::<f32>::new().min_val(2.0).check().unwrap_err().to_string();
        assert_eq!(text, "Hardtanh: expected min_val < max_val, got 2 and 1");
        assert!(Hardtanh::<f32>::new().max_val(f64::NAN).check().is_err());
    }
}
