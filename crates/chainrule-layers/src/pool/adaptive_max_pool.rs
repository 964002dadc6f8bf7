//! Maxima over windows that divide an input into a given number of parts.
//!
//! ```text
//! window o of O along an axis of n = ⌊o n/O⌋ … ⌈(o + 1) n/O⌉ − 1
//! y[o] = max over the elements i of window o of x[i]        ∂E/∂x[i] = Σ over the o of which i is the maximum of ∂E/∂y[o]
//! ```
//!
//! Of equal elements the first is the maximum; NaN is above all, the last of several. Keeps the position of each maximum.
//! Derivation: docs/layers/pool/adaptive_max_pool.md.

use super::{
    OutputSizes, PartsMaxCache,
    windows::{check_positions, plenty, sized},
};
use crate::rank::{check_sizes, join, split};
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

/// Maxima of windows over R axes, of a given number whatever the size of the input. The windows overlap by an element where
/// the sizes do not divide.
///
/// # Shapes
/// x (N, C, H, W), y (N, C, H′, W′) with H′ and W′ as given, or as in x where given as `None`.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::AdaptiveMaxPool1d;
/// let x = Tensor::from_vec([1, 1, 5], vec![1.0f32, 4.0, 2.0, 3.0, 5.0])?;
/// assert_eq!(AdaptiveMaxPool1d::new(2).infer(&x)?.data(), [4.0, 5.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveMaxPool<const R: usize, T = f32> {
    sizes: [Option<usize>; R],
    scalar: PhantomData<T>,
}

/// Maxima of windows of a sequence, of a given number.
pub type AdaptiveMaxPool1d<T = f32> = AdaptiveMaxPool<1, T>;
/// Maxima of windows of an image, of a given number.
pub type AdaptiveMaxPool2d<T = f32> = AdaptiveMaxPool<2, T>;
/// Maxima of windows of a volume, of a given number.
pub type AdaptiveMaxPool3d<T = f32> = AdaptiveMaxPool<3, T>;

impl<const R: usize, T: Scalar> AdaptiveMaxPool<R, T> {
    const NAME: &'static str = ["AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d"][R - 1];

    /// Maxima that make an output of a size.
    pub fn new(sizes: impl Into<OutputSizes<R>>) -> Self {
        let OutputSizes(sizes) = sizes.into();
        Self { sizes, scalar: PhantomData }
    }
}

impl<const R: usize, T: Scalar> Layer for AdaptiveMaxPool<R, T> {
    type T = T;
    type Cache = PartsMaxCache<R>;

    fn check(&self) -> Result<()> {
        check_sizes(Self::NAME, "output_size", 1, self.sizes.map(|size| size.unwrap_or(1)))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        let (batch, mut axes): (_, [usize; R]) = split(Self::NAME, None, input)?;
        check_positions(Self::NAME, input)?;
        axes.iter_mut().zip(self.sizes).for_each(|(axis, size)| *axis = size.unwrap_or(*axis));
        join(batch, axes)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        cache.maxima(Self::NAME, x, (y, shape), cx) // y[o] = max over window o
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        cache.gradient(Self::NAME, call, dx) // dx[maximum of o] += dy[o]
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        self.output_shape(input).map_or(0, |output| output.volume().saturating_mul(size_of::<u32>()))
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::NAME).with("output_size", self.sizes)
    }
}

impl<const R: usize, T: Scalar> FromSpec<T> for AdaptiveMaxPool<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("pool")
        .formula("max over windows that give a size")
        .page("layers/pool/adaptive_max_pool.md")
        .torch(Self::NAME);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.only("return_indices", false)?;
        Ok(Self::new(args.get::<[Option<usize>; R]>("output_size")?))
    }

    fn examples() -> Vec<Example> {
        let (some, none) = ([Some(3), Some(2), Some(3)], [Some(2), None, Some(4)]);
        let of = |sizes: [Option<usize>; 3]| Self::new(std::array::from_fn(|axis| sizes[axis])).spec();
        vec![
            Example::new(of(some), [sized::<R>(2, 2, 5)]),
            Example::new(of(none), [sized::<R>(2, 1, 3)]),
            Example::bench(Self::new(4).spec(), [plenty::<R>()]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Module;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            n in 1..4usize, channels in 1..4usize, rank in 1..4usize, lengths in [1..7usize, 1..7, 1..7],
            size in [option::of(1..5usize), option::of(1..5usize), option::of(1..5usize)],
        ) {
            layer: match rank {
                1 => laws::BoxModule::new(AdaptiveMaxPool1d::<T>::new([size[0]])),
                2 => laws::BoxModule::new(AdaptiveMaxPool2d::<T>::new([size[0], size[1]])),
                _ => laws::BoxModule::new(AdaptiveMaxPool3d::<T>::new(size)),
            },
            input: [&[n, channels], &lengths[..rank]].concat(),
            wrong: [&[n, channels], &lengths[..rank - 1]].concat(),
            wrong: [&[n, channels, 0], &lengths[..rank - 1]].concat(),
        }
    }

    /// Two windows along an axis of 3: (1 8) and (8 3), both with the maximum 8. For g = (10, 20): ∂x = (0, 30, 0).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from_vec([1, 1, 3], vec![1., 8., 3.]).unwrap();
        let layer = AdaptiveMaxPool1d::new(2);
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), PartsMaxCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y.data(), [8., 8.]);
        let dy = Tensor::from_vec([1, 1, 2], vec![10., 20.]).unwrap();
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [0., 30., 0.]);
    }

    #[test]
    fn an_axis_can_grow_or_stay() {
        let x = Tensor::from_vec([1, 1, 1, 2], vec![1., 5.]).unwrap();
        assert_eq!(AdaptiveMaxPool2d::new((1, 4)).infer(&x).unwrap().data(), [1., 1., 5., 5.]);
        assert_eq!(AdaptiveMaxPool2d::new((None, None)).infer(&x).unwrap(), x);
        let shape = |layer: AdaptiveMaxPool2d, input: &[usize]| layer.output_shape(input);
        assert!(shape(AdaptiveMaxPool2d::new(0), &[2, 3, 4, 5]).is_err());
        assert!(shape(AdaptiveMaxPool2d::new(1), &[2, 3, 0, 4]).is_err());
        assert!(shape(AdaptiveMaxPool2d::new(1), &[1, 1, 1 << 16, 1 << 16]).is_err());
    }
}
