//! Flattening of adjacent axes into one.
//!
//! ```text
//! y = x, axes start … end flattened        ∂E/∂x = ∂E/∂y, in x's shape
//! ```
//!
//! Stores nothing. Derivation: docs/layers/shape/flatten.md.

use crate::rank::axis;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::elementwise::copy;
use std::marker::PhantomData;

/// Flattens the axes `start_dim` to `end_dim`, both included, into one.
///
/// # Shapes
/// x (N, C, H, W), y (N, C·H·W) by default. A negative axis counts from the end: −1 is the last.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Flatten;
/// let y = Flatten::new().infer(&Tensor::<f32>::zeros([32, 16, 5, 5]))?;
/// assert_eq!(y.shape()[..], [32, 400]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flatten<T = f32> {
    start_dim: isize,
    end_dim: isize,
    of: PhantomData<T>,
}

impl<T: Scalar> Default for Flatten<T> {
    fn default() -> Self {
        Self { start_dim: 1, end_dim: -1, of: PhantomData }
    }
}

impl<T: Scalar> Flatten<T> {
    /// Flattens all axes but the first, the batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first axis to flatten, 1 by default.
    #[must_use]
    pub fn start_dim(self, start_dim: isize) -> Self {
        Self { start_dim, ..self }
    }

    /// The last axis to flatten, −1 by default.
    #[must_use]
    pub fn end_dim(self, end_dim: isize) -> Self {
        Self { end_dim, ..self }
    }
}

impl<T: Scalar> Layer for Flatten<T> {
    type T = T;
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        let (axes, input) = (input.len(), Shape::new(input)?);
        match (axis(self.start_dim, axes), axis(self.end_dim, axes)) {
            (Some(start), Some(end)) if start <= end => {
                let mut flat = Shape::new(&input[..=start])?;
                flat[start] = input[start..=end].iter().product();
                input[end + 1..].iter().try_fold(flat, |shape, &n| shape.push(n))
            }
            _ => Err(Error::shape(format!(
                "Flatten: expected an input with axes {} to {} in this order, got {input:?}",
                self.start_dim, self.end_dim
            ))),
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        copy(x.data(), y.reset(self.output_shape(x.shape())?));
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
            copy(call.dy.data(), dx.reset(*call.x.shape())); // dx = dy
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new("Flatten").with("start_dim", self.start_dim).with("end_dim", self.end_dim)
    }
}

impl<T: Scalar> FromSpec<T> for Flatten<T> {
    const FACTS: Facts = Facts::new("Flatten")
        .family("shape")
        .formula("x, adjacent axes as one")
        .page("layers/shape/flatten.md")
        .torch("Flatten");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().start_dim(args.or("start_dim", 1)?).end_dim(args.or("end_dim", -1)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new().spec(), [[2, 3, 4]]),
            Example::new(Self::new().start_dim(0).end_dim(-2).spec(), [[2, 3, 4, 5]]),
            Example::bench(Self::new().spec(), [[32, 16, 8, 8]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Module;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws((shape, start, end) in collection::vec(1..4usize, 1..6).prop_flat_map(|shape| {
            let rank = shape.len();
            (Just(shape), 0..rank).prop_flat_map(move |(shape, start)| {
                (Just(shape), Just(start), start..rank, any::<bool>()).prop_map(|(shape, start, end, back)| {
                    let shift = if back { shape.len() as isize } else { 0 };
                    (shape, start as isize - shift, end as isize - shift)
                })
            })
        })) {
            layer: Flatten::new().start_dim(start).end_dim(end),
            input: shape,
            wrong: vec![2; if end < 0 { (-start) as usize - 1 } else { end as usize }],
        }
    }

    fn shape(layer: Flatten<f64>, input: &[usize]) -> Result<Shape> {
        layer.output_shape(input)
    }

    /// The axes 1 to 2 of (2, 1, 3), flattened: (2, 3) with the same elements; ∂E/∂x has the shape of x.
    #[test]
    pub fn by_hand() {
        let x = Tensor::from_fn([2, 1, 3], |i| i as f64);
        let y = Flatten::new().infer(&x).unwrap();
        assert_eq!(y, Tensor::from([[0., 1., 2.], [3., 4., 5.]]));
        let layer = Flatten::new();
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let call = Call::new(&layer, &x, &y, &y).unwrap();
        layer.backward(call, &mut (), &mut grads, Some(&mut dx)).unwrap();
        assert_eq!(dx, x);
    }

    #[test]
    fn any_range_of_axes_can_be_flattened() {
        let input = [2, 3, 4, 5];
        assert_eq!(*shape(Flatten::new().start_dim(2), &input).unwrap(), [2, 3, 20]);
        assert_eq!(*shape(Flatten::new().start_dim(0), &input).unwrap(), [120]);
        assert_eq!(*shape(Flatten::new().end_dim(2), &input).unwrap(), [2, 12, 5]);
        assert_eq!(*shape(Flatten::new().start_dim(-3).end_dim(-2), &input).unwrap(), [2, 12, 5]);
        assert_eq!(*shape(Flatten::new(), &[0, 3, 4]).unwrap(), [0, 12]);
    }

    #[test]
    fn axes_out_of_range_are_an_error() {
        for (start, end) in [(4, -1), (2, 1), (-5, -1), (1, 4), (1, -5)] {
            assert!(shape(Flatten::new().start_dim(start).end_dim(end), &[2, 3, 4, 5]).is_err());
        }
        assert!(shape(Flatten::new(), &[7]).is_err());
    }
}
