//! Normalisation: batch norm over the channels of (N, C, L), layer norm over the rows of (R, D).

mod batch;
mod channels;
mod layer;

pub use batch::{batch_norm, batch_norm_gradient, normalize_channels};
pub use channels::{Affine, Channels};
pub use layer::{layer_norm, layer_norm_gradient, layer_norm_shares};
