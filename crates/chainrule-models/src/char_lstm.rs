//! A language model of characters (Karpathy, 2015): embedding, LSTM, linear layer.

use chainrule_core::Scalar;
use chainrule_layers::{Dropout, Embedding, Linear, Lstm, Sequential};

/// `embedding`, `lstm` and `fc`, which gives logits of the next character at every step. As a stream it goes on character by
/// character: [`Session::stream`](chainrule_core::Session::stream).
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::CharLstm;
/// let model = CharLstm { layers: 2, ..CharLstm::new(65, 128) }.build().init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([4, 50]))?.shape()[..], [4, 50, 65]);
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

    /// Characters (N, T) → logits of the next (N, T, vocabulary): cross-entropy takes them with `classes_last`.
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Sequential<T> {
        let lstm = Lstm::new(self.embedding, self.hidden).num_layers(self.layers).dropout(self.dropout);
        Sequential::of()
            .named("embedding", Embedding::new(self.vocabulary, self.embedding))
            .named("lstm", lstm)
            .named("dropout", Dropout::new(self.dropout))
            .named("fc", Linear::new(self.hidden, self.vocabulary))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_core::{Parameters, Session, Tensor};

    #[test]
    fn a_text_in_pieces_gives_the_bits_of_the_whole() {
        let model =
            CharLstm { layers: 2, dropout: 0.5, ..CharLstm::new(23, 48) }.build::<f32>().init(1).unwrap();
        let text = |from: usize, to: usize| {
            Tensor::from_vec([1, to - from], (from..to).map(|i| (i * i % 23) as f32).collect()).unwrap()
        };
        let mut session = Session::new(&model);
        let whole = session.run(&text(0, 64)).unwrap().clone();
        for cuts in [vec![0, 64], (0..=64).collect(), vec![0, 1, 9, 40, 64]] {
            session.reset();
            for ends in cuts.windows(2) {
                let y = session.stream(&text(ends[0], ends[1])).unwrap();
                assert_eq!(y.data(), &whole.data()[ends[0] * 23..ends[1] * 23]);
            }
        }
    }
}
