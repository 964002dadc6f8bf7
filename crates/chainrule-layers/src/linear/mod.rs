//! Affine maps and tables.

#[allow(clippy::module_inception)]
mod linear;

pub use linear::Linear;
