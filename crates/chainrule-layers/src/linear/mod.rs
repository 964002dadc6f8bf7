//! Affine maps and tables.

crate::registry::family! {
    bilinear => Bilinear;
    embedding => Embedding;
    embedding_bag => EmbeddingBag;
    linear => Linear;
}
