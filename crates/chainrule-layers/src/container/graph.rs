//! Modules in any acyclic arrangement; a module may stand at several nodes.
//!
//! ```text
//! (yₙ, yₙ₊₁, …) = fₙ(its inputs), in the order of construction
//! ```
//!
//! Backwards through the nodes, with Gᵥ = ∂E/∂v summed over everything that reads the value v:
//!
//! ```text
//! Gᵥ += (∂fₙ/∂v)ᵀ Gₙ    for every input v of node n
//! ```
//!
//! Keeps the outputs of every node. Derivation: docs/layers/container/graph.md.

use super::{
    bytes, check_output,
    children::Children,
    graph_plan::{Edge, Plan, Source, Use},
    inputs_expected, not_recorded,
};
use chainrule_core::{
    AnyState, BoxModule, Call, Context, Error, Grads, InputShapes, Learning, Memory, Mode, Module,
    ModuleCall, Parameters, Params, ParamsMut, Parts, Result, Scalar, Shape, Spec, Summary, Tensor,
};
use chainrule_tensor::kernels::elementwise::add_assign;
use std::{
    collections::HashSet,
    mem,
    sync::{OnceLock, atomic::Ordering::Relaxed},
};

/// Modules in any acyclic arrangement, with named inputs and outputs. The graph owns each module once, under a key; a node
/// is one use of it.
///
/// If no output is named, it is the (first) output of the newest node. A node that leads to no output is skipped: it is
/// neither checked nor computed, and has no row in the summary; its parameters remain and get no gradient.
///
/// # Shapes
/// Those of its modules. With one input and one output it is a child of [`super::Sequential`], [`super::Residual`] and
/// [`super::Parallel`] like any layer.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::{Add, Graph, Linear};
/// let mut graph = Graph::new();
/// let x = graph.input("x");
/// let once = graph.add("shared", Linear::new(4, 4), x);
/// let twice = graph.again("shared", once);
/// let sum = graph.add("sum", Add::new(), [once, twice]);
/// graph.output("y", sum);
/// assert_eq!(graph.init(1)?.infer(&Tensor::zeros([2, 4]))?.shape()[..], [2, 4]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub struct Graph<T: Scalar = f32> {
    /// Its nodes have the same; a clone has another.
    pub(super) id: u64,
    pub(super) layers: Children<T>,
    pub(super) inputs: Vec<String>,
    pub(super) nodes: Vec<Use>,
    pub(super) outputs: Vec<(String, Source)>,
    /// The names of inputs and of outputs.
    pub(super) taken: [HashSet<String>; 2],
    /// How many outputs the nodes have together.
    pub(super) values: usize,
    /// Made when it is needed, and again after a change.
    pub(super) plan: OnceLock<Plan>,
}

impl<T: Scalar> Graph<T> {
    /// Checks every module against the shapes that reach it, before data flows.
    ///
    /// # Errors
    /// A mistake in the composition, or the first module that does not fit, named by its path.
    pub fn build(self, inputs: impl InputShapes) -> Result<Self> {
        self.output_shapes(&inputs.shapes()?)?;
        Ok(self)
    }

    /// An error unless every node leads to an output and every input is read. Without it, what leads to no output is skipped: a part of
    /// a loaded model is used that way.
    ///
    /// ```
    /// use chainrule_layers::{Graph, Linear};
    /// let mut graph = Graph::<f32>::of();
    /// let x = graph.input("x");
    /// let y = graph.add("body", Linear::new(2, 2), x);
    /// graph.add("forgotten", Linear::new(2, 2), y);
    /// graph.output("y", y);
    /// let error = graph.all_used().unwrap_err().to_string();
    /// assert_eq!(error, "in layer `forgotten`: Graph: expected a node that leads to an output, got one that nothing reads");
    /// ```
    ///
    /// # Errors
    /// A mistake in the composition, or the first node or input that is not used.
    pub fn all_used(self) -> Result<Self> {
        self.verdict()?;
        let plan = self.plan();
        if let Some(n) = (0..self.nodes.len()).find(|n| plan.steps.binary_search(n).is_err()) {
            let error = "Graph: expected a node that leads to an output, got one that nothing reads";
            return Err(Error::value(error).in_layer(self.layers.get(self.nodes[n].layer).0));
        }
        let edges = self.nodes.iter().flat_map(|node| node.edges.iter().map(|edge| edge.source));
        let read: Vec<Source> = edges.chain(plan.outputs.iter().copied()).collect();
        let unread =
            |i: usize| !read.iter().any(|source| matches!(source, Source::Input(input) if *input == i));
        match (0..self.inputs.len()).find(|&i| unread(i)) {
            Some(i) => Err(Error::value(format!(
                "Graph: expected inputs that are read, got `{}`, which nothing reads",
                self.inputs[i].escape_debug()
            ))),
            None => Ok(self),
        }
    }

