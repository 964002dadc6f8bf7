//! Means over windows.
//!
//! ```text
//! y[o] = 1/m Σ over the elements i of window o of x[i]        ∂E/∂x[i] = Σ over the o that contain i of ∂E/∂y[o]/m
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/pool/avg_pool2d.md.

use super::{
    AvgPoolCache,
    windows::{Windows, plenty, sized, sliding},
};
use crate::Sizes;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::pool::Span;
use std::marker::PhantomData;

/// The mean of each window of each channel over R axes. LeCun, Boser, Denker, Henderson, Howard, Hubbard and Jackel, 1989.
///
/// # Shapes
/// x (N, C, H, W), y (N, C, H′, W′) with H′ = ⌊(H + 2·padding − kernel)/stride⌋ + 1, rounded up with `ceil_mode`.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::AvgPool2d;
/// let y = AvgPool2d::new(2).infer(&Tensor::from_vec([1, 1, 2, 2], vec![1.0f32, 2.0, 3.0, 6.0])?)?;
/// assert_eq!(y.data(), [3.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AvgPool<const R: usize, T = f32> {
    windows: Windows<R>,
    count_include_pad: bool,
    divisor: Option<usize>,
    scalar: PhantomData<T>,
}

/// The mean of each window of a sequence.
pub type AvgPool1d<T = f32> = AvgPool<1, T>;
/// The mean of each window of an image.
pub type AvgPool2d<T = f32> = AvgPool<2, T>;
/// The mean of each window of a volume.
pub type AvgPool3d<T = f32> = AvgPool<3, T>;

impl<const R: usize, T: Scalar> AvgPool<R, T> {
    const NAME: &'static str = ["AvgPool1d", "AvgPool2d", "AvgPool3d"][R - 1];

    /// Windows of a size (`2`, `[3, 5]`), side by side.
    pub fn new(kernel: impl Into<Sizes<R>>) -> Self {
        let windows = Windows::new(kernel.into().0);
        Self { windows, count_include_pad: true, divisor: None, scalar: PhantomData }
    }

    sliding!();

    /// Whether m counts the padding that lies in a window, `true` by default.
    #[must_use]
    pub fn count_include_pad(self, include: bool) -> Self {
        Self { count_include_pad: include, ..self }
    }

    /// A divisor in place of the count m.
    #[must_use]
    pub fn divisor_override(self, divisor: impl Into<Option<usize>>) -> Self {
        Self { divisor: divisor.into(), ..self }
    }

    /// Window o along an axis of n elements.
    fn window(&self, axis: usize, o: usize, n: usize) -> Span {
        self.windows.span(axis, o, n, self.count_include_pad)
    }
}

impl<const R: usize, T: Scalar> Layer for AvgPool<R, T> {
    type T = T;
    type Cache = AvgPoolCache<R, T>;

    fn check(&self) -> Result<()> {
        if self.divisor == Some(0) {
            return Err(Error::value(format!("{}: expected a divisor of at least 1, got 0", Self::NAME)));
        }
        self.windows.check(Self::NAME)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        self.windows.output_shape(Self::NAME, input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, _: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let cache = cache.cut(&shape, |axis, o| self.window(axis, o, x.shape()[axis + 2]));
        cache.means(x, y, shape, self.divisor); // y[o] = 1/m Σ x[i]
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
            let cache = cache.cut(call.dy.shape(), |axis, o| self.window(axis, o, call.x.shape()[axis + 2]));
            cache.gradient(call, dx, self.divisor); // dx[i] = Σ dy[o]/m
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::NAME)
            .with("kernel_size", self.windows.kernel)
            .with("stride", self.windows.stride)
            .with("padding", self.windows.padding)
            .with("ceil_mode", self.windows.ceil_mode)
            .with("count_include_pad", self.count_include_pad)
            .with("divisor_override", self.divisor)
    }
}

