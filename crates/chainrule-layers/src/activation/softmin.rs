//! Softmin: probabilities along one axis, the largest of the smallest element.
//!
//! ```text
//! yᵢ = exp(−xᵢ) / Σⱼ exp(−xⱼ)
//! ∂E/∂xᵢ = −yᵢ (gᵢ − Σⱼ gⱼ yⱼ),   g = ∂E/∂y
//! ```
//!
//! The minimum is subtracted first. Stores nothing. Derivation: docs/layers/activation/softmin.md.

use super::axis;
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Layer, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::softmax::Kind;
use std::marker::PhantomData;

/// yᵢ = exp(−xᵢ) / Σⱼ exp(−xⱼ) along one axis.
///
/// # Shapes
/// x and y have one shape, of any rank with that axis; axis 0 is the batch, and a negative axis counts from the end.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Softmin;
/// let y = Softmin::new(-1).infer(&Tensor::from([[1.0f32, 1.0]]))?;
/// assert_eq!(y.data(), [0.5, 0.5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Softmin<T = f32> {
    dim: isize,
    of: PhantomData<T>,
}

impl<T: Scalar> Softmin<T> {
    /// Along the axis `dim`.
    pub fn new(dim: isize) -> Self {
        Self { dim, of: PhantomData }
    }
}

impl<T: Scalar> Layer for Softmin<T> {
    type T = T;
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        axis::around("Softmin", self.dim, input)?;
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        axis::forward(Kind::Softmin, "Softmin", self.dim, x, y)
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        axis::backward(Kind::Softmin, "Softmin", self.dim, call, dx) // dx = −y (dy − Σ dy y)
    }

    fn spec(&self) -> Spec {
        Spec::new("Softmin").with("dim", self.dim)
    }
}

impl<T: Scalar> FromSpec<T> for Softmin<T> {
    const FACTS: Facts = Facts::new("Softmin")
        .family("activation")
        .formula("exp(−xᵢ) / Σⱼ exp(−xⱼ)")
        .page("layers/activation/softmin.md")
        .torch("Softmin");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("dim")?))
    }

    fn examples() -> Vec<Example> {
        axis::examples(Self::new)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Module;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws((shape, axis) in collection::vec(1..6usize, 1..5).prop_flat_map(|shape| {
            let rank = shape.len() as isize;
            (Just(shape), -rank..rank)
        })) {
            layer: Softmin::new(axis),
            input: shape,
            wrong: vec![2; if axis < 0 { (-axis) as usize - 1 } else { axis as usize }],
        }
    }

    /// x = (0, −ln 3): exp(−x) = (1, 3), y = (¼, ¾). For g = (4, 8): Σ g y = 1 + 6 = 7, ∂x = (−¼·(−3), −¾·1) = (¾, −¾).
    #[test]
    pub fn by_hand() {
        let (x, dy) = (Tensor::from([[0.0, -(3f64.ln())]]), Tensor::from([[4.0, 8.0]]));
        let layer = Softmin::new(1);
        let (y, mut dx) = (layer.infer(&x).unwrap(), Tensor::default());
        let mut grads = Grads::new(&layer);
        layer.backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut (), &mut grads, Some(&mut dx)).unwrap();
        for (got, want) in y.data().iter().chain(dx.data()).zip([0.25, 0.75, 0.75, -0.75]) {
            assert!((got - want).abs() < 1e-15, "{got} for {want}");
        }
    }

    #[test]
    fn an_axis_out_of_range_is_an_error() {
        let text = Softmin::<f32>::new(2).output_shape(&[3, 4]).unwrap_err().to_string();
        assert_eq!(text, "Softmin: expected an input with axis 2, got shape [3, 4]");
    }
}
