//! Unflattening of an axis into several: the inverse of flattening.
//!
//! ```text
//! y = x, axis dim as axes of these sizes        ∂E/∂x = ∂E/∂y, in x's shape
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/reshape.md.

use crate::rank::{axis, check_shape};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::elementwise::copy;
use std::marker::PhantomData;

/// One axis as several, which have its elements in the same order.
///
/// # Shapes
/// x (…, d, …), y (…, d₁, d₂, …, …) with d = d₁⋯dₖ. A negative axis counts from the end: −1 is the last.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Unflatten;
/// let y = Unflatten::new(1, [2, 3]).infer(&Tensor::<f32>::zeros([4, 6]))?;
/// assert_eq!(y.shape()[..], [4, 2, 3]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Unflatten<T = f32> {
    dim: isize,
    sizes: Shape,
    of: PhantomData<T>,
}

impl<T: Scalar> Unflatten<T> {
    /// The axis `dim` as axes of these sizes.
    pub fn new(dim: isize, sizes: impl Into<Shape>) -> Self {
        Self { dim, sizes: sizes.into(), of: PhantomData }
    }
}

impl<T: Scalar> Layer for Unflatten<T> {
    type T = T;
    type Cache = ();

    fn check(&self) -> Result<()> {
        if self.sizes.is_empty() {
            return Err(Error::value("Unflatten: expected at least one size, got none"));
        }
        check_shape("Unflatten", Shape::new(&self.sizes))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        let at = axis(self.dim, input.len());
        match at {
            Some(at) if input[at] == self.sizes.volume() => {
                let axes = input[at + 1..].iter();
                self.sizes.iter().chain(axes).try_fold(Shape::new(&input[..at])?, |shape, &n| shape.push(n))
            }
            _ => Err(Error::shape(format!(
                "Unflatten: expected {} elements along axis {}, got input {input:?}",
                self.sizes.volume(),
                self.dim
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
        Spec::new("Unflatten").with("dim", self.dim).with("unflattened_size", self.sizes)
    }
}

impl<T: Scalar> FromSpec<T> for Unflatten<T> {
    const FACTS: Facts = Facts::new("Unflatten")
        .family("shape")
        .formula("x, an axis as several")
        .page("layers/shape/reshape.md")
        .torch("Unflatten");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("dim")?, args.get::<Shape>("unflattened_size")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(1, [2, 3]).spec(), [[2, 6]]),
            Example::new(Self::new(-2, [2, 2]).spec(), [[3, 4, 5]]),
            Example::bench(Self::new(1, [16, 8, 8]).spec(), [[32, 1024]]),
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
            before in collection::vec(1..4usize, 1..3), sizes in collection::vec(1..4usize, 1..3),
            after in collection::vec(1..4usize, 0..2), back in any::<bool>(),
        ) {
            layer: Unflatten::new(
                if back { -1 - after.len() as isize } else { before.len() as isize },
                Shape::new(&sizes).unwrap(),
            ),
            input: [before.clone(), vec![sizes.iter().product()], after.clone()].concat(),
            wrong: [before.clone(), vec![sizes.iter().product::<usize>() + 1], after.clone()].concat(),
        }
    }

    /// The axis of 6 elements of (1, 6) as (2, 3): the same elements; ∂E/∂x has the shape of x.
    #[test]
    pub fn by_hand() {
        let x = Tensor::from([[0., 1., 2., 3., 4., 5.]]);
        let layer = Unflatten::<f64>::new(1, [2, 3]);
        let y = layer.infer(&x).unwrap();
        assert_eq!((&y.shape()[..], y.data()), (&[1, 2, 3][..], x.data()));
        let mut dx = Tensor::default();
        let call = Call::new(&layer, &x, &y, &y).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx, x);
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        assert!(Unflatten::<f32>::new(0, []).check().is_err());
        assert!(Unflatten::<f32>::new(1, [usize::MAX, 2]).check().is_err());
        let text = Unflatten::<f32>::new(1, [2, 2]).output_shape(&[3, 5]).unwrap_err().to_string();
        assert_eq!(text, "Unflatten: expected 4 elements along axis 1, got input [3, 5]");
        assert!(Unflatten::<f32>::new(2, [2, 2]).output_shape(&[3, 4]).is_err());
    }
}
