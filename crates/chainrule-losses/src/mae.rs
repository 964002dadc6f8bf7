//! The mean absolute error; PyTorch's L1Loss.
//!
//! ```text
//! e = |y − t|        ∂e/∂y = sign(y − t),   ∂e/∂t = −sign(y − t),   sign(0) = 0
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/mae.md.

use crate::elementwise::{elementwise_loss, sign};
use chainrule_core::Reduction;

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
#[derive(Clone, Copy, Debug)]
pub struct Mae {
    reduction: Reduction,
}

impl Mae {
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

impl Default for Mae {
    fn default() -> Self {
        Self::new()
    }
}

elementwise_loss! {
    Mae,
    e: |y, t| (y - t).abs(),
    dy: sign(y - t),
    dt: sign(t - y),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::tests::by_hand;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4)) {
            loss: |reduction| Mae::new().reduction(reduction),
            prediction: shape,
            target: Targets::Numbers,
        }
    }

    /// y − t = (1, −3): (1 + 3)/2 = 2; ∂y = (1, −1)/2. Where y = t the slope is 0.
    #[test]
    fn by_hand_values() {
        by_hand(&Mae::new(), [[1.0, 2.0], [0.0, 5.0]], 2.0, [[0.5, -0.5], [-0.5, 0.5]]);
        by_hand(&Mae::new(), [[1.0], [1.0]], 0.0, [[0.0], [0.0]]);
    }
}
