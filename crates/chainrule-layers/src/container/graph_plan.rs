//! Which nodes of a graph run, and where gradients arrive.

use std::ops::Range;

/// A value that a node reads or the graph returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An input of the graph.
    Input(usize),
    /// An output of a node; those of all nodes are numbered together.
    Value(usize),
}

impl Source {
    /// What belongs to it, of what belongs to the inputs and to the values.
    pub(super) fn of<'a, V>(self, inputs: &'a [V], values: &'a [V]) -> &'a V {
        match self {
            Self::Input(i) => &inputs[i],
            Self::Value(v) => &values[v],
        }
    }

    /// As [`Source::of`], of references to the inputs.
    #[inline]
    pub(super) fn of_refs<'a, V>(self, inputs: &[&'a V], values: &'a [V]) -> &'a V {
        match self {
            Self::Input(i) => inputs[i],
            Self::Value(v) => &values[v],
        }
    }

    /// Its number, where the inputs follow `values` values.
    #[inline]
    pub(super) fn slot(self, values: usize) -> usize {
        match self {
            Self::Input(i) => values + i,
            Self::Value(v) => v,
        }
    }
}

/// One node: a use of a module over the inputs and earlier nodes.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// The place of the module among the graph's.
    pub(super) layer: usize,
    /// What it reads, one for each input of the module.
    pub(super) edges: Vec<Edge>,
    /// The number of its first output.
    pub(super) first: usize,
    /// How many outputs it has.
    pub(super) outputs: usize,
}

/// One input of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) source: Source,
    /// Whether the module has a derivative with respect to it.
    pub(super) differentiable: bool,
}

impl Use {
    /// The numbers of its outputs.
    #[inline]
    pub(super) fn values(&self) -> Range<usize> {
        self.first..self.first + self.outputs
    }
}

/// What a pass over a graph does.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The outputs: those that were named, or the newest node.
    pub(super) outputs: Vec<Source>,
    /// The nodes that lead to an output, in the order of construction.
    pub(super) steps: Vec<usize>,
    /// Whether each input has a derivative: it has none if it is read, but only where there is none.
    pub(super) differentiable: Vec<bool>,
}

impl Plan {
    pub(super) fn new(inputs: usize, nodes: &[Use], values: usize, named: &[(String, Source)]) -> Self {
        let mut outputs: Vec<Source> = named.iter().map(|(_, source)| *source).collect();
        if outputs.is_empty() {
            let newest = inputs.checked_sub(1).map(Source::Input);
            outputs.extend(nodes.last().map(|node| Source::Value(node.first)).or(newest));
        }
        // Walked backwards, every reader of a value comes before the node that makes it.
        let mut read = vec![false; values + inputs];
        let mut derived = vec![false; values + inputs];
        for output in &outputs {
            (read[output.slot(values)], derived[output.slot(values)]) = (true, true);
        }
        let mut steps = Vec::new();
        for (n, node) in nodes.iter().enumerate().rev() {
            let any = |of: &[bool]| of[node.values()].contains(&true);
            if !any(&read) {
                continue;
            }
            steps.push(n);
            let arrives = any(&derived);
            for edge in &node.edges {
                read[edge.source.slot(values)] = true;
                derived[edge.source.slot(values)] |= arrives && edge.differentiable;
            }
        }
        steps.reverse();
        let differentiable = (values..values + inputs).map(|slot| derived[slot] || !read[slot]).collect();
        Self { outputs, steps, differentiable }
    }
}
