//! Affine maps and tables.

mod broadcast;

crate::registry::family! {
    adaptive_log_softmax_with_loss => AdaptiveLogSoftmaxWithLoss;
    bias => Bias;
    bilinear => Bilinear;
    embedding => Embedding;
    embedding_bag => EmbeddingBag;
    linear => Linear;
    maxout => Maxout;
    scale => Scale;
}
