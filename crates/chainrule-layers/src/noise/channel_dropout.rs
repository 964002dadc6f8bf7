//! Dropout of whole channels over R axes.
//!
//! ```text
//! y[n, c] = x[n, c] m[n, c]/(1 − p),   m = 0 with probability p, 1 otherwise        ∂E/∂x = ∂E/∂y ⊙ m/(1 − p)
//! ```
//!
//! In inference y = x. Stores the key of its noise. Derivation: docs/layers/noise/channel_dropout.md.

use super::noisy::{Noisy, check_probability, noisy};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Layer, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::noise::{Affine, mask_planes};
use std::marker::PhantomData;

/// In training, each channel of each sample is set to 0 with probability p and divided by 1 − p otherwise, which leaves the mean
/// unchanged.
///
/// Neighbours in a channel are alike, so that dropping single elements takes little away. The mask is drawn as that of
/// [`Dropout`](crate::Dropout). Tompson, Goroshin, Jain, LeCun and Bregler, 2015.
///
/// # Shapes
/// x and y (N, C, …), with R axes behind the channels.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Dropout2d;
/// let x = Tensor::<f32>::full([1, 3, 2, 2], 1.0);
/// assert_eq!(Dropout2d::new(0.5).infer(&x)?, x);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct ChannelDropout<const R: usize, T = f32> {
    p: f64,
    of: PhantomData<T>,
}

/// The dropout of channels of sequences (N, C, L).
pub type Dropout1d<T = f32> = ChannelDropout<1, T>;
/// The dropout of channels of images (N, C, H, W).
pub type Dropout2d<T = f32> = ChannelDropout<2, T>;
/// The dropout of channels of volumes (N, C, D, H, W).
pub type Dropout3d<T = f32> = ChannelDropout<3, T>;

impl<const R: usize, T: Scalar> ChannelDropout<R, T> {
    const NAME: &'static str = ["Dropout1d", "Dropout2d", "Dropout3d"][R - 1];

    /// Sets each channel of each sample to 0 with probability `p`.
    pub fn new(p: f64) -> Self {
        Self { p, of: PhantomData }
    }
}

/// x/(1 − p), or 0.
pub(super) fn scaled<T: Scalar>(p: f64) -> Affine<T> {
    let scale = if p < 1.0 { T::from_f64(1.0 / (1.0 - p)) } else { T::ZERO };
    Affine { scale, kept: T::ZERO, dropped: T::ZERO }
}

impl<const R: usize, T: Scalar> Noisy<T> for ChannelDropout<R, T> {
    fn check_settings(&self) -> Result<()> {
        check_probability(Self::NAME, self.p)
    }

    fn check_shape(&self, shape: &Shape) -> Result<()> {
        if shape.len() == R + 2 {
            return Ok(());
        }
        let axes = const { ["L", "H, W", "D, H, W"][R - 1] };
        Err(Error::shape(format!("{}: expected input (N, C, {axes}), got {shape}", Self::NAME)))
    }

    fn is_off(&self) -> bool {
        self.p == 0.0
    }

    fn scaled(&self, by: f64) -> Self {
        Self { p: self.p * by, ..*self }
    }

    fn noise(&self, shape: &Shape, x: &[T], y: &mut [T], key: u64) {
        mask_planes(x, y, shape[2..].iter().product(), key, self.p, scaled(self.p)); // y = x ⊙ m/(1 − p), dx = dy ⊙ m/(1 − p)
    }

    fn settings(&self) -> Spec {
        Spec::new(Self::NAME).with("p", self.p)
    }
}

noisy!(ChannelDropout<const R: usize>);

impl<const R: usize, T: Scalar> FromSpec<T> for ChannelDropout<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("noise")
        .formula("x ⊙ m/(1 − p), by channel")
        .page("layers/noise/channel_dropout.md")
        .torch(Self::NAME);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.or("inplace", false)?; // ignored: containers decide
        Ok(Self::new(args.or("p", 0.5)?))
    }

    fn examples() -> Vec<Example> {
        let small = Shape::new(&[2, 5, 3, 2, 2][..R + 2]);
        let large = Shape::new(&[&[16, 64][..], [&[1024][..], &[32, 32], &[8, 16, 8]][R - 1]].concat());
        vec![
            Example::new(Self::new(0.5).spec(), small.clone()),
            Example::new(Self::new(0.0).spec(), small),
            Example::bench(Self::new(0.5).spec(), large),
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
        of_one_axis(
            p in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], shape in [1..5usize, 1..5, 1..5],
        ) {
            layer: Dropout1d::new(p),
            input: shape,
            wrong: [2, 3],
        }
        obeys_the_laws(
            p in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], shape in [1..5usize, 1..5, 1..5, 1..5],
        ) {
            layer: Dropout2d::new(p),
            input: shape,
            wrong: [2, 3, 4],
        }
        of_three_axes(
            p in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], shape in [1..4usize, 1..4, 1..4, 1..4, 1..4],
        ) {
            layer: Dropout3d::new(p),
            input: shape,
            wrong: [2, 3, 4, 5],
        }
    }

    /// p = ¼: a channel that is kept is divided by ¾. x = 3 gives 0 or 4, g = 2 gives 0 or 8/3, at the same places.
    #[test]
    pub fn by_hand() {
        let (y, dx) = pass(Dropout2d::new(0.25), [2, 20, 1, 3], 3.0, Context::train(3));
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
        assert_drawn_in_training_alone(|| Dropout1d::new(0.4), [2, 20, 2]);
        assert_eq!(
            pass(Dropout1d::new(1.0), [1, 2, 2], 3.0, Context::train(0)),
            (vec![0.0; 4], vec![0.0; 4])
        );
        let text = Dropout3d::<f32>::new(1.5).check().unwrap_err().to_string();
        assert_eq!(text, "Dropout3d: expected a probability in [0, 1], got 1.5");
        let text = Dropout2d::<f32>::new(0.5).output_shape(&[2, 3]).unwrap_err().to_string();
        assert_eq!(text, "Dropout2d: expected input (N, C, H, W), got [2, 3]");
    }
}
