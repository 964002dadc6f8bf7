//! Layers that bring their input to mean 0 and variance 1.

mod affine;

crate::registry::family! {
    batch_norm => BatchNorm1d, BatchNorm2d;
    layer_norm => LayerNorm;
    layer_norm_2d => LayerNorm2d;
}
