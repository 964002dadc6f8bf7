//! Maxima over windows.
//!
//! ```text
//! y[o] = max over the elements i of window o of x[i]        ∂E/∂x[i] = Σ over the o of which i is the maximum of ∂E/∂y[o]
//! ```
//!
//! Of equal elements the first is the maximum; NaN is above all, the last of several. Keeps the position of each maximum.
//! Derivation: docs/layers/pool/max_pool2d.md.

use super::windows::{Windows, check_positions, plenty, sized, sliding};
use crate::{Sizes, rank::axes_of};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::{
    Window,
    pool::{max_pool, max_pool_corners, max_pool_corners_gradient, max_pool_gradient},
};
use std::marker::PhantomData;

/// The largest element of each window of each channel over R axes. Yamaguchi, Sakamoto, Akabane and Fujimoto, 1990.
///
/// # Shapes
/// x (N, C, H, W), y (N, C, H′, W′) with H′ = ⌊(H + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1, rounded up with
/// `ceil_mode`.
///
/// [`MaxPool::with_indices`] also gives where the maxima were found.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::MaxPool2d;
/// let y = MaxPool2d::new(2).infer(&Tensor::<f32>::zeros([8, 16, 28, 28]))?;
/// assert_eq!(y.shape()[..], [8, 16, 14, 14]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MaxPool<const R: usize, T = f32> {
    pub(super) windows: Windows<R>,
    scalar: PhantomData<T>,
}

/// The largest element of each window of a sequence.
pub type MaxPool1d<T = f32> = MaxPool<1, T>;
/// The largest element of each window of an image.
pub type MaxPool2d<T = f32> = MaxPool<2, T>;
/// The largest element of each window of a volume.
pub type MaxPool3d<T = f32> = MaxPool<3, T>;

/// What forward keeps for backward.
#[derive(Debug, Default)]
pub struct MaxPoolCache {
    /// The shape of x, if the pass was recorded.
    recorded: Option<Shape>,
    /// The position of each maximum within its plane, (N, C, H′, W′).
    positions: Vec<u32>,
    /// Instead of them, for 2 × 2 windows side by side: the corner of the maximum, (N, C, H′, W′).
    corners: Vec<u8>,
}

impl<const R: usize, T: Scalar> MaxPool<R, T> {
    const NAME: &'static str = ["MaxPool1d", "MaxPool2d", "MaxPool3d"][R - 1];

    /// Windows of a size (`2`, `[3, 5]`), side by side.
    pub fn new(kernel: impl Into<Sizes<R>>) -> Self {
        Self { windows: Windows::new(kernel.into().0), scalar: PhantomData }
    }

    sliding!();

    /// The distance between the elements of a window, 1 by default.
    #[must_use]
    pub fn dilation(mut self, dilation: impl Into<Sizes<R>>) -> Self {
        self.windows.dilation = dilation.into().0;
        self
    }

    /// From the attributes of its windows.
    pub(super) fn from_args(args: &Args<'_, T>) -> Result<Self> {
        let windows = Windows::from_args(args)?;
        Ok(Self { windows, ..Self::new(1) }.dilation(args.or("dilation", [1; R])?))
    }

    /// The size of an image whose windows are 2 × 2, side by side and all within the image.
    fn corners(&self, input: &[usize]) -> Option<[usize; 2]> {
        let size = axes_of::<R>(input);
        let whole = !self.windows.ceil_mode || size.iter().all(|n| n % 2 == 0);
        let pairs = Windows { ceil_mode: self.windows.ceil_mode, ..Windows::new([2; R]) };
        (R == 2 && whole && self.windows == pairs).then(|| [size[0], size[R - 1]])
    }

    pub(super) fn window(&self, input: [usize; R]) -> Window<R> {
        let Windows { kernel, stride, padding, dilation, ceil_mode: ceil } = self.windows;
        Window { input, kernel, stride, dilation, padding: padding.map(|n| [n; 2]), ceil }
    }
}

impl<const R: usize, T: Scalar> Layer for MaxPool<R, T> {
    type T = T;
    type Cache = MaxPoolCache;

