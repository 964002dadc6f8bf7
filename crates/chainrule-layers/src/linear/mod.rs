//! Affine maps and tables.

crate::registry::family! {
    embedding => Embedding;
    linear => Linear;
}
