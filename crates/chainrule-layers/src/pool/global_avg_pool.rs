//! The mean of each channel.
//!
//! ```text
//! y = 1/(H W) Σ x        ∂E/∂x = ∂E/∂y/(H W)
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/pool/global_avg_pool2d.md.

use super::{
    AvgPoolCache,
    windows::{plenty, sized},
};
use crate::rank::{join, split};
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

/// The mean of each channel over R axes, kept as axes of length 1: what an adaptive average pool of size 1 gives. Follow it
/// with `Flatten` for (N, C). Lin, Chen and Yan, 2014.
///
/// # Shapes
/// x (N, C, H, W), y (N, C, 1, 1).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::GlobalAvgPool2d;
/// let y = GlobalAvgPool2d::new().infer(&Tensor::from_vec([1, 1, 2, 2], vec![1.0f32, 2.0, 3.0, 6.0])?)?;
/// assert_eq!((&y.shape()[..], y.data()), (&[1, 1, 1, 1][..], &[3.0][..]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GlobalAvgPool<const R: usize, T = f32> {
    scalar: PhantomData<T>,
}

/// The mean of each channel of a sequence.
pub type GlobalAvgPool1d<T = f32> = GlobalAvgPool<1, T>;
/// The mean of each channel of an image.
pub type GlobalAvgPool2d<T = f32> = GlobalAvgPool<2, T>;
/// The mean of each channel of a volume.
pub type GlobalAvgPool3d<T = f32> = GlobalAvgPool<3, T>;

impl<const R: usize, T> Default for GlobalAvgPool<R, T> {
    fn default() -> Self {
        Self { scalar: PhantomData }
    }
}

impl<const R: usize, T: Scalar> GlobalAvgPool<R, T> {
    const NAME: &'static str = ["GlobalAvgPool1d", "GlobalAvgPool2d", "GlobalAvgPool3d"][R - 1];

    /// The mean of each channel.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<const R: usize, T: Scalar> Layer for GlobalAvgPool<R, T> {
    type T = T;
    type Cache = AvgPoolCache<R, T>;

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        let (batch, _): (_, [usize; R]) = split(Self::NAME, None, input)?;
        join(batch, [1; R])
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, _: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        cache.divide(x.shape(), &shape).means(x, y, shape, None); // y = mean(x)
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if let Some(dx) = dx {
            cache.divide(call.x.shape(), call.dy.shape()).gradient(call, dx, None); // dx = dy/(H W)
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::NAME)
    }
}

impl<const R: usize, T: Scalar> FromSpec<T> for GlobalAvgPool<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("pool")
        .formula("mean over a channel")
        .page("layers/pool/global_avg_pool2d.md");

    fn from_spec(_: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new())
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new().spec(), [sized::<R>(2, 3, 4)]),
            Example::bench(Self::new().spec(), [plenty::<R>()]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(n in 1..4usize, channels in 1..4usize, [h, w] in [1..8usize, 1..8]) {
            layer: GlobalAvgPool2d::new(),
            input: [n, channels, h, w],
            wrong: [n, channels, h],
            wrong: [n, channels, 0, w],
        }
        over_sequences_and_volumes_it_obeys_the_laws(
            n in 1..4usize, channels in 1..4usize, [d, h, w] in [1..6usize, 1..6, 1..6], flat in any::<bool>(),
        ) {
            layer: if flat {
                laws::BoxModule::new(GlobalAvgPool1d::<T>::new())
            } else {
                laws::BoxModule::new(GlobalAvgPool3d::<T>::new())
            },
            input: if flat { vec![n, channels, w] } else { vec![n, channels, d, h, w] },
            wrong: [n, channels, h, w],
        }
    }

    /// Channels (1 2 3) and (0 0 9): means 2 and 3. For g = (6, 9): ∂x = (2 2 2), (3 3 3).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from_vec([1, 2, 1, 3], vec![1., 2., 3., 0., 0., 9.]).unwrap();
        let (layer, mut y, mut dx, mut cache) =
            (GlobalAvgPool2d::new(), Tensor::default(), Tensor::default(), AvgPoolCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert!((y.data()[0] - 2.0f64).abs() < 1e-15 && (y.data()[1] - 3.0).abs() < 1e-15);
        let dy = Tensor::from_vec([1, 2, 1, 1], vec![6., 9.]).unwrap();
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert!(dx.data().iter().zip([2., 2., 2., 3., 3., 3.]).all(|(a, b)| (a - b).abs() < 1e-15));
    }

    #[test]
    fn an_image_without_pixels_has_no_mean() {
        let shape = |input: &[usize]| GlobalAvgPool2d::<f32>::new().output_shape(input);
        assert!(shape(&[1, 2, 0, 3]).is_err() && shape(&[1, 2, 3]).is_err());
        assert_eq!(*shape(&[0, 2, 3, 3]).unwrap(), [0, 2, 1, 1]);
    }
}
