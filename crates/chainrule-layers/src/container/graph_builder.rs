//! How a graph is put together.

use super::{
    MOST,
    children::{Children, check_name},
    graph::Graph,
    graph_plan::{Edge, Source, Use},
    inputs_expected,
};
use chainrule_core::{BoxModule, Error, Module, Result, Scalar};
use std::{
    collections::HashSet,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// The most outputs of all nodes of a graph together: a spec from a file may name any number.
const MOST_VALUES: usize = 1 << 20;

/// A node of a [`Graph`], or an input; where a value is expected it stands for its first output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    pub(super) graph: u64,
    pub(super) place: Place,
    pub(super) output: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Input(usize),
    Layer(usize),
    /// It was not added, because of a mistake that the graph keeps.
    Nowhere,
}

impl Node {
    /// Another output of the node, counted from 0.
    #[must_use]
    pub fn at(self, output: usize) -> Self {
        Self { output, ..self }
    }
}

/// What a node reads: a [`Node`], `[a, b]`, or a slice or vector of nodes.
#[derive(Clone, Debug)]
pub struct Nodes(Vec<Node>);

impl From<Node> for Nodes {
    fn from(node: Node) -> Self {
        Self(vec![node])
    }
}

impl<const N: usize> From<[Node; N]> for Nodes {
    fn from(nodes: [Node; N]) -> Self {
        Self(nodes.into())
    }
}

impl<const N: usize> From<&[Node; N]> for Nodes {
    fn from(nodes: &[Node; N]) -> Self {
        Self(nodes.into())
    }
}

impl From<&[Node]> for Nodes {
    fn from(nodes: &[Node]) -> Self {
        Self(nodes.into())
    }
}

impl From<Vec<Node>> for Nodes {
    fn from(nodes: Vec<Node>) -> Self {
        Self(nodes)
    }
}

impl From<&Vec<Node>> for Nodes {
    fn from(nodes: &Vec<Node>) -> Self {
        Self(nodes.clone())
    }
}

impl Graph {
    /// No node yet. [`Graph::of`] is the start for another element type.
    pub fn new() -> Self {
        Self::of()
    }
}

/// The methods that add do not fail. The first mistake (a node of another graph, a wrong number of inputs, a key that is
/// taken or unknown) is kept, and returned by `init`, `validate`, [`Graph::build`] and `output_shapes`.
impl<T: Scalar> Graph<T> {
    /// No node yet, of any element type: `Graph::<f64>::of()`.
    pub fn of() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            layers: Children::new(),
            inputs: Vec::new(),
            nodes: Vec::new(),
            outputs: Vec::new(),
            taken: Default::default(),
            values: 0,
            plan: OnceLock::new(),
        }
    }

    /// One more input of the graph, under a name.
    pub fn input(&mut self, name: impl Into<String>) -> Node {
        let name = name.into();
        let result = fresh(&mut self.taken[0], "inputs", &name, self.inputs.len());
        self.layers.keep(result);
        self.inputs.push(name);
        self.changed(Place::Input(self.inputs.len() - 1))
    }

    /// A module under a key, over as many nodes as it has inputs: a [`Node`], `[a, b]`, or a slice.
    pub fn add(
        &mut self,
        key: impl Into<String>,
        module: impl Module<T = T> + Clone + 'static,
        inputs: impl Into<Nodes>,
    ) -> Node {
        self.layers.push(key.into(), BoxModule::new(module));
        self.place(self.layers.len() - 1, &inputs.into().0)
    }

    /// The module of a key once more, over other nodes: the same parameters, another state.
    pub fn again(&mut self, key: &str, inputs: impl Into<Nodes>) -> Node {
        match self.layers.find(key) {
            Some(layer) => self.place(layer, &inputs.into().0),
            None => {
                self.layers.keep(Err(unknown(key)));
                self.changed(Place::Nowhere)
            }
        }
    }

    /// Makes a node an output of the graph, under a name.
    pub fn output(&mut self, name: impl Into<String>, node: Node) {
        let name = name.into();
        let result = fresh(&mut self.taken[1], "outputs", &name, self.outputs.len());
        self.layers.keep(result);
        let source = self.source(node).map_err(|e| e.in_layer(&name));
        match source {
            Ok(source) => self.outputs.push((name, source)),
            Err(error) => self.layers.keep(Err(error)),
        }
        self.changed(Place::Nowhere);
    }

    /// A use of the module number `layer`.
    pub(super) fn place(&mut self, layer: usize, inputs: &[Node]) -> Node {
        let (key, module) = self.layers.get(layer);
        match self.used(module, inputs) {
            Ok((edges, outputs)) => {
                self.nodes.push(Use { layer, edges, first: self.values, outputs });
                self.values += outputs;
                self.changed(Place::Layer(self.nodes.len() - 1))
            }
            Err(error) => {
                let error = error.in_layer(key);
                self.layers.keep(Err(error));
                self.changed(Place::Nowhere)
            }
        }
    }

    /// What a module reads, and how many outputs it has.
    fn used(&self, module: &BoxModule<T>, inputs: &[Node]) -> Result<(Vec<Edge>, usize)> {
        inputs_expected("Graph", module.inputs(), inputs.len())?;
        let outputs = module.outputs();
        if outputs > MOST || self.values + outputs > MOST_VALUES {
            return Err(Error::value(format!(
                "Graph: expected at most {MOST} outputs of a node and {MOST_VALUES} of all, got {outputs} and {}",
                self.values.saturating_add(outputs)
            )));
        }
        let edge = |(i, node): (usize, &Node)| {
            Ok(Edge { source: self.source(*node)?, differentiable: module.differentiable_input(i) })
        };
        Ok((inputs.iter().enumerate().map(edge).collect::<Result<_>>()?, outputs))
    }

    fn source(&self, node: Node) -> Result<Source> {
        if node.graph != self.id {
            return Err(Error::value("Graph: expected a node of this graph, got one of another"));
        }
        let (source, outputs) = match node.place {
            Place::Input(i) if i < self.inputs.len() => (Source::Input(i), 1),
            Place::Layer(n) if n < self.nodes.len() => {
                (Source::Value(self.nodes[n].first + node.output), self.nodes[n].outputs)
            }
            _ => return Err(Error::value("Graph: expected a node that was added, got one that was not")),
        };
        if node.output >= outputs {
            return Err(Error::value(format!(
                "Graph: expected an output below {outputs} of a node, got {}",
                node.output
            )));
        }
        Ok(source)
    }

    /// The node at a place of a graph that has changed.
    fn changed(&mut self, place: Place) -> Node {
        self.plan = OnceLock::new();
        Node { graph: self.id, place, output: 0 }
    }
}

impl<T: Scalar> Default for Graph<T> {
    fn default() -> Self {
        Self::of()
    }
}

/// Takes a name, of which `count` others are taken.
fn fresh(taken: &mut HashSet<String>, what: &str, name: &str, count: usize) -> Result<()> {
    check_name(name)?;
    if !taken.insert(name.to_owned()) {
        return Err(Error::value(format!("Graph: two {what} are named `{}`", name.escape_debug())));
    }
    if count >= MOST {
        return Err(Error::value(format!("Graph: expected at most {MOST} {what}, got more")));
    }
    Ok(())
}

pub(super) fn unknown(key: &str) -> Error {
    Error::value(format!("Graph: expected the key of a module, got `{}`", key.escape_debug()))
}
