//! Layers that bring their input to mean 0 and variance 1, or to a given size.

mod affine;

crate::registry::family! {
    batch_norm => BatchNorm1d, BatchNorm2d, BatchNorm3d;
    group_norm => GroupNorm;
    instance_norm => InstanceNorm1d, InstanceNorm2d, InstanceNorm3d;
    l2_normalize => L2Normalize;
    layer_norm => LayerNorm;
    layer_norm_2d => LayerNorm2d;
    local_response_norm => LocalResponseNorm;
    rms_norm => RmsNorm;
}
