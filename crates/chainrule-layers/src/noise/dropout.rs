//! Dropout.
//!
//! ```text
//! y = x ⊙ m/(1 − p),   m = 0 with probability p, 1 otherwise        ∂E/∂x = ∂E/∂y ⊙ m/(1 − p)
//! ```
//!
//! In inference y = x. Stores the key of its noise, not the mask: regenerating the mask costs no more than reading it from memory.
//! Derivation: docs/layers/noise/dropout.md.

use super::noisy::{Noisy, check_probability, noisy};
use chainrule_core::{Args, Example, Facts, FromSpec, Layer, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::noise::dropout;
use std::marker::PhantomData;

/// In training, each element is set to 0 with probability p and divided by 1 − p otherwise, which leaves the mean unchanged.
///
/// The mask is drawn from [`Context::noise_key`](chainrule_core::Context::noise_key) and the position in the tensor: it depends on the seed, the step and the position in the
/// model, not on the number of threads. Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, 2014.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Dropout;
/// let x = Tensor::from([1.0f32, 2.0, 3.0]);
/// assert_eq!(Dropout::new(0.5).infer(&x)?, x);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct Dropout<T = f32> {
    p: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> Dropout<T> {
    /// Sets each element to 0 with probability `p`.
    pub fn new(p: f64) -> Self {
        Self { p, of: PhantomData }
    }
}

impl<T: Scalar> Noisy<T> for Dropout<T> {
    fn check_settings(&self) -> Result<()> {
        check_probability("Dropout", self.p)
    }

    fn is_off(&self) -> bool {
        self.p == 0.0
    }

    fn scaled(&self, by: f64) -> Self {
        Self { p: self.p * by, ..*self }
    }

    fn noise(&self, _: &Shape, x: &[T], y: &mut [T], key: u64) {
        dropout(x, y, key, self.p); // y = x ⊙ m/(1 − p), dx = dy ⊙ m/(1 − p)
    }

    fn settings(&self) -> Spec {
        Spec::new("Dropout").with("p", self.p)
    }
}

noisy!(Dropout);

impl<T: Scalar> FromSpec<T> for Dropout<T> {
    const FACTS: Facts = Facts::new("Dropout")
        .family("noise")
        .formula("x ⊙ m/(1 − p)")
        .page("layers/noise/dropout.md")
        .torch("Dropout");

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
    use chainrule_core::{Context, Module, Tensor};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            p in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], shape in collection::vec(1..6usize, 1..4),
        ) {
            layer: Dropout::new(p),
            input: shape,
        }
    }

    fn pass(p: f64, cx: Context) -> (Vec<f64>, Vec<f64>) {
        crate::noise::noisy::tests::pass(Dropout::new(p), [40], 3.0, cx)
    }

    /// p = ¼: what is kept is divided by ¾. x = 3 gives 0 or 4, g = 2 gives 0 or 8/3, at the same places.
    #[test]
    pub fn by_hand() {
        let (y, dx) = pass(0.25, Context::train(3));
        assert!(y.contains(&0.0) && y.iter().any(|&v| v != 0.0));
        for (y, dx) in y.into_iter().zip(dx) {
            assert!((y == 0.0 && dx == 0.0) || ((y - 4.0).abs() < 1e-12 && (dx - 8.0 / 3.0).abs() < 1e-12));
        }
    }

    #[test]
    fn another_step_draws_another_mask_and_the_same_step_the_same() {
        let at = |step| pass(0.5, Context::train(3).step(step));
        assert!(at(1) == at(1) && at(1) != at(2));
    }

    #[test]
    fn nothing_or_everything_can_be_dropped() {
        assert_eq!(pass(0.0, Context::train(0)), (vec![3.0; 40], vec![2.0; 40]));
        assert_eq!(pass(1.0, Context::train(0)), (vec![0.0; 40], vec![0.0; 40]));
        assert_eq!(pass(0.5, Context::frozen()), (vec![3.0; 40], vec![2.0; 40]));
    }

    #[test]
    fn a_probability_outside_0_to_1_is_an_error() {
        for p in [-0.1, 1.1, f64::NAN] {
            assert!(Dropout::<f32>::new(p).infer(&Tensor::zeros([1])).is_err());
            assert!(Dropout::<f32>::new(p).check().is_err());
        }
    }
}
