//! The difference of two inputs.
//!
//! ```text
//! y = x₀ − x₁        ∂E/∂x₀ = ∂E/∂y        ∂E/∂x₁ = −∂E/∂y
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/container/add.md.

use super::{inputs_expected, not_recorded, only_gradient, only_output, pull_expected, same};
use chainrule_core::{
    Args, Context, Example, Facts, FromSpec, Grads, Module, ModuleCall, Parameters, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{
    compiled,
    kernels::elementwise::{copy, map, map2},
};
use std::marker::PhantomData;

/// y = x₀ − x₁; for a [`super::Graph`].
///
/// # Shapes
/// Both inputs and y have one shape.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Sub;
/// let (a, b) = (Tensor::from([1.0f32, 2.0]), Tensor::from([10.0, 20.0]));
/// assert_eq!(Sub::new().infer([&a, &b])?.data(), [-9.0, -18.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Default)]
pub struct Sub<T = f32> {
    scalar: PhantomData<T>,
}

impl<T: Scalar> Sub<T> {
    /// A difference of two inputs.
    pub fn new() -> Self {
        Self { scalar: PhantomData }
    }
}

compiled! {
    fn subtract[T](a: &[T], b: &[T], y: &mut [T]) {
        map2(a, b, y, |(a, b)| a - b);
    }
}

compiled! {
    fn negate[T](x: &[T], y: &mut [T]) {
        map(x, y, |x: T| -x);
    }
}

impl<T: Scalar> Parameters for Sub<T> {
    type T = T;

    fn list<'a>(&'a self, _: &mut Params<'_, 'a, T>) {}

    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, T>) {}
}

impl<T: Scalar> Module for Sub<T> {
    type State = ();

    fn inputs(&self) -> usize {
        2
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        inputs_expected("Sub", 2, inputs.len())?;
        Ok(vec![same("Sub", inputs.iter().copied())?])
    }

    fn apply(&self, xs: &[&Tensor<T>], ys: &mut [Tensor<T>], _: &mut (), _: Context) -> Result<()> {
        inputs_expected("Sub", 2, xs.len())?;
        let shape = same("Sub", xs.iter().map(|x| *x.shape()))?;
        subtract(xs[0].data(), xs[1].data(), only_output(ys)?.reset(shape)); // y = x₀ − x₁
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        pull_expected("Sub", 2, &call, dxs)?;
        let (y, dy) = only_gradient(&call)?;
        if call.xs.iter().any(|x| x.shape() != y.shape()) {
            return Err(not_recorded("Sub"));
        }
        for (i, dx) in dxs.iter_mut().enumerate() {
            match (dx, dy) {
                (Some(dx), Some(dy)) if i == 0 => copy(dy.data(), dx.reset(*y.shape())), // dx₀ = dy
                (Some(dx), Some(dy)) => negate(dy.data(), dx.reset(*y.shape())),         // dx₁ = −dy
                (Some(dx), None) => dx.reset(*y.shape()).fill(T::ZERO),
                (None, _) => {}
            }
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn to_spec(&self) -> Spec {
        Spec::new("Sub")
    }
}

impl<T: Scalar> FromSpec<T> for Sub<T> {
    const FACTS: Facts =
        Facts::new("Sub").family("container").formula("x₀ − x₁").page("layers/container/add.md");

    fn from_spec(_: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new())
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new().to_spec(), [[3, 4]; 2]),
            Example::bench(Self::new().to_spec(), [[64, 1024]; 2]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 1..4)) {
            layer: Sub::<T>::new(),
            inputs: vec![shape.clone(); 2],
            wrong_inputs: vec![shape.clone(); 3], wrong_inputs: [shape.clone(), [shape.clone(), vec![1]].concat()],
        }
    }

    /// (1, 2) − (10, 20) = (−9, −18); for g = (3, 4): ∂x₀ = (3, 4), ∂x₁ = (−3, −4).
    #[test]
    pub fn by_hand() {
        let (a, b) = (Tensor::<f64>::from([1.0, 2.0]), Tensor::from([10.0, 20.0]));
        let (xs, mut ys, dy) = ([&a, &b], [Tensor::default()], Tensor::from([3.0, 4.0]));
        let sub = Sub::new();
        sub.apply(&xs, &mut ys, &mut (), Context::frozen()).unwrap();
        assert_eq!(ys[0].data(), [-9.0, -18.0]);
        let (mut da, mut db) = (Tensor::default(), Tensor::default());
        let (mut grads, dys) = (Grads::new(&sub), [Some(&dy)]);
        let call = ModuleCall::new(&sub, &xs, &ys, &dys).unwrap();
        sub.pull(call, &mut (), &mut grads, &mut [Some(&mut da), Some(&mut db)]).unwrap();
        assert_eq!((da.data(), db.data()), (&[3.0, 4.0][..], &[-3.0, -4.0][..]));
    }
}
