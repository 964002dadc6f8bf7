//! The sum of several inputs.
//!
//! ```text
//! y = Σᵢ xᵢ        ∂E/∂xᵢ = ∂E/∂y
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/container/add.md.

use chainrule_core::{Context, Error, Grads, MultiCall, MultiLayer, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::elementwise::add_assign;

/// y = x₀ + x₁ + …, for a [`super::Graph`].
///
/// # Shapes
/// All inputs and y have one shape.
///
/// # Examples
/// ```
/// use chainrule_core::{Context, MultiLayer, Tensor};
/// use chainrule_layers::Add;
/// let (a, b, mut y) = (Tensor::from([1.0f32, 2.0]), Tensor::from([10.0, 20.0]), Tensor::default());
/// Add::new().forward(&[&a, &b], &mut y, &mut (), &mut Context::infer())?;
/// assert_eq!(y.data(), [11.0, 22.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Add;

impl Add {
    /// A sum.
    pub fn new() -> Self {
        Self
    }
}

impl<T: Scalar> MultiLayer<T> for Add {
    type Cache = ();

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        match inputs {
            [first, rest @ ..] if rest.iter().all(|other| other == first) => Shape::new(first),
            _ => Err(Error::shape(format!("Add: expected inputs of one shape, got {inputs:?}"))),
        }
    }

    fn forward(&self, xs: &[&Tensor<T>], y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
        super::single::with_shapes(xs, |shapes| MultiLayer::<T>::output_shape(self, shapes))?;
        y.copy_from(xs[0]);
        xs[1..].iter().for_each(|x| add_assign(y.data_mut(), x.data())); // y += xᵢ
        Ok(())
    }

    fn backward(
        &self,
        call: MultiCall<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        dxs.iter_mut().flatten().for_each(|dx| dx.copy_from(call.dy)); // dxᵢ = dy
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 1..4), count in 1..5usize) {
            layer: Add::new(),
            inputs: vec![shape.clone(); count],
            wrong_inputs: [shape.clone(), [&shape[..], &[2]].concat()],
        }
    }

    /// (1, 2) + (10, 20) + (100, 200) = (111, 222); for g = (3, 4) every ∂xᵢ is (3, 4).
    #[test]
    fn by_hand() {
        let xs = [[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]].map(Tensor::<f64>::from);
        let xs: Vec<&Tensor<f64>> = xs.iter().collect();
        let (mut y, dy) = (Tensor::default(), Tensor::from([3.0, 4.0]));
        Add.forward(&xs, &mut y, &mut (), &mut Context::frozen()).unwrap();
        assert_eq!(y.data(), [111.0, 222.0]);
        let (mut a, mut c) = (Tensor::default(), Tensor::default());
        let mut grads = Grads::new(&crate::Sequential::<f64>::new());
        let call = MultiCall { xs: &xs, y: &y, dy: &dy };
        Add.backward(call, &mut (), &mut grads, &mut [Some(&mut a), None, Some(&mut c)]).unwrap();
        assert_eq!((a.data(), c.data()), (dy.data(), dy.data()));
        assert!(MultiLayer::<f64>::output_shape(&Add, &[&[2], &[3]]).is_err());
    }
}
