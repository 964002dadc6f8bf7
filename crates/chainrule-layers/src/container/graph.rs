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

use super::check_output;
use chainrule_core::{
    AnyCache, BoxMulti, Context, Error, Grads, MultiCall, MultiLayer, Params, ParamsMut, Result, Scalar,
    Shape, Summary, Tensor,
};
use chainrule_tensor::kernels::elementwise::add_assign;
use std::array;

/// The most inputs of one node.
pub(super) const MAX_INPUTS: usize = 8;

/// A node of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(pub(super) usize);

/// Layers in any acyclic arrangement. The graph owns each layer once, under a key; a node is one use of it.
///
/// # Shapes
/// Those of its layers. With one input it is a [`chainrule_core::Layer`]; with more, a [`MultiLayer`].
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
/// assert_eq!(graph.init(1)?.infer(&Tensor::zeros([2, 4]))?.shape()[..], [2, 4]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Graph<T: Scalar = f32> {
    pub(super) layers: Vec<(String, BoxMulti<T>)>,
    pub(super) nodes: Vec<Use>,
    pub(super) output: usize,
}

/// One node: an input of the graph, or a layer over earlier nodes.
#[derive(Clone, Debug)]
pub(super) enum Use {
    Input(usize),
    Layer { layer: usize, inputs: Vec<usize> },
}

impl<T: Scalar> Graph<T> {
    pub(super) fn inputs(&self) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Add, Concat, Dropout, Linear, Sequential, Tanh};
    use chainrule_core::{Call, Init, Layer};
    use chainrule_gradcheck::laws;

    /// Two inputs, one layer used twice, a node that reads an input beside it.
    fn siamese<T: Scalar>(inputs: usize, width: usize, p: f64) -> Graph<T> {
        let mut graph = Graph::new();
        let (left, right) = (graph.input(), graph.input());
        let encoder = Sequential::new().add(Linear::new(inputs, width)).add(Tanh::new()).add(Dropout::new(p));
        let a = graph.add("encoder", encoder, left).unwrap();
        let b = graph.again("encoder", &[right]).unwrap();
        let both = graph.join("both", Concat::new(1), &[a, b, right]).unwrap();
        let sum = graph.add("mix", Linear::new(2 * width + inputs, width), both).unwrap();
        graph.join("sum", Add::new(), &[sum, a]).unwrap();
        graph
    }

    /// One input, through a layer twice and around it.
    fn around<T: Scalar>(width: usize) -> Graph<T> {
        let mut graph = Graph::new();
        let x = graph.input();
        let once = graph.add("shared", Linear::new(width, width), x).unwrap();
        let bent = graph.add("bend", Tanh::new(), once).unwrap();
        let twice = graph.again("shared", &[bent]).unwrap();
        let sum = graph.join("sum", Add::new(), &[x, twice, once]).unwrap();
        graph.add("unused", Linear::new(width, 1), sum).unwrap();
        graph.output(sum);
        graph
    }

    laws! {
        obeys_the_laws(rows in 1..5usize, inputs in 1..5usize, width in 1..5usize, p in 0.0..0.9) {
            layer: siamese::<T>(inputs, width, p),
            inputs: [[rows, inputs], [rows, inputs]],
            wrong_inputs: [[rows, inputs + 1], [rows, inputs]],
            wrong_inputs: [[rows, inputs]],
        }
        obeys_the_laws_with_one_input(rows in 1..5usize, width in 1..6usize) {
            layer: around::<T>(width),
            input: [rows, width],
            wrong: [rows, width + 1],
        }
    }

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
