//! Squared near the target, absolute beyond (Huber, 1964).
//!
//! ```text
//! e = ½ (y − t)²              where |y − t| ≤ δ
//!     δ (|y − t| − ½ δ)         beyond
//! ∂e/∂y = y − t, or δ sign(y − t);   ∂e/∂t = −∂e/∂y
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/huber.md.

use crate::elementwise::{elementwise_loss, sign};
use chainrule_core::Reduction;

/// ½ (y − t)² within δ of the target and δ (|y − t| − ½ δ) beyond.
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::Huber;
/// let (y, t) = (Tensor::from([1.0f32, 2.0]), Tensor::from([0.0, 5.0]));
/// assert_eq!(Huber::new().value(&y, &t)?.data(), [1.5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Huber {
    delta: f64,
    reduction: Reduction,
}

impl Huber {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self { delta: 1.0, reduction: Reduction::Mean }
    }

    /// Where the squared part ends; 1 by default.
    #[must_use]
    pub fn delta(mut self, delta: f64) -> Self {
        self.delta = delta;
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl Default for Huber {
    fn default() -> Self {
        Self::new()
    }
}

elementwise_loss! {
    Huber,
    numbers: [delta],
    e: |y, t| {
        let (d, half) = ((y - t).abs(), T::from_f64(0.5));
        if d > delta { delta * (d - half * delta) } else { half * d * d }
    },
    dy: if (y - t).abs() > delta { delta * sign(y - t) } else { y - t },
    dt: if (y - t).abs() > delta { delta * sign(t - y) } else { t - y },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::tests::by_hand;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4), delta in 0.2..3.0) {
            loss: |reduction| Huber::new().delta(delta).reduction(reduction),
            prediction: shape,
            target: Targets::Numbers,
        }
    }

    /// δ = 2, y − t = (1, −3): ½ and 2 (3 − 1) = 4, mean 2.25; ∂y = (1, −2)/2.
    #[test]
    fn by_hand_values() {
        let loss = Huber::new().delta(2.0);
        by_hand(&loss, [[1.0, 2.0], [0.0, 5.0]], 2.25, [[0.5, -1.0], [-0.5, 1.0]]);
    }
}
