//! Logarithms of probabilities along one axis.
//!
//! ```text
//! yᵢ = xᵢ − ln Σⱼ exp xⱼ
//! ∂E/∂xᵢ = gᵢ − exp(yᵢ) Σⱼ gⱼ,   g = ∂E/∂y
//! ```
//!
//! The maximum is subtracted first. Keeps nothing. Derivation: docs/layers/activation/log_softmax.md.

use super::around;
use chainrule_core::{Call, Context, Grads, Layer, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::softmax::{Kind, backward, forward};

/// yᵢ = xᵢ − ln Σⱼ exp xⱼ along one axis.
///
/// # Shapes
/// y has the shape of x; the axis is counted from the front, batch included, or from the back when negative.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::LogSoftmax;
/// let y = LogSoftmax::new(-1).infer(&Tensor::from([[1.0f32, 1.0]]))?;
/// assert_eq!(y.data(), [-(2f32.ln()); 2]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmax {
    axis: isize,
}

impl LogSoftmax {
    /// Along `axis`.
    pub fn new(axis: isize) -> Self {
        Self { axis }
    }
}

impl<T: Scalar> Layer<T> for LogSoftmax {
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        around("LogSoftmax", self.axis, input)?;
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
        let (_, n, inner) = around("LogSoftmax", self.axis, x.shape())?;
        forward(Kind::LogSoftmax, x.data(), y.reset(*x.shape()), n, inner);
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let (_, n, inner) = around("LogSoftmax", self.axis, call.x.shape())?;
        if let Some(dx) = dx {
            // dx = dy − exp(y) Σ dy
            backward(Kind::LogSoftmax, call.y.data(), call.dy.data(), dx.reset(*call.x.shape()), n, inner);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws((shape, axis) in collection::vec(1..6usize, 1..5).prop_flat_map(|shape| {
            let rank = shape.len() as isize;
            (Just(shape), -rank..rank)
        })) {
            layer: LogSoftmax::new(axis),
            input: shape,
            wrong: vec![2; if axis < 0 { (-axis) as usize - 1 } else { axis as usize }],
        }
    }

    /// x = (0, ln 3): y = (−ln 4, ln 3 − ln 4). For g = (4, 8): Σ g = 12, ∂x = (4 − 12/4, 8 − 12·¾) = (1, −1).
    #[test]
    fn by_hand() {
        let (x, dy) = (Tensor::from([[0.0, 3f64.ln()]]), Tensor::from([[4.0, 8.0]]));
        let layer = LogSoftmax::new(-1);
        let (y, mut dx) = (layer.infer(&x).unwrap(), Tensor::default());
        let mut grads = Grads::new(&layer);
        layer.backward(Call { x: &x, y: &y, dy: &dy }, &mut (), &mut grads, Some(&mut dx)).unwrap();
        for (got, want) in y.data().iter().chain(dx.data()).zip([-(4f64.ln()), 0.75f64.ln(), 1.0, -1.0]) {
            assert!((got - want).abs() < 1e-14, "{got} for {want}");
        }
    }

    #[test]
    fn an_axis_that_is_not_there_is_an_error() {
        let text = Layer::<f32>::output_shape(&LogSoftmax::new(2), &[3, 4]).unwrap_err().to_string();
        assert_eq!(text, "LogSoftmax: expected an input with axis 2, got shape [3, 4]");
    }
}