    /// The names of the inputs, in order.
    pub fn input_names(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().map(String::as_str)
    }

    /// The names of the outputs, in order; none if the output is the newest node.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|(name, _)| name.as_str())
    }

    /// The modules with their keys, in the order in which they were added.
    pub fn children(&self) -> impl Iterator<Item = (&str, &BoxModule<T>)> {
        self.layers.iter()
    }

    #[inline]
    pub(super) fn plan(&self) -> &Plan {
        self.plan.get_or_init(|| Plan::new(self.inputs.len(), &self.nodes, self.values, &self.outputs))
    }

    fn verdict(&self) -> Result<()> {
        self.layers.verdict()?;
        if self.plan().outputs.is_empty() {
            return Err(Error::value("Graph: expected at least one node, got none"));
        }
        Ok(())
    }

    /// Calls `f` with the node, the key and the module of every node that leads to an output, and the shapes of its inputs, for the
    /// shapes of its outputs.
    fn shapes(
        &self,
        inputs: &[Shape],
        mut f: impl FnMut(&Use, &str, &BoxModule<T>, &[Shape]) -> Result<Vec<Shape>>,
    ) -> Result<Vec<Shape>> {
        self.verdict()?;
        inputs_expected("Graph", self.inputs.len(), inputs.len())?;
        let mut values = vec![Shape::default(); self.values];
        let mut of = Vec::new();
        for node in self.plan().steps.iter().map(|&n| &self.nodes[n]) {
            let (key, module) = self.layers.get(node.layer);
            of.clear();
            of.extend(node.edges.iter().map(|edge| *edge.source.of(inputs, &values)));
            let made = f(node, key, module, &of).map_err(|e| e.in_layer(key))?;
            if made.len() != node.outputs {
                let (expected, got) = (node.outputs, made.len());
                return Err(Error::shape(format!("expected {expected} outputs, got {got}")).in_layer(key));
            }
            values[node.values()].copy_from_slice(&made);
        }
        Ok(self.plan().outputs.iter().map(|source| *source.of(inputs, &values)).collect())
    }
}

impl<T: Scalar> Graph<T> {
    /// Whether each ∂E/∂v leads to something trainable or to a requested ∂E/∂x: for every value, and then for every input.
    fn want(&self, requested: impl Iterator<Item = bool>, wanted: &mut Vec<bool>) {
        wanted.clear();
        wanted.resize(self.values, false);
        wanted.extend(requested);
        let active = self.layers.active();
        for node in self.plan().steps.iter().map(|&n| &self.nodes[n]) {
            let any =
                active[node.layer].load(Relaxed) || node.edges.iter().any(|edge| self.leads(edge, wanted));
            wanted[node.values()].fill(any);
        }
    }

    /// Whether ∂E/∂x along an edge is wanted.
    #[inline]
    fn leads(&self, edge: &Edge, wanted: &[bool]) -> bool {
        edge.differentiable && wanted[edge.source.slot(self.values)]
    }

    /// Bytes of every ∂E/∂v, and of the terms of their sums after the first, for the bytes of the values.
    fn gradient_bytes(&self, wanted: &[bool], inputs: &[Shape], sizes: &[usize]) -> usize {
        let (plan, mut reached) = (self.plan(), vec![false; wanted.len()]);
        let mut terms: Vec<usize> = Vec::new();
        for slot in plan.outputs.iter().map(|source| source.slot(self.values)) {
            reached[slot] = wanted[slot];
        }
        for node in plan.steps.iter().rev().map(|&n| &self.nodes[n]) {
            if !reached[node.values()].contains(&true) {
                continue;
            }
            terms.resize(terms.len().max(node.edges.len()), 0);
            for (edge, term) in node.edges.iter().zip(&mut terms) {
                let slot = edge.source.slot(self.values);
                if self.leads(edge, wanted) && mem::replace(&mut reached[slot], true) {
                    let size = sizes.get(slot).copied();
                    *term = size.unwrap_or_else(|| bytes::<T>(&inputs[slot - self.values])).max(*term);
                }
            }
        }
        let sums = sizes.iter().zip(&reached).map(|(&size, &reached)| if reached { size } else { 0 });
        sums.chain(terms).fold(0, usize::saturating_add)
    }
}

impl<T: Scalar> Clone for Graph<T> {
    /// Nodes of the original are not nodes of the clone.
    fn clone(&self) -> Self {
        Self {
            layers: self.layers.clone(),
            inputs: self.inputs.clone(),
            nodes: self.nodes.clone(),
            outputs: self.outputs.clone(),
            taken: self.taken.clone(),
            values: self.values,
            plan: self.plan.clone(),
            ..Self::of()
        }
    }
}

