//! A part of an axis.
//!
//! ```text
//! y[…, i, …] = x[…, start + i, …]        ∂E/∂x[…, j, …] = ∂E/∂y[…, j − start, …], 0 outside the part
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/narrow.md.

use crate::rank::{axis, check_sizes};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::pad::place;
use std::marker::PhantomData;

/// `length` elements of an axis, from `start` on.
///
/// # Shapes
/// x (…, n, …), y (…, length, …). A negative axis counts from the end: −1 is the last.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Narrow;
/// let y = Narrow::new(1, 1, 2).infer(&Tensor::from([[1.0f32, 2.0, 3.0, 4.0]]))?;
/// assert_eq!(y.data(), [2.0, 3.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Narrow<T = f32> {
    dim: isize,
    start: usize,
    length: usize,
    of: PhantomData<T>,
}

impl<T: Scalar> Narrow<T> {
    /// The elements from `start` to `start + length` of the axis `dim`.
    pub fn new(dim: isize, start: usize, length: usize) -> Self {
        Self { dim, start, length, of: PhantomData }
    }

    /// Sizes of x and y as (1, n, inner), with the outer axes as planes, and y's shape.
    fn sizes(&self, input: &[usize]) -> Result<([[usize; 2]; 2], Shape)> {
        self.check()?;
        let (shape, Self { dim, start, length, .. }) = (Shape::new(input)?, *self);
        match axis(dim, shape.len()) {
            Some(at) if start.saturating_add(length) <= shape[at] => {
                let inner: usize = shape[at + 1..].iter().product();
                Ok(([[shape[at], inner], [length, inner]], shape.with(at, length)))
            }
            _ => Err(Error::shape(format!(
                "Narrow: expected an input with elements {start} to {} along axis {dim}, got {input:?}",
                start.saturating_add(length)
            ))),
        }
    }
}

impl<T: Scalar> Layer for Narrow<T> {
    type T = T;
    type Cache = ();

    fn check(&self) -> Result<()> {
        check_sizes("Narrow", "start", 0, [self.start])?;
        check_sizes("Narrow", "length", 1, [self.length])
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Ok(self.sizes(input)?.1)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        let (sizes, shape) = self.sizes(x.shape())?;
        place(x.data(), y.reset(shape), sizes, [-(self.start as isize), 0], T::ZERO); // y[i] = x[start + i]
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
        let ([from, to], _) = self.sizes(call.x.shape())?;
        let dx = dx.reset(*call.x.shape()); // dx[start + i] = dy[i]
        place(call.dy.data(), dx, [to, from], [self.start as isize, 0], T::ZERO);
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn spec(&self) -> Spec {
        Spec::new("Narrow").with("dim", self.dim).with("start", self.start).with("length", self.length)
    }
}

impl<T: Scalar> FromSpec<T> for Narrow<T> {
    const FACTS: Facts =
        Facts::new("Narrow").family("shape").formula("a part of an axis of x").page("layers/shape/narrow.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("dim")?, args.get("start")?, args.get("length")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(1, 1, 2).spec(), [[2, 4]]),
            Example::new(Self::new(-2, 0, 2).spec(), [[3, 3, 2]]),
            Example::bench(Self::new(1, 16, 32).spec(), [[8, 64, 32, 32]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Module;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws((shape, axis, start, length) in collection::vec(1..5usize, 1..4).prop_flat_map(|shape| {
            let rank = shape.len();
            (Just(shape), 0..rank).prop_flat_map(|(shape, axis)| {
                let n = shape[axis];
                (Just(shape), Just(axis), 0..n).prop_flat_map(move |(shape, axis, start)| {
                    (Just(shape), Just(axis), Just(start), 1..=n - start)
                })
            })
        })) {
            layer: Narrow::new(axis as isize, start, length),
            input: shape,
            wrong: vec![2; axis], wrong: vec![start + length - 1; axis + 1],
        }
    }

    /// Columns 1 to 3 of (1 2 3; 4 5 6): (2 3; 5 6). For g = (7 8; 9 10): ∂x = (0 7 8; 0 9 10).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from([[1., 2., 3.], [4., 5., 6.]]);
        let layer = Narrow::<f64>::new(-1, 1, 2);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y, Tensor::from([[2., 3.], [5., 6.]]));
        let (dy, mut dx) = (Tensor::from([[7., 8.], [9., 10.]]), Tensor::default());
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx, Tensor::from([[0., 7., 8.], [0., 9., 10.]]));
    }

    #[test]
    fn parts_that_make_no_sense_are_errors() {
        for (start, length) in [(0, 0), (usize::MAX, 1), (1, usize::MAX), (0, 1 << 31)] {
            assert!(Narrow::<f32>::new(0, start, length).check().is_err());
        }
        let text = Narrow::<f32>::new(1, 1, 4).output_shape(&[3, 4]).unwrap_err().to_string();
        assert_eq!(text, "Narrow: expected an input with elements 1 to 5 along axis 1, got [3, 4]");
    }
}
