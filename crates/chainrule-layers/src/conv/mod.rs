//! Convolutions: the same weights at every place of an image.

mod conv2d;
mod conv2d_builder;
mod padding;

pub use conv2d::{Conv2d, Conv2dCache};
pub use padding::{Padding, PaddingMode};
