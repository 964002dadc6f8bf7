//! A user-defined function of single elements, with its derivative.
//!
//! ```text
//! y = f(x)        ∂E/∂x = ∂E/∂y f'(x)
//! ```
//!
//! Stores nothing. Derivation: docs/layers/activation/activation.md.

use chainrule_core::{Call, Context, Grads, Layer, Result, Scalar, Shape, Spec, Tensor};
use chainrule_tensor::kernels::elementwise::{map, map2};
use std::{fmt, marker::PhantomData};

/// y = f(x), element by element; f' is given as a function of x.
///
/// # Shapes
/// x and y have one shape, of any rank.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Activation;
/// let square = Activation::new(|x: f32| x * x, |x: f32| 2.0 * x);
/// assert_eq!(square.infer(&Tensor::from([3.0]))?.data(), [9.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Activation<F, D, T = f32> {
    f: F,
    derivative: D,
    of: PhantomData<T>,
}

impl<F, D, T: Scalar> Activation<F, D, T> {
    /// A function and its derivative. The gradient checker tells whether they agree.
    pub fn new(f: F, derivative: D) -> Self
    where
        F: Fn(T) -> T,
        D: Fn(T) -> T,
    {
        Self { f, derivative, of: PhantomData }
    }
}

impl<F, D, T: Scalar> Layer for Activation<F, D, T>
where
    F: Fn(T) -> T + Send + Sync,
    D: Fn(T) -> T + Send + Sync,
{
    type T = T;
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
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

    fn reads_output(&self) -> bool {
        false
    }
}

impl<F, D, T> fmt::Display for Activation<F, D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Spec::opaque::<Self>().fmt(f)
    }
}

impl<F, D, T> fmt::Debug for Activation<F, D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::activation::tests::assert_by_hand;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..6usize, 0..4)) {
            layer: Activation::new(|x: T| x * x * x, |x: T| (T::ONE + T::ONE + T::ONE) * x * x),
            input: shape,
        }
    }

    /// f(x) = x², f'(x) = 2x: at −1 and 3, y = 1, 9. For g = 5: ∂x = −10, 30.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            Activation::new(|x: f64| x * x, |x: f64| 2.0 * x),
            [-1.0, 3.0],
            [1.0, 9.0],
            [-10.0, 30.0],
        );
    }
}