/// What [`Graph`] keeps.
#[derive(Debug)]
pub struct GraphState<T: Scalar> {
    /// The state of every node.
    states: Vec<AnyState>,
    /// The outputs of every node.
    values: Vec<Tensor<T>>,
    /// ∂E/∂v of every value.
    dvalues: Vec<Tensor<T>>,
    /// Whether anything was added to ∂E/∂v yet: for every value, and then for every input.
    reached: Vec<bool>,
    /// Whether ∂E/∂v leads to something trainable or to a requested ∂E/∂x: for every value, and then for every input.
    wanted: Vec<bool>,
    /// ∂E/∂x of one node's inputs, and what becomes of each.
    dxs: Vec<Tensor<T>>,
    arrivals: Vec<Arrival>,
    /// Allocations of references, which are gone between two nodes.
    x_refs: Vec<&'static Tensor<T>>,
    dy_refs: Vec<Option<&'static Tensor<T>>>,
    dx_refs: Vec<Option<&'static mut Tensor<T>>>,
    /// The shapes of the inputs, and the graph whose pass was recorded, if it was.
    shapes: Vec<Shape>,
    recorded: Option<u64>,
}

/// What becomes of ∂E/∂x of one node's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// It is not requested.
    Unused,
    /// It is the first term of ∂E/∂v, made where the sum is.
    First,
    /// It is added to the terms before.
    Later,
}

impl<T: Scalar> Default for GraphState<T> {
    fn default() -> Self {
        Self {
            states: Vec::new(),
            values: Vec::new(),
            dvalues: Vec::new(),
            reached: Vec::new(),
            wanted: Vec::new(),
            dxs: Vec::new(),
            arrivals: Vec::new(),
            x_refs: Vec::new(),
            dy_refs: Vec::new(),
            dx_refs: Vec::new(),
            shapes: Vec::new(),
            recorded: None,
        }
    }
}

/// An emptied vector with the allocation of another, whose elements are of the same layout.
fn emptied<A, B>(mut used: Vec<A>) -> Vec<B> {
    used.clear();
    used.into_iter().map(|_| unreachable!("it is empty")).collect()
}

/// ∂E/∂v of a value, or of an input if requested.
fn gradient<'a, T>(
    source: Source,
    dvalues: &'a mut [Tensor<T>],
    dxs: &'a mut [Option<&mut Tensor<T>>],
) -> Option<&'a mut Tensor<T>> {
    match source {
        Source::Value(v) => Some(&mut dvalues[v]),
        Source::Input(i) => dxs[i].as_deref_mut(),
    }
}

impl<T: Scalar> Parameters for Graph<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.layers.list(out);
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.layers.list_mut(out);
    }

    fn validate(&self) -> Result<()> {
        self.verdict()?;
        self.layers.validate()
    }
}

impl<T: Scalar> Module for Graph<T> {
    type State = GraphState<T>;

    fn inputs(&self) -> usize {
        self.inputs.len()
    }

    fn outputs(&self) -> usize {
        self.plan().outputs.len()
    }