    fn check(&self) -> Result<()> {
        self.windows.check(Self::NAME)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        let shape = self.windows.output_shape(Self::NAME, input)?;
        check_positions(Self::NAME, input)?;
        Ok(shape)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut MaxPoolCache, cx: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let y = y.reset(shape);
        cache.recorded = cx.recording().then_some(*x.shape());
        let kept = if cx.recording() { y.len() } else { 0 };
        if let Some(size) = self.corners(x.shape()) {
            cache.corners.resize(kept, 0);
            max_pool_corners(x.data(), y, cx.recording().then_some(&mut cache.corners), size);
        } else {
            cache.positions.resize(kept, 0);
            let positions = cx.recording().then_some(&mut cache.positions[..]);
            max_pool(x.data(), y, positions, &self.window(axes_of(x.shape())));
        }
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut MaxPoolCache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let (shape, dy) = (*call.x.shape(), call.dy.data());
        let corners = self.corners(&shape);
        let kept = if corners.is_some() { cache.corners.len() } else { cache.positions.len() };
        if cache.recorded != Some(shape) || kept != dy.len() {
            let name = Self::NAME;
            return Err(Error::not_recorded(format!(
                "{name}: expected the cache of a recorded forward of this input"
            )));
        }
        let Some(dx) = dx else { return Ok(()) };
        if let Some(size) = corners {
            max_pool_corners_gradient(dy, &cache.corners, dx.reset(shape), size); // dx[maximum of o] = dy[o]
        } else {
            max_pool_gradient(dy, &cache.positions, dx.reset(shape), shape[2..].iter().product()); // dx[maximum of o] += dy[o]
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        let Ok(output) = self.output_shape(input) else { return 0 };
        let each = if self.corners(input).is_some() { size_of::<u8>() } else { size_of::<u32>() };
        output.volume().saturating_mul(each)
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::NAME)
            .with("kernel_size", self.windows.kernel)
            .with("stride", self.windows.stride)
            .with("padding", self.windows.padding)
            .with("dilation", self.windows.dilation)
            .with("ceil_mode", self.windows.ceil_mode)
    }
}

