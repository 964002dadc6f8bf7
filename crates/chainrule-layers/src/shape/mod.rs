//! Layers that change the shape.

crate::registry::family! {
    flatten => Flatten;
}
