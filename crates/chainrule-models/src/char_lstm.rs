//! A language model of characters (Karpathy, 2015): embedding, LSTM, linear layer.

use chainrule_core::Scalar;
use chainrule_layers::{Dropout, Embedding, Linear, Lstm, Sequential, Transpose};

/// `embedding`, `lstm` and `fc`, which gives logits of the next character at every step. As a stream it goes on character by
/// character: [`Session::stream`](chainrule_core::Session::stream).
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::CharLstm;
/// let model = CharLstm { layers: 2, ..CharLstm::new(65, 128) }.build().init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([4, 50]))?.shape()[..], [4, 65, 50]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CharLstm {
    /// Different characters.
    pub vocabulary: usize,
    /// Features of a character.
    pub embedding: usize,
    /// States of a layer.
    pub hidden: usize,
    /// Layers of the LSTM.
    pub layers: usize,
    /// The probability of dropout between layers and before the last.
    pub dropout: f64,
}

impl CharLstm {
    /// One layer, as many features of a character as states, no dropout.
    #[must_use]
    pub fn new(vocabulary: usize, hidden: usize) -> Self {
        Self { vocabulary, embedding: hidden, hidden, layers: 1, dropout: 0.0 }
    }

    /// Characters (N, T) → logits of the next (N, vocabulary, T), as cross-entropy takes them.
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Sequential<T> {
        let lstm = Lstm::new(self.embedding, self.hidden).num_layers(self.layers).dropout(self.dropout);
        Sequential::of()
            .named("embedding", Embedding::new(self.vocabulary, self.embedding))
            .named("lstm", lstm)
            .named("dropout", Dropout::new(self.dropout))
            .named("fc", Linear::new(self.hidden, self.vocabulary))
            .named("transpose", Transpose::new(1, 2))
    }
}