    fn differentiable_input(&self, input: usize) -> bool {
        self.plan().differentiable.get(input).is_none_or(|&d| d)
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.shapes(inputs, |_, _, module, shapes| module.output_shapes(shapes))
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        state: &mut GraphState<T>,
        cx: Context,
    ) -> Result<()> {
        self.verdict()?;
        inputs_expected("Graph", self.inputs.len(), xs.len())?;
        let plan = self.plan();
        if ys.len() != plan.outputs.len() {
            return Err(Error::shape(format!(
                "Graph: expected {} outputs, got {}",
                plan.outputs.len(),
                ys.len()
            )));
        }
        let GraphState { states, values, x_refs, shapes, recorded, .. } = state;
        *recorded = None;
        states.resize_with(self.nodes.len(), AnyState::default);
        values.resize_with(self.values, Tensor::default);
        for &n in &plan.steps {
            let node = &self.nodes[n];
            let (key, module) = self.layers.get(node.layer);
            let inner = self.layers.context(node.layer, cx.child(n));
            let (before, rest) = values.split_at_mut(node.first);
            let own = &mut rest[..node.outputs];
            let made = match (&node.edges[..], &mut *own) {
                ([edge], [y]) => module.apply_one(edge.source.of_refs(xs, before), y, &mut states[n], inner),
                (edges, own) => {
                    let mut of = emptied(mem::take(x_refs));
                    of.extend(edges.iter().map(|edge| edge.source.of_refs(xs, before)));
                    let made = module.apply(&of, own, &mut states[n], inner);
                    *x_refs = emptied(of);
                    made
                }
            };
            made.and_then(|()| own.iter().try_for_each(|y| check_output(y, cx)))
                .map_err(|e| e.in_layer(key))?;
        }
        for (y, source) in ys.iter_mut().zip(&plan.outputs) {
            y.copy_from(source.of_refs(xs, values));
        }
        shapes.clear();
        shapes.extend(xs.iter().map(|x| *x.shape()));
        *recorded = cx.recording().then_some(self.id);
        Ok(())
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        state: &mut GraphState<T>,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let plan = self.plan();
        let GraphState {
            states, values, dvalues, reached, wanted, arrivals, x_refs, dy_refs, dx_refs, ..
        } = state;
        let (own, fits) = (
            &mut state.dxs,
            state.recorded == Some(self.id)
                && states.len() == self.nodes.len()
                && values.len() == self.values
                && call.xs.iter().map(|x| x.shape()).eq(&state.shapes)
                && call
                    .ys
                    .iter()
                    .map(|y| y.shape())
                    .eq(plan.outputs.iter().map(|source| source.of_refs(call.xs, values).shape())),
        );
        if !fits || dxs.len() != self.inputs.len() || call.dys.len() != plan.outputs.len() {
            return Err(not_recorded("Graph"));
        }
        dvalues.resize_with(self.values, Tensor::default);
        reached.clear();
        reached.resize(self.values + self.inputs.len(), false);
        self.want(dxs.iter().map(Option::is_some), wanted);
        for (source, dy) in plan.outputs.iter().zip(call.dys) {
            let Some(dy) = dy.filter(|_| wanted[source.slot(self.values)]) else { continue };
            let Some(sum) = gradient(*source, dvalues, dxs) else { continue };
            match mem::replace(&mut reached[source.slot(self.values)], true) {
                false => sum.copy_from(dy),                    // Gᵥ = dyⱼ
                true => add_assign(sum.data_mut(), dy.data()), // Gᵥ += dyⱼ
            }
        }
        for &n in plan.steps.iter().rev() {
            let node = &self.nodes[n];
            if !reached[node.values()].contains(&true) {
                continue; // no output that was used depends on it, or nothing wants its gradient
            }
            let (key, module) = self.layers.get(node.layer);
            if own.len() < node.edges.len() {
                own.resize_with(node.edges.len(), Tensor::default);
            }
            // The first term of a sum is made in the memory of the sum.
            arrivals.clear();
            for (edge, dx) in node.edges.iter().zip(&mut *own) {
                let slot = edge.source.slot(self.values);
                let leads = self.leads(edge, wanted);
                let sum = gradient(edge.source, dvalues, dxs).filter(|_| leads);
                arrivals.push(match sum {
                    None => Arrival::Unused,
                    Some(_) if reached[slot] => Arrival::Later,
                    Some(sum) => {
                        mem::swap(sum, dx);
                        reached[slot] = true;
                        Arrival::First
                    }
                });
            }
            let requested =
                own.iter_mut().zip(&*arrivals).map(|(dx, a)| (*a != Arrival::Unused).then_some(dx));
            let result = match (&node.edges[..], &values[node.values()]) {
                ([edge], [y]) => {
                    Call::recorded(edge.source.of_refs(call.xs, values), y, &dvalues[node.first]).and_then(
                        |call| module.pull_one(call, &mut states[n], grads, requested.flatten().next()),
                    )
                }
                (edges, ys) => {
                    let (mut xs, mut dys, mut dxs) = (
                        emptied(mem::take(x_refs)),
                        emptied(mem::take(dy_refs)),
                        emptied(mem::take(dx_refs)),
                    );
                    xs.extend(edges.iter().map(|edge| edge.source.of_refs(call.xs, values)));
                    dys.extend(node.values().map(|v| reached[v].then_some(&dvalues[v])));
                    dxs.extend(requested);
                    let result = ModuleCall::recorded(&xs, ys, &dys)
                        .and_then(|call| module.pull(call, &mut states[n], grads, &mut dxs));
                    (*x_refs, *dy_refs, *dx_refs) = (emptied(xs), emptied(dys), emptied(dxs));
                    result
                }
            };
            for ((edge, dx), arrival) in node.edges.iter().zip(&mut *own).zip(&*arrivals) {
                match (arrival, gradient(edge.source, dvalues, dxs)) {
                    (Arrival::First, Some(sum)) => mem::swap(sum, dx), // Gᵥ = (∂fₙ/∂v)ᵀ Gₙ
                    (Arrival::Later, Some(sum)) if result.is_ok() => {
                        add_assign(sum.data_mut(), dx.data()); // Gᵥ += (∂fₙ/∂v)ᵀ Gₙ
                    }
                    _ => {}
                }
            }
            result.map_err(|e| e.in_layer(key))?;
        }
        for (i, (x, dx)) in call.xs.iter().zip(dxs).enumerate() {
            if let Some(dx) = dx.as_deref_mut().filter(|_| !reached[self.values + i]) {
                dx.reset(*x.shape()).fill(T::ZERO);
            }
        }
        Ok(())
    }

