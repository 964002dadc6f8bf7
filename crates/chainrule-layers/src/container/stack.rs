//! Inputs along a new axis.
//!
//! ```text
//! y[…, i, …] = xᵢ        ∂E/∂xᵢ = ∂E/∂y[…, i, …]
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/container/stack.md.

use super::{
    along::Parts, count, inputs_expected, not_recorded, only_gradient, only_output, pull_expected, same,
};
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Module, ModuleCall, Parameters, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

/// Inputs of one shape along a new axis, two unless [`Stack::parts`] says otherwise; for a [`super::Graph`].
///
/// # Shapes
/// All inputs have one shape, y an axis more, of as many elements as there are inputs. A negative axis counts from the end of
/// y's: −1 is the last.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Stack;
/// let (a, b) = (Tensor::from([[1.0f32, 2.0]]), Tensor::from([[3.0, 4.0]]));
/// let y = Stack::new(-1).infer([&a, &b])?;
/// assert_eq!((&y.shape()[..], y.data()), (&[1, 2, 2][..], &[1.0, 3.0, 2.0, 4.0][..]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Stack<T = f32> {
    dim: isize,
    parts: usize,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Stack<T> {
    /// Two inputs along the new axis `dim`.
    pub fn new(dim: isize) -> Self {
        Self { dim, parts: 2, scalar: PhantomData }
    }

    /// So many inputs.
    #[must_use]
    pub fn parts(self, parts: usize) -> Self {
        Self { parts, ..self }
    }

    /// The shape of inputs with an axis of length `n` at `dim`.
    fn with_axis(&self, shape: &[usize], n: usize) -> Result<Shape> {
        let at = crate::rank::axis(self.dim, shape.len() + 1).ok_or_else(|| {
            let dim = self.dim;
            Error::shape(format!("Stack: expected inputs with room for axis {dim}, got shape {shape:?}"))
        })?;
        let mut out = Shape::default();
        for &length in shape[..at].iter().chain([&n]).chain(&shape[at..]) {
            out = out.push(length)?;
        }
        Ok(out)
    }

    /// y's shape from those of the inputs.
    fn stacked(&self, shapes: impl Iterator<Item = Shape>) -> Result<Shape> {
        self.with_axis(&same("Stack", shapes)?, self.parts)
    }
}

impl<T: Scalar> Parameters for Stack<T> {
    type T = T;

    fn list<'a>(&'a self, _: &mut Params<'_, 'a, T>) {}

    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, T>) {}

    fn validate(&self) -> Result<()> {
        count("Stack", "parts", self.parts)
    }
}

impl<T: Scalar> Module for Stack<T> {
    type State = ();

    fn inputs(&self) -> usize {
        self.parts
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.validate()?;
        inputs_expected("Stack", self.parts, inputs.len())?;
        Ok(vec![self.stacked(inputs.iter().copied())?])
    }

    fn apply(&self, xs: &[&Tensor<T>], ys: &mut [Tensor<T>], _: &mut (), _: Context) -> Result<()> {
        inputs_expected("Stack", self.parts, xs.len())?;
        let shape = self.stacked(xs.iter().map(|x| *x.shape()))?;
        let y = only_output(ys)?;
        y.reset(shape);
        let mut parts = Parts::new("Stack", self.dim, &shape)?;
        for x in xs {
            parts.put_as(&self.with_axis(x.shape(), 1)?, x, y); // y[…, i, …] = xᵢ
        }
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        pull_expected("Stack", self.parts, &call, dxs)?;
        let (y, dy) = only_gradient(&call)?;
        if self.stacked(call.xs.iter().map(|x| *x.shape()))? != *y.shape() {
            return Err(not_recorded("Stack"));
        }
        let mut parts = Parts::new("Stack", self.dim, y.shape())?;
        for (x, dx) in call.xs.iter().zip(dxs) {
            let part = self.with_axis(x.shape(), 1)?;
            match (dx, dy) {
                (Some(dx), Some(dy)) => {
                    parts.take(dy, part, dx); // dxᵢ = dy[…, i, …]
                    dx.reshape(*x.shape())?;
                }
                (Some(dx), None) => dx.reset(*x.shape()).fill(T::ZERO),
                (None, _) => parts.skip(&part),
            }
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn to_spec(&self) -> Spec {
        Spec::new("Stack").with("dim", self.dim).with("parts", self.parts)
    }
}

impl<T: Scalar> FromSpec<T> for Stack<T> {
    const FACTS: Facts = Facts::new("Stack")
        .family("container")
        .formula("[x₀, x₁, …] along a new axis")
        .page("layers/container/stack.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.or("dim", 0)?).parts(args.or("parts", 2)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(1).to_spec(), [[3, 4]; 2]),
            Example::new(Self::new(-1).parts(3).to_spec(), [[2, 2, 3]; 3]),
            Example::bench(Self::new(1).to_spec(), [[64, 1024]; 2]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            (shape, dim) in collection::vec(1..4usize, 1..4).prop_flat_map(|shape| {
                let rank = shape.len() as isize + 1;
                (Just(shape), -rank..rank)
            }),
            parts in 1..4usize,
        ) {
            layer: Stack::<T>::new(dim).parts(parts),
            inputs: vec![shape.clone(); parts],
            wrong_inputs: vec![shape.clone(); parts + 1],
        }
    }

    /// (1 2) and (3 4) along a new axis 1: ((1 2), (3 4)); along the last: ((1 3), (2 4)), and for g = ((5 6), (7 8)) there:
    /// ∂x₀ = (5 7), ∂x₁ = (6 8).
    #[test]
    pub fn by_hand() {
        let (a, b) = (Tensor::<f64>::from([[1.0, 2.0]]), Tensor::from([[3.0, 4.0]]));
        let xs = [&a, &b];
        assert_eq!(Stack::new(1).infer(xs).unwrap().data(), [1.0, 2.0, 3.0, 4.0]);
        let (stack, mut ys) = (Stack::new(2), [Tensor::default()]);
        stack.apply(&xs, &mut ys, &mut (), Context::frozen()).unwrap();
        assert_eq!(ys[0].data(), [1.0, 3.0, 2.0, 4.0]);
        let dy = Tensor::from_vec([1, 2, 2], vec![5.0, 6.0, 7.0, 8.0]).unwrap();
        let (mut da, mut db) = (Tensor::default(), Tensor::default());
        let (mut grads, dys) = (Grads::new(&stack), [Some(&dy)]);
        let call = ModuleCall::new(&stack, &xs, &ys, &dys).unwrap();
        stack.pull(call, &mut (), &mut grads, &mut [Some(&mut da), Some(&mut db)]).unwrap();
        assert_eq!((da, db), (Tensor::from([[5.0, 7.0]]), Tensor::from([[6.0, 8.0]])));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let shapes = |shapes: &[&[usize]]| shapes.iter().map(|s| Shape::new(s).unwrap()).collect::<Vec<_>>();
        assert!(Stack::<f32>::new(2).output_shapes(&shapes(&[&[2], &[2]])).is_err());
        assert!(Stack::<f32>::new(0).output_shapes(&shapes(&[&[2], &[3]])).is_err());
        for parts in [0, usize::MAX] {
            assert!(Stack::<f32>::new(0).parts(parts).validate().is_err());
        }
    }
}
