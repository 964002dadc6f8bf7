//! The gated linear unit with GELU (Shazeer, 2020).
//!
//! ```text
//! x = (a, b) along one axis,   y = a ⊙ b Φ(b)
//! ∂E/∂a = ∂E/∂y ⊙ b Φ(b)        ∂E/∂b = ∂E/∂y ⊙ a ⊙ (Φ(b) + b φ(b))
//! ```
//!
//! Smooth; NaN propagates, in both directions. Stores nothing. Derivation: docs/layers/activation/glu.md.

use super::{
    gated::{self, Gate, gated},
    gelu::{ByTanh, Exact, by_tanh},
    pointwise::Pointwise,
};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar};
use std::marker::PhantomData;

/// y = a ⊙ b Φ(b), where a and b are the halves of x along one axis: the gate is [`Gelu`](crate::Gelu), exact by default.
///
/// # Shapes
/// x has an even number 2n of elements along the axis, the last one by default; y has n, the first n of x times a function of the last n.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Geglu;
/// let y = Geglu::new().infer(&Tensor::from([[3.0f32, 0.0]]))?;
/// assert_eq!(y, Tensor::from([[0.0f32]]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Geglu<T = f32> {
    dim: isize,
    tanh: bool,
    of: PhantomData<T>,
}

impl<T: Scalar> Geglu<T> {
    /// Along the last axis.
    pub fn new() -> Self {
        Self { dim: -1, tanh: false, of: PhantomData }
    }

    /// Sets the axis that is halved; a negative one counts from the end.
    #[must_use]
    pub fn dim(mut self, dim: isize) -> Self {
        self.dim = dim;
        self
    }

    /// The approximation of the gate by tanh, as [`Gelu::approximate_tanh`](crate::Gelu::approximate_tanh).
    #[must_use]
    pub fn approximate_tanh(mut self) -> Self {
        self.tanh = true;
        self
    }
}

impl<T: Scalar> Gate<T> for Geglu<T> {
    #[inline(always)]
    fn gate<const FMA: bool>(self, b: T) -> (T, T) {
        if self.tanh {
            (ByTanh.value::<FMA>(b), ByTanh.slope::<FMA>(b))
        } else {
            (Exact.value::<FMA>(b), Exact.slope::<FMA>(b))
        }
    }
}

gated!(Geglu, "approximate": |layer: &Self| if layer.tanh { "tanh" } else { "none" });

impl<T: Scalar> FromSpec<T> for Geglu<T> {
    const FACTS: Facts = Facts::new("Geglu")
        .family("activation")
        .formula("a ⊙ b Φ(b), x = (a, b)")
        .page("layers/activation/glu.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let layer = Self::new().dim(args.or("dim", -1)?);
        Ok(if by_tanh("Geglu", args)? { layer.approximate_tanh() } else { layer })
    }

    fn examples() -> Vec<Example> {
        let mut examples = gated::examples(|dim| Self::new().dim(dim));
        examples.extend(gated::examples(|dim| Self::new().dim(dim).approximate_tanh()).into_iter().take(1));
        examples
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
        }), tanh in any::<bool>()) {
            layer: if tanh { Geglu::new().approximate_tanh() } else { Geglu::new() }.dim(axis),
            input: doubled(&shape, axis),
            wrong: shape.iter().map(|n| 2 * n + 1).collect::<Vec<_>>(),
        }
    }

    /// a = (3, 8), b = (0, 1): Φ = ½, 0.841344746068543 and φ(1) = 0.241970724519143, so f = 0, 0.841344746068543 and f′ = ½, 1.083315470587686.
    /// y = 0, 8 f. For g = 5: ∂a = 0, 5 f, ∂b = 5·3/2, 40 f′.
    #[test]
    pub fn by_hand() {
        assert_by_hand(
            Geglu::new(),
            [3.0, 8.0, 0.0, 1.0],
            [0.0, 8.0 * 0.841344746068543],
            [0.0, 5.0 * 0.841344746068543, 7.5, 40.0 * 1.083315470587686],
        );
    }
}
