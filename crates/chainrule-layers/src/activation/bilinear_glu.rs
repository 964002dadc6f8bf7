//! The gated linear unit without a function (Mnih and Hinton, 2007; Shazeer, 2020).
//!
//! ```text
//! x = (a, b) along one axis,   y = a ⊙ b
//! ∂E/∂a = ∂E/∂y ⊙ b        ∂E/∂b = ∂E/∂y ⊙ a ⊙ 1
//! ```
//!
//! Smooth; NaN in one half gives NaN in y and in the gradient of the other. Stores nothing. Derivation: docs/layers/activation/glu.md.

use super::gated::{self, Gate, gated};
use chainrule_core::{Args, Example, Facts, FromSpec, Result, Scalar};
use std::marker::PhantomData;

/// y = a ⊙ b, where a and b are the halves of x along one axis.
///
/// # Shapes
/// x has an even number 2n of elements along the axis, the last one by default; y has n, the first n of x times a function of the last n.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::BilinearGlu;
/// let y = BilinearGlu::new().infer(&Tensor::from([[3.0f32, 2.0]]))?;
/// assert_eq!(y, Tensor::from([[6.0f32]]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct BilinearGlu<T = f32> {
    dim: isize,
    of: PhantomData<T>,
}

impl<T: Scalar> BilinearGlu<T> {
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

impl<T: Scalar> Gate<T> for BilinearGlu<T> {
    #[inline(always)]
    fn gate<const FMA: bool>(self, b: T) -> (T, T) {
        (b, T::ONE)
    }
}

gated!(BilinearGlu);

impl<T: Scalar> FromSpec<T> for BilinearGlu<T> {
    const FACTS: Facts = Facts::new("BilinearGlu")
        .family("activation")
        .formula("a ⊙ b, x = (a, b)")
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
            layer: BilinearGlu::new().dim(axis),
            input: doubled(&shape, axis),
            wrong: shape.iter().map(|n| 2 * n + 1).collect::<Vec<_>>(),
        }
    }

    /// a = (3, 8), b = (2, −1): y = 6, −8. For g = 5: ∂a = 10, −5, ∂b = 15, 40.
    #[test]
    pub fn by_hand() {
        assert_by_hand(BilinearGlu::new(), [3.0, 8.0, 2.0, -1.0], [6.0, -8.0], [10.0, -5.0, 15.0, 40.0]);
    }
}
