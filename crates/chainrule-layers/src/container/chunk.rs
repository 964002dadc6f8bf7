//! One input as equal parts along one axis.
//!
//! ```text
//! [y₀ | y₁ | …] = x        ∂E/∂x = [∂E/∂y₀ | ∂E/∂y₁ | …]
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/container/chunk.md.

use super::{
    along::{axis, pull_parts, take_parts},
    count, inputs_expected, pull_expected,
};
use chainrule_core::{
    Args, Context, Error, Example, Facts, FromSpec, Grads, Module, ModuleCall, Parameters, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use std::marker::PhantomData;

/// y₀, y₁, … = the equal parts of x along one axis; for a [`super::Graph`].
///
/// # Shapes
/// The length of x along the axis is a multiple of the number of parts.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Chunk;
/// let ys = Chunk::new(2, 1).infer_all(&Tensor::from([[1.0f32, 2.0, 3.0, 4.0]]))?;
/// assert_eq!(ys, [Tensor::from([[1.0, 2.0]]), Tensor::from([[3.0, 4.0]])]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Chunk<T = f32> {
    chunks: usize,
    dim: isize,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Chunk<T> {
    /// So many parts along the axis `dim`, counted from the back when negative.
    pub fn new(chunks: usize, dim: isize) -> Self {
        Self { chunks, dim, scalar: PhantomData }
    }

    /// The shapes of the parts.
    fn parts(&self, input: &Shape) -> Result<impl ExactSizeIterator<Item = Shape> + use<T>> {
        let at = axis("Chunk", self.dim, input)?;
        if self.chunks == 0 || !input[at].is_multiple_of(self.chunks) {
            return Err(Error::shape(format!(
                "Chunk: expected a multiple of {} along axis {}, got {input}",
                self.chunks, self.dim
            )));
        }
        Ok(std::iter::repeat_n(input.with(at, input[at] / self.chunks), self.chunks))
    }
}

impl<T: Scalar> Parameters for Chunk<T> {
    type T = T;

    fn list<'a>(&'a self, _: &mut Params<'_, 'a, T>) {}

    fn list_mut<'a>(&'a mut self, _: &mut ParamsMut<'_, 'a, T>) {}

    fn validate(&self) -> Result<()> {
        count("Chunk", "parts", self.chunks)
    }
}

impl<T: Scalar> Module for Chunk<T> {
    type State = ();

    fn outputs(&self) -> usize {
        self.chunks
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.validate()?;
        inputs_expected("Chunk", 1, inputs.len())?;
        Ok(self.parts(&inputs[0])?.collect())
    }

    fn apply(&self, xs: &[&Tensor<T>], ys: &mut [Tensor<T>], _: &mut (), _: Context) -> Result<()> {
        inputs_expected("Chunk", 1, xs.len())?;
        take_parts("Chunk", self.dim, xs[0], self.parts(xs[0].shape())?, ys)
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        pull_expected("Chunk", 1, &call, dxs)?;
        pull_parts("Chunk", self.dim, self.parts(call.xs[0].shape())?, &call, dxs)
    }

    fn reads_outputs(&self) -> bool {
        false
    }

    fn to_spec(&self) -> Spec {
        Spec::new("Chunk").with("chunks", self.chunks).with("dim", self.dim)
    }
}

impl<T: Scalar> FromSpec<T> for Chunk<T> {
    const FACTS: Facts = Facts::new("Chunk")
        .family("container")
        .formula("[y₀ | y₁ | …] = x, of one length")
        .page("layers/container/chunk.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("chunks")?, args.or("dim", 0)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(3, 1).to_spec(), [[3, 6]]),
            Example::new(Self::new(2, -2).to_spec(), [[2, 4, 3]]),
            Example::bench(Self::new(4, 1).to_spec(), [[64, 1024]]),
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
            chunks in 1..4usize,
            back in any::<bool>(),
        ) {
            layer: Chunk::<T>::new(chunks, axis as isize - if back { shape.len() as isize } else { 0 }),
            input: {
                let mut shape = shape.clone();
                shape[axis] *= chunks;
                shape
            },
        }
    }

    /// x = (1 2 3 4) as (1 2) and (3 4). For g₁ = (7 8) and none for y₀: ∂x = (0 0 7 8).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from([[1.0f64, 2.0, 3.0, 4.0]]);
        let chunk = Chunk::new(2, 1);
        let ys = chunk.infer_all(&x).unwrap();
        assert_eq!(ys, [Tensor::from([[1.0, 2.0]]), Tensor::from([[3.0, 4.0]])]);
        let (dy, mut dx) = (Tensor::from([[7.0, 8.0]]), Tensor::default());
        let (xs, dys) = ([&x], [None, Some(&dy)]);
        let call = ModuleCall::new(&chunk, &xs, &ys, &dys).unwrap();
        chunk.pull(call, &mut (), &mut Grads::new(&chunk), &mut [Some(&mut dx)]).unwrap();
        assert_eq!(dx, Tensor::from([[0.0, 0.0, 7.0, 8.0]]));
    }

    #[test]
    fn lengths_that_are_no_multiple_and_axes_that_there_are_not_are_refused() {
        let x = [Shape::from([2, 3])];
        for (chunks, dim) in [(2, 1), (0, 1), (usize::MAX, 1), (3, 2), (3, isize::MIN)] {
            assert!(Chunk::<f64>::new(chunks, dim).output_shapes(&x).is_err(), "{chunks} along {dim}");
        }
        assert!(Chunk::<f64>::new(usize::MAX, 1).validate().is_err());
    }
}
