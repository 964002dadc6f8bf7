//! Affine maps and tables.

mod embedding;
#[allow(clippy::module_inception)]
mod linear;

pub use embedding::{Embedding, EmbeddingCache};
pub use linear::Linear;
