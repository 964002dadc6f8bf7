//! Layers that bring their input to mean 0 and variance 1.

mod batch_norm;
mod batch_norm1d;
mod batch_norm2d;
mod layer_norm;

pub use batch_norm::BatchNormCache;
pub use batch_norm1d::BatchNorm1d;
pub use batch_norm2d::BatchNorm2d;
pub use layer_norm::{LayerNorm, LayerNormCache};