    fn reads_outputs(&self) -> bool {
        false // it keeps its own
    }

    fn learns(&self) -> Learning {
        self.layers.learning()
    }

    fn lend(&mut self, out: &mut Parts<'_, T>) {
        self.layers.lend(out);
    }

    fn set_mode(&mut self, path: &str, mode: Mode) -> Result<()> {
        self.layers.set_mode("Graph", path, mode)
    }

    fn nesting(&self) -> usize {
        self.layers.depth()
    }

    fn remember(&self, state: &mut GraphState<T>, out: &mut Memory<'_, T>) -> Result<()> {
        state.states.resize_with(self.nodes.len(), AnyState::default);
        for (n, (node, state)) in self.nodes.iter().zip(&mut state.states).enumerate() {
            let (name, module) = self.layers.get(node.layer);
            // A layer that is used again remembers each of its sequences.
            match self.nodes[..n].iter().filter(|before| before.layer == node.layer).count() {
                0 => module.remember(state, &mut out.child(name))?,
                k => module.remember(state, &mut out.child(&format!("{name}#{k}")))?,
            }
        }
        Ok(())
    }

    fn fold(&mut self, state: &GraphState<T>) {
        if state.recorded != Some(self.id) {
            return;
        }
        for (node, state) in self.nodes.iter().zip(&state.states) {
            self.layers.get_mut(node.layer).fold(state);
        }
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        let mut sum = 0u64;
        let shapes = self.shapes(inputs, |_, _, module, shapes| {
            sum = sum.saturating_add(module.cost(shapes));
            module.output_shapes(shapes)
        });
        shapes.map_or(0, |_| sum)
    }

    fn to_spec(&self) -> Spec {
        self.wiring()
    }

