//! A stack of causal, dilated convolutions as in WaveNet (van den Oord et al., 2016).

use chainrule_core::Scalar;
use chainrule_layers::{
    Add, Conv1d, Embedding, Graph, Mul, Padding, Relu, Sequential, Sigmoid, Tanh, Transpose,
};

/// Each block filters its past at a dilation, gates it, adds the result to its input, and hands a part to the answer.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::WaveNet;
/// let model = WaveNet { dilations: vec![1, 2, 4], ..WaveNet::new(24, 12, 16) }.build().init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([2, 40]))?.shape()[..], [2, 24, 40]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WaveNet {
    /// Levels that a sample can have.
    pub levels: usize,
    /// Channels of the blocks.
    pub width: usize,
    /// Channels that each block hands to the answer.
    pub skip: usize,
    /// The kernel of the dilated convolutions.
    pub kernel: usize,
    /// The dilation of each block.
    pub dilations: Vec<usize>,
}

impl WaveNet {
    /// Two rounds of dilations 1, 2, 4, 8 with a kernel of 2.
    #[must_use]
    pub fn new(levels: usize, width: usize, skip: usize) -> Self {
        Self { levels, width, skip, kernel: 2, dilations: [1, 2, 4, 8].repeat(2) }
    }

    /// Levels (N, T) → logits of the next level (N, levels, T).
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Graph<T> {
        let mut graph = Graph::of();
        let x = graph.input("levels");
        let x = graph.add("embed", Embedding::new(self.levels, self.width), x);
        let (mut x, mut skips) = (graph.add("transpose", Transpose::new(1, 2), x), Vec::new());
        for (i, &dilation) in self.dilations.iter().enumerate() {
            let y = graph.add(format!("blocks.{i}"), self.block(dilation), x);
            (x, _) = (y, skips.push(y.at(1)));
        }
        let total = graph.add("skips", Add::new().terms(skips.len()), skips);
        let head = Sequential::of().add(Relu::new());
        let y = graph.add("relu1", head, total);
        let y = graph.add("out1", Conv1d::new(self.skip, self.skip, 1), y);
        let y = graph.add("relu2", Relu::new(), y);
        let y = graph.add("out2", Conv1d::new(self.skip, self.levels, 1), y);
        graph.output("logits", y);
        graph
    }

    /// z = tanh(filter x) σ(gate x); x + residual z, and skip z.
    fn block<T: Scalar>(&self, dilation: usize) -> Graph<T> {
        let causal =
            || Conv1d::new(self.width, self.width, self.kernel).dilation(dilation).padding(Padding::Causal);
        let mut graph = Graph::of();
        let x = graph.input("x");
        let filter = graph.add("filter", causal(), x);
        let filter = graph.add("tanh", Tanh::new(), filter);
        let gate = graph.add("gate", causal(), x);
        let gate = graph.add("sigmoid", Sigmoid::new(), gate);
        let z = graph.add("product", Mul::new(), [filter, gate]);
        let residual = graph.add("residual", Conv1d::new(self.width, self.width, 1), z);
        let skip = graph.add("skip", Conv1d::new(self.width, self.skip, 1), z);
        let y = graph.add("sum", Add::new(), [x, residual]);
        graph.output("y", y);
        graph.output("skip", skip);
        graph
    }
}
