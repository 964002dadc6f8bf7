//! Layers that shrink images: each output is computed from a window of the input.

mod maxima;
mod means;
mod windows;

crate::registry::family! {
    adaptive_avg_pool => AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d;
    adaptive_max_pool => AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d;
    avg_pool => AvgPool1d, AvgPool2d, AvgPool3d;
    fractional_max_pool => FractionalMaxPool2d, FractionalMaxPool3d;
    global_avg_pool => GlobalAvgPool1d, GlobalAvgPool2d, GlobalAvgPool3d;
    global_max_pool => GlobalMaxPool1d, GlobalMaxPool2d, GlobalMaxPool3d;
    lp_pool => LpPool1d, LpPool2d, LpPool3d;
    max_pool => MaxPool1d, MaxPool2d, MaxPool3d;
    max_pool_with_indices => MaxPool1dWithIndices, MaxPool2dWithIndices, MaxPool3dWithIndices;
    max_unpool => MaxUnpool1d, MaxUnpool2d, MaxUnpool3d;
}

pub use maxima::PartsMaxCache;
pub use means::AvgPoolCache;
