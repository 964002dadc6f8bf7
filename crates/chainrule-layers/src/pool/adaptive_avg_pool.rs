//! Means over windows that divide an input into a given number of parts.
//!
//! ```text
//! window o of O along an axis of n = ⌊o n/O⌋ … ⌈(o + 1) n/O⌉ − 1
//! y[o] = mean over the elements i of window o of x[i]        ∂E/∂x[i] = Σ over the o that contain i of ∂E/∂y[o]/m[o]
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/pool/adaptive_avg_pool2d.md.

use super::{
    AvgPoolCache,
    windows::{plenty, sized},
};
use crate::{
    Sizes,
    rank::{check_sizes, join, split},
};
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

/// Means of windows over R axes, of a given number whatever the size of the input. The windows overlap by an element where
/// the sizes do not divide.
///
/// # Shapes
/// x (N, C, H, W), y (N, C, H′, W′) with H′ and W′ as given, or as in x where given as `None`.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::AdaptiveAvgPool2d;
/// let x = Tensor::<f32>::zeros([8, 3, 11, 9]);
/// assert_eq!(AdaptiveAvgPool2d::new(4).infer(&x)?.shape()[..], [8, 3, 4, 4]);
/// assert_eq!(AdaptiveAvgPool2d::new([Some(4), None]).infer(&x)?.shape()[..], [8, 3, 4, 9]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveAvgPool<const R: usize, T = f32> {
    sizes: [Option<usize>; R],
    scalar: PhantomData<T>,
}

/// Means of windows of a sequence, of a given number.
pub type AdaptiveAvgPool1d<T = f32> = AdaptiveAvgPool<1, T>;
/// Means of windows of an image, of a given number.
pub type AdaptiveAvgPool2d<T = f32> = AdaptiveAvgPool<2, T>;
/// Means of windows of a volume, of a given number.
pub type AdaptiveAvgPool3d<T = f32> = AdaptiveAvgPool<3, T>;

/// The sizes of an output, `None` for that of the input: from `4`, `[4, 5]`, `(4, 5)`, `[Some(4), None]` or
/// `(Some(4), None)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputSizes<const R: usize>(pub [Option<usize>; R]);

impl<const R: usize, S: Into<Sizes<R>>> From<S> for OutputSizes<R> {
    fn from(sizes: S) -> Self {
        Self(sizes.into().0.map(Some))
    }
}

impl<const R: usize> From<[Option<usize>; R]> for OutputSizes<R> {
    fn from(sizes: [Option<usize>; R]) -> Self {
        Self(sizes)
    }
}

impl From<(Option<usize>, Option<usize>)> for OutputSizes<2> {
    fn from((h, w): (Option<usize>, Option<usize>)) -> Self {
        Self([h, w])
    }
}

impl<const R: usize, T: Scalar> AdaptiveAvgPool<R, T> {
    const NAME: &'static str = ["AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d"][R - 1];

    /// Means that make an output of a size.
    pub fn new(sizes: impl Into<OutputSizes<R>>) -> Self {
        let OutputSizes(sizes) = sizes.into();
        Self { sizes, scalar: PhantomData }
    }
}

impl<const R: usize, T: Scalar> Layer for AdaptiveAvgPool<R, T> {
    type T = T;
    type Cache = AvgPoolCache<R, T>;

    fn check(&self) -> Result<()> {
        check_sizes(Self::NAME, "output_size", 1, self.sizes.map(|size| size.unwrap_or(1)))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        let (batch, mut axes): (_, [usize; R]) = split(Self::NAME, None, input)?;
        axes.iter_mut().zip(self.sizes).for_each(|(axis, size)| *axis = size.unwrap_or(*axis));
        join(batch, axes)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, _: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        cache.divide(x.shape(), &shape).means(x, y, shape, None); // y[o] = mean of window o
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
            cache.divide(call.x.shape(), call.dy.shape()).gradient(call, dx, None); // dx[i] = Σ dy[o]/m[o]
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::NAME).with("output_size", self.sizes)
    }
}

impl<const R: usize, T: Scalar> FromSpec<T> for AdaptiveAvgPool<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("pool")
        .formula("mean over windows that give a size")
        .page("layers/pool/adaptive_avg_pool2d.md")
        .torch(Self::NAME);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
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
        obeys_the_laws(n in 1..4usize, channels in 1..4usize, [h, w] in [1..8usize, 1..8], size in [option::of(1..6usize), option::of(1..6usize)]) {
            layer: AdaptiveAvgPool2d::new((size[0], size[1])),
            input: [n, channels, h, w],
            wrong: [n, channels, h],
            wrong: [n, channels, h, 0],
        }
        over_sequences_and_volumes_it_obeys_the_laws(
            n in 1..4usize, channels in 1..4usize, [d, h, w] in [1..6usize, 1..6, 1..6], flat in any::<bool>(),
            size in [option::of(1..5usize), option::of(1..5usize), option::of(1..5usize)],
        ) {
            layer: if flat {
                laws::BoxModule::new(AdaptiveAvgPool1d::<T>::new([size[0]]))
            } else {
                laws::BoxModule::new(AdaptiveAvgPool3d::<T>::new(size))
            },
            input: if flat { vec![n, channels, d] } else { vec![n, channels, d, h, w] },
            wrong: [n, channels, h, w],
        }
    }

    /// Two windows along an axis of 3: ⌊0⌋ … ⌈1.5⌉ and ⌊1.5⌋ … ⌈3⌉, which is (1 3) and (3 8): means 2 and 5½.
    /// For g = (10, 20): ∂x = (10/2, 10/2 + 20/2, 20/2).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from_vec([1, 1, 1, 3], vec![1., 3., 8.]).unwrap();
        let layer = AdaptiveAvgPool2d::new([1, 2]);
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), AvgPoolCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y.data(), [2., 5.5]);
        let dy = Tensor::from_vec([1, 1, 1, 2], vec![10., 20.]).unwrap();
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [5., 15., 10.]);
    }

    #[test]
    fn an_image_can_grow_and_an_axis_can_stay() {
        let x = Tensor::from_vec([1, 1, 1, 2], vec![1., 5.]).unwrap();
        assert_eq!(AdaptiveAvgPool2d::new((1, 4)).infer(&x).unwrap().data(), [1., 1., 5., 5.]);
        assert_eq!(AdaptiveAvgPool2d::new((None, None)).infer(&x).unwrap(), x);
        let shape = |layer: AdaptiveAvgPool2d, input: &[usize]| layer.output_shape(input);
        assert_eq!(*shape(AdaptiveAvgPool2d::new((None, Some(7))), &[2, 3, 4, 5]).unwrap(), [2, 3, 4, 7]);
        assert!(shape(AdaptiveAvgPool2d::new(0), &[2, 3, 4, 5]).is_err());
        assert!(shape(AdaptiveAvgPool2d::new(1), &[2, 3, 4]).is_err());
        assert!(shape(AdaptiveAvgPool2d::new(1), &[2, 3, 0, 4]).is_err());
    }
}
