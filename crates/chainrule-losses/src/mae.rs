//! The mean absolute error; PyTorch's L1Loss.
//!
//! ```text
//! e = |y − t|        ∂e/∂y = sign(y − t),   ∂e/∂t = −sign(y − t),   sign(0) = 0
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/mae.md.

use crate::elementwise::{Element, Elementwise, examples, forward_to_elementwise, reduction, sign};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use std::marker::PhantomData;

/// |y − t|.
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::Mae;
/// let (y, t) = (Tensor::from([1.0f32, 2.0]), Tensor::from([0.0, 5.0]));
/// assert_eq!(Mae::new().value(&y, &t)?.data(), [2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mae<T = f32> {
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Mae<T> {
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

    fn elementwise(&self) -> Result<Elementwise<Absolute>> {
        Ok(Elementwise::new("Mae", Absolute, self.reduction))
    }
}

impl<T: Scalar> Default for Mae<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// |y − t|
#[derive(Clone, Copy)]
struct Absolute;

impl<T: Scalar> Element<T> for Absolute {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        (y - t).abs()
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        sign(y - t)
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        sign(t - y)
    }
}

impl<T: Scalar> Loss for Mae<T> {
    type T = T;

    forward_to_elementwise!(Absolute);

    fn spec(&self) -> Spec {
        Spec::new("Mae").with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for Mae<T> {
    const FACTS: Facts =
        Facts::new("Mae").family("loss").formula("|y − t|").page("losses/mae.md").torch("L1Loss");

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
            loss: |reduction| Mae::<T>::new().reduction(reduction),
            prediction: shape,
            target: TargetKind::Values,
        }
    }

    /// y − t = (1, −3): (1 + 3)/2 = 2; ∂y = (1, −1)/2. Where y = t the slope is 0.
    #[test]
    pub fn by_hand() {
        compare(&Mae::new(), [[1.0, 2.0], [0.0, 5.0]], 2.0, [[0.5, -0.5], [-0.5, 0.5]]);
        compare(&Mae::new(), [[1.0], [1.0]], 0.0, [[0.0], [0.0]]);
    }
}