    fn summarize(&self, inputs: &[Shape], out: &mut Summary) -> Result<Vec<Shape>> {
        self.verdict()?;
        let (mut wanted, mut sizes) = (Vec::new(), vec![0; self.values]);
        self.want((0..self.inputs.len()).map(|i| out.requests(i)), &mut wanted);
        let shapes = self.shapes(inputs, |node, key, module, shapes| {
            let requested: Vec<_> = node.edges.iter().map(|edge| self.leads(edge, &wanted)).collect();
            let made =
                out.requesting(&requested, |out| out.child(key, |out| module.summarize(shapes, out)))?;
            sizes[node.first..].iter_mut().zip(&made).for_each(|(size, y)| *size = bytes::<T>(y));
            Ok(made)
        })?;
        let values = sizes.iter().fold(0usize, |sum, &size| sum.saturating_add(size));
        out.hold_in_training(values.saturating_add(self.gradient_bytes(&wanted, inputs, &sizes)));
        out.hold_in_inference(values);
        Ok(shapes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        Add, Chunk, Concat, Dropout, Embedding, Linear, Node, Parallel, Relu, Residual, Sequential, Split,
        Tanh,
    };
    use chainrule_core::{Init, Kind, Pass};
    use chainrule_gradcheck::laws;

    /// Two inputs, one layer used twice, a node that reads an input beside it.
    fn siamese<T: Scalar>(inputs: usize, width: usize, p: f64) -> Graph<T> {
        let mut graph = Graph::of();
        let (left, right) = (graph.input("left"), graph.input("right"));
        let encoder = Sequential::of().add(Linear::new(inputs, width)).add(Tanh::new()).add(Dropout::new(p));
        let a = graph.add("encoder", encoder, left);
        let b = graph.again("encoder", right);
        let both = graph.add("both", Concat::new(1).parts(3), [a, b, right]);
        let mix = graph.add("mix", Linear::new(2 * width + inputs, width), both);
        graph.add("sum", Add::new(), [mix, a]);
        graph
    }

    /// One input, through a layer twice and around it; a node that leads to no output.
    fn around<T: Scalar>(width: usize) -> Graph<T> {
        let mut graph = Graph::of();
        let x = graph.input("x");
        let once = graph.add("shared", Linear::new(width, width), x);
        let bent = graph.add("bend", Tanh::new(), once);
        let twice = graph.again("shared", bent);
        let sum = graph.add("sum", Add::new().terms(3), [x, twice, once]);
        graph.add("unused", Linear::new(width, 1), sum);
        graph.output("y", sum);
        graph
    }

    /// Two inputs and three outputs: a part that nothing else reads, a value that is read again, and an input; a part
    /// that is not read at all, and one node that reads a value twice.
    fn heads<T: Scalar>(width: usize, p: f64) -> Graph<T> {
        let mut graph = Graph::of();
        let (x, z) = (graph.input("x"), graph.input("z"));
        let parts = graph.add("parts", Split::new([1, width, 2], 1), x);
        let body = graph.add("body", Linear::new(width, 4), parts.at(1));
        let noisy = graph.add("noise", Dropout::new(p), body);
        let halves = graph.add("halves", Chunk::new(2, -1), noisy);
        let twice = graph.add("twice", Add::new().terms(3), [halves, halves.at(1), halves]);
        let last = graph.add("last", Concat::new(1), [twice, z]);
        graph.output("alone", parts);
        graph.output("body", body);
        graph.output("last", last);
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
        obeys_the_laws_with_three_outputs(
            rows in 1..5usize, width in 1..5usize, beside in 1..4usize, p in 0.0..0.9,
        ) {
            layer: heads::<T>(width, p),
            inputs: [[rows, width + 3], [rows, beside]],
            wrong_inputs: [[rows, width + 2], [rows, beside]],
        }
        obeys_the_laws_inside_other_containers(rows in 1..5usize, width in 1..5usize) {
            layer: Sequential::<T>::of()
                .add(around(width))
                .add(Tanh::new())
                .add(Residual::new(around(width)))
                .add(Parallel::sum().add(around(width)).add(Tanh::new())),
            input: [rows, width],
            wrong: [rows, width + 1],
        }
        obeys_the_laws_with_ids(rows in 1..5usize, bound in 1..5usize, width in 1..5usize) {
            layer: {
                let mut graph = Graph::<T>::of();
                let (ids, x) = (graph.input("ids"), graph.input("x"));
                let ids = graph.add("parts", Chunk::new(2, 1), ids);
                let table = graph.add("table", Embedding::new(bound, width), ids.at(1));
                let flat = graph.add("flat", crate::Flatten::new(), table);
                graph.add("sum", Add::new(), [flat, x]);
                graph
            },
            inputs: [[rows, 2], [rows, width]],
            values_of(0): Values::Indices(0..bound),
        }
    }

    /// f(x) = 2x used twice, added to x: y = x + f(f(x)) = 5x, ∂x = 5g.
    /// ∂w sums over both uses: d(w² x)/dw = 2 w x = 4x.
    #[test]
    pub fn by_hand() {
        let mut graph = Graph::<f64>::of();
        let x = graph.input("x");
        let gain = Linear::new(1, 1).bias(false).weight_init(Init::Constant(2.0));
        let once = graph.add("gain", gain, x);
        let twice = graph.again("gain", once);
        graph.add("sum", Add::new(), [x, twice]);
        let graph = graph.init(0).unwrap();
        let (x, dy) = (Tensor::from([[3.0]]), Tensor::from([[1.0]]));
        let (mut ys, mut dx, mut state) = ([Tensor::default()], Tensor::default(), GraphState::default());
        graph.apply(&[&x], &mut ys, &mut state, Context::train(0)).unwrap();
        let mut grads = Grads::new(&graph);
        let (xs, dys) = ([&x], [Some(&dy)]);
        let call = ModuleCall::new(&graph, &xs, &ys, &dys).unwrap();
        graph.pull(call, &mut state, &mut grads, &mut [Some(&mut dx)]).unwrap();
        assert_eq!((ys[0].data(), dx.data(), grads.values()), (&[15.0][..], &[5.0][..], &[12.0][..]));
    }

    /// What `init` says of a graph that `wrong` puts together.
    fn mistake(wrong: impl FnOnce(&mut Graph, Node)) -> String {
        let mut graph = Graph::new();
        let x = graph.input("x");
        graph.add("a", Linear::new(2, 3), x);
        wrong(&mut graph, x);
        // Later mistakes do not take its place.
        graph.again("nothing", x);
        let error = graph.validate().unwrap_err();
        assert!(matches!(error.kind(), Kind::Value(_) | Kind::Shape(_)));
        for other in [
            graph.output_shapes(&[Shape::from([1, 2])]).unwrap_err(),
            graph.summary([1, 2]).unwrap_err(),
            graph.infer(&Tensor::zeros([1, 2])).unwrap_err(),
            graph.clone().build([1, 2]).unwrap_err(),
            graph.init(0).unwrap_err(),
        ] {
            assert_eq!(other.to_string(), error.to_string());
        }
        error.to_string()
    }

    #[test]
    fn mistakes_are_kept_and_name_their_place() {
        let other = Graph::new().input("x");
        type Wrong = Box<dyn FnOnce(&mut Graph, Node)>;
        let cases: [(&str, Wrong); 12] = [
            ("two children are named `a`", Box::new(|g, x| _ = g.add("a", Relu::new(), x))),
            (
                "in layer `b`: Graph: expected a node of this graph",
                Box::new(move |g, _| _ = g.add("b", Relu::new(), other)),
            ),
            ("in layer `b`: Graph: expected 2 inputs, got 1", Box::new(|g, x| _ = g.add("b", Add::new(), x))),
            ("in layer `a`: Graph: expected 1 inputs, got 0", Box::new(|g, _| _ = g.again("a", []))),
            (
                "in layer `b`: Graph: expected an output below 1 of a node, got 1",
                Box::new(|g, x| _ = g.add("b", Relu::new(), x.at(1))),
            ),
            ("expected the key of a module, got `c`", Box::new(|g, x| _ = g.again("c", x))),
            ("two inputs are named `x`", Box::new(|g, _| _ = g.input("x"))),
            (
                "two outputs are named `y`",
                Box::new(|g, x| {
                    g.output("y", x);
                    g.output("y", x)
                }),
            ),
            (
                "in layer `y`: Graph: expected an output below 1",
                Box::new(|g, x| g.output("y", x.at(usize::MAX))),
            ),
            ("names with dots between", Box::new(|g, x| _ = g.add("a..b", Relu::new(), x))),
            ("got `a.b` beside children under `a`", Box::new(|g, x| _ = g.add("a.b", Relu::new(), x))),
            (
                "in layer `big`: Graph: expected at most",
                Box::new(|g, x| _ = g.add("big", Chunk::new(usize::MAX, 1), x)),
            ),
        ];
        for (text, wrong) in cases {
            let told = mistake(wrong);
            assert!(told.contains(text), "expected `{text}`, got `{told}`");
        }
        let told = mistake(|g, _| _ = g.add("b", Relu::new(), Graph::new().input("x")));
        assert!(told.contains("one of another"), "{told}");
        assert!(Graph::new().validate().is_err() && Graph::new().infer_all(&[][..] as &[Tensor]).is_err());
    }

    #[test]
    fn a_wrong_shape_names_its_node() {
        let mut graph = Graph::new();
        let x = graph.input("x");
        graph.add("a", Linear::new(2, 3), x);
        let text = graph.output_shapes(&[Shape::from([1, 5])]).unwrap_err().to_string();
        assert_eq!(text, "in layer `a`: Linear: expected input (.., 2), got [1, 5]");
        assert!(graph.output_shapes(&[Shape::from([1, 2]); 2]).is_err());
        assert!(graph.clone().build([1, 2]).is_ok());
        let graph = graph.init(0).unwrap();
        assert!(graph.infer(&Tensor::zeros([1, 5])).unwrap_err().to_string().contains("in layer `a`"));
    }

    #[test]
    fn nodes_that_lead_to_no_output_are_skipped() {
        let mut graph = Graph::new();
        let x = graph.input("x");
        let y = graph.add("a", Linear::new(2, 2), x);
        graph.add("never", Linear::new(5, 5), y);
        graph.output("y", y);
        let graph = graph.build([1, 2]).unwrap().init(0).unwrap();
        assert_eq!(graph.infer(&Tensor::zeros([1, 2])).unwrap().shape()[..], [1, 2]);
        assert_eq!((graph.summary([1, 2]).unwrap().rows().len(), graph.parameter_count()), (1, 36));
        assert!(graph.all_used().unwrap_err().to_string().starts_with("in layer `never`"));
    }

    #[test]
    fn parameters_of_a_shared_layer_count_once_in_the_summary() {
        let summary = around::<f32>(3).summary([2, 3]).unwrap();
        let rows: Vec<_> = summary.rows().iter().map(|row| (row.path.as_str(), row.parameters)).collect();
        assert_eq!(rows, [("shared", 12), ("bend", 0), ("shared", 0), ("sum", 0)]);
    }

    #[test]
    fn more_than_eight_inputs_and_outputs() {
        let mut graph = Graph::<f64>::of();
        let inputs: Vec<_> = (0..12).map(|i| graph.input(format!("x{i}"))).collect();
        let all = graph.add("all", Concat::new(1).parts(12), &inputs);
        let parts = graph.add("parts", Chunk::new(12, 1), all);
        let sum = graph.add("sum", Add::new().terms(12), (0..12).map(|i| parts.at(i)).collect::<Vec<_>>());
        (0..12).for_each(|i| graph.output(format!("y{i}"), parts.at(11 - i)));
        graph.output("sum", sum);
        let xs: Vec<_> = (0..12).map(|i| Tensor::from([[f64::from(i)]])).collect();
        let mut pass = Pass::new(&graph);
        for _ in 0..2 {
            pass.forward(&graph, &xs, Context::train(0)).unwrap();
            let ys: Vec<_> = pass.outputs().iter().map(|y| y.data()[0]).collect();
            assert_eq!(ys, [11., 10., 9., 8., 7., 6., 5., 4., 3., 2., 1., 0., 66.]);
            *pass.output_gradients_mut() = vec![Tensor::from([[1.0]]); 13];
            pass.backward(&graph, &xs).unwrap();
        }
    }

    #[test]
    fn an_input_has_a_derivative_unless_all_its_readers_have_none() {
        let mut graph = Graph::<f64>::of();
        let [ids, both, skipped, unread] = ["ids", "both", "skipped", "unread"].map(|name| graph.input(name));
        let table = graph.add("table", Embedding::new(4, 2), ids);
        let again = graph.again("table", both);
        let flat = graph.add("flat", crate::Flatten::new(), both);
        graph.again("table", skipped);
        graph.output("table", table);
        graph.output("again", again);
        graph.output("flat", flat);
        assert_eq!([0, 1, 2, 3].map(|i| graph.differentiable_input(i)), [false, true, true, true]);
        let _ = unread;
    }

    #[test]
    fn a_state_of_other_inputs_is_not_recorded() {
        let graph = around::<f64>(2).init(0).unwrap();
        let (x, other) = (Tensor::zeros([3, 2]), Tensor::zeros([4, 2]));
        let (mut ys, mut state) = ([Tensor::default()], GraphState::default());
        let mut grads = Grads::new(&graph);
        graph.apply(&[&x], &mut ys, &mut state, Context::infer()).unwrap();
        let mut pull = |state: &mut GraphState<f64>, x: &Tensor<f64>, y: &Tensor<f64>| {
            let (xs, ys, dys) = ([x], [y.clone()], [Some(y)]);
            let call = ModuleCall::recorded(&xs, &ys, &dys).unwrap();
            graph.pull(call, state, &mut grads, &mut [None])
        };
        assert!(matches!(pull(&mut state, &x, &x).unwrap_err().kind(), Kind::NotRecorded(_)));
        graph.apply(&[&x], &mut ys, &mut state, Context::frozen()).unwrap();
        pull(&mut state, &x, &x).unwrap();
        for (x, y) in [(&other, &other), (&x, &other), (&other, &x)] {
            assert!(matches!(pull(&mut state, x, y).unwrap_err().kind(), Kind::NotRecorded(_)));
        }
    }

    #[test]
    fn a_node_of_a_clone_is_not_one_of_the_original() {
        let mut graph = Graph::new();
        let x = graph.input("x");
        let mut clone = graph.clone();
        clone.add("a", Relu::new(), x);
        graph.add("a", Relu::new(), x);
        assert!(clone.validate().is_err() && graph.validate().is_ok());
    }

    #[test]
    fn every_buffer_keeps_its_task_in_the_next_step() {
        let graph = heads::<f64>(3, 0.5).init(1).unwrap();
        let xs = [Tensor::full([4, 6], 0.5), Tensor::full([4, 2], 0.5)];
        let (xs, mut ys, mut state) = ([&xs[0], &xs[1]], vec![Tensor::default(); 3], GraphState::default());
        let (mut grads, mut dx, mut dz) = (Grads::new(&graph), Tensor::default(), Tensor::default());
        let mut step = || {
            graph.apply(&xs, &mut ys, &mut state, Context::train(0)).unwrap();
            let dys: Vec<_> = ys.iter().map(|y| Tensor::full(*y.shape(), 1.0)).collect();
            let dys: Vec<_> = dys.iter().map(Some).collect();
            let call = ModuleCall::new(&graph, &xs, &ys, &dys).unwrap();
            graph.pull(call, &mut state, &mut grads, &mut [Some(&mut dx), Some(&mut dz)]).unwrap();
            let tensors =
                state.values.iter().chain(&state.dvalues).chain(&state.dxs).chain([&dx, &dz]).chain(&ys);
            let memory: Vec<_> = tensors.map(|t| t.data().as_ptr() as usize).collect();
            let refs = [
                state.x_refs.as_ptr() as usize,
                state.dy_refs.as_ptr() as usize,
                state.dx_refs.as_ptr() as usize,
            ];
            (memory, refs, [state.x_refs.capacity(), state.dy_refs.capacity(), state.dx_refs.capacity()])
        };
        let first = step();
        assert_eq!(step(), first);
        assert!(first.2.iter().all(|&capacity| capacity > 0));
    }

    #[test]
    fn a_graph_of_many_nodes_is_built_and_run_in_linear_time() {
        let mut graph = Graph::new();
        let mut node = graph.input("x");
        for i in 0..20_000 {
            node =
                if i % 2 == 0 { graph.add(i.to_string(), Relu::new(), node) } else { graph.again("0", node) };
        }
        assert_eq!(graph.infer(&Tensor::from([[1.0]])).unwrap().data(), [1.0]);
    }
}
