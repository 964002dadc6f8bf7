//! Convolutions: the same weights at every position of an image.

mod padding;

crate::registry::family! {
    conv => Conv2d;
}

pub use padding::{Padding, PaddingMode};
