//! Stochastic depth (Huang, Sun, Liu, Sedra and Weinberger, 2016), sample by sample.
//!
//! ```text
//! y[n] = x[n] m[n]/(1 − p),   m = 0 with probability p, 1 otherwise        ∂E/∂x = ∂E/∂y ⊙ m/(1 − p)
//! ```
//!
//! In inference y = x. Stores the key of its noise. Derivation: docs/layers/noise/drop_path.md.

use super::{
    channel_dropout::scaled,
    noisy::{Noisy, check_probability, noisy},
};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Layer, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::noise::mask_planes;
use std::marker::PhantomData;

/// In training, each sample is set to 0 with probability p and divided by 1 − p otherwise, which leaves the mean unchanged. At the end
/// of a [`Residual`](crate::Residual) branch it skips the branch for some samples.
///
/// The mask is drawn as that of [`Dropout`](crate::Dropout).
///
/// # Shapes
/// x and y (N, …).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::DropPath;
/// let x = Tensor::from([[1.0f32, 2.0, 3.0]]);
/// assert_eq!(DropPath::new(0.1).infer(&x)?, x);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct DropPath<T = f32> {
    p: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> DropPath<T> {
    /// Sets each sample to 0 with probability `p`.
    pub fn new(p: f64) -> Self {
        Self { p, of: PhantomData }
    }
}

impl<T: Scalar> Noisy<T> for DropPath<T> {
    fn check_settings(&self) -> Result<()> {
        check_probability("DropPath", self.p)
    }

    fn check_shape(&self, shape: &Shape) -> Result<()> {
        if !shape.is_empty() {
            return Ok(());
        }
        Err(Error::shape(format!("DropPath: expected input (N, ..), got {shape}")))
    }

    fn is_off(&self) -> bool {
        self.p == 0.0
    }

    fn scaled(&self, by: f64) -> Self {
        Self { p: self.p * by, ..*self }
    }

    fn noise(&self, shape: &Shape, x: &[T], y: &mut [T], key: u64) {
        mask_planes(x, y, shape[1..].iter().product(), key, self.p, scaled(self.p)); // y = x ⊙ m/(1 − p), dx = dy ⊙ m/(1 − p)
    }

    fn settings(&self) -> Spec {
        Spec::new("DropPath").with("p", self.p)
    }
}

noisy!(DropPath);

impl<T: Scalar> FromSpec<T> for DropPath<T> {
    const FACTS: Facts = Facts::new("DropPath")
        .family("noise")
        .formula("x ⊙ m/(1 − p), by sample")
        .page("layers/noise/drop_path.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("p")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(0.2).spec(), [[3, 5]]),
            Example::new(Self::new(0.0).spec(), [[2, 3, 4]]),
            Example::bench(Self::new(0.2).spec(), [[4096, 256]]),
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
            p in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], shape in collection::vec(1..6usize, 1..4),
        ) {
            layer: DropPath::new(p),
            input: shape,
            wrong: [],
        }
    }

    /// p = ¼: a sample that is kept is divided by ¾. x = 3 gives 0 or 4, g = 2 gives 0 or 8/3, at the same places.
    #[test]
    pub fn by_hand() {
        let (y, dx) = pass(DropPath::new(0.25), [40, 3], 3.0, Context::train(3));
        assert!(y.contains(&0.0) && y.iter().any(|&v| v != 0.0));
        for (y, dx) in y.chunks(3).zip(dx.chunks(3)) {
            let kept = y[0] != 0.0;
            let (want_y, want_dx) = if kept { (4.0, 8.0 / 3.0) } else { (0.0, 0.0) };
            assert!(y.iter().all(|v| (v - want_y).abs() < 1e-12), "{y:?}");
            assert!(dx.iter().all(|v| (v - want_dx).abs() < 1e-12), "{dx:?}");
        }
    }

    #[test]
    fn it_is_drawn_in_training_alone() {
        assert_drawn_in_training_alone(|| DropPath::new(0.4), [40]);
        assert!(DropPath::<f32>::new(f64::INFINITY).check().is_err());
    }
}
