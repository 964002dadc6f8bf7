//! The sum of several inputs.
//!
//! ```text
//! y = Σᵢ xᵢ        ∂E/∂xᵢ = ∂E/∂y
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/container/add.md.

use super::{count, inputs_expected, not_recorded, only_gradient, only_output, pull_expected, same};
use chainrule_core::{
    Args, Context, Example, Facts, FromSpec, Grads, Module, ModuleCall, Parameters, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::elementwise::{add_assign, copy};
use std::marker::PhantomData;

/// y = x₀ + x₁ + …, of two inputs unless [`Add::terms`] says otherwise; for a [`super::Graph`].
///
/// # Shapes
/// All inputs and y have one shape.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Add;
/// let (a, b) = (Tensor::from([1.0f32, 2.0]), Tensor::from([10.0, 20.0]));
/// assert_eq!(Add::new().infer([&a, &b])?.data(), [11.0, 22.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Add<T = f32> {
    terms: usize,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Add<T> {
    /// A sum of two inputs.
    pub fn new() -> Self {
        Self { terms: 2, scalar: PhantomData }
    }

    /// A sum of so many inputs.
    #[must_use]
    pub fn terms(self, terms: usize) -> Self {
        Self { terms, ..self }
    }
}

impl<T: Scalar> Default for Add<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Parameters for Add<T> {
    type T = T;

    fn list<'a>(&'a self, _: &mut Params<'_, 'a, T>) {}

    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, T>) {}

    fn validate(&self) -> Result<()> {
        count("Add", "terms", self.terms)
    }
}

impl<T: Scalar> Module for Add<T> {
    type State = ();

    fn inputs(&self) -> usize {
        self.terms
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.validate()?;
        inputs_expected("Add", self.terms, inputs.len())?;
        Ok(vec![same("Add", inputs.iter().copied())?])
    }

    fn apply(&self, xs: &[&Tensor<T>], ys: &mut [Tensor<T>], _: &mut (), _: Context) -> Result<()> {
        inputs_expected("Add", self.terms, xs.len())?;
        let shape = same("Add", xs.iter().map(|x| *x.shape()))?;
        let y = only_output(ys)?;
        copy(xs[0].data(), y.reset(shape)); // y = x₀
        xs[1..].iter().for_each(|x| add_assign(y.data_mut(), x.data())); // y += xᵢ
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        pull_expected("Add", self.terms, &call, dxs)?;
        let (y, dy) = only_gradient(&call)?;
        if call.xs.iter().any(|x| x.shape() != y.shape()) {
            return Err(not_recorded("Add"));
        }
        for (x, dx) in call.xs.iter().zip(dxs) {
            match (dx, dy) {
                (Some(dx), Some(dy)) => copy(dy.data(), dx.reset(*x.shape())), // dxᵢ = dy
                (Some(dx), None) => dx.reset(*x.shape()).fill(T::ZERO),
                (None, _) => {}
            }
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn to_spec(&self) -> Spec {
        Spec::new("Add").with("terms", self.terms)
    }
}

impl<T: Scalar> FromSpec<T> for Add<T> {
    const FACTS: Facts =
        Facts::new("Add").family("container").formula("Σᵢ xᵢ").page("layers/container/add.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().terms(args.or("terms", 2)?))
    }

    fn examples() -> Vec<Example> {
        let add = Self::new();
        vec![
            Example::new(add.to_spec(), [[3, 4]; 2]),
            Example::new(add.terms(3).to_spec(), [[2, 1, 3]; 3]),
            Example::bench(add.to_spec(), [[64, 1024]; 2]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 1..4), count in 1..5usize) {
            layer: Add::<T>::new().terms(count),
            inputs: vec![shape.clone(); count],
            wrong_inputs: vec![shape.clone(); count + 1],
        }
    }

    #[test]
    fn inputs_of_other_shapes_and_another_number_of_inputs_are_refused() {
        let shapes = |shapes: &[&[usize]]| shapes.iter().map(|s| Shape::new(s).unwrap()).collect::<Vec<_>>();
        let add = Add::<f64>::new();
        for wrong in [&[&[2][..], &[3]][..], &[&[2], &[2, 1]], &[&[2]], &[&[2], &[2], &[2]]] {
            assert!(add.output_shapes(&shapes(wrong)).is_err(), "{wrong:?}");
        }
        for terms in [0, usize::MAX] {
            assert!(add.terms(terms).validate().is_err());
        }
    }

    /// (1, 2) + (10, 20) + (100, 200) = (111, 222); for g = (3, 4) every ∂xᵢ is (3, 4).
    #[test]
    pub fn by_hand() {
        let xs = [[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]].map(Tensor::<f64>::from);
        let xs: Vec<&Tensor<f64>> = xs.iter().collect();
        let (mut ys, dy) = ([Tensor::default()], Tensor::from([3.0, 4.0]));
        let add = Add::new().terms(3);
        add.apply(&xs, &mut ys, &mut (), Context::frozen()).unwrap();
        assert_eq!(ys[0].data(), [111.0, 222.0]);
        let (mut a, mut c) = (Tensor::default(), Tensor::default());
        let mut grads = Grads::new(&add);
        let dys = [Some(&dy)];
        let call = ModuleCall::new(&add, &xs, &ys, &dys).unwrap();
        add.pull(call, &mut (), &mut grads, &mut [Some(&mut a), None, Some(&mut c)]).unwrap();
        assert_eq!((a.data(), c.data()), (dy.data(), dy.data()));
    }
}
