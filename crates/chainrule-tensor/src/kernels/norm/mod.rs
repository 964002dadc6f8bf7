//! Normalisation: batch norm over the channels of (N, C, L), layer norm over the rows of (R, D).

mod batch;
mod layer;

pub use batch::{Affine, Channels, batch_norm, batch_norm_gradient, normalize_channels};
pub use layer::{layer_norm, layer_norm_gradient};
