//! Another shape of each sample.
//!
//! ```text
//! y = x, each sample in another shape        ∂E/∂x = ∂E/∂y, in x's shape
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/reshape.md.

use crate::rank::check_shape;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::elementwise::copy;
use std::marker::PhantomData;

/// Each sample in another shape of as many elements.
///
/// # Shapes
/// x (N, …), y (N, shape…).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Reshape;
/// let y = Reshape::new([2, 3]).infer(&Tensor::<f32>::zeros([4, 6]))?;
/// assert_eq!(y.shape()[..], [4, 2, 3]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reshape<T = f32> {
    shape: Shape,
    of: PhantomData<T>,
}

impl<T: Scalar> Reshape<T> {
    /// Samples of this shape.
    pub fn new(shape: impl Into<Shape>) -> Self {
        Self { shape: shape.into(), of: PhantomData }
    }
}

impl<T: Scalar> Layer for Reshape<T> {
    type T = T;
    type Cache = ();

    fn check(&self) -> Result<()> {
        check_shape("Reshape", Shape::new(&self.shape))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        let given = Shape::new(input)?;
        match given[..] {
            [n, ref sample @ ..] if sample.iter().product::<usize>() == self.shape.volume() => {
                self.shape.iter().try_fold(Shape::from([n]), |shape, &n| shape.push(n))
            }
            _ => Err(Error::shape(format!(
                "Reshape: expected samples of {} elements, got input {input:?}",
                self.shape.volume()
            ))),
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        copy(x.data(), y.reset(self.output_shape(x.shape())?)); // y = x
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let Some(dx) = dx else { return Ok(()) };
        copy(call.dy.data(), dx.reset(*call.x.shape())); // dx = dy
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new("Reshape").with("shape", self.shape)
    }
}

impl<T: Scalar> FromSpec<T> for Reshape<T> {
    const FACTS: Facts = Facts::new("Reshape")
        .family("shape")
        .formula("x, samples in another shape")
        .page("layers/shape/reshape.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get::<Shape>("shape")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new([2, 3]).spec(), [[2, 6]]),
            Example::new(Self::new(12).spec(), [[3, 2, 3, 2]]),
            Example::bench(Self::new([16, 8, 8]).spec(), [[32, 1024]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Module;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(n in 1..4usize, a in 1..4usize, b in 1..4usize, c in 1..4usize) {
            layer: Reshape::new([b, a * c]),
            input: [n, a, b, c],
            wrong: [n, a * b * c + 1], wrong: [],
        }
    }

    /// A sample of 4 elements as (2, 2): the same elements; ∂E/∂x has the shape of x.
    #[test]
    pub fn by_hand() {
        let x = Tensor::from([[0., 1., 2., 3.]]);
        let layer = Reshape::<f64>::new([2, 2]);
        let y = layer.infer(&x).unwrap();
        assert_eq!((&y.shape()[..], y.data()), (&[1, 2, 2][..], x.data()));
        let mut dx = Tensor::default();
        let call = Call::new(&layer, &x, &y, &y).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx, x);
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        assert!(Reshape::<f32>::new([usize::MAX, 2]).check().is_err());
        let text = Reshape::<f32>::new([2, 2]).output_shape(&[3, 5]).unwrap_err().to_string();
        assert_eq!(text, "Reshape: expected samples of 4 elements, got input [3, 5]");
        assert_eq!(*Reshape::<f32>::new([]).output_shape(&[3, 1]).unwrap(), [3]);
    }
}
