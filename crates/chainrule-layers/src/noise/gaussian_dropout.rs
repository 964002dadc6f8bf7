//! Multiplicative Gaussian noise (Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, 2014).
//!
//! ```text
//! y = x ⊙ (1 + s n),   n standard normal,   s = √(r/(1 − r))        ∂E/∂x = ∂E/∂y ⊙ (1 + s n)
//! ```
//!
//! In inference y = x. Stores the key of its noise. Derivation: docs/layers/noise/gaussian_dropout.md.

use super::noisy::{Noisy, noisy};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Layer, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::noise::normal;
use std::marker::PhantomData;

/// In training, y = x (1 + √(r/(1 − r)) n) with a standard normal n for each element: the mean and the variance of
/// [`Dropout`](crate::Dropout) of probability r, without zeros.
///
/// The noise is drawn as the mask of [`Dropout`](crate::Dropout) is.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::GaussianDropout;
/// let x = Tensor::from([1.0f32, 2.0, 3.0]);
/// assert_eq!(GaussianDropout::new(0.5).infer(&x)?, x);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct GaussianDropout<T = f32> {
    rate: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> GaussianDropout<T> {
    /// Noise of the variance of dropout with this probability, in [0, 1).
    pub fn new(rate: f64) -> Self {
        Self { rate, of: PhantomData }
    }
}

impl<T: Scalar> Noisy<T> for GaussianDropout<T> {
    fn check_settings(&self) -> Result<()> {
        if (0.0..1.0).contains(&self.rate) {
            return Ok(());
        }
        Err(Error::value(format!("GaussianDropout: expected a rate in [0, 1), got {}", self.rate)))
    }

    fn is_off(&self) -> bool {
        self.rate == 0.0
    }

    fn scaled(&self, by: f64) -> Self {
        Self { rate: self.rate * by, ..*self }
    }

    fn noise(&self, _: &Shape, x: &[T], y: &mut [T], key: u64) {
        normal(x, y, key, (self.rate / (1.0 - self.rate)).sqrt(), true); // y = x ⊙ (1 + s n), dx = dy ⊙ (1 + s n)
    }

    fn settings(&self) -> Spec {
        Spec::new("GaussianDropout").with("rate", self.rate)
    }
}

noisy!(GaussianDropout);

impl<T: Scalar> FromSpec<T> for GaussianDropout<T> {
    const FACTS: Facts = Facts::new("GaussianDropout")
        .family("noise")
        .formula("x ⊙ (1 + √(r/(1 − r)) n)")
        .page("layers/noise/gaussian_dropout.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("rate")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(0.5).spec(), [[3, 5]]),
            Example::new(Self::new(0.0).spec(), [[2, 3, 4]]),
            Example::bench(Self::new(0.5).spec(), [[4096, 256]]),
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
        obeys_the_laws(rate in prop_oneof![Just(0.0), 0.0..0.9f64], shape in collection::vec(1..6usize, 0..4)) {
            layer: GaussianDropout::new(rate),
            input: shape,
        }
    }

    /// r = ½ gives s = 1 and r = 4/5 gives s = 2. y/3 and ∂x/2 of x = 3 and g = 2 are 1 + s n, with the same n for both r.
    #[test]
    pub fn by_hand() {
        let (y, dx) = pass(GaussianDropout::new(0.5), [40], 3.0, Context::train(3));
        let (z, _) = pass(GaussianDropout::new(0.8), [40], 3.0, Context::train(3));
        for ((y, dx), z) in y.into_iter().zip(dx).zip(z) {
            let n = y / 3.0 - 1.0;
            assert!(n != 0.0 && (dx / 2.0 - (1.0 + n)).abs() < 1e-12, "{y} {dx}");
            assert!((z / 3.0 - (1.0 + 2.0 * n)).abs() < 1e-12, "{y} {z}");
        }
    }

    #[test]
    fn it_is_drawn_in_training_alone() {
        assert_drawn_in_training_alone(|| GaussianDropout::new(0.4), [40]);
        for rate in [-0.1, 1.0, f64::NAN] {
            assert!(GaussianDropout::<f32>::new(rate).check().is_err());
        }
    }
}
