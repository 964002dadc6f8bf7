//! Layers in any acyclic arrangement; a layer may stand at several nodes.
//!
//! ```text
//! xₙ = fₙ(x of its inputs), in the order of construction
//! ```
//!
//! Backwards through the nodes, with Gₙ = ∂E/∂xₙ summed over everything that reads xₙ:
//!
//! ```text
//! Gₘ += (∂fₙ/∂xₘ)ᵀ Gₙ    for every input m of node n
//! ```
//!
//! Keeps the output of every node. Derivation: docs/layers/container/graph.md.

use super::{check_name, check_output};
use chainrule_core::{
    AnyCache, BoxLayer, BoxMulti, Call, Context, Error, Grads, Layer, MultiCall, MultiLayer, Params,
    ParamsMut, Result, Scalar, Shape, Summary, Tensor,
};
use chainrule_tensor::kernels::elementwise::add_assign;
use std::array;

/// The most inputs of one node.
const MAX_INPUTS: usize = 8;

/// A node of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(usize);

/// Layers in any acyclic arrangement. The graph owns each layer once, under a key; a node is one use of it.
///
/// # Shapes
/// Those of its layers. With one input it is a [`Layer`]; with more, a [`MultiLayer`].
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::{Add, Graph, Linear};
/// let mut graph: Graph = Graph::new();
/// let x = graph.input();
/// let once = graph.add("shared", Linear::new(4, 4), x)?;
/// let twice = graph.again("shared", &[once])?;
/// graph.join("sum", Add::new(), &[once, twice])?;
/// let graph = graph.init(1)?;
/// assert_eq!(graph.infer(&Tensor::zeros([2, 4]))?.shape()[..], [2, 4]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Graph<T: Scalar = f32> {
    layers: Vec<(String, BoxMulti<T>)>,
    nodes: Vec<Use>,
    output: usize,
}

/// One node: an input of the graph, or a layer over earlier nodes.
#[derive(Clone, Debug)]
enum Use {
    Input(usize),
    Layer { layer: usize, inputs: Vec<usize> },
}

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

    fn inputs(&self) -> usize {
        self.nodes.iter().filter(|n| matches!(n, Use::Input(_))).count()
    }

    /// Calls `f` with every node's layer, the shapes of its inputs, and a place for the shape of its output.
    fn shapes(
        &self,
        inputs: &[&[usize]],
        mut f: impl FnMut(usize, &[&[usize]]) -> Result<Shape>,
    ) -> Result<Shape> {
        if inputs.len() != self.inputs() || self.nodes.is_empty() {
            return Err(Error::shape(format!(
                "Graph: expected {} inputs, got {}",
                self.inputs(),
                inputs.len()
            )));
        }
        let mut shapes: Vec<Shape> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let shape = match node {
                Use::Input(i) => Shape::new(inputs[*i])?,
                Use::Layer { layer, inputs } => {
                    let of: [&[usize]; MAX_INPUTS] =
                        array::from_fn(|i| inputs.get(i).map_or(&[][..], |&n| &shapes[n][..]));
                    f(*layer, &of[..inputs.len()])?
                }
            };
            shapes.push(shape);
        }
        Ok(shapes[self.output])
    }
}

impl<T: Scalar> Default for Graph<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What [`Graph`] keeps.
#[derive(Debug)]
pub struct GraphCache<T> {
    caches: Vec<AnyCache>,
    /// The output of every node; unused for inputs.
    ys: Vec<Tensor<T>>,
    /// ∂E/∂y of every node, and whether anything was added to it yet.
    dys: Vec<(Tensor<T>, bool)>,
    /// ∂E/∂x of one node's inputs.
    dxs: [Tensor<T>; MAX_INPUTS],
    recorded: bool,
}

impl<T: Scalar> Default for GraphCache<T> {
    fn default() -> Self {
        Self { caches: Vec::new(), ys: Vec::new(), dys: Vec::new(), dxs: Default::default(), recorded: false }
    }
}

impl<T: Scalar> MultiLayer<T> for Graph<T> {
    type Cache = GraphCache<T>;

    fn check(&self) -> Result<()> {
        self.layers.iter().try_for_each(|(key, layer)| layer.check().map_err(|e| e.in_layer(key)))
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        self.shapes(inputs, |at, shapes| {
            let (key, layer) = &self.layers[at];
            layer.output_shape(shapes).map_err(|e| e.in_layer(key))
        })
    }

