//! Means over windows that divide an image into a given number of parts.
//!
//! ```text
//! window o of O along an axis of n = ⌊o n/O⌋ … ⌈(o + 1) n/O⌉ − 1
//! y[o] = mean over the pixels i of window o of x[i]        ∂E/∂x[i] = Σ over the o that i is in of ∂E/∂y[o]/m[o]
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/pool/adaptive_avg_pool2d.md.

use super::{AvgPoolCache, planes};
use chainrule_core::{Call, Context, Error, Grads, Layer, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::pool::Window;

/// Means of windows, as many as asked for, whatever the size of the image. The windows overlap by a pixel where the sizes
/// do not divide.
///
/// # Shapes
/// x (N, C, H, W), y (N, C, H′, W′) with H′ and W′ as given, or as in x where given as `None`.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::AdaptiveAvgPool2d;
/// let x = Tensor::<f32>::zeros([8, 3, 11, 9]);
/// assert_eq!(AdaptiveAvgPool2d::new(4).infer(&x)?.shape()[..], [8, 3, 4, 4]);
/// assert_eq!(AdaptiveAvgPool2d::new((Some(4), None)).infer(&x)?.shape()[..], [8, 3, 4, 9]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveAvgPool2d {
    size: OutputSize,
}

/// Height and width of an output, `None` for that of the input: from `4`, `[4, 5]`, `(4, 5)` or `(Some(4), None)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputSize {
    /// The height.
    pub h: Option<usize>,
    /// The width.
    pub w: Option<usize>,
}

impl<P: Into<crate::Pair>> From<P> for OutputSize {
    fn from(pair: P) -> Self {
        let pair = pair.into();
        Self { h: Some(pair.h), w: Some(pair.w) }
    }
}

impl From<(Option<usize>, Option<usize>)> for OutputSize {
    fn from((h, w): (Option<usize>, Option<usize>)) -> Self {
        Self { h, w }
    }
}

/// Fills the cache with the windows that cut `input` into `output`.
pub(super) fn windows<T: Scalar>(input: &[usize], output: &[usize], cache: &mut AvgPoolCache<T>) {
    let window = |o: usize, n: usize, parts: usize| {
        let (start, end) = (o * n / parts, ((o + 1) * n).div_ceil(parts));
        Window { start, end, count: end - start }
    };
    cache.cut(
        (0..output[2]).map(|o| window(o, input[2], output[2])),
        (0..output[3]).map(|o| window(o, input[3], output[3])),
    );
}

impl AdaptiveAvgPool2d {
    /// Means that make an image of a size.
    pub fn new(size: impl Into<OutputSize>) -> Self {
        Self { size: size.into() }
    }
}

impl<T: Scalar> Layer<T> for AdaptiveAvgPool2d {
    type Cache = AvgPoolCache<T>;

    fn check(&self) -> Result<()> {
        if self.size.h == Some(0) || self.size.w == Some(0) {
            return Err(Error::value(
                "AdaptiveAvgPool2d: expected an output of at least one pixel, got none",
            ));
        }
        Ok(())
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Layer::<T>::check(self)?;
        let [n, c, h, w] = planes("AdaptiveAvgPool2d", input)?;
        Shape::new(&[n, c, self.size.h.unwrap_or(h), self.size.w.unwrap_or(w)])
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut AvgPoolCache<T>,
        _: &mut Context,
    ) -> Result<()> {
        let shape = Layer::<T>::output_shape(self, x.shape())?;
        windows(x.shape(), &shape, cache);
        cache.means(x, y.reset(shape), None);
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
            cache.gradient(call, dx, None);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(n in 1..4usize, channels in 1..4usize, [h, w] in [1..8usize, 1..8], size in [option::of(1..6usize), option::of(1..6usize)]) {
            layer: AdaptiveAvgPool2d::new((size[0], size[1])),
            input: [n, channels, h, w],
            wrong: [n, channels, h],
            wrong: [n, channels, h, 0],
        }
    }

    /// Two windows along an axis of 3: ⌊0⌋ … ⌈1.5⌉ and ⌊1.5⌋ … ⌈3⌉, which is (1 3) and (3 8): means 2 and 5½.
    /// For g = (10, 20): ∂x = (10/2, 10/2 + 20/2, 20/2).
    #[test]
    fn by_hand() {
        let x = Tensor::from_vec([1, 1, 1, 3], vec![1., 3., 8.]).unwrap();
        let layer = AdaptiveAvgPool2d::new([1, 2]);
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), AvgPoolCache::default());
        layer.forward(&x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
        assert_eq!(y.data(), [2., 5.5]);
        let dy = Tensor::from_vec([1, 1, 1, 2], vec![10., 20.]).unwrap();
        let call = Call { x: &x, y: &y, dy: &dy };
        layer.backward(call, &mut cache, &mut Grads::<f64>::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx.data(), [5., 15., 10.]);
    }

    #[test]
    fn an_image_can_grow_and_an_axis_can_stay() {
        let x = Tensor::from_vec([1, 1, 1, 2], vec![1., 5.]).unwrap();
        assert_eq!(AdaptiveAvgPool2d::new((1, 4)).infer(&x).unwrap().data(), [1., 1., 5., 5.]);
        assert_eq!(AdaptiveAvgPool2d::new((None, None)).infer(&x).unwrap(), x);
        let shape = |layer: AdaptiveAvgPool2d, input: &[usize]| Layer::<f32>::output_shape(&layer, input);
        assert_eq!(*shape(AdaptiveAvgPool2d::new((None, Some(7))), &[2, 3, 4, 5]).unwrap(), [2, 3, 4, 7]);
        assert!(shape(AdaptiveAvgPool2d::new(0), &[2, 3, 4, 5]).is_err());
        assert!(shape(AdaptiveAvgPool2d::new(1), &[2, 3, 4]).is_err());
        assert!(shape(AdaptiveAvgPool2d::new(1), &[2, 3, 0, 4]).is_err());
    }
}
