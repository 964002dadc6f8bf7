//! Affine maps and tables.

mod broadcast;

crate::registry::family! {
    bias => Bias;
    bilinear => Bilinear;
    embedding => Embedding;
    embedding_bag => EmbeddingBag;
    linear => Linear;
    maxout => Maxout;
    scale => Scale;
}
