//! Layers that shrink images: each output is computed from a window of the input.

mod means;
mod windows;

crate::registry::family! {
    adaptive_avg_pool => AdaptiveAvgPool2d;
    avg_pool => AvgPool2d;
    global_avg_pool => GlobalAvgPool2d;
    max_pool => MaxPool2d;
}

pub use means::AvgPoolCache;
