//! The product of several inputs, element by element.
//!
//! ```text
//! y = Πᵢ xᵢ        ∂E/∂xᵢ = ∂E/∂y ⊙ Π_{j ≠ i} xⱼ
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/container/mul.md.

use super::{count, inputs_expected, not_recorded, only_gradient, only_output, pull_expected, same};
use chainrule_core::{
    Args, Context, Example, Facts, FromSpec, Grads, Module, ModuleCall, Parameters, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{
    compiled,
    kernels::elementwise::{copy, update},
};
use std::marker::PhantomData;

/// y = x₀ ⊙ x₁ ⊙ …, of two inputs unless [`Mul::factors`] says otherwise; for a [`super::Graph`].
///
/// # Shapes
/// All inputs and y have one shape.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Mul;
/// let (a, b) = (Tensor::from([1.0f32, 2.0]), Tensor::from([10.0, 20.0]));
/// assert_eq!(Mul::new().infer([&a, &b])?.data(), [10.0, 40.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Mul<T = f32> {
    factors: usize,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Mul<T> {
    /// A product of two inputs.
    pub fn new() -> Self {
        Self { factors: 2, scalar: PhantomData }
    }

    /// A product of so many inputs.
    #[must_use]
    pub fn factors(self, factors: usize) -> Self {
        Self { factors, ..self }
    }
}

impl<T: Scalar> Default for Mul<T> {
    fn default() -> Self {
        Self::new()
    }
}

compiled! {
    /// yᵢ = yᵢ xᵢ
    fn mul_assign[T](y: &mut [T], x: &[T]) {
        update(y, x, |y, x| y * x);
    }
}

impl<T: Scalar> Parameters for Mul<T> {
    type T = T;

    fn list<'a>(&'a self, _: &mut Params<'_, 'a, T>) {}

    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, T>) {}

    fn validate(&self) -> Result<()> {
        count("Mul", "factors", self.factors)
    }
}

impl<T: Scalar> Module for Mul<T> {
    type State = ();

    fn inputs(&self) -> usize {
        self.factors
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.validate()?;
        inputs_expected("Mul", self.factors, inputs.len())?;
        Ok(vec![same("Mul", inputs.iter().copied())?])
    }

    fn apply(&self, xs: &[&Tensor<T>], ys: &mut [Tensor<T>], _: &mut (), _: Context) -> Result<()> {
        inputs_expected("Mul", self.factors, xs.len())?;
        let shape = same("Mul", xs.iter().map(|x| *x.shape()))?;
        let y = only_output(ys)?;
        copy(xs[0].data(), y.reset(shape)); // y = x₀
        xs[1..].iter().for_each(|x| mul_assign(y.data_mut(), x.data())); // y = y ⊙ xᵢ
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        pull_expected("Mul", self.factors, &call, dxs)?;
        let (y, dy) = only_gradient(&call)?;
        if call.xs.iter().any(|x| x.shape() != y.shape()) {
            return Err(not_recorded("Mul"));
        }
        for (i, dx) in dxs.iter_mut().enumerate() {
            let Some(dx) = dx else { continue };
            let dx = dx.reset(*y.shape());
            let Some(dy) = dy else {
                dx.fill(T::ZERO);
                continue;
            };
            copy(dy.data(), dx); // dxᵢ = dy ⊙ Π_{j ≠ i} xⱼ
            let others = call.xs.iter().enumerate().filter(|&(j, _)| j != i);
            others.for_each(|(_, x)| mul_assign(dx, x.data()));
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        inputs.iter().skip(1).fold(0, |sum: u64, x| sum.saturating_add(x.volume() as u64))
    }

    fn to_spec(&self) -> Spec {
        Spec::new("Mul").with("factors", self.factors)
    }
}

impl<T: Scalar> FromSpec<T> for Mul<T> {
    const FACTS: Facts =
        Facts::new("Mul").family("container").formula("Πᵢ xᵢ").page("layers/container/mul.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().factors(args.or("factors", 2)?))
    }

    fn examples() -> Vec<Example> {
        let mul = Self::new();
        vec![
            Example::new(mul.to_spec(), [[3, 4]; 2]),
            Example::new(mul.factors(3).to_spec(), [[2, 1, 3]; 3]),
            Example::bench(mul.to_spec(), [[64, 1024]; 2]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 1..4), count in 1..5usize) {
            layer: Mul::<T>::new().factors(count),
            inputs: vec![shape.clone(); count],
            wrong_inputs: vec![shape.clone(); count + 1],
        }
    }

    #[test]
    fn inputs_of_other_shapes_and_another_number_of_inputs_are_refused() {
        let shapes = |shapes: &[&[usize]]| shapes.iter().map(|s| Shape::new(s).unwrap()).collect::<Vec<_>>();
        let mul = Mul::<f64>::new();
        for wrong in [&[&[2][..], &[3]][..], &[&[2], &[2, 1]], &[&[2]], &[&[2], &[2], &[2]]] {
            assert!(mul.output_shapes(&shapes(wrong)).is_err(), "{wrong:?}");
        }
        for factors in [0, usize::MAX] {
            assert!(mul.factors(factors).validate().is_err());
        }
    }

    /// (1, 2) ⊙ (3, 4) ⊙ (5, 0) = (15, 0); for g = (1, 2): ∂x₀ = (15, 0), ∂x₂ = (1·1·3, 2·2·4) = (3, 16).
    #[test]
    pub fn by_hand() {
        let xs = [[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]].map(Tensor::<f64>::from);
        let xs: Vec<&Tensor<f64>> = xs.iter().collect();
        let (mut ys, dy) = ([Tensor::default()], Tensor::from([1.0, 2.0]));
        let mul = Mul::new().factors(3);
        mul.apply(&xs, &mut ys, &mut (), Context::frozen()).unwrap();
        assert_eq!(ys[0].data(), [15.0, 0.0]);
        let (mut a, mut c) = (Tensor::default(), Tensor::default());
        let (mut grads, dys) = (Grads::new(&mul), [Some(&dy)]);
        let call = ModuleCall::new(&mul, &xs, &ys, &dys).unwrap();
        mul.pull(call, &mut (), &mut grads, &mut [Some(&mut a), None, Some(&mut c)]).unwrap();
        assert_eq!((a.data(), c.data()), (&[15.0, 0.0][..], &[3.0, 16.0][..]));
    }
}
