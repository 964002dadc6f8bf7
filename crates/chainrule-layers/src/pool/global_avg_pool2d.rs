//! The mean of each channel of an image.
//!
//! ```text
//! y = 1/(H W) Σ x        ∂E/∂x = ∂E/∂y/(H W)
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/pool/global_avg_pool2d.md.

use super::{AvgPoolCache, adaptive_avg_pool2d::windows, planes};
use chainrule_core::{Call, Context, Grads, Layer, Result, Scalar, Shape, Tensor};

/// The mean of each channel, kept as an image of one pixel: what `AdaptiveAvgPool2d::new(1)` makes. Follow it with
/// `Flatten` for (N, C). Lin, Chen and Yan, 2014.
///
/// # Shapes
/// x (N, C, H, W), y (N, C, 1, 1).
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::GlobalAvgPool2d;
/// let y = GlobalAvgPool2d::new().infer(&Tensor::from_vec([1, 1, 2, 2], vec![1.0f32, 2.0, 3.0, 6.0])?)?;
/// assert_eq!((&y.shape()[..], y.data()), (&[1, 1, 1, 1][..], &[3.0][..]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalAvgPool2d;

impl GlobalAvgPool2d {
    /// The mean of each channel.
    pub fn new() -> Self {
        Self
    }
}

impl<T: Scalar> Layer<T> for GlobalAvgPool2d {
    type Cache = AvgPoolCache<T>;

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        let [n, c, _, _] = planes("GlobalAvgPool2d", input)?;
        Shape::new(&[n, c, 1, 1])
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut AvgPoolCache<T>,
        _: &mut Context,
    ) -> Result<()> {
        let shape = Layer::<T>::output_shape(self, x.shape())?;
        windows(x.shape(), &shape, cache); // one, the whole image
        cache.means(x, y.reset(shape), None); // y = mean(x)
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut AvgPoolCache<T>,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if let Some(dx) = dx {
            windows(call.x.shape(), call.y.shape(), cache);
            cache.gradient(call, dx, None); // dx = dy/(H W)
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(n in 1..4usize, channels in 1..4usize, [h, w] in [1..8usize, 1..8]) {
            layer: GlobalAvgPool2d::new(),
            input: [n, channels, h, w],
            wrong: [n, channels, h],
            wrong: [n, channels, 0, w],
        }
    }

    /// Channels (1 2 3) and (0 0 9): means 2 and 3. For g = (6, 9): ∂x = (2 2 2), (3 3 3).
    #[test]
    fn by_hand() {
        let x = Tensor::from_vec([1, 2, 1, 3], vec![1., 2., 3., 0., 0., 9.]).unwrap();
        let (layer, mut y, mut dx, mut cache) =
            (GlobalAvgPool2d::new(), Tensor::default(), Tensor::default(), AvgPoolCache::default());
        layer.forward(&x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
        assert!((y.data()[0] - 2.0f64).abs() < 1e-15 && (y.data()[1] - 3.0).abs() < 1e-15);
        let dy = Tensor::from_vec([1, 2, 1, 1], vec![6., 9.]).unwrap();
        let call = Call { x: &x, y: &y, dy: &dy };
        layer.backward(call, &mut cache, &mut Grads::<f64>::new(&layer), Some(&mut dx)).unwrap();
        assert!(dx.data().iter().zip([2., 2., 2., 3., 3., 3.]).all(|(a, b)| (a - b).abs() < 1e-15));
    }

    #[test]
    fn an_image_without_pixels_has_no_mean() {
        let shape = |input: &[usize]| Layer::<f32>::output_shape(&GlobalAvgPool2d, input);
        assert!(shape(&[1, 2, 0, 3]).is_err() && shape(&[1, 2, 3]).is_err());
        assert_eq!(*shape(&[0, 2, 3, 3]).unwrap(), [0, 2, 1, 1]);
    }
}
