//! Attention, positions, and the layers of transformers.

pub(crate) mod dense;
mod feed_forward;
mod heads;
mod masks;
mod settings;
mod stack;
mod stream;
mod sublayer;

crate::registry::family! {
    learned_position => LearnedPosition;
    multihead_attention => MultiheadAttention;
    rope => Rope;
    scaled_dot_product_attention => ScaledDotProductAttention;
    sinusoidal_position => SinusoidalPosition;
    transformer => Transformer;
    transformer_decoder => TransformerDecoder;
    transformer_decoder_layer => TransformerDecoderLayer;
    transformer_encoder => TransformerEncoder;
    transformer_encoder_layer => TransformerEncoderLayer;
}

pub use feed_forward::FeedForwardActivation;
pub use masks::MaskKind;
