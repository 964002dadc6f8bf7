//! A function of one's own, with its derivative.
//!
//! ```text
//! y = f(x)        ∂E/∂x = ∂E/∂y f'(x)
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/activation/activation.md.

use chainrule_core::{Call, Context, Grads, Layer, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::elementwise::{map, map2};

/// y = f(x) for a function f of single elements; the derivative is given x.
///
/// # Shapes
/// y has the shape of x, whatever it is.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Activation;
/// let square = Activation::new(|x: f32| x * x, |x: f32| 2.0 * x);
/// assert_eq!(square.infer(&Tensor::from([3.0]))?.data(), [9.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Activation<F, D> {
    f: F,
    derivative: D,
}

impl<F, D> Activation<F, D> {
    /// A function and its derivative. The gradient checker tells whether they belong together.
    pub fn new<T: Scalar>(f: F, derivative: D) -> Self
    where
        F: Fn(T) -> T,
        D: Fn(T) -> T,
    {
        Self { f, derivative }
    }
}

impl<T: Scalar, F, D> Layer<T> for Activation<F, D>
where
    F: Fn(T) -> T + Send + Sync,
    D: Fn(T) -> T + Send + Sync,
{
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
        map(x.data(), y.reset(*x.shape()), &self.f); // y = f(x)
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if let Some(dx) = dx {
            let dx = dx.reset(*call.x.shape());
            map2(call.x.data(), call.dy.data(), dx, |(x, dy)| dy * (self.derivative)(x)); // dx = dy f'(x)
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::tests::by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4)) {
            layer: Activation::new(|x: T| x * x * x, |x: T| (T::ONE + T::ONE + T::ONE) * x * x),
            input: shape,
        }
    }

    /// f(x) = x², f'(x) = 2x: at −1 and 3, y = 1, 9. For g = 5: ∂x = −10, 30.
    #[test]
    fn by_hand_values() {
        by_hand(Activation::new(|x: f64| x * x, |x: f64| 2.0 * x), [-1.0, 3.0], [1.0, 9.0], [-10.0, 30.0]);
    }
}
