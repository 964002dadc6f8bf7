//! An axis several times in a row.
//!
//! ```text
//! y[…, i, …] = x[…, i mod n, …]        ∂E/∂x[…, j, …] = Σₖ ∂E/∂y[…, j + k n, …]
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/repeat.md.

use crate::rank::{axis, check_sizes};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::axis::{spread_along, sum_along};
use std::marker::PhantomData;

/// An axis of x several times in a row: a b | a b | a b.
///
/// # Shapes
/// x (…, n, …), y (…, times n, …). A negative axis counts from the end: −1 is the last.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Repeat;
/// let y = Repeat::new(1, 2).infer(&Tensor::from([[1.0f32, 2.0]]))?;
/// assert_eq!(y.data(), [1.0, 2.0, 1.0, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Repeat<T = f32> {
    dim: isize,
    times: usize,
    of: PhantomData<T>,
}

impl<T: Scalar> Repeat<T> {
    /// The axis `dim` so many times.
    pub fn new(dim: isize, times: usize) -> Self {
        Self { dim, times, of: PhantomData }
    }

    /// Elements of x from the axis on, and y's shape.
    fn sizes(&self, input: &[usize]) -> Result<(usize, Shape)> {
        self.check()?;
        let shape = Shape::new(input)?;
        let at = axis(self.dim, shape.len()).ok_or_else(|| {
            Error::shape(format!("Repeat: expected an input with axis {}, got {input:?}", self.dim))
        })?;
        let longer = shape.with(at, shape[at].saturating_mul(self.times));
        Ok((shape[at..].iter().product(), Shape::new(&longer)?))
    }
}

impl<T: Scalar> Layer for Repeat<T> {
    type T = T;
    type Cache = ();

    fn check(&self) -> Result<()> {
        check_sizes("Repeat", "times", 1, [self.times])
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Ok(self.sizes(input)?.1)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        let (width, shape) = self.sizes(x.shape())?;
        spread_along(x.data(), y.reset(shape), self.times, width, T::ONE); // y[k n + j] = x[j]
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
        let (width, _) = self.sizes(call.x.shape())?;
        sum_along(call.dy.data(), dx.reset(*call.x.shape()), self.times, width, 1.0); // dx[j] = Σₖ dy[k n + j]
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new("Repeat").with("dim", self.dim).with("times", self.times)
    }
}

impl<T: Scalar> FromSpec<T> for Repeat<T> {
    const FACTS: Facts = Facts::new("Repeat")
        .family("shape")
        .formula("an axis of x, several times")
        .page("layers/shape/repeat.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("dim")?, args.get("times")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(1, 3).spec(), [[2, 4]]),
            Example::new(Self::new(-1, 2).spec(), [[3, 3, 2]]),
            Example::bench(Self::new(1, 4).spec(), [[8, 16, 32, 32]]),
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
            (shape, axis) in collection::vec(1..5usize, 1..4).prop_flat_map(|shape| {
                let rank = shape.len() as isize;
                (Just(shape), -rank..rank)
            }),
            times in 1..5usize,
        ) {
            layer: Repeat::new(axis, times),
            input: shape,
            wrong: vec![2; if axis < 0 { (-axis) as usize - 1 } else { axis as usize }],
        }
    }

    /// (1 2) twice: (1 2 1 2). For g = (1 2 4 8): ∂x = (1 + 4, 2 + 8) = (5 10).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from([[1., 2.]]);
        let layer = Repeat::<f64>::new(1, 2);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y, Tensor::from([[1., 2., 1., 2.]]));
        let (dy, mut dx) = (Tensor::from([[1., 2., 4., 8.]]), Tensor::default());
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx, Tensor::from([[5., 10.]]));
    }

    #[test]
    fn numbers_that_make_no_sense_are_errors() {
        for times in [0, usize::MAX, 1 << 31] {
            assert!(Repeat::<f32>::new(0, times).check().is_err());
        }
        assert!(Repeat::<f32>::new(1, (1 << 31) - 1).output_shape(&[1 << 20, 1 << 20]).is_err());
    }
}
