//! How a graph is put together.

use super::{
    check_name,
    graph::{Graph, MAX_INPUTS, Node, Use},
    single::Single,
};
use chainrule_core::{BoxLayer, BoxMulti, Error, Layer, MultiLayer, Result, Scalar};

impl<T: Scalar> Graph<T> {
    /// No node yet.
    pub fn new() -> Self {
        Self { layers: Vec::new(), nodes: Vec::new(), output: 0 }
    }

    /// One more input of the graph.
    pub fn input(&mut self) -> Node {
        let index = self.inputs();
        self.push(Use::Input(index))
    }

    /// A layer over one node. The newest node is the output, unless [`Graph::output`] says otherwise.
    ///
    /// # Errors
    /// The key is taken, or the node is of another graph.
    pub fn add(&mut self, key: &str, layer: impl Layer<T> + Clone + 'static, input: Node) -> Result<Node> {
        self.join(key, Single(BoxLayer::new(layer)), &[input])
    }

    /// A layer of several inputs over several nodes.
    ///
    /// # Errors
    /// The key is taken, a node is of another graph, or there are more than eight inputs.
    pub fn join(
        &mut self,
        key: &str,
        layer: impl MultiLayer<T> + Clone + 'static,
        inputs: &[Node],
    ) -> Result<Node> {
        check_name(key, self.layers.iter().map(|(k, _)| k.as_str()))?;
        let node = self.use_of(self.layers.len(), inputs)?;
        self.layers.push((key.to_owned(), BoxMulti::new(layer)));
        Ok(self.push(node))
    }

    /// The layer of a key once more, over other nodes: the same parameters, another cache.
    ///
    /// # Errors
    /// There is no such key, or a node is of another graph.
    pub fn again(&mut self, key: &str, inputs: &[Node]) -> Result<Node> {
        let layer = self
            .layers
            .iter()
            .position(|(k, _)| k == key)
            .ok_or_else(|| Error::value(format!("Graph: expected the key of a layer, got `{key}`")))?;
        let node = self.use_of(layer, inputs)?;
        Ok(self.push(node))
    }

    /// Makes a node the output.
    pub fn output(&mut self, node: Node) {
        self.output = node.0;
    }

    fn use_of(&self, layer: usize, inputs: &[Node]) -> Result<Use> {
        if inputs.is_empty() || inputs.len() > MAX_INPUTS {
            return Err(Error::value(format!(
                "Graph: expected 1 to {MAX_INPUTS} inputs of a node, got {}",
                inputs.len()
            )));
        }
        if inputs.iter().any(|n| n.0 >= self.nodes.len()) {
            return Err(Error::value("Graph: expected nodes of this graph, got one that it does not have"));
        }
        Ok(Use::Layer { layer, inputs: inputs.iter().map(|n| n.0).collect() })
    }

    fn push(&mut self, node: Use) -> Node {
        self.nodes.push(node);
        self.output = self.nodes.len() - 1;
        Node(self.output)
    }
}

impl<T: Scalar> Default for Graph<T> {
    fn default() -> Self {
        Self::new()
    }
}
