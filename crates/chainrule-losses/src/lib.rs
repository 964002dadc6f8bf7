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
mod fn_loss;
mod overlap;
mod registry;
mod rows;
mod rowwise;
mod several;

pub use chainrule_core as core;
pub use fn_loss::FnLoss;
pub use registry::registry;

registry::losses! {
    activity_penalty => ActivityPenalty;
    bce => Bce;
    bce_with_logits => BceWithLogits;
    binary_focal => BinaryFocal;
    contrastive => Contrastive;
    cosine_embedding => CosineEmbedding;
    cross_entropy => CrossEntropy;
    ctc => Ctc;
    dice => Dice;
    focal => Focal;
    gaussian_nll => GaussianNll;
    hinge => Hinge;
    hinge_embedding => HingeEmbedding;
    huber => Huber;
    info_nce => InfoNce;
    kl_div => KlDiv;
    log_cosh => LogCosh;
    mae => Mae;
    mape => Mape;
    margin_ranking => MarginRanking;
    mse => Mse;
    msle => Msle;
    multi_label_margin => MultiLabelMargin;
    multi_label_soft_margin => MultiLabelSoftMargin;
    multi_margin => MultiMargin;
    nll => Nll;
    poisson_nll => PoissonNll;
    quantile => Quantile;
    smooth_l1 => SmoothL1;
    soft_margin => SoftMargin;
    squared_hinge => SquaredHinge;
    triplet_margin => TripletMargin;
    tversky => Tversky;
    weighted_sum => WeightedSum;
}

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
