//! Several inputs joined along one axis.
//!
//! ```text
//! y = [x₀ | x₁ | …]        ∂E/∂xᵢ = the part of ∂E/∂y that came from xᵢ
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/container/concat.md.

use super::{
    along::{Parts, joined},
    count, inputs_expected, not_recorded, only_gradient, only_output, pull_expected,
};
use chainrule_core::{
    Args, Context, Example, Facts, FromSpec, Grads, Module, ModuleCall, Parameters, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

/// y = x₀, x₁, … side by side along one axis, of two inputs unless [`Concat::parts`] says otherwise; for a
/// [`super::Graph`].
///
/// # Shapes
/// The inputs may differ in that axis alone; y has the sum of their lengths there.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Concat;
/// let (a, b) = (Tensor::from([[1.0f32], [2.0]]), Tensor::from([[3.0], [4.0]]));
/// assert_eq!(Concat::new(1).infer([&a, &b])?, Tensor::from([[1.0, 3.0], [2.0, 4.0]]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Concat<T = f32> {
    dim: isize,
    parts: usize,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Concat<T> {
    /// Joins two inputs along the axis `dim`, counted from the back when negative; 1 is the axis of channels or features.
    pub fn new(dim: isize) -> Self {
        Self { dim, parts: 2, scalar: PhantomData }
    }

    /// Joins so many inputs.
    #[must_use]
    pub fn parts(self, parts: usize) -> Self {
        Self { parts, ..self }
    }
}

impl<T: Scalar> Parameters for Concat<T> {
    type T = T;

    fn list<'a>(&'a self, _: &mut Params<'_, 'a, T>) {}

    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, T>) {}

    fn validate(&self) -> Result<()> {
        count("Concat", "parts", self.parts)
    }
}

impl<T: Scalar> Module for Concat<T> {
    type State = ();

    fn inputs(&self) -> usize {
        self.parts
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.validate()?;
        inputs_expected("Concat", self.parts, inputs.len())?;
        Ok(vec![joined("Concat", self.dim, inputs.iter().copied())?])
    }

    fn apply(&self, xs: &[&Tensor<T>], ys: &mut [Tensor<T>], _: &mut (), _: Context) -> Result<()> {
        inputs_expected("Concat", self.parts, xs.len())?;
        let shape = joined("Concat", self.dim, xs.iter().map(|x| *x.shape()))?;
        let y = only_output(ys)?;
        y.reset(shape);
        let mut parts = Parts::new("Concat", self.dim, &shape)?;
        xs.iter().for_each(|x| parts.put(x, y)); // y[its part] = xᵢ
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        pull_expected("Concat", self.parts, &call, dxs)?;
        let (y, dy) = only_gradient(&call)?;
        if joined("Concat", self.dim, call.xs.iter().map(|x| *x.shape()))? != *y.shape() {
            return Err(not_recorded("Concat"));
        }
        let mut parts = Parts::new("Concat", self.dim, y.shape())?;
        for (x, dx) in call.xs.iter().zip(dxs) {
            match (dx, dy) {
                (Some(dx), Some(dy)) => parts.take(dy, *x.shape(), dx), // dxᵢ = dy[its part]
                (Some(dx), None) => dx.reset(*x.shape()).fill(T::ZERO),
                (None, _) => parts.skip(x.shape()),
            }
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn to_spec(&self) -> Spec {
        Spec::new("Concat").with("dim", self.dim).with("parts", self.parts)
    }
}

impl<T: Scalar> FromSpec<T> for Concat<T> {
    const FACTS: Facts =
        Facts::new("Concat").family("container").formula("[x₀ | x₁ | …]").page("layers/container/concat.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.or("dim", 0)?).parts(args.or("parts", 2)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(1).to_spec(), [[3, 4], [3, 2]]),
            Example::new(Self::new(-2).parts(3).to_spec(), [[2, 1, 3], [2, 2, 3], [2, 1, 3]]),
            Example::bench(Self::new(1).to_spec(), [[64, 512]; 2]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            (shape, axis) in collection::vec(1..5usize, 2..5).prop_flat_map(|s| { let n = s.len(); (Just(s), 0..n) }),
            lengths in collection::vec(1..4usize, 1..5),
            back in any::<bool>(),
        ) {
            layer: Concat::<T>::new(axis as isize - if back { shape.len() as isize } else { 0 }).parts(lengths.len()),
            inputs: lengths.iter().map(|&length| {
                let mut shape = shape.clone();
                shape[axis] = length;
                shape
            }),
            wrong_inputs: vec![shape.clone(); lengths.len() + 1],
        }
    }

    /// [1 2 | 5] over [3 4 | 6]; for g = (1 2 3; 4 5 6): ∂x₀ = (1 2; 4 5), ∂x₁ = (3; 6).
    #[test]
    pub fn by_hand() {
        let (a, b) = (Tensor::from([[1.0, 2.0], [3.0, 4.0]]), Tensor::from([[5.0f64], [6.0]]));
        let (mut ys, mut da, mut db) = ([Tensor::default()], Tensor::default(), Tensor::default());
        let concat = Concat::new(1);
        concat.apply(&[&a, &b], &mut ys, &mut (), Context::frozen()).unwrap();
        assert_eq!(ys[0], Tensor::from([[1., 2., 5.], [3., 4., 6.]]));
        let dy = Tensor::from([[1., 2., 3.], [4., 5., 6.]]);
        let mut grads = Grads::new(&concat);
        let (xs, dys) = ([&a, &b], [Some(&dy)]);
        let call = ModuleCall::new(&concat, &xs, &ys, &dys).unwrap();
        concat.pull(call, &mut (), &mut grads, &mut [Some(&mut da), Some(&mut db)]).unwrap();
        assert_eq!((da, db), (Tensor::from([[1., 2.], [4., 5.]]), Tensor::from([[3.], [6.]])));
    }

    #[test]
    fn inputs_that_do_not_fit_together_are_refused() {
        let shapes = |shapes: &[&[usize]]| shapes.iter().map(|s| Shape::new(s).unwrap()).collect::<Vec<_>>();
        let concat = Concat::<f64>::new(1);
        let huge = usize::MAX / 16;
        for wrong in [
            &[&[2, 3][..], &[3, 3]][..],
            &[&[2, 1], &[2, 1, 2]],
            &[&[2], &[2]],
            &[&[2, 1]],
            &[&[1, huge], &[1, huge]],
        ] {
            assert!(concat.output_shapes(&shapes(wrong)).is_err(), "{wrong:?}");
        }
        for dim in [2, -3, isize::MIN, isize::MAX] {
            assert!(Concat::<f64>::new(dim).output_shapes(&shapes(&[&[1, 1], &[1, 1]])).is_err());
        }
    }
}
