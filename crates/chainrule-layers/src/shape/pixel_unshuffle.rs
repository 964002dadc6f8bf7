//! Pixels rearranged into channels: the inverse of PixelShuffle.
//!
//! ```text
//! y[c r² + i r + j, h, w] = x[c, h r + i, w r + j]        ∂E/∂x: ∂E/∂y in the places where x was
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/pixel_unshuffle.md.

use super::order::permute_back;
use crate::rank::check_sizes;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::permute::permute;
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

    /// x as (N, C, H, r, W, r), the order of its axes in y, (N, C, r, r, H, W), and y's shape.
    fn axes(&self, input: &[usize]) -> Result<([usize; 6], [usize; 6], Shape)> {
        self.check()?;
        let r = self.downscale_factor;
        match *Shape::new(input)? {
            [n, c, height, width] if height.is_multiple_of(r) && width.is_multiple_of(r) => {
                let (h, w) = (height / r, width / r);
                let shape = Shape::new(&[n, c.saturating_mul(r.saturating_mul(r)), h, w])?;
                Ok(([n, c, h, r, w, r], [0, 1, 3, 5, 2, 4], shape))
            }
            _ => Err(Error::shape(format!(
                "PixelUnshuffle: expected input (N, C, H, W) with H and W multiples of {r}, got {input:?}"
            ))),
        }
    }
}

impl<T: Scalar> Layer for PixelUnshuffle<T> {
    type T = T;
    type Cache = ();

    fn check(&self) -> Result<()> {
        check_sizes("PixelUnshuffle", "downscale_factor", 1, [self.downscale_factor])
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Ok(self.axes(input)?.2)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        let (from, order, shape) = self.axes(x.shape())?;
        permute(x.data(), y.reset(shape), &from, &order);
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let Some(dx) = dx else { return Ok(()) };
        let (from, order, _) = self.axes(call.x.shape())?;
        permute_back(call.dy.data(), dx.reset(*call.x.shape()), &from, &order); // the other way
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new("PixelUnshuffle").with("downscale_factor", self.downscale_factor)
    }
}

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
    use chainrule_core::Module;
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
