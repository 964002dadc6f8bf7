//! A classifier of sequences of different lengths: GRU, linear layer.

use chainrule_core::Scalar;
use chainrule_layers::{Flatten, Graph, Gru, Linear, Narrow, Transpose};

/// `gru` over sequences with their lengths, and `fc` over the last layer's last states, each sequence's at its own end. The second output is
/// the sequence of states, zeros behind the ends.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::GruClassifier;
/// let model = GruClassifier::new(7, 16, 3).build().init(1)?;
/// let (x, lengths) = (Tensor::<f32>::zeros([2, 8, 7]), Tensor::from([8.0, 5.0]));
/// let ys = model.infer_all([&x, &lengths])?;
/// assert_eq!((&ys[0].shape()[..], &ys[1].shape()[..]), (&[2, 3][..], &[2, 8, 16][..]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GruClassifier {
    /// Features of a step.
    pub features: usize,
    /// States of each direction.
    pub hidden: usize,
    /// Outputs.
    pub classes: usize,
    /// Layers of the GRU.
    pub layers: usize,
    /// Whether it goes through the sequence both ways.
    pub bidirectional: bool,
}

impl GruClassifier {
    /// One layer in one direction.
    #[must_use]
    pub fn new(features: usize, hidden: usize, classes: usize) -> Self {
        Self { features, hidden, classes, layers: 1, bidirectional: false }
    }

    /// x (N, T, features) and lengths (N) → logits (N, classes) and states (N, T, directions · hidden).
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Graph<T> {
        let directions = if self.bidirectional { 2 } else { 1 };
        let gru = Gru::new(self.features, self.hidden)
            .num_layers(self.layers)
            .bidirectional(self.bidirectional)
            .lengths(true)
            .final_states(true);
        let below = self.layers.saturating_sub(1).saturating_mul(directions);
        let mut graph = Graph::of();
        let (x, lengths) = (graph.input("x"), graph.input("lengths"));
        let gru = graph.add("gru", gru, [x, lengths]);
        let last = graph.add("last", Narrow::new(0, below, directions), gru.at(1)); // (D, N, H)
        let last = graph.add("transpose", Transpose::new(0, 1), last);
        let last = graph.add("flatten", Flatten::new(), last);
        let fc = Linear::new(self.hidden.saturating_mul(directions), self.classes);
        let logits = graph.add("fc", fc, last);
        graph.output("logits", logits);
        graph.output("sequence", gru.at(0));
        graph
    }
}
