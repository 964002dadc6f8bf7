//! Channels rearranged into pixels, r × r of them for each.
//!
//! ```text
//! y[c, h r + i, w r + j] = x[c r² + i r + j, h, w]        ∂E/∂x: ∂E/∂y in the places where x was
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/pixel_shuffle.md.

use super::order::{Reorder, Reordered, reordered};
use crate::rank::check_sizes;
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Layer, Result, Scalar, Shape, Spec};
use std::marker::PhantomData;

/// The r² channels of a group as the r × r pixels of one place. Shi et al., 2016.
///
/// # Shapes
/// x (N, C r², H, W), y (N, C, H r, W r).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::PixelShuffle;
/// let x = Tensor::from_vec([1, 4, 1, 1], vec![1.0f32, 2.0, 3.0, 4.0])?;
/// assert_eq!(PixelShuffle::new(2).infer(&x)?, Tensor::from_vec([1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0])?);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PixelShuffle<T = f32> {
    upscale_factor: usize,
    of: PhantomData<T>,
}

impl<T: Scalar> PixelShuffle<T> {
    /// With r pixels along height and width for each place.
    pub fn new(upscale_factor: usize) -> Self {
        Self { upscale_factor, of: PhantomData }
    }
}

impl<T: Scalar> Reorder for PixelShuffle<T> {
    fn check_settings(&self) -> Result<()> {
        check_sizes("PixelShuffle", "upscale_factor", 1, [self.upscale_factor])
    }

    fn reordered(&self, input: &[usize]) -> Result<Reordered> {
        self.check_settings()?;
        let r = self.upscale_factor;
        match *Shape::new(input)? {
            [n, channels, h, w] if channels.is_multiple_of(r.saturating_mul(r)) => {
                let c = channels / (r * r);
                Ok(Reordered {
                    from: Shape::from([n, c, r, r, h, w]),
                    order: Shape::from([0, 1, 4, 2, 5, 3]), // (N, C, H, r, W, r)
                    output: Shape::new(&[n, c, h.saturating_mul(r), w.saturating_mul(r)])?,
                })
            }
            _ => Err(Error::shape(format!(
                "PixelShuffle: expected input (N, C, H, W) with a multiple of {} channels, got {input:?}",
                r.saturating_mul(r)
            ))),
        }
    }

    fn settings(&self) -> Spec {
        Spec::new("PixelShuffle").with("upscale_factor", self.upscale_factor)
    }
}

reordered!(PixelShuffle);

impl<T: Scalar> FromSpec<T> for PixelShuffle<T> {
    const FACTS: Facts = Facts::new("PixelShuffle")
        .family("shape")
        .formula("x[c r² + i r + j, h, w] at [c, h r + i, w r + j]")
        .page("layers/shape/pixel_shuffle.md")
        .torch("PixelShuffle");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("upscale_factor")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(2).spec(), [[2, 8, 3, 2]]),
            Example::new(Self::new(3).spec(), [[1, 9, 2, 2]]),
            Example::bench(Self::new(2).spec(), [[8, 64, 32, 32]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::{Call, Grads, Module, Tensor};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(n in 1..3usize, c in 1..3usize, r in 1..4usize, h in 1..4usize, w in 1..4usize) {
            layer: PixelShuffle::new(r),
            input: [n, c * r * r, h, w],
            wrong: [n, c * r * r, h], wrong: [n, c * r * r + 1, h, w, 1],
        }
    }

    /// Channels (1 2), (3 4), (5 6), (7 8) of one row of two pixels, r = 2: the rows (1 3 2 4) and (5 7 6 8). For g = 0 … 7:
    /// ∂x = (0 2), (1 3), (4 6), (5 7).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from_vec([1, 4, 1, 2], vec![1., 2., 3., 4., 5., 6., 7., 8.]).unwrap();
        let layer = PixelShuffle::<f64>::new(2);
        let y = layer.infer(&x).unwrap();
        assert_eq!((&y.shape()[..], y.data()), (&[1, 1, 2, 4][..], &[1., 3., 2., 4., 5., 7., 6., 8.][..]));
        let (dy, mut dx) = (Tensor::from_fn([1, 1, 2, 4], |i| i as f64), Tensor::default());
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [0., 2., 1., 3., 4., 6., 5., 7.]);
    }

    #[test]
    fn wrong_sizes_say_what_was_expected() {
        let text = PixelShuffle::<f32>::new(2).output_shape(&[1, 6, 2, 2]).unwrap_err().to_string();
        assert_eq!(
            text,
            "PixelShuffle: expected input (N, C, H, W) with a multiple of 4 channels, got [1, 6, 2, 2]"
        );
        for r in [0, usize::MAX, 1 << 31] {
            assert!(PixelShuffle::<f32>::new(r).check().is_err());
        }
    }
}
