//! Additive Gaussian noise.
//!
//! ```text
//! y = x + σ n,   n standard normal        ∂E/∂x = ∂E/∂y
//! ```
//!
//! In inference y = x. Nothing of the noise is needed in backward. Derivation: docs/layers/noise/gaussian_noise.md.

use super::noisy::{Noisy, noisy};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Layer, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::{elementwise::copy, layers::noise::normal};
use std::marker::PhantomData;

/// In training, y = x + σ n with a standard normal n for each element.
///
/// The noise is drawn as the mask of [`Dropout`](crate::Dropout) is. Sietsma and Dow, 1991.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::GaussianNoise;
/// let x = Tensor::from([1.0f32, 2.0, 3.0]);
/// assert_eq!(GaussianNoise::new(0.1).infer(&x)?, x);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct GaussianNoise<T = f32> {
    std: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> GaussianNoise<T> {
    /// Noise of the standard deviation σ.
    pub fn new(std: f64) -> Self {
        Self { std, of: PhantomData }
    }
}

impl<T: Scalar> Noisy<T> for GaussianNoise<T> {
    fn check_settings(&self) -> Result<()> {
        if self.std >= 0.0 && self.std.is_finite() {
            return Ok(());
        }
        Err(Error::value(format!("GaussianNoise: expected a finite std ≥ 0, got {}", self.std)))
    }

    fn is_off(&self) -> bool {
        self.std == 0.0
    }

    fn scaled(&self, by: f64) -> Self {
        Self { std: self.std * by, ..*self }
    }

    fn noise(&self, _: &Shape, x: &[T], y: &mut [T], key: u64) {
        normal(x, y, key, self.std, false); // y = x + σ n
    }

    fn noise_gradient(&self, _: &Shape, dy: &[T], dx: &mut [T], _: u64) {
        copy(dy, dx); // dx = dy
    }

    fn settings(&self) -> Spec {
        Spec::new("GaussianNoise").with("std", self.std)
    }
}

noisy!(GaussianNoise);

impl<T: Scalar> FromSpec<T> for GaussianNoise<T> {
    const FACTS: Facts =
        Facts::new("GaussianNoise").family("noise").formula("x + σ n").page("layers/noise/gaussian_noise.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("std")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(0.1).spec(), [[3, 5]]),
            Example::new(Self::new(0.0).spec(), [[2, 3, 4]]),
            Example::bench(Self::new(0.1).spec(), [[4096, 256]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::noise::noisy::tests::{assert_drawn_in_training_alone, pass};
    use chainrule_core::Context;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(std in prop_oneof![Just(0.0), 0.0..2.0f64], shape in collection::vec(1..6usize, 0..4)) {
            layer: GaussianNoise::new(std),
            input: shape,
        }
    }

    /// The same noise for another σ and x: (y − x)/σ of x = 3, σ = ½ and of x = −1, σ = 2 are equal. g = 2 gives 2.
    #[test]
    pub fn by_hand() {
        let (a, dx) = pass(GaussianNoise::new(0.5), [40], 3.0, Context::train(3));
        let (b, _) = pass(GaussianNoise::new(2.0), [40], -1.0, Context::train(3));
        assert_eq!(dx, [2.0; 40]);
        for (a, b) in a.into_iter().zip(b) {
            let n = (a - 3.0) / 0.5;
            assert!(n != 0.0 && (n - (b + 1.0) / 2.0).abs() < 1e-12 && n.abs() < 5.78, "{a} {b}");
        }
    }

    #[test]
    fn it_is_drawn_in_training_alone() {
        assert_drawn_in_training_alone(|| GaussianNoise::new(0.4), [40]);
        for std in [-0.1, f64::NAN, f64::INFINITY] {
            assert!(GaussianNoise::<f32>::new(std).check().is_err());
        }
    }
}