impl<const R: usize, T: Scalar> FromSpec<T> for MaxPool<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("pool")
        .formula("max over a window")
        .page("layers/pool/max_pool2d.md")
        .torch(Self::NAME);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        args.only("return_indices", false)?;
        Self::from_args(args)
    }

    fn examples() -> Vec<Example> {
        let overlapping = Self::new(3).stride(2).padding(1).dilation(2).ceil_mode(true);
        vec![
            Example::new(Self::new(2).spec(), [sized::<R>(2, 3, 4)]),
            Example::new(overlapping.spec(), [sized::<R>(1, 2, 5)]),
            Example::bench(Self::new(2).spec(), [plenty::<R>()]),
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
            (kernel, padding, size) in crate::pool::windows::tests::windows(), stride in [1..4usize, 1..4],
            dilation in [1..3usize, 1..3], n in 1..4usize, channels in 1..4usize, ceil in any::<bool>(),
        ) {
            layer: MaxPool2d::new(kernel).stride(stride).padding(padding).dilation(dilation).ceil_mode(ceil),
            // Room for a window that is dilated.
            input: [n, channels, size[0] + kernel[0], size[1] + kernel[1]],
            wrong: [n, channels, size[0]],
        }
        over_sequences_and_volumes_it_obeys_the_laws(
            (kernel, padding, size) in crate::pool::windows::tests::windows(), (deep, before, depth) in (1..4usize, 0..2usize, 5..8usize),
            stride in [1..4usize, 1..4, 1..4], dilation in [1..3usize, 1..3, 1..3], n in 1..3usize, channels in 1..3usize,
            [ceil, flat] in [any::<bool>(); 2],
        ) {
            layer: if flat {
                laws::BoxModule::new(
                    MaxPool1d::<T>::new([kernel[0]])
                        .stride([stride[0]])
                        .padding([padding[0]])
                        .dilation([dilation[0]])
                        .ceil_mode(ceil),
                )
            } else {
                laws::BoxModule::new(
                    MaxPool3d::<T>::new([deep, kernel[0], kernel[1]])
                        .stride(stride)
                        .padding([before.min(deep / 2), padding[0], padding[1]])
                        .dilation([dilation[2], dilation[0], dilation[1]])
                        .ceil_mode(ceil),
                )
            },
            input: {
                let [h, w] = [size[0] + kernel[0], size[1] + kernel[1]];
                if flat { vec![n, channels, h] } else { vec![n, channels, depth, h, w] }
            },
            wrong: [n, channels, size[0], size[1]],
        }
        two_by_two_windows_obey_the_laws(n in 1..4usize, channels in 1..4usize, [h, w] in [2..9usize, 2..9]) {
            layer: MaxPool2d::new(2),
            input: [n, channels, h, w],
            wrong: [n, channels, 1, w],
        }
    }

    fn image<const H: usize, const W: usize>(rows: [[f64; W]; H]) -> Tensor<f64> {
        Tensor::from_vec([1, 1, H, W], rows.as_flattened().to_vec()).unwrap()
    }

    fn pass(layer: MaxPool2d<f64>, x: &Tensor<f64>, dy: &[f64]) -> (Tensor<f64>, Tensor<f64>) {
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), MaxPoolCache::default());
        layer.forward(x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(layer.infer(x).unwrap(), y);
        let dy = Tensor::from_vec(*y.shape(), dy.to_vec()).unwrap();
        layer
            .backward(
                Call::new(&layer, x, &y, &dy).unwrap(),
                &mut cache,
                &mut Grads::new(&layer),
                Some(&mut dx),
            )
            .unwrap();
        (y, dx)
    }

    /// Windows (1 5; 2 5) and (0 3; 7 −1): maxima 5, the first of two, and 7. The gradient goes to these pixels.
    #[test]
    pub fn by_hand() {
        let x = image([[1., 5., 0., 3.], [2., 5., 7., -1.]]);
        let (y, dx) = pass(MaxPool2d::new(2), &x, &[10., 20.]);
        assert_eq!(y, image([[5., 7.]]));
        assert_eq!(dx, image([[0., 10., 0., 0.], [0., 0., 20., 0.]]));
    }

    /// Windows of 3 with stride 1 over 1 9 2 3: both have the maximum 9, whose gradient is 10 + 20.
    #[test]
    fn windows_that_overlap_add_their_gradients() {
        let (y, dx) = pass(MaxPool2d::new([1, 3]).stride(1), &image([[1., 9., 2., 3.]]), &[10., 20.]);
        assert_eq!((y, dx), (image([[9., 9.]]), image([[0., 30., 0., 0.]])));
    }

    #[test]
    fn padding_never_wins_and_nan_always_does() {
        let layer = MaxPool2d::new(2).padding(1);
        let (y, _) = pass(layer, &image([[-1., -2.], [-3., -4.]]), &[1.; 4]);
        assert_eq!(y, image([[-1., -2.], [-3., -4.]]));
        for layer in [MaxPool2d::new(2), MaxPool2d::new([2, 1]).stride(2)] {
            let y = layer.infer(&image([[f64::NAN, 1.], [2., f64::NAN]])).unwrap();
            assert!(y.data()[0].is_nan());
        }
    }

    #[test]
    fn ceil_mode_keeps_the_last_part_of_a_window() {
        let x = image([[1., 2., 3.]]);
        let (layer, ceil) = (MaxPool2d::new([1, 2]), MaxPool2d::new([1, 2]).ceil_mode(true));
        assert_eq!(pass(layer, &x, &[1.]).0, image([[2.]]));
        assert_eq!(pass(ceil, &x, &[1., 1.]).0, image([[2., 3.]]));
        let shape = |layer: MaxPool2d, h, w| layer.output_shape(&[1, 1, h, w]).map(|s| [s[2], s[3]]);
        // A window of 3 over an image of 2 fits when its part counts.
        assert!(shape(MaxPool2d::new(3), 2, 2).is_err());
        assert_eq!(shape(MaxPool2d::new(3).stride(2).ceil_mode(true), 2, 2).unwrap(), [1, 1]);
        // A window that would begin in the padding behind the image does not count.
        assert_eq!(shape(MaxPool2d::new(2).stride(3).padding(1).ceil_mode(true), 2, 5).unwrap(), [1, 2]);
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        for layer in [
            MaxPool2d::<f32>::new(0),
            MaxPool2d::new(2).stride(0),
            MaxPool2d::new(2).dilation([1, 0]),
            MaxPool2d::new([3, 2]).padding(2),
        ] {
            assert!(layer.check().is_err());
        }
        let shape = |input: &[usize]| MaxPool2d::<f32>::new(2).output_shape(input);
        assert!(shape(&[1, 1, 1, 4]).is_err() && shape(&[1, 4, 4]).is_err() && shape(&[1, 1, 0, 4]).is_err());
        assert_eq!(shape(&[0, 3, 4, 5]).unwrap()[..], [0, 3, 2, 2]);
    }

    #[test]
    fn backward_wants_a_recorded_forward() {
        let (x, mut y, mut cache) = (image([[1., 2.], [3., 4.]]), Tensor::default(), MaxPoolCache::default());
        let layer = MaxPool2d::new(2);
        layer.forward(&x, &mut y, &mut cache, Context::infer()).unwrap();
        let call = Call::new(&layer, &x, &y, &y).unwrap();
        assert!(layer.backward(call, &mut cache, &mut Grads::new(&layer), None).is_err());
    }
}
