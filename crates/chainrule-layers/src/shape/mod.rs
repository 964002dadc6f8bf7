//! Layers that rearrange their input, or extend it.

mod margins;
mod order;
mod reduce;

crate::registry::family! {
    flatten => Flatten;
    channel_shuffle => ChannelShuffle;
    circular_pad => CircularPad1d, CircularPad2d, CircularPad3d;
    constant_pad => ConstantPad1d, ConstantPad2d, ConstantPad3d, ZeroPad1d, ZeroPad2d, ZeroPad3d;
    crop => Crop1d, Crop2d, Crop3d;
    max => Max;
    mean => Mean;
    narrow => Narrow;
    permute => Permute;
    pixel_shuffle => PixelShuffle;
    pixel_unshuffle => PixelUnshuffle;
    reflection_pad => ReflectionPad1d, ReflectionPad2d, ReflectionPad3d;
    repeat => Repeat;
    replication_pad => ReplicationPad1d, ReplicationPad2d, ReplicationPad3d;
    reshape => Reshape;
    sum => Sum;
    transpose => Transpose;
    unflatten => Unflatten;
    upsample => Upsample;
}

pub use margins::{CopyPadCache, Margins};