    fn forward(
        &self,
        xs: &[&Tensor<T>],
        y: &mut Tensor<T>,
        cache: &mut Self::Cache,
        cx: &mut Context,
    ) -> Result<()> {
        if xs.len() != self.inputs() || self.nodes.is_empty() {
            return Err(Error::shape(format!("Graph: expected {} inputs, got {}", self.inputs(), xs.len())));
        }
        cache.recorded = false;
        cache.caches.resize_with(self.nodes.len(), AnyCache::default);
        cache.ys.resize_with(self.nodes.len(), Tensor::default);
        for (n, node) in self.nodes.iter().enumerate() {
            let Use::Layer { layer, inputs } = node else { continue };
            let (key, layer) = &self.layers[*layer];
            let mut own = std::mem::take(&mut cache.ys[n]);
            let of = self.outputs_of(inputs, xs, &cache.ys);
            let result = layer.forward(&of[..inputs.len()], &mut own, &mut cache.caches[n], &mut cx.child(n));
            let result = result.and_then(|()| check_output(&own, cx));
            cache.ys[n] = own;
            result.map_err(|e| e.in_layer(key))?;
        }
        y.copy_from(self.output_of(self.output, xs, &cache.ys));
        cache.recorded = cx.recording();
        Ok(())
    }

    fn backward(
        &self,
        call: MultiCall<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        if !cache.recorded || cache.caches.len() != self.nodes.len() {
            return Err(Error::not_recorded("Graph: backward without a recorded forward in this cache"));
        }
        let GraphCache { caches, ys, dys, dxs: own, .. } = cache;
        dys.resize_with(self.nodes.len(), Default::default);
        dys.iter_mut().for_each(|(_, reached)| *reached = false);
        dys[self.output].0.copy_from(call.dy);
        dys[self.output].1 = true;
        for (n, node) in self.nodes.iter().enumerate().rev().filter(|(n, _)| *n <= self.output) {
            let Use::Layer { layer, inputs } = node else { continue };
            if !dys[n].1 {
                continue; // nothing that leads to the output reads it
            }
            let (key, layer) = &self.layers[*layer];
            let of = self.outputs_of(inputs, call.xs, ys);
            let mut wanted: [Option<&mut Tensor<T>>; MAX_INPUTS] = [const { None }; MAX_INPUTS];
            for ((slot, dx), &input) in wanted.iter_mut().zip(own.iter_mut()).zip(inputs) {
                let nobody = matches!(self.nodes[input], Use::Input(i) if dxs[i].is_none());
                *slot = (!nobody).then_some(dx);
            }
            let inner = MultiCall { xs: &of[..inputs.len()], y: &ys[n], dy: &dys[n].0 };
            layer
                .backward(inner, &mut caches[n], grads, &mut wanted[..inputs.len()])
                .map_err(|e| e.in_layer(key))?;
            for (dx, &input) in own.iter_mut().zip(inputs) {
                if matches!(self.nodes[input], Use::Input(i) if dxs[i].is_none()) {
                    continue;
                }
                let (dy, reached) = &mut dys[input];
                if *reached {
                    add_assign(dy.data_mut(), dx.data()); // Gₘ += (∂fₙ/∂xₘ)ᵀ Gₙ
                } else {
                    std::mem::swap(dy, dx);
                    *reached = true;
                }
            }
        }
        for (n, node) in self.nodes.iter().enumerate() {
            let Use::Input(i) = *node else { continue };
            if let Some(dx) = &mut dxs[i] {
                match &dys[n] {
                    (dy, true) => dx.copy_from(dy),
                    _ => dx.reset(*call.xs[i].shape()).fill(T::ZERO),
                }
            }
        }
        Ok(())
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.layers.iter().for_each(|(key, layer)| layer.params(&mut out.child(key)));
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.layers.iter_mut().for_each(|(key, layer)| layer.params_mut(&mut out.child(key)));
    }

    fn absorb(&mut self, cache: &Self::Cache) {
        for (node, cache) in self.nodes.iter().zip(&cache.caches) {
            if let Use::Layer { layer, .. } = node {
                self.layers[*layer].1.absorb(cache);
            }
        }
    }

    fn multiply_adds(&self, inputs: &[&[usize]]) -> u64 {
        let mut sum = 0;
        let _ = self.shapes(inputs, |at, shapes| {
            sum += self.layers[at].1.multiply_adds(shapes);
            self.layers[at].1.output_shape(shapes)
        });
        sum
    }

    fn describe(&self, inputs: &[&[usize]], out: &mut Summary) -> Result<Shape> {
        self.shapes(inputs, |at, shapes| {
            let (key, layer) = &self.layers[at];
            out.child(key, |out| layer.describe(shapes, out)).map_err(|e| e.in_layer(key))
        })
    }
}

impl<T: Scalar> Graph<T> {
    fn output_of<'a>(&self, node: usize, xs: &[&'a Tensor<T>], ys: &'a [Tensor<T>]) -> &'a Tensor<T> {
        match self.nodes[node] {
            Use::Input(i) => xs[i],
            Use::Layer { .. } => &ys[node],
        }
    }

    fn outputs_of<'a>(
        &self,
        nodes: &[usize],
        xs: &[&'a Tensor<T>],
        ys: &'a [Tensor<T>],
    ) -> [&'a Tensor<T>; MAX_INPUTS] {
        array::from_fn(|i| self.output_of(nodes[i.min(nodes.len() - 1)], xs, ys))
    }
}

