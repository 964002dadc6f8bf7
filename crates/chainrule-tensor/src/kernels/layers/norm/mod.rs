//! Normalisation: batch norm over the channels of (N, C, L), layer norm over the rows of (R, D).

mod batch;
mod channels;
mod layer;
mod mean;

pub use batch::{batch_norm, batch_norm_gradient, channel_gradient, channel_statistics, normalize_channels};
pub use channels::{Affine, Channels};
pub use layer::{Shares, layer_norm, layer_norm_gradient, rms_norm, rms_norm_gradient};
pub use mean::Mean;
