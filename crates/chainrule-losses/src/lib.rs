//! Loss functions with hand-derived gradients, one file each, and their [`registry`].
//!
//! ```
//! use chainrule_core::{Loss, Tensor};
//! use chainrule_losses::CrossEntropy;
//!
//! let logits = Tensor::from([[2.0f32, 0.0], [0.0, 3.0]]);
//! let mut dy = Tensor::default();
//! let loss = CrossEntropy::new().gradient(&logits, &[0, 1], &mut dy)?;
//! assert!(loss < 0.1 && dy.data()[0] < 0.0);
//! # Ok::<(), chainrule_core::Error>(())
//! ```

mod elementwise;
mod registry;
mod rows;

pub use chainrule_core as core;
pub use registry::registry;

registry::losses! {
    bce_with_logits => BceWithLogits;
    cross_entropy => CrossEntropy;
    huber => Huber;
    mae => Mae;
    mse => Mse;
    weighted_sum => WeightedSum;
}

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