/// A graph of one input.
impl<T: Scalar> Layer<T> for Graph<T> {
    type Cache = GraphCache<T>;

    fn check(&self) -> Result<()> {
        MultiLayer::check(self)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        MultiLayer::output_shape(self, &[input])
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut GraphCache<T>,
        cx: &mut Context,
    ) -> Result<()> {
        MultiLayer::forward(self, &[x], y, cache, cx)
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut GraphCache<T>,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let call = MultiCall { xs: &[call.x], y: call.y, dy: call.dy };
        MultiLayer::backward(self, call, cache, grads, &mut [dx])
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        MultiLayer::params(self, out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        MultiLayer::params_mut(self, out);
    }

    fn absorb(&mut self, cache: &GraphCache<T>) {
        MultiLayer::absorb(self, cache);
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        MultiLayer::multiply_adds(self, &[input])
    }

    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        MultiLayer::describe(self, &[input], out)
    }
}

/// A layer of one input as a layer of several.
#[derive(Clone)]
struct Single<T: Scalar>(BoxLayer<T>);

impl<T: Scalar> MultiLayer<T> for Single<T> {
    type Cache = AnyCache;

    fn check(&self) -> Result<()> {
        self.0.check()
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        self.0.output_shape(inputs[0])
    }

    fn forward(
        &self,
        xs: &[&Tensor<T>],
        y: &mut Tensor<T>,
        cache: &mut AnyCache,
        cx: &mut Context,
    ) -> Result<()> {
        self.0.forward(xs[0], y, cache, cx)
    }

    fn backward(
        &self,
        call: MultiCall<'_, T>,
        cache: &mut AnyCache,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let call = Call { x: call.xs[0], y: call.y, dy: call.dy };
        self.0.backward(call, cache, grads, dxs[0].as_deref_mut())
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.0.params(out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.0.params_mut(out);
    }

    fn absorb(&mut self, cache: &AnyCache) {
        self.0.absorb(cache);
    }

    fn multiply_adds(&self, inputs: &[&[usize]]) -> u64 {
        self.0.multiply_adds(inputs[0])
    }

    fn describe(&self, inputs: &[&[usize]], out: &mut Summary) -> Result<Shape> {
        self.0.describe(inputs[0], out)
    }
}

/// Calls `f` with the shapes of up to eight tensors, without allocating.
pub(super) fn with_shapes<T: Scalar, R>(
    xs: &[&Tensor<T>],
    f: impl FnOnce(&[&[usize]]) -> Result<R>,
) -> Result<R> {
    if xs.len() > MAX_INPUTS {
        return Err(Error::shape(format!("expected at most {MAX_INPUTS} inputs, got {}", xs.len())));
    }
    let shapes: [&[usize]; MAX_INPUTS] = array::from_fn(|i| xs.get(i).map_or(&[][..], |x| &x.shape()[..]));
    f(&shapes[..xs.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Add, Linear};
    use chainrule_core::Init;

    /// f(x) = 2x used twice, added to x: y = x + f(f(x)) = 5x, ∂x = 5g.
    /// ∂w sums over both uses: d(w² x)/dw = 2 w x = 4x.
    #[test]
    fn by_hand_a_layer_used_twice() {
        let mut graph = Graph::<f64>::new();
        let x = graph.input();
        let gain = Linear::new(1, 1).bias(false).weight_init(Init::Constant(2.0));
        let once = graph.add("gain", gain, x).unwrap();
        let twice = graph.again("gain", &[once]).unwrap();
        graph.join("sum", Add::new(), &[x, twice]).unwrap();
        let graph = graph.init(0).unwrap();
        let (x, dy) = (Tensor::from([[3.0]]), Tensor::from([[1.0]]));
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), GraphCache::default());
        Layer::forward(&graph, &x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
        let mut grads = Grads::new(&graph);
        let call = Call { x: &x, y: &y, dy: &dy };
        Layer::backward(&graph, call, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!((y.data(), dx.data(), grads.values()), (&[15.0][..], &[5.0][..], &[12.0][..]));
    }

    #[test]
    fn keys_nodes_and_inputs_are_checked() {
        let mut graph = Graph::<f32>::new();
        let x = graph.input();
        graph.add("a", Linear::new(2, 3), x).unwrap();
        assert!(graph.add("a", Linear::new(2, 3), x).is_err());
        assert!(graph.add("b", Linear::new(2, 3), Node(9)).is_err());
        assert!(graph.again("c", &[x]).is_err());
        let text = Layer::output_shape(&graph, &[1, 5]).unwrap_err().to_string();
        assert_eq!(text, "in layer `a`: Linear: expected input (.., 2), got [1, 5]");
        assert!(MultiLayer::output_shape(&graph, &[&[1, 2], &[1, 2]]).is_err());
    }
}
