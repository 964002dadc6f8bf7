//! Probabilities along one axis (Bridle 1990).
//!
//! ```text
//! yᵢ = exp xᵢ / Σⱼ exp xⱼ
//! ∂E/∂xᵢ = yᵢ (gᵢ − Σⱼ gⱼ yⱼ),   g = ∂E/∂y
//! ```
//!
//! The maximum is subtracted first. Keeps nothing. Derivation: docs/layers/activation/softmax.md.

use super::around;
use chainrule_core::{Call, Context, Grads, Layer, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::softmax::{Kind, backward, forward};

/// yᵢ = exp xᵢ / Σⱼ exp xⱼ along one axis.
///
/// # Shapes
/// y has the shape of x; the axis is counted from the front, batch included, or from the back when negative.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Softmax;
/// let y = Softmax::new(-1).infer(&Tensor::from([[1.0f32, 1.0]]))?;
/// assert_eq!(y.data(), [0.5, 0.5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    axis: isize,
}

impl Softmax {
    /// Along `axis`.
    pub fn new(axis: isize) -> Self {
        Self { axis }
    }
}

impl<T: Scalar> Layer<T> for Softmax {
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        around("Softmax", self.axis, input)?;
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
        let (_, n, inner) = around("Softmax", self.axis, x.shape())?;
        forward(Kind::Softmax, x.data(), y.reset(*x.shape()), n, inner);
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let (_, n, inner) = around("Softmax", self.axis, call.x.shape())?;
        if let Some(dx) = dx {
            // dx = y (dy − Σ dy y)
            backward(Kind::Softmax, call.y.data(), call.dy.data(), dx.reset(*call.x.shape()), n, inner);
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
            layer: Softmax::new(axis),
            input: shape,
            wrong: vec![2; if axis < 0 { (-axis) as usize - 1 } else { axis as usize }],
        }
    }

    /// x = (0, ln 3): exp = (1, 3), y = (¼, ¾). For g = (4, 8): Σ g y = 1 + 6 = 7, ∂x = (¼·(−3), ¾·1) = (−¾, ¾).
    #[test]
    fn by_hand() {
        let (x, dy) = (Tensor::from([[0.0, 3f64.ln()]]), Tensor::from([[4.0, 8.0]]));
        let layer = Softmax::new(1);
        let (y, mut dx) = (layer.infer(&x).unwrap(), Tensor::default());
        let mut grads = Grads::new(&layer);
        layer.backward(Call { x: &x, y: &y, dy: &dy }, &mut (), &mut grads, Some(&mut dx)).unwrap();
        for (got, want) in y.data().iter().chain(dx.data()).zip([0.25, 0.75, -0.75, 0.75]) {
            assert!((got - want).abs() < 1e-15, "{got} for {want}");
        }
    }

    #[test]
    fn an_axis_that_is_not_there_is_an_error() {
        let text = Layer::<f32>::output_shape(&Softmax::new(2), &[3, 4]).unwrap_err().to_string();
        assert_eq!(text, "Softmax: expected an input with axis 2, got shape [3, 4]");
    }
}
