//! Layers that rearrange.

mod flatten;

pub use flatten::Flatten;
