//! Pixels rearranged into channels: the inverse of PixelShuffle.
//!
//! ```text
//! y[c r² + i r + j, h, w] = x[c, h r + i, w r + j]        ∂E/∂x: ∂E/∂y in the places where x was
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/pixel_unshuffle.md.

use super::order::{Reorder, Reordered, reordered};
use crate::rank::check_sizes;
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Layer, Result, Scalar, Shape, Spec};
use std::marker::PhantomData;

/// The r × r pixels of each place as r² channels. Shi et al., 2016.
///
/// # Shapes
/// x (N, C, H r, W r), y (N, C r², H, W).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::PixelUnshuffle;
/// let x = Tensor::from_vec([1, 1, 2, 2], vec![1.0f32, 2.0, 3.0, 4.0])?;
/// assert_eq!(PixelUnshuffle::new(2).infer(&x)?, Tensor::from_vec([1, 4, 1, 1], vec![1.0, 2.0, 3.0, 4.0])?);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PixelUnshuffle<T = f32> {
    downscale_factor: usize,
    of: PhantomData<T>,
}

impl<T: Scalar> PixelUnshuffle<T> {
    /// With r pixels along height and width for each place.
    pub fn new(downscale_factor: usize) -> Self {
        Self { downscale_factor, of: PhantomData }
    }
}

impl<T: Scalar> Reorder for PixelUnshuffle<T> {
    fn check_settings(&self) -> Result<()> {
        check_sizes("PixelUnshuffle", "downscale_factor", 1, [self.downscale_factor])
    }

    fn reordered(&self, input: &[usize]) -> Result<Reordered> {
        self.check_settings()?;
        let r = self.downscale_factor;
        match *Shape::new(input)? {
            [n, c, height, width] if height.is_multiple_of(r) && width.is_multiple_of(r) => {
                let (h, w) = (height / r, width / r);
                Ok(Reordered {
                    from: Shape::from([n, c, h, r, w, r]),
                    order: Shape::from([0, 1, 3, 5, 2, 4]), // (N, C, r, r, H, W)
                    output: Shape::new(&[n, c.saturating_mul(r.saturating_mul(r)), h, w])?,
                })
            }
            _ => Err(Error::shape(format!(
                "PixelUnshuffle: expected input (N, C, H, W) with H and W multiples of {r}, got {input:?}"
            ))),
        }
    }

    fn settings(&self) -> Spec {
        Spec::new("PixelUnshuffle").with("downscale_factor", self.downscale_factor)
    }
}

reordered!(PixelUnshuffle);

impl<T: Scalar> FromSpec<T> for PixelUnshuffle<T> {
    const FACTS: Facts = Facts::new("PixelUnshuffle")
        .family("shape")
        .formula("x[c, h r + i, w r + j] at [c r² + i r + j, h, w]")
        .page("layers/shape/pixel_unshuffle.md")
        .torch("PixelUnshuffle");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("downscale_factor")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(2).spec(), [[2, 2, 4, 6]]),
            Example::new(Self::new(3).spec(), [[1, 1, 3, 3]]),
            Example::bench(Self::new(2).spec(), [[8, 16, 64, 64]]),
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
            layer: PixelUnshuffle::new(r),
            input: [n, c, h * r, w * r],
            wrong: [n, c, h * r], wrong: [n, c, h * r, w * r, 1],
        }
    }

    /// The rows (1 3 2 4) and (5 7 6 8), r = 2: the channels (1 2), (3 4), (5 6), (7 8). For g = 0 … 7:
    /// ∂x = (0 2 1 3), (4 6 5 7).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from_vec([1, 1, 2, 4], vec![1., 3., 2., 4., 5., 7., 6., 8.]).unwrap();
        let layer = PixelUnshuffle::<f64>::new(2);
        let y = layer.infer(&x).unwrap();
        assert_eq!((&y.shape()[..], y.data()), (&[1, 4, 1, 2][..], &[1., 2., 3., 4., 5., 6., 7., 8.][..]));
        let (dy, mut dx) = (Tensor::from_fn([1, 4, 1, 2], |i| i as f64), Tensor::default());
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [0., 2., 1., 3., 4., 6., 5., 7.]);
    }

    #[test]
    fn wrong_sizes_say_what_was_expected() {
        let text = PixelUnshuffle::<f32>::new(2).output_shape(&[1, 6, 2, 3]).unwrap_err().to_string();
        assert_eq!(
            text,
            "PixelUnshuffle: expected input (N, C, H, W) with H and W multiples of 2, got [1, 6, 2, 3]"
        );
        for r in [0, usize::MAX, 1 << 31] {
            assert!(PixelUnshuffle::<f32>::new(r).check().is_err());
        }
    }
}
