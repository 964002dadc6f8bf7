//! Loss functions with hand-derived gradients, one file each.
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

mod bce_with_logits;
mod cross_entropy;
mod elementwise;
mod huber;
mod lines;
mod mae;
mod mse;

pub use bce_with_logits::BceWithLogits;
pub use cross_entropy::CrossEntropy;
pub use huber::Huber;
pub use mae::Mae;
pub use mse::Mse;

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
