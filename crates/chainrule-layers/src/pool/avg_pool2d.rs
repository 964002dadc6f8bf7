//! Means over windows of an image.
//!
//! ```text
//! y[o] = 1/m Σ over the pixels i of window o of x[i]        ∂E/∂x[i] = Σ over the o that i is in of ∂E/∂y[o]/m
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/pool/avg_pool2d.md.

use super::{AvgPoolCache, Sliding, sliding_builders};
use crate::Pair;
use chainrule_core::{Call, Context, Error, Grads, Layer, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::pool::Window;

/// The mean of each window of each channel. LeCun, Boser, Denker, Henderson, Howard, Hubbard and Jackel, 1989.
///
/// # Shapes
/// x (N, C, H, W), y (N, C, H′, W′) with H′ = ⌊(H + 2·padding − kernel)/stride⌋ + 1, rounded up with `ceil_mode`.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::AvgPool2d;
/// let y = AvgPool2d::new(2).infer(&Tensor::from_vec([1, 1, 2, 2], vec![1.0f32, 2.0, 3.0, 6.0])?)?;
/// assert_eq!(y.data(), [3.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvgPool2d {
    sliding: Sliding,
    count_include_pad: bool,
    divisor: Option<usize>,
}

impl AvgPool2d {
    /// Windows of a size (`2`, `[3, 5]`), side by side.
    pub fn new(kernel: impl Into<Pair>) -> Self {
        Self { sliding: Sliding::new("AvgPool2d", kernel.into()), count_include_pad: true, divisor: None }
    }

    sliding_builders!();

    /// Whether m counts the padding that lies in a window, `true` by default.
    #[must_use]
    pub fn count_include_pad(self, include: bool) -> Self {
        Self { count_include_pad: include, ..self }
    }

    /// A number to take for m instead of the count.
    #[must_use]
    pub fn divisor_override(self, divisor: impl Into<Option<usize>>) -> Self {
        Self { divisor: divisor.into(), ..self }
    }

    fn windows<T: Scalar>(&self, input: &[usize], output: &[usize], cache: &mut AvgPoolCache<T>) {
        let Sliding { kernel, stride, padding, .. } = self.sliding;
        let window = |o: usize, n: usize, kernel: usize, stride: usize, padding: usize| {
            let (start, end) = (o * stride, (o * stride + kernel).min(n + 2 * padding)); // counted from the padding on
            let (inside, outside) = (start.max(padding) - padding, end.clamp(padding, n + padding) - padding);
            let count = if self.count_include_pad { end - start } else { outside.saturating_sub(inside) };
            Window { start: inside, end: outside, count }
        };
        cache.cut(
            (0..output[2]).map(|o| window(o, input[2], kernel.h, stride.h, padding.h)),
            (0..output[3]).map(|o| window(o, input[3], kernel.w, stride.w, padding.w)),
        );
    }
}

impl<T: Scalar> Layer<T> for AvgPool2d {
    type Cache = AvgPoolCache<T>;

    fn check(&self) -> Result<()> {
        if self.divisor == Some(0) {
            return Err(Error::value("AvgPool2d: expected a divisor of at least 1, got 0"));
        }
        self.sliding.check()
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Layer::<T>::check(self)?;
        self.sliding.output_shape(input)
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut AvgPoolCache<T>,
        _: &mut Context,
    ) -> Result<()> {
        let shape = Layer::<T>::output_shape(self, x.shape())?;
        self.windows(x.shape(), &shape, cache);
        cache.means(x, y.reset(shape), self.divisor);
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
            self.windows(call.x.shape(), call.y.shape(), cache);
            cache.gradient(call, dx, self.divisor);
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
            (kernel, padding, size) in crate::pool::tests::windows(), stride in [1..4usize, 1..4], n in 1..4usize,
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
    }

    fn row<const W: usize>(values: [f64; W]) -> Tensor<f64> {
        Tensor::from_vec([1, 1, 1, W], values.to_vec()).unwrap()
    }

    fn pass(layer: AvgPool2d, x: &Tensor<f64>, dy: &[f64]) -> (Tensor<f64>, Tensor<f64>) {
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), AvgPoolCache::default());
        layer.forward(x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
        let dy = Tensor::from_vec(*y.shape(), dy.to_vec()).unwrap();
        let call = Call { x, y: &y, dy: &dy };
        layer.backward(call, &mut cache, &mut Grads::<f64>::new(&layer), Some(&mut dx)).unwrap();
        (y, dx)
    }

    /// Windows of 2 with stride 1 over 1 3 7: means 2 and 5. For g = (10, 20): ∂x = (10/2, 10/2 + 20/2, 20/2).
    #[test]
    fn by_hand() {
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
        for layer in [AvgPool2d::new(0), AvgPool2d::new(2).divisor_override(0), AvgPool2d::new(3).padding(2)]
        {
            assert!(Layer::<f32>::check(&layer).is_err());
        }
        assert!(Layer::<f32>::output_shape(&AvgPool2d::new(3), &[1, 1, 2, 5]).is_err());
    }
}
