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
mod rowwise;
mod several;

pub use chainrule_core as core;
pub use registry::registry;

registry::losses! {
    bce => Bce;
    bce_with_logits => BceWithLogits;
    cosine_embedding => CosineEmbedding;
    cross_entropy => CrossEntropy;
    ctc => Ctc;
    gaussian_nll => GaussianNll;
    hinge_embedding => HingeEmbedding;
    huber => Huber;
    kl_div => KlDiv;
    mae => Mae;
    margin_ranking => MarginRanking;
    mse => Mse;
    multi_label_margin => MultiLabelMargin;
    multi_label_soft_margin => MultiLabelSoftMargin;
    multi_margin => MultiMargin;
    nll => Nll;
    poisson_nll => PoissonNll;
    smooth_l1 => SmoothL1;
    soft_margin => SoftMargin;
    triplet_margin => TripletMargin;
    weighted_sum => WeightedSum;
}

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
