//! Convolutions: the same weights at every position of an image.

mod filters;
mod padding;
mod patches;
mod separable;

crate::registry::family! {
    conv => Conv1d, Conv2d, Conv3d;
    conv_transpose => ConvTranspose1d, ConvTranspose2d, ConvTranspose3d;
    fold => Fold;
    unfold => Unfold;
}

pub use padding::{Padding, PaddingMode};
pub use separable::depthwise_separable_conv2d;
