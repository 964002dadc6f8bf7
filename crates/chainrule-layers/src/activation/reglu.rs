//! The gated linear unit with ReLU (Shazeer, 2020).
//!
//! ```text
//! x = (a, b) along one axis,   y = a ⊙ max(b, 0)
//! ∂E/∂a = ∂E/∂y ⊙ max(b, 0)        ∂E/∂b = ∂E/∂y ⊙ a ⊙ [b > 0]
//! ```
//!
//! At the kink b = 0 the derivative is 0; NaN propagates, in both directions. Stores nothing. Derivation: docs/layers/activation/glu.md.

use super::{
    Relu,
    gated::{self, Gate, gated},
    pointwise::Pointwise,
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar};
use std::marker::PhantomData;

/// y = a ⊙ max(b, 0), where a and b are the halves of x along one axis: the gate is [`Relu`](crate::Relu).
///
/// # Shapes
/// x has an even number 2n of elements along the axis, the last one by default; y has n, the first n of x times a function of the last n.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Reglu;
/// let y = Reglu::new().infer(&Tensor::from([[3.0f32, 2.0]]))?;
/// assert_eq!(y, Tensor::from([[6.0f32]]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Reglu<T = f32> {
    dim: isize,
    of: PhantomData<T>,
}

impl<T: Scalar> Reglu<T> {
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

impl<T: Scalar> Gate<T> for Reglu<T> {
    #[inline(always)]
    fn gate<const FMA: bool>(self, b: T) -> (T, T) {
        let f = Relu::new();
        let value = f.value::<FMA>(b);
        (value, f.slope::<FMA>(value)) // a function of y
    }
}

gated!(Reglu);

impl<T: Scalar> FromSpec<T> for Reglu<T> {
    const FACTS: Facts = Facts::new("Reglu")
        .family("activation")
        .formula("a ⊙ max(b, 0), x = (a, b)")
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
            layer: Reglu::new().dim(axis),
            input: doubled(&shape, axis),
            wrong: shape.iter().map(|n| 2 * n + 1).collect::<Vec<_>>(),
        }
    }

    /// a = (3, 8, 2), b = (−1, 0, 4): f = 0, 0, 4 and f′ = 0, 0, 1. y = 0, 0, 8. For g = 5: ∂a = 0, 0, 20, ∂b = 0, 0, 10.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            Reglu::new(),
            [3.0, 8.0, 2.0, -1.0, 0.0, 4.0],
            [0.0, 0.0, 8.0],
            [0.0, 0.0, 20.0, 0.0, 0.0, 10.0],
        );
    }
}
