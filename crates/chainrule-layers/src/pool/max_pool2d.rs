//! Maxima over windows of an image.
//!
//! ```text
//! y[o] = max over the pixels i of window o of x[i]        ∂E/∂x[i] = Σ over the o that i won of ∂E/∂y[o]
//! ```
//!
//! The first of equals wins; NaN wins over all, the last of several. Keeps which pixel won each window. Derivation:
//! docs/layers/pool/max_pool2d.md.

use super::{Sliding, planes, sliding_builders};
use crate::Pair;
use chainrule_core::{Call, Context, Error, Grads, Layer, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::pool::{
    Slide, max_pool, max_pool_corners, max_pool_corners_gradient, max_pool_gradient,
};

/// The largest pixel of each window of each channel. Yamaguchi, Sakamoto, Akabane and Fujimoto, 1990.
///
/// # Shapes
/// x (N, C, H, W), y (N, C, H′, W′) with H′ = ⌊(H + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1, rounded up with
/// `ceil_mode`.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::MaxPool2d;
/// let y = MaxPool2d::new(2).infer(&Tensor::<f32>::zeros([8, 16, 28, 28]))?;
/// assert_eq!(y.shape()[..], [8, 16, 14, 14]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool2d {
    sliding: Sliding,
}

/// What forward keeps for backward.
#[derive(Debug, Default)]
pub struct MaxPool2dCache {
    recorded: bool,
    /// The pixel that won each window, counted within its plane, (N, C, H′, W′).
    winners: Vec<u32>,
    /// Instead of them, for 2 × 2 windows side by side: the corner that won, (N, C, H′, W′).
    corners: Vec<u8>,
}

impl MaxPool2d {
    /// Windows of a size (`2`, `[3, 5]`), side by side.
    pub fn new(kernel: impl Into<Pair>) -> Self {
        Self { sliding: Sliding::new("MaxPool2d", kernel.into()) }
    }

    sliding_builders!();

    /// The distance between the elements of a window, 1 by default.
    #[must_use]
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> Self {
        self.sliding.dilation = dilation.into();
        self
    }

    /// Whether windows are 2 × 2, side by side and all within the image.
    fn corners(&self, [h, w]: [usize; 2]) -> bool {
        let whole = !self.sliding.ceil_mode || (h % 2 == 0 && w % 2 == 0);
        whole
            && self.sliding
                == Sliding { ceil_mode: self.sliding.ceil_mode, ..Sliding::new("MaxPool2d", 2.into()) }
    }
}

impl<T: Scalar> Layer<T> for MaxPool2d {
    type Cache = MaxPool2dCache;

