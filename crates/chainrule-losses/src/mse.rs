//! The mean squared error.
//!
//! ```text
//! e = (y − t)²        ∂e/∂y = 2 (y − t),   ∂e/∂t = −2 (y − t)
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/mse.md.

use crate::elementwise::elementwise_loss;
use chainrule_core::Reduction;

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
#[derive(Clone, Copy, Debug)]
pub struct Mse {
    reduction: Reduction,
}

impl Mse {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self { reduction: Reduction::Mean }
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl Default for Mse {
    fn default() -> Self {
        Self::new()
    }
}

elementwise_loss! {
    Mse,
    e: |y, t| (y - t) * (y - t),
    dy: (y - t) + (y - t),
    dt: (t - y) + (t - y),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::tests::by_hand;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4)) {
            loss: |reduction| Mse::new().reduction(reduction),
            prediction: shape,
            target: Targets::Numbers,
        }
    }

    /// y − t = (1, −3): (1 + 9)/2 = 5; ∂y = 2 (1, −3)/2 = (1, −3).
    #[test]
    fn by_hand_values() {
        by_hand(&Mse::new(), [[1.0, 2.0], [0.0, 5.0]], 5.0, [[1.0, -3.0], [-1.0, 3.0]]);
    }
}
