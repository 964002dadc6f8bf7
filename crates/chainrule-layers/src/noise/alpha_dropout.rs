//! Alpha dropout (Klambauer, Unterthiner, Mayr and Hochreiter, 2017), for networks of [`Selu`](crate::Selu).
//!
//! ```text
//! y = a (x ⊙ m + α′ (1 − m)) + b,   m = 0 with probability p, 1 otherwise        ∂E/∂x = ∂E/∂y ⊙ a m
//! α′ = −λ α = −1.7580993408473766,   a = 1/√((1 − p)(1 + p α′²)),   b = −a p α′
//! ```
//!
//! In inference y = x. Stores the key of its noise. Derivation: docs/layers/noise/alpha_dropout.md.

use super::noisy::{Noisy, check_probability, noisy};
use chainrule_core::{Args, Example, Facts, FromSpec, Layer, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::noise::{Affine, mask};
use std::marker::PhantomData;

/// In training, each element is set to the limit −λ α of [`Selu`](crate::Selu) at −∞ with probability p; a scale and a shift keep mean 0
/// and variance 1.
///
/// The mask is drawn as that of [`Dropout`](crate::Dropout).
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::AlphaDropout;
/// let x = Tensor::from([1.0f32, 2.0, 3.0]);
/// assert_eq!(AlphaDropout::new(0.5).infer(&x)?, x);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct AlphaDropout<T = f32> {
    p: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> AlphaDropout<T> {
    /// Drops each element with probability `p`; everything, with 0 in its place, for p = 1.
    pub fn new(p: f64) -> Self {
        Self { p, of: PhantomData }
    }
}

/// −λ α
const LIMIT: f64 = -1.758_099_340_847_376_6;

/// What becomes of x: a x + b, or a α′ + b; 0 for p = 1, where a has no value.
pub(super) fn affine<T: Scalar>(p: f64) -> Affine<T> {
    if p >= 1.0 {
        return Affine { scale: T::ZERO, kept: T::ZERO, dropped: T::ZERO };
    }
    let a = 1.0 / ((1.0 - p) * (1.0 + p * LIMIT * LIMIT)).sqrt();
    let b = -a * p * LIMIT;
    Affine { scale: T::from_f64(a), kept: T::from_f64(b), dropped: T::from_f64(a * LIMIT + b) }
}

/// The same without its shifts, for gradients.
pub(super) fn linear<T: Scalar>(p: f64) -> Affine<T> {
    Affine { kept: T::ZERO, dropped: T::ZERO, ..affine(p) }
}

impl<T: Scalar> Noisy<T> for AlphaDropout<T> {
    fn check_settings(&self) -> Result<()> {
        check_probability("AlphaDropout", self.p)
    }

    fn is_off(&self) -> bool {
        self.p == 0.0
    }

    fn scaled(&self, by: f64) -> Self {
        Self { p: self.p * by, ..*self }
    }

    fn noise(&self, _: &Shape, x: &[T], y: &mut [T], key: u64) {
        mask(x, y, key, self.p, affine(self.p)); // y = a (x ⊙ m + α′ (1 − m)) + b
    }

    fn noise_gradient(&self, _: &Shape, dy: &[T], dx: &mut [T], key: u64) {
        mask(dy, dx, key, self.p, linear(self.p)); // dx = dy ⊙ a m
    }

    fn settings(&self) -> Spec {
        Spec::new("AlphaDropout").with("p", self.p)
    }
}

noisy!(AlphaDropout);

impl<T: Scalar> FromSpec<T> for AlphaDropout<T> {
    const FACTS: Facts = Facts::new("AlphaDropout")
        .family("noise")
        .formula("a (x ⊙ m + α′ (1 − m)) + b")
        .page("layers/noise/alpha_dropout.md")
        .torch("AlphaDropout");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.or("inplace", false)?; // ignored: containers decide
        Ok(Self::new(args.or("p", 0.5)?))
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
        obeys_the_laws(
            p in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], shape in collection::vec(1..6usize, 0..4),
        ) {
            layer: AlphaDropout::new(p),
            input: shape,
        }
    }

    /// p = ½: α′² = 3.09091329, a = 1/√(½ (1 + 1.54545665)) = 0.886405, b = −½ a α′ = 0.779194.
    /// x = 3 gives 3 a + b or a α′ + b = −b, g = 2 gives 2 a or 0, at the same places.
    #[test]
    pub fn by_hand() {
        let (y, dx) = pass(AlphaDropout::new(0.5), [40], 3.0, Context::train(3));
        let a = 1.0 / (0.5 * (1.0 + 0.5 * 1.7580993408473766f64.powi(2))).sqrt();
        let b = 0.5 * a * 1.7580993408473766;
        assert!((a - 0.886405).abs() < 1e-6 && (b - 0.779194).abs() < 1e-5);
        assert!(dx.contains(&0.0) && dx.iter().any(|&v| v != 0.0));
        for (y, dx) in y.into_iter().zip(dx) {
            let want = if dx == 0.0 { -b } else { 3.0 * a + b };
            assert!((y - want).abs() < 1e-12 && (dx == 0.0 || (dx - 2.0 * a).abs() < 1e-12), "{y} {dx}");
        }
    }

    /// Of mean 0 and variance 1 in, of mean 0 and variance 1 out: x is 1 and −1 by turns.
    #[test]
    fn mean_and_variance_stay() {
        let n = 100_000;
        let (x, mut y) =
            (Vec::from_iter((0..n).map(|i| f64::from(i % 2) * 2.0 - 1.0)), vec![0.0; n as usize]);
        AlphaDropout::new(0.3).noise(&Shape::from([n as usize]), &x, &mut y, 5);
        let mean = y.iter().sum::<f64>() / f64::from(n);
        let variance = y.iter().map(|v| v * v).sum::<f64>() / f64::from(n) - mean * mean;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn it_is_drawn_in_training_alone() {
        assert_drawn_in_training_alone(|| AlphaDropout::new(0.4), [40]);
        assert_eq!(pass(AlphaDropout::new(1.0), [4], 3.0, Context::train(0)), (vec![0.0; 4], vec![0.0; 4]));
        assert!(AlphaDropout::<f32>::new(f64::NAN).check().is_err());
    }
}
