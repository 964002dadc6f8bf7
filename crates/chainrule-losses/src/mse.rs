//! The mean squared error.
//!
//! ```text
//! e = (y − t)²        ∂e/∂y = 2 (y − t),   ∂e/∂t = −2 (y − t)
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/mse.md.

use crate::elementwise::{Element, Elementwise, examples, forward_to_elementwise, reduction};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use std::marker::PhantomData;

/// (y − t)².
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::Mse;
/// let (y, t) = (Tensor::from([1.0f32, 2.0]), Tensor::from([0.0, 5.0]));
/// assert_eq!(Mse::new().value(&y, &t)?.data(), [5.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mse<T = f32> {
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Mse<T> {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self { reduction: Reduction::Mean, scalar: PhantomData }
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    fn elementwise(&self) -> Result<Elementwise<Squared>> {
        Ok(Elementwise::new("Mse", Squared, self.reduction))
    }
}

impl<T: Scalar> Default for Mse<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// (y − t)²
#[derive(Clone, Copy)]
struct Squared;

impl<T: Scalar> Element<T> for Squared {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        (y - t) * (y - t)
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        (y - t) + (y - t)
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        (t - y) + (t - y)
    }
}

impl<T: Scalar> Loss for Mse<T> {
    type T = T;

    forward_to_elementwise!(Squared);

    fn spec(&self) -> Spec {
        Spec::new("Mse").with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for Mse<T> {
    const FACTS: Facts =
        Facts::new("Mse").family("loss").formula("(y − t)²").page("losses/mse.md").torch("MSELoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        examples(|reduction| Self::new().reduction(reduction).spec())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4)) {
            loss: |reduction| Mse::<T>::new().reduction(reduction),
            prediction: shape,
            target: TargetKind::Values,
        }
    }

    /// y − t = (1, −3): (1 + 9)/2 = 5; ∂y = 2 (1, −3)/2 = (1, −3).
    #[test]
    pub fn by_hand() {
        compare(&Mse::new(), [[1.0, 2.0], [0.0, 5.0]], 5.0, [[1.0, -3.0], [-1.0, 3.0]]);
    }
}
