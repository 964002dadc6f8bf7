//! Layers that add noise in training.

crate::registry::family! {
    dropout => Dropout;
}
