//! Normalisation: batch norm over the channels of (N, C, L), group norm over groups of them, layer norm over the rows of (R, D).

mod batch;
mod channels;
mod group;
mod layer;
mod mean;

pub use batch::{batch_norm, batch_norm_gradient, normalize_channels};
pub use channels::{Affine, Channels};
pub use group::{group_norm, group_norm_gradient};
pub use layer::{Shares, layer_norm, layer_norm_gradient, rms_norm, rms_norm_gradient};
pub use mean::Mean;
