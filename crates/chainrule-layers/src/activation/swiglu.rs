//! The gated linear unit with Swish (Shazeer, 2020).
//!
//! ```text
//! x = (a, b) along one axis,   y = a ⊙ b σ(b)
//! ∂E/∂a = ∂E/∂y ⊙ b σ(b)        ∂E/∂b = ∂E/∂y ⊙ a ⊙ σ(b) (1 + b (1 − σ(b)))
//! ```
//!
//! Smooth; NaN propagates, in both directions. Stores nothing. Derivation: docs/layers/activation/glu.md.

use super::{
    Silu,
    gated::{self, Gate, gated},
    pointwise::Pointwise,
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar};
use std::marker::PhantomData;

/// y = a ⊙ b σ(b), where a and b are the halves of x along one axis: the gate is [`Silu`](crate::Silu).
///
/// # Shapes
/// x has an even number 2n of elements along the axis, the last one by default; y has n, the first n of x times a function of the last n.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Swiglu;
/// let y = Swiglu::new().infer(&Tensor::from([[3.0f32, 0.0]]))?;
/// assert_eq!(y, Tensor::from([[0.0f32]]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Swiglu<T = f32> {
    dim: isize,
    of: PhantomData<T>,
}

impl<T: Scalar> Swiglu<T> {
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

impl<T: Scalar> Gate<T> for Swiglu<T> {
    #[inline(always)]
    fn gate<const FMA: bool>(self, b: T) -> (T, T) {
        let f = Silu::new();
        (f.value::<FMA>(b), f.slope::<FMA>(b))
    }
}

gated!(Swiglu);

impl<T: Scalar> FromSpec<T> for Swiglu<T> {
    const FACTS: Facts = Facts::new("Swiglu")
        .family("activation")
        .formula("a ⊙ b σ(b), x = (a, b)")
        .page("layers/activation/glu.md");

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
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws((shape, axis) in collection::vec(1..6usize, 2..5).prop_flat_map(|shape| {
            let rank = shape.len() as isize;
            (Just(shape), prop_oneof![1..rank, 1 - rank..0])
        })) {
            layer: Swiglu::new().dim(axis),
            input: doubled(&shape, axis),
            wrong: shape.iter().map(|n| 2 * n + 1).collect::<Vec<_>>(),
        }
    }

    /// a = (3, 8), b = (0, ln 3): σ = ½, ¾, f = b σ = 0, ¾ ln 3, f′ = σ (1 + b (1 − σ)) = ½, ¾ (1 + ¼ ln 3). y = 0, 6 ln 3. For g = 5:
    /// ∂a = 0, 15/4 ln 3, ∂b = 5·3/2, 40·¾ (1 + ¼ ln 3).
    #[test]
    pub fn by_hand() {
        let l = 3f64.ln();
        assert_by_hand(
            Swiglu::new(),
            [3.0, 8.0, 0.0, l],
            [0.0, 6.0 * l],
            [0.0, 3.75 * l, 7.5, 30.0 * (1.0 + 0.25 * l)],
        );
    }
}
