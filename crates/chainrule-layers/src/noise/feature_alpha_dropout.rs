//! Alpha dropout of whole channels.
//!
//! ```text
//! y[n, c] = a (m[n, c] x[n, c] + (1 − m[n, c]) α′) + b,   m = 0 with probability p, 1 otherwise        ∂E/∂x = ∂E/∂y ⊙ a m
//! α′ = −λ α = −1.7580993408473766,   a = 1/√((1 − p)(1 + p α′²)),   b = −a p α′
//! ```
//!
//! In inference y = x. Stores the key of its noise. Derivation: docs/layers/noise/alpha_dropout.md.

use super::{
    alpha_dropout::{affine, linear},
    noisy::{Noisy, check_probability, noisy},
};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Layer, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::noise::mask_planes;
use std::marker::PhantomData;

/// [`AlphaDropout`](crate::AlphaDropout) of whole channels: in training, all elements of a channel of a sample are dropped together.
///
/// # Shapes
/// x and y (N, C, …).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::FeatureAlphaDropout;
/// let x = Tensor::from([[1.0f32, 2.0, 3.0]]);
/// assert_eq!(FeatureAlphaDropout::new(0.5).infer(&x)?, x);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct FeatureAlphaDropout<T = f32> {
    p: f64,
    of: PhantomData<T>,
}

impl<T: Scalar> FeatureAlphaDropout<T> {
    /// Drops each channel of each sample with probability `p`; everything, with 0 in its place, for p = 1.
    pub fn new(p: f64) -> Self {
        Self { p, of: PhantomData }
    }
}

impl<T: Scalar> Noisy<T> for FeatureAlphaDropout<T> {
    fn check_settings(&self) -> Result<()> {
        check_probability("FeatureAlphaDropout", self.p)
    }

    fn check_shape(&self, shape: &Shape) -> Result<()> {
        if shape.len() >= 2 {
            return Ok(());
        }
        Err(Error::shape(format!("FeatureAlphaDropout: expected input (N, C, ..), got {shape}")))
    }

    fn is_off(&self) -> bool {
        self.p == 0.0
    }

    fn scaled(&self, by: f64) -> Self {
        Self { p: self.p * by, ..*self }
    }

    fn noise(&self, shape: &Shape, x: &[T], y: &mut [T], key: u64) {
        mask_planes(x, y, shape[2..].iter().product(), key, self.p, affine(self.p)); // y = a (x ⊙ m + α′ (1 − m)) + b
    }

    fn noise_gradient(&self, shape: &Shape, dy: &[T], dx: &mut [T], key: u64) {
        mask_planes(dy, dx, shape[2..].iter().product(), key, self.p, linear(self.p)); // dx = dy ⊙ a m
    }

    fn settings(&self) -> Spec {
        Spec::new("FeatureAlphaDropout").with("p", self.p)
    }
}

noisy!(FeatureAlphaDropout);

impl<T: Scalar> FromSpec<T> for FeatureAlphaDropout<T> {
    const FACTS: Facts = Facts::new("FeatureAlphaDropout")
        .family("noise")
        .formula("a (x ⊙ m + α′ (1 − m)) + b, by channel")
        .page("layers/noise/alpha_dropout.md")
        .torch("FeatureAlphaDropout");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.or("inplace", false)?; // ignored: containers decide
        Ok(Self::new(args.or("p", 0.5)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(0.5).spec(), [[3, 5]]),
            Example::new(Self::new(0.0).spec(), [[2, 3, 4]]),
            Example::bench(Self::new(0.5).spec(), [[16, 64, 32, 32]]),
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
            p in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], shape in collection::vec(1..5usize, 2..5),
        ) {
            layer: FeatureAlphaDropout::new(p),
            input: shape,
            wrong: [3],
        }
    }

    /// p = ½: a = 1/√(½ (1 + ½ 1.758099²)) = 0.886405 and b = ½ a 1.758099 = 0.779194, as of AlphaDropout. Each channel of x = 3 is
    /// 3 a + b or −b as a whole, and g = 2 gives 2 a or 0.
    #[test]
    pub fn by_hand() {
        let (y, dx) = pass(FeatureAlphaDropout::new(0.5), [2, 10, 3], 3.0, Context::train(3));
        let (mut kept, mut dropped) = (0, 0);
        for (y, dx) in y.chunks(3).zip(dx.chunks(3)) {
            assert!(y == [y[0]; 3] && dx == [dx[0]; 3]);
            let (want_y, want_dx) =
                if dx[0] == 0.0 { (-0.779_194, 0.0) } else { (3.0 * 0.886_405 + 0.779_194, 1.772_810) };
            assert!((y[0] - want_y).abs() < 1e-5 && (dx[0] - want_dx).abs() < 1e-5, "{y:?} {dx:?}");
            *if dx[0] == 0.0 { &mut dropped } else { &mut kept } += 1;
        }
        assert!(kept > 0 && dropped > 0);
    }

    #[test]
    fn it_is_drawn_in_training_alone() {
        assert_drawn_in_training_alone(|| FeatureAlphaDropout::new(0.4), [2, 20, 2]);
        assert!(FeatureAlphaDropout::<f32>::new(-0.1).check().is_err());
    }
}