impl<const R: usize, T: Scalar> FromSpec<T> for AvgPool<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("pool")
        .formula("mean over a window")
        .page("layers/pool/avg_pool2d.md")
        .torch(Self::NAME);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let windows = Windows::from_args(args)?;
        Ok(Self { windows, ..Self::new(1) }
            .count_include_pad(args.or("count_include_pad", true)?)
            .divisor_override(args.optional::<usize>("divisor_override")?))
    }

    fn examples() -> Vec<Example> {
        let padded = Self::new([3; R]).stride(2).padding(1).ceil_mode(true).count_include_pad(false);
        vec![
            Example::new(Self::new(2).spec(), [sized::<R>(2, 3, 4)]),
            Example::new(padded.spec(), [sized::<R>(1, 2, 5)]),
            Example::new(Self::new(2).stride(1).divisor_override(3).spec(), [sized::<R>(2, 1, 3)]),
            Example::bench(Self::new(2).spec(), [plenty::<R>()]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            (kernel, padding, size) in crate::pool::windows::tests::windows(), stride in [1..4usize, 1..4], n in 1..4usize,
            channels in 1..4usize, ceil in any::<bool>(), include in any::<bool>(), divisor in option::of(1..6usize),
        ) {
            layer: AvgPool2d::new(kernel)
                .stride(stride)
                .padding(padding)
                .ceil_mode(ceil)
                .count_include_pad(include)
                .divisor_override(divisor),
            input: [n, channels, size[0], size[1]],
            wrong: [n, channels, size[0]],
        }
        over_sequences_and_volumes_it_obeys_the_laws(
            (kernel, padding, size) in crate::pool::windows::tests::windows(), (deep, before, depth) in (1..4usize, 0..2usize, 3..6usize),
            stride in [1..4usize, 1..4, 1..4], n in 1..3usize, channels in 1..4usize, [ceil, include, flat] in [any::<bool>(); 3],
            divisor in option::of(1..6usize),
        ) {
            layer: if flat {
                laws::BoxModule::new(
                    AvgPool1d::<T>::new([kernel[0]])
                        .stride([stride[0]])
                        .padding([padding[0]])
                        .ceil_mode(ceil)
                        .count_include_pad(include)
                        .divisor_override(divisor),
                )
            } else {
                laws::BoxModule::new(
                    AvgPool3d::<T>::new([deep, kernel[0], kernel[1]])
                        .stride(stride)
                        .padding([before.min(deep / 2), padding[0], padding[1]])
                        .ceil_mode(ceil)
                        .count_include_pad(include)
                        .divisor_override(divisor),
                )
            },
            input: if flat { vec![n, channels, size[0]] } else { vec![n, channels, depth, size[0], size[1]] },
            wrong: [n, channels, size[0], size[1]],
        }
    }

    fn row<const W: usize>(values: [f64; W]) -> Tensor<f64> {
        Tensor::from_vec([1, 1, 1, W], values.to_vec()).unwrap()
    }

    fn pass(layer: AvgPool2d<f64>, x: &Tensor<f64>, dy: &[f64]) -> (Tensor<f64>, Tensor<f64>) {
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), AvgPoolCache::default());
        layer.forward(x, &mut y, &mut cache, Context::train(0)).unwrap();
        let dy = Tensor::from_vec(*y.shape(), dy.to_vec()).unwrap();
        let call = Call::new(&layer, x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        (y, dx)
    }

    /// Windows of 2 with stride 1 over 1 3 7: means 2 and 5. For g = (10, 20): ∂x = (10/2, 10/2 + 20/2, 20/2).
    #[test]
    pub fn by_hand() {
        let (y, dx) = pass(AvgPool2d::new([1, 2]).stride(1), &row([1., 3., 7.]), &[10., 20.]);
        assert_eq!((y, dx), (row([2., 5.]), row([5., 15., 10.])));
    }

    /// Windows of 2 with one column of padding over 4 6: (pad 4), (6 pad). Their sums are 4 and 6.
    #[test]
    fn padding_counts_unless_told_otherwise() {
        let (layer, x) = (AvgPool2d::new([1, 2]).padding([0, 1]), row([4., 6.]));
        assert_eq!(pass(layer, &x, &[1., 1.]), (row([2., 3.]), row([0.5, 0.5])));
        assert_eq!(pass(layer.count_include_pad(false), &x, &[1., 1.]), (row([4., 6.]), row([1., 1.])));
        assert_eq!(pass(layer.divisor_override(4), &x, &[1., 1.]), (row([1., 1.5]), row([0.25, 0.25])));
    }

    /// Windows of 2 over 1 3 7 with a part at the end: (1 3), (7). The part counts its own pixels.
    #[test]
    fn ceil_mode_keeps_the_last_part_of_a_window() {
        let (layer, x) = (AvgPool2d::new([1, 2]), row([1., 3., 7.]));
        assert_eq!(pass(layer, &x, &[2.]), (row([2.]), row([1., 1., 0.])));
        assert_eq!(pass(layer.ceil_mode(true), &x, &[2., 2.]), (row([2., 7.]), row([1., 1., 2.])));
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        for layer in
            [AvgPool2d::<f32>::new(0), AvgPool2d::new(2).divisor_override(0), AvgPool2d::new(3).padding(2)]
        {
            assert!(layer.check().is_err());
        }
        assert!(AvgPool2d::<f32>::new(3).output_shape(&[1, 1, 2, 5]).is_err());
    }
}
