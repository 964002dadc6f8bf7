//! The maximum of each channel.
//!
//! ```text
//! y = max x        ∂E/∂x[i] = ∂E/∂y if i is the maximum, else 0
//! ```
//!
//! Of equal elements the first is the maximum; NaN is above all, the last of several. Keeps the position of each maximum.
//! Derivation: docs/layers/pool/adaptive_max_pool.md.

use super::{
    PartsMaxCache,
    windows::{check_positions, plenty, sized},
};
use crate::rank::{join, split};
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

/// The largest element of each channel over R axes, kept as axes of length 1: what an adaptive max pool of size 1 gives. Follow it
/// with `Flatten` for (N, C).
///
/// # Shapes
/// x (N, C, H, W), y (N, C, 1, 1).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::GlobalMaxPool2d;
/// let y = GlobalMaxPool2d::new().infer(&Tensor::from_vec([1, 1, 2, 2], vec![1.0f32, 2.0, 6.0, 3.0])?)?;
/// assert_eq!((&y.shape()[..], y.data()), (&[1, 1, 1, 1][..], &[6.0][..]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GlobalMaxPool<const R: usize, T = f32> {
    scalar: PhantomData<T>,
}

/// The largest element of each channel of a sequence.
pub type GlobalMaxPool1d<T = f32> = GlobalMaxPool<1, T>;
/// The largest element of each channel of an image.
pub type GlobalMaxPool2d<T = f32> = GlobalMaxPool<2, T>;
/// The largest element of each channel of a volume.
pub type GlobalMaxPool3d<T = f32> = GlobalMaxPool<3, T>;

impl<const R: usize, T> Default for GlobalMaxPool<R, T> {
    fn default() -> Self {
        Self { scalar: PhantomData }
    }
}

impl<const R: usize, T: Scalar> GlobalMaxPool<R, T> {
    const NAME: &'static str = ["GlobalMaxPool1d", "GlobalMaxPool2d", "GlobalMaxPool3d"][R - 1];

    /// The maximum of each channel.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<const R: usize, T: Scalar> Layer for GlobalMaxPool<R, T> {
    type T = T;
    type Cache = PartsMaxCache<R>;

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        let (batch, _): (_, [usize; R]) = split(Self::NAME, None, input)?;
        check_positions(Self::NAME, input)?;
        join(batch, [1; R])
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        cache.maxima(Self::NAME, x, (y, shape), cx) // y = max(x)
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        cache.gradient(Self::NAME, call, dx) // dx[maximum] = dy
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        self.output_shape(input).map_or(0, |output| output.volume().saturating_mul(size_of::<u32>()))
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::NAME)
    }
}

impl<const R: usize, T: Scalar> FromSpec<T> for GlobalMaxPool<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("pool")
        .formula("max over a channel")
        .page("layers/pool/adaptive_max_pool.md");

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
        obeys_the_laws(n in 1..4usize, channels in 1..4usize, rank in 1..4usize, lengths in [1..7usize, 1..7, 1..7]) {
            layer: match rank {
                1 => laws::BoxModule::new(GlobalMaxPool1d::<T>::new()),
                2 => laws::BoxModule::new(GlobalMaxPool2d::<T>::new()),
                _ => laws::BoxModule::new(GlobalMaxPool3d::<T>::new()),
            },
            input: [&[n, channels], &lengths[..rank]].concat(),
            wrong: [&[n, channels], &lengths[..rank - 1]].concat(),
            wrong: [&[n, channels, 0], &lengths[..rank - 1]].concat(),
        }
    }

    /// Channels (1 7 7) and (−3 −1 −2): maxima 7, the first, and −1. For g = (6, 9): ∂x = (0 6 0), (0 9 0).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from_vec([1, 2, 3], vec![1., 7., 7., -3., -1., -2.]).unwrap();
        let layer = GlobalMaxPool1d::new();
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), PartsMaxCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y.data(), [7., -1.]);
        let dy = Tensor::from_vec([1, 2, 1], vec![6., 9.]).unwrap();
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [0., 6., 0., 0., 9., 0.]);
    }

    #[test]
    fn a_channel_without_elements_has_no_maximum() {
        let shape = |input: &[usize]| GlobalMaxPool2d::<f32>::new().output_shape(input);
        assert!(shape(&[1, 2, 0, 3]).is_err() && shape(&[1, 2, 3]).is_err());
        assert_eq!(*shape(&[0, 2, 3, 3]).unwrap(), [0, 2, 1, 1]);
    }
}
