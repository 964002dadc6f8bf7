//! The gated linear unit (Dauphin, Fan, Auli and Grangier, 2017).
//!
//! ```text
//! x = (a, b) along one axis,   y = a ⊙ σ(b)
//! ∂E/∂a = ∂E/∂y ⊙ σ(b)        ∂E/∂b = ∂E/∂y ⊙ a ⊙ σ(b) (1 − σ(b))
//! ```
//!
//! Smooth; NaN propagates, in both directions. Stores nothing. Derivation: docs/layers/activation/glu.md.

use super::gated::{self, Gate, gated};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar};
use std::marker::PhantomData;

/// y = a ⊙ σ(b), where a and b are the halves of x along one axis.
///
/// # Shapes
/// x has an even number 2n of elements along the axis, the last one by default; y has n, the first n of x times a function of the last n.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Glu;
/// let y = Glu::new().infer(&Tensor::from([[3.0f32, 0.0]]))?;
/// assert_eq!(y, Tensor::from([[1.5f32]]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Glu<T = f32> {
    dim: isize,
    of: PhantomData<T>,
}

impl<T: Scalar> Glu<T> {
    /// Along the last axis.
    pub fn new() -> Self {
        Self { dim: -1, of: PhantomData }
    }

    /// Sets the axis that is halved; a negative one counts from the end.
    #[must_use]
    pub fn dim(mut self, dim: isize) -> Self {
        self.dim = dim;
        self
    }
}

impl<T: Scalar> Gate<T> for Glu<T> {
    #[inline(always)]
    fn gate<const FMA: bool>(self, b: T) -> (T, T) {
        let s = b.v_sigmoid::<FMA>();
        (s, s * (T::ONE - s))
    }
}

gated!(Glu);

impl<T: Scalar> FromSpec<T> for Glu<T> {
    const FACTS: Facts = Facts::new("Glu")
        .family("activation")
        .formula("a ⊙ σ(b), x = (a, b)")
        .page("layers/activation/glu.md")
        .torch("GLU");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().dim(args.or("dim", -1)?))
    }

    fn examples() -> Vec<Example> {
        gated::examples(|dim| Self::new().dim(dim))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::activation::gated::tests::{assert_by_hand, doubled};
    use chainrule_core::Layer;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws((shape, axis) in collection::vec(1..6usize, 2..5).prop_flat_map(|shape| {
            let rank = shape.len() as isize;
            (Just(shape), prop_oneof![1..rank, 1 - rank..0])
        })) {
            layer: Glu::new().dim(axis),
            input: doubled(&shape, axis),
            wrong: shape.iter().map(|n| 2 * n + 1).collect::<Vec<_>>(),
        }
    }

    /// a = (3, 8), b = (0, ln 3): σ = ½, ¾ and σ(1 − σ) = ¼, 3/16. y = 3/2, 6. For g = 5: ∂a = 5/2, 15/4, ∂b = 5·3/4, 5·8·3/16 = 15/2.
    #[test]
    pub fn by_hand() {
        assert_by_hand(Glu::new(), [3.0, 8.0, 0.0, 3f64.ln()], [1.5, 6.0], [2.5, 3.75, 3.75, 7.5]);
    }

    #[test]
    fn what_cannot_be_halved_is_an_error() {
        let text =
            |shape: &[usize], dim| Glu::<f32>::new().dim(dim).output_shape(shape).unwrap_err().to_string();
        assert_eq!(text(&[2, 3], -1), "Glu: expected an even size along axis -1, got shape [2, 3]");
        assert_eq!(text(&[2, 3], 2), "Glu: expected an input with axis 2, got shape [2, 3]");
        assert_eq!(*Glu::<f32>::new().output_shape(&[4]).unwrap(), [2]);
        assert_eq!(*Glu::<f32>::new().dim(0).output_shape(&[4, 3]).unwrap(), [2, 3]);
    }
}