    fn check(&self) -> Result<()> {
        self.sliding.check()
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        let shape = self.sliding.output_shape(input)?;
        if input[2].saturating_mul(input[3]) >= u32::MAX as usize {
            return Err(Error::shape(format!(
                "MaxPool2d: expected images of less than 2³² pixels, got {input:?}"
            )));
        }
        Ok(shape)
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut MaxPool2dCache,
        cx: &mut Context,
    ) -> Result<()> {
        let shape = Layer::<T>::output_shape(self, x.shape())?;
        let ([_, _, h, w], y) = (planes("MaxPool2d", x.shape())?, y.reset(shape));
        cache.recorded = cx.recording();
        if self.corners([h, w]) {
            cache.corners.resize(if cache.recorded { y.len() } else { 0 }, 0);
            max_pool_corners(x.data(), y, cache.recorded.then_some(&mut cache.corners), [h, w]);
            return Ok(());
        }
        let Sliding { kernel, stride, padding, dilation, .. } = self.sliding;
        let slide = |input, output, kernel, stride, padding, dilation| Slide {
            input,
            output,
            kernel,
            stride,
            padding,
            dilation,
        };
        let rows = slide(h, shape[2], kernel.h, stride.h, padding.h, dilation.h);
        let cols = slide(w, shape[3], kernel.w, stride.w, padding.w, dilation.w);
        cache.winners.resize(if cache.recorded { y.len() } else { 0 }, 0);
        max_pool(x.data(), y, cache.recorded.then_some(&mut cache.winners), rows, cols);
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut MaxPool2dCache,
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let [_, _, h, w] = planes("MaxPool2d", call.x.shape())?;
        let corners = self.corners([h, w]);
        let kept = if corners { cache.corners.len() } else { cache.winners.len() };
        if !cache.recorded || kept != call.dy.len() {
            return Err(Error::not_recorded(
                "MaxPool2d: expected the cache of a recorded forward of this input",
            ));
        }
        let Some(dx) = dx else { return Ok(()) };
        let dx = dx.reset(*call.x.shape());
        if corners {
            max_pool_corners_gradient(call.dy.data(), &cache.corners, dx, [h, w]); // dx[winner[o]] = dy[o]
        } else {
            max_pool_gradient(call.dy.data(), &cache.winners, dx, h * w); // dx[winner[o]] += dy[o]
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            (kernel, padding, size) in crate::pool::tests::windows(), stride in [1..4usize, 1..4],
            dilation in [1..3usize, 1..3], n in 1..4usize, channels in 1..4usize, ceil in any::<bool>(),
        ) {
            layer: MaxPool2d::new(kernel).stride(stride).padding(padding).dilation(dilation).ceil_mode(ceil),
            // Room for a window that is dilated.
            input: [n, channels, size[0] + kernel[0], size[1] + kernel[1]],
            wrong: [n, channels, size[0]],
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

    fn pass(layer: MaxPool2d, x: &Tensor<f64>, dy: &[f64]) -> (Tensor<f64>, Tensor<f64>) {
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), MaxPool2dCache::default());
        layer.forward(x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
        assert_eq!(layer.infer(x).unwrap(), y);
        let dy = Tensor::from_vec(*y.shape(), dy.to_vec()).unwrap();
        layer
            .backward(Call { x, y: &y, dy: &dy }, &mut cache, &mut Grads::new(&layer), Some(&mut dx))
            .unwrap();
        (y, dx)
    }

    /// Windows (1 5; 2 5) and (0 3; 7 −1): maxima 5, the first of two, and 7. The gradient goes to these pixels.
    #[test]
    fn by_hand() {
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
        let shape =
            |layer: MaxPool2d, h, w| Layer::<f64>::output_shape(&layer, &[1, 1, h, w]).map(|s| [s[2], s[3]]);
        // A window of 3 over an image of 2 fits when its part counts.
        assert!(shape(MaxPool2d::new(3), 2, 2).is_err());
        assert_eq!(shape(MaxPool2d::new(3).stride(2).ceil_mode(true), 2, 2).unwrap(), [1, 1]);
        // A window that would begin in the padding behind the image does not count.
        assert_eq!(shape(MaxPool2d::new(2).stride(3).padding(1).ceil_mode(true), 2, 5).unwrap(), [1, 2]);
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        for layer in [
            MaxPool2d::new(0),
            MaxPool2d::new(2).stride(0),
            MaxPool2d::new(2).dilation([1, 0]),
            MaxPool2d::new([3, 2]).padding(2),
        ] {
            assert!(Layer::<f32>::check(&layer).is_err());
        }
        let shape = |input: &[usize]| Layer::<f32>::output_shape(&MaxPool2d::new(2), input);
        assert!(shape(&[1, 1, 1, 4]).is_err() && shape(&[1, 4, 4]).is_err() && shape(&[1, 1, 0, 4]).is_err());
        assert_eq!(shape(&[0, 3, 4, 5]).unwrap()[..], [0, 3, 2, 2]);
    }

    #[test]
    fn backward_wants_a_recorded_forward() {
        let (x, mut y, mut cache) =
            (image([[1., 2.], [3., 4.]]), Tensor::default(), MaxPool2dCache::default());
        let layer = MaxPool2d::new(2);
        layer.forward(&x, &mut y, &mut cache, &mut Context::infer()).unwrap();
        let call = Call { x: &x, y: &y, dy: &y };
        assert!(layer.backward(call, &mut cache, &mut Grads::new(&layer), None).is_err());
    }
}
