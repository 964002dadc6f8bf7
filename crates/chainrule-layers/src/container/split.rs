//! One input as several parts along one axis, of given lengths.
//!
//! ```text
//! [y₀ | y₁ | …] = x        ∂E/∂x = [∂E/∂y₀ | ∂E/∂y₁ | …]
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/container/split.md.

use super::{
    along::{axis, pull_parts, take_parts},
    count, inputs_expected, pull_expected,
};
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Module, ModuleCall, Parameters, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

/// y₀, y₁, … = the parts of x along one axis, of given lengths; for a [`super::Graph`].
///
/// # Shapes
/// The lengths add up to that of x along the axis.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Split;
/// let ys = Split::new([1, 2], 1).infer_all(&Tensor::from([[1.0f32, 2.0, 3.0]]))?;
/// assert_eq!(ys, [Tensor::from([[1.0]]), Tensor::from([[2.0, 3.0]])]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Split<T = f32> {
    sizes: Vec<usize>,
    dim: isize,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Split<T> {
    /// Parts of these lengths along the axis `dim`, counted from the back when negative.
    pub fn new(sizes: impl Into<Vec<usize>>, dim: isize) -> Self {
        Self { sizes: sizes.into(), dim, scalar: PhantomData }
    }

    /// The shapes of the parts.
    fn parts<'a>(&'a self, input: &Shape) -> Result<impl ExactSizeIterator<Item = Shape> + use<'a, T>> {
        let (input, at) = (*input, axis("Split", self.dim, input)?);
        let sum = self.sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
        if sum != Some(input[at]) {
            return Err(Error::shape(format!(
                "Split: expected an input of {} along axis {}, got {input}",
                sum.map_or("the sum of all sizes".to_owned(), |sum| sum.to_string()),
                self.dim
            )));
        }
        Ok(self.sizes.iter().map(move |&n| input.with(at, n)))
    }
}

impl<T: Scalar> Parameters for Split<T> {
    type T = T;

    fn list<'a>(&'a self, _: &mut Params<'_, 'a, T>) {}

    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, T>) {}

    fn validate(&self) -> Result<()> {
        count("Split", "parts", self.sizes.len())
    }
}

impl<T: Scalar> Module for Split<T> {
    type State = ();

    fn outputs(&self) -> usize {
        self.sizes.len()
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.validate()?;
        inputs_expected("Split", 1, inputs.len())?;
        Ok(self.parts(&inputs[0])?.collect())
    }

    fn apply(&self, xs: &[&Tensor<T>], ys: &mut [Tensor<T>], _: &mut (), _: Context) -> Result<()> {
        inputs_expected("Split", 1, xs.len())?;
        take_parts("Split", self.dim, xs[0], self.parts(xs[0].shape())?, ys)
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        pull_expected("Split", 1, &call, dxs)?;
        pull_parts("Split", self.dim, self.parts(call.xs[0].shape())?, &call, dxs)
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn to_spec(&self) -> Spec {
        Spec::new("Split").with("split_sizes", self.sizes.clone()).with("dim", self.dim)
    }
}

impl<T: Scalar> FromSpec<T> for Split<T> {
    const FACTS: Facts = Facts::new("Split")
        .family("container")
        .formula("[y₀ | y₁ | …] = x")
        .page("layers/container/split.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get::<Vec<usize>>("split_sizes")?, args.or("dim", 0)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new([1, 3, 2], 1).to_spec(), [[3, 6]]),
            Example::new(Self::new([2, 1], -2).to_spec(), [[2, 3, 4]]),
            Example::bench(Self::new([256, 768], 1).to_spec(), [[64, 1024]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            (shape, axis) in collection::vec(1..4usize, 2..4).prop_flat_map(|s| { let n = s.len(); (Just(s), 1..n) }),
            sizes in collection::vec(1..4usize, 1..4),
            back in any::<bool>(),
        ) {
            layer: Split::<T>::new(&sizes[..], axis as isize - if back { shape.len() as isize } else { 0 }),
            input: {
                let mut shape = shape.clone();
                shape[axis] = sizes.iter().sum();
                shape
            },
            wrong: {
                let mut shape = shape.clone();
                shape[axis] = sizes.iter().sum::<usize>() + 1;
                shape
            },
        }
    }

    /// x = (1 2 3; 4 5 6) as (1; 4) and (2 3; 5 6). For g₀ = (7; 8) and none for y₁: ∂x = (7 0 0; 8 0 0).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from([[1.0f64, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        let split = Split::new([1, 2], -1);
        let ys = split.infer_all(&x).unwrap();
        assert_eq!(ys, [Tensor::from([[1.0], [4.0]]), Tensor::from([[2.0, 3.0], [5.0, 6.0]])]);
        let (dy, mut dx) = (Tensor::from([[7.0], [8.0]]), Tensor::default());
        let (xs, dys) = ([&x], [Some(&dy), None]);
        let call = ModuleCall::new(&split, &xs, &ys, &dys).unwrap();
        split.pull(call, &mut (), &mut Grads::new(&split), &mut [Some(&mut dx)]).unwrap();
        assert_eq!(dx, Tensor::from([[7.0, 0.0, 0.0], [8.0, 0.0, 0.0]]));
    }

    #[test]
    fn sizes_that_do_not_add_up_and_axes_that_there_are_not_are_refused() {
        let x = [Shape::from([2, 3])];
        for (sizes, dim) in
            [(vec![1, 1], 1), (vec![usize::MAX, 4], 1), (vec![3], 2), (vec![3], -3), (vec![], 1)]
        {
            assert!(
                Split::<f64>::new(sizes.clone(), dim).output_shapes(&x).is_err(),
                "{sizes:?} along {dim}"
            );
        }
        assert!(Split::<f64>::new(vec![0; 1 << 17], 1).validate().is_err());
    }
}
