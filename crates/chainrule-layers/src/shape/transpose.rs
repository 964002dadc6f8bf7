//! Two axes exchanged.
//!
//! ```text
//! y[…, j, …, i, …] = x[…, i, …, j, …]        ∂E/∂x: ∂E/∂y, the axes exchanged again
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/permute.md.

use super::order::{Reorder, Reordered, reordered};
use crate::rank::axis;
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Layer, Result, Scalar, Shape, Spec};
use std::marker::PhantomData;

/// Two axes exchanged.
///
/// # Shapes
/// x (…, A, …, B, …), y (…, B, …, A, …). A negative axis counts from the end: −1 is the last.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Transpose;
/// let y = Transpose::new(1, 2).infer(&Tensor::<f32>::zeros([2, 3, 8]))?;
/// assert_eq!(y.shape()[..], [2, 8, 3]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Transpose<T = f32> {
    dim0: isize,
    dim1: isize,
    of: PhantomData<T>,
}

impl<T: Scalar> Transpose<T> {
    /// These two axes exchanged.
    pub fn new(dim0: isize, dim1: isize) -> Self {
        Self { dim0, dim1, of: PhantomData }
    }
}

impl<T: Scalar> Reorder for Transpose<T> {
    fn reordered(&self, input: &[usize]) -> Result<Reordered> {
        let from = Shape::new(input)?;
        let Some((a, b)) = axis(self.dim0, from.len()).zip(axis(self.dim1, from.len())) else {
            let Self { dim0, dim1, .. } = self;
            return Err(Error::shape(format!(
                "Transpose: expected an input with axes {dim0} and {dim1}, got {input:?}"
            )));
        };
        let (mut order, mut output) = (from, from);
        order.iter_mut().enumerate().for_each(|(i, o)| *o = i);
        order.swap(a, b);
        output.swap(a, b);
        Ok(Reordered { from, order, output })
    }

    fn settings(&self) -> Spec {
        Spec::new("Transpose").with("dim0", self.dim0).with("dim1", self.dim1)
    }
}

reordered!(Transpose);

impl<T: Scalar> FromSpec<T> for Transpose<T> {
    const FACTS: Facts = Facts::new("Transpose")
        .family("shape")
        .formula("x, two axes exchanged")
        .page("layers/shape/permute.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("dim0")?, args.get("dim1")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(1, 2).spec(), [[2, 3, 4]]),
            Example::new(Self::new(0, -1).spec(), [[2, 3, 4]]),
            Example::bench(Self::new(1, 2).spec(), [[32, 256, 128]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::{Call, Grads, Module, Tensor};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws((shape, a, b) in collection::vec(1..4usize, 1..5).prop_flat_map(|shape| {
            let rank = shape.len() as isize;
            (Just(shape), -rank..rank, -rank..rank)
        })) {
            layer: Transpose::new(a, b),
            input: shape,
            wrong: vec![2; if a < 0 { (-a) as usize - 1 } else { a as usize }],
        }
    }

    /// (1 2 3; 4 5 6) transposed: (1 4; 2 5; 3 6). For g = (0 1; 2 3; 4 5): ∂x = (0 2 4; 1 3 5).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from([[1., 2., 3.], [4., 5., 6.]]);
        let layer = Transpose::<f64>::new(0, -1);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y, Tensor::from([[1., 4.], [2., 5.], [3., 6.]]));
        let (dy, mut dx) = (Tensor::from([[0., 1.], [2., 3.], [4., 5.]]), Tensor::default());
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx, Tensor::from([[0., 2., 4.], [1., 3., 5.]]));
    }

    #[test]
    fn an_axis_out_of_range_is_an_error() {
        let text = Transpose::<f32>::new(1, 2).output_shape(&[3, 4]).unwrap_err().to_string();
        assert_eq!(text, "Transpose: expected an input with axes 1 and 2, got [3, 4]");
    }
}
