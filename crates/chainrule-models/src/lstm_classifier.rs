//! A classifier of sequences of words or characters: embedding, LSTM, linear layer.

use chainrule_core::Scalar;
use chainrule_layers::{Embedding, Linear, Lstm, Mean, Sequential};

/// `embedding`, whose row 0 is that of the padding, `lstm`, bidirectional, and `fc` over what both directions end with.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::LstmClassifier;
/// let model = LstmClassifier { layers: 2, ..LstmClassifier::new(1000, 32, 64, 5) }.build().init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([8, 20]))?.shape()[..], [8, 5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LstmClassifier {
    /// Different tokens, the padding included.
    pub vocabulary: usize,
    /// Features of a token.
    pub embedding: usize,
    /// States of each direction.
    pub hidden: usize,
    /// Outputs.
    pub classes: usize,
    /// Layers of the LSTM.
    pub layers: usize,
    /// Whether it goes through the sequence both ways.
    pub bidirectional: bool,
    /// Whether the mean over the steps is classified, and not the last states.
    pub mean: bool,
}

impl LstmClassifier {
    /// One layer in both directions, of which the last states are classified.
    #[must_use]
    pub fn new(vocabulary: usize, embedding: usize, hidden: usize, classes: usize) -> Self {
        Self { vocabulary, embedding, hidden, classes, layers: 1, bidirectional: true, mean: false }
    }

    /// Tokens (N, T) → logits (N, classes).
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Sequential<T> {
        let lstm = Lstm::new(self.embedding, self.hidden).num_layers(self.layers).last(!self.mean);
        let width = if self.bidirectional { self.hidden.saturating_mul(2) } else { self.hidden };
        let model = Sequential::of()
            .named("embedding", Embedding::new(self.vocabulary, self.embedding).padding_idx(0))
            .named("lstm", lstm.bidirectional(self.bidirectional));
        let model = if self.mean { model.named("mean", Mean::new([1])) } else { model };
        model.named("fc", Linear::new(width, self.classes))
    }
}
