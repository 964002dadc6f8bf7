//! What RNN, LSTM and GRU share: their settings, their parameters, and the shapes of what goes in and out.

use crate::rank::{check_shape, check_sizes};
use chainrule_core::{Error, Init, Param, Params, ParamsMut, Result, Scalar, Shape};

/// Most layers of a stack.
const MOST_LAYERS: usize = 1 << 10;

/// The function of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Tanh,
    Relu,
    Lstm,
    Gru,
}

impl Cell {
    /// The gates, for each of which the weights have H rows.
    pub(super) fn gates(self) -> usize {
        match self {
            Self::Tanh | Self::Relu => 1,
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }
}

/// The parameters of one layer in one direction, and their names.
#[derive(Clone)]
pub(super) struct Weights<T> {
    /// (gates · H, inputs) and (gates · H, outputs).
    pub(super) ih: Param<T>,
    pub(super) hh: Param<T>,
    /// (gates · H) each.
    pub(super) bias: Option<[Param<T>; 2]>,
    /// The projection, (outputs, H).
    pub(super) hr: Option<Param<T>>,
    names: [String; 5],
}

/// Layers of one kind of cell. `single` is one cell, for one step.
#[derive(Clone)]
pub(super) struct Stack<T> {
    pub(super) name: &'static str,
    pub(super) cell: Cell,
    pub(super) single: bool,
    pub(super) inputs: usize,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) bias: bool,
    pub(super) batch_first: bool,
    pub(super) dropout: f64,
    pub(super) bidirectional: bool,
    pub(super) projection: usize,
    pub(super) states: bool,
    pub(super) final_states: bool,
    pub(super) lengths: bool,
    pub(super) last: bool,
    /// A function of a step that there is not.
    unknown: Option<String>,
    /// Layer by layer, the two directions one after the other; none where the settings make no sense.
    pub(super) weights: Vec<Weights<T>>,
}

impl<T: Scalar> Stack<T> {
    /// One layer in one direction, with biases, the batch first.
    pub(super) fn new(name: &'static str, cell: Cell, single: bool, inputs: usize, hidden: usize) -> Self {
        let stack = Self {
            name,
            cell,
            single,
            inputs,
            hidden,
            layers: 1,
            bias: true,
            batch_first: true,
            dropout: 0.0,
            bidirectional: false,
            projection: 0,
            states: single,
            final_states: false,
            lengths: false,
            last: false,
            unknown: None,
            weights: Vec::new(),
        };
        stack.rebuilt()
    }

    /// Its parameters made from its settings.
    pub(super) fn rebuilt(mut self) -> Self {
        self.weights.clear();
        if self.check_settings().is_ok() {
            self.weights = (0..self.layers * self.directions()).map(|k| self.weights_of(k)).collect();
        }
        self
    }

    /// Sets the function of a simple step; one that there is not is told by [`Stack::check_settings`].
    pub(super) fn set_nonlinearity(&mut self, name: &str) {
        self.cell = if name == "relu" { Cell::Relu } else { Cell::Tanh };
        self.unknown = (!["relu", "tanh"].contains(&name)).then(|| name.to_owned());
    }

    pub(super) fn nonlinearity(&self) -> &str {
        match (&self.unknown, self.cell) {
            (Some(unknown), _) => unknown,
            (None, Cell::Relu) => "relu",
            (None, _) => "tanh",
        }
    }

    fn weights_of(&self, k: usize) -> Weights<T> {
        let (d, outputs, rows) = (self.directions(), self.outputs_of_one(), self.gate_rows());
        let (layer, init) = (k / d, Init::torch_default(self.hidden));
        let inputs = if layer == 0 { self.inputs } else { d * outputs };
        let suffix = match (self.single, k % d) {
            (true, _) => String::new(),
            (false, 0) => format!("_l{layer}"),
            (false, _) => format!("_l{layer}_reverse"),
        };
        let bias = |name| Param::new(name, [rows], init);
        Weights {
            ih: Param::new("weight_ih", [rows, inputs], init),
            hh: Param::new("weight_hh", [rows, outputs], init),
            bias: self.bias.then(|| [bias("bias_ih"), bias("bias_hh")]),
            hr: (self.projection > 0).then(|| Param::new("weight_hr", [outputs, self.hidden], init)),
            names: ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"]
                .map(|name| format!("{name}{suffix}")),
        }
    }

    pub(super) fn directions(&self) -> usize {
        if self.bidirectional { 2 } else { 1 }
    }

    /// Elements of h: H, or those of the projection.
    pub(super) fn outputs_of_one(&self) -> usize {
        if self.projection > 0 { self.projection } else { self.hidden }
    }

    /// Elements of the outputs of a step.
    pub(super) fn width(&self) -> usize {
        self.directions() * self.outputs_of_one()
    }

    pub(super) fn gate_rows(&self) -> usize {
        self.cell.gates() * self.hidden
    }

    pub(super) fn has_cells(&self) -> bool {
        self.cell == Cell::Lstm
    }

    pub(super) fn check_settings(&self) -> Result<()> {
        let Self { name, layers, dropout, .. } = *self;
        check_sizes(name, "an input size and a hidden size", 1, [self.inputs, self.hidden])?;
        if !(1..=MOST_LAYERS).contains(&layers) {
            return Err(Error::value(format!(
                "{name}: expected from 1 to {MOST_LAYERS} layers, got {layers}"
            )));
        }
        if !(0.0..=1.0).contains(&dropout) {
            return Err(Error::value(format!("{name}: expected a dropout from 0 to 1, got {dropout}")));
        }
        if self.projection >= self.hidden {
            return Err(Error::value(format!(
                "{name}: expected a proj_size below the hidden size of {}, got {}",
                self.hidden, self.projection
            )));
        }
        if let Some(unknown) = &self.unknown {
            return Err(Error::value(format!("{name}: expected nonlinearity tanh or relu, got {unknown:?}")));
        }
        let rows = self.gate_rows();
        check_shape(name, Shape::new(&[rows, self.inputs]))?;
        check_shape(name, Shape::new(&[rows, self.width()]))
    }

    pub(super) fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        for Weights { ih, hh, bias, hr, names } in &self.weights {
            out.add_as(&names[0], ih);
            out.add_as(&names[1], hh);
            bias.iter().flatten().zip(&names[2..]).for_each(|(bias, name)| out.add_as(name, bias));
            hr.iter().for_each(|hr| out.add_as(&names[4], hr));
        }
    }

    pub(super) fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        for Weights { ih, hh, bias, hr, names } in &mut self.weights {
            out.add_as(&names[0], ih);
            out.add_as(&names[1], hh);
            bias.iter_mut().flatten().zip(&names[2..]).for_each(|(bias, name)| out.add_as(name, bias));
            hr.iter_mut().for_each(|hr| out.add_as(&names[4], hr));
        }
    }

    pub(super) fn inputs(&self) -> usize {
        self.first_state() + if self.states { 1 + usize::from(self.has_cells()) } else { 0 }
    }

    pub(super) fn outputs(&self) -> usize {
        self.first_final()
            + if self.states || self.final_states { 1 + usize::from(self.has_cells()) } else { 0 }
    }

    /// Where h₀ stands among the inputs.
    pub(super) fn first_state(&self) -> usize {
        1 + usize::from(self.lengths)
    }

    /// Where the last h stands among the outputs.
    pub(super) fn first_final(&self) -> usize {
        usize::from(!self.single)
    }

    pub(super) fn differentiable_input(&self, input: usize) -> bool {
        !(self.lengths && input == 1)
    }

    /// N and T of inputs.
    pub(super) fn sizes<'s>(&self, count: usize, shape: impl Fn(usize) -> &'s Shape) -> Result<[usize; 2]> {
        self.check_settings()?;
        let fits = |input: usize, want: &[usize]| shape(input)[..] == *want;
        let sizes = match (count == self.inputs()).then(|| &shape(0)[..]) {
            Some(&[n, i]) if self.single && i == self.inputs => Some([n, 1]),
            Some(&[n, t, i]) if !self.single && self.batch_first && i == self.inputs => Some([n, t]),
            Some(&[t, n, i]) if !self.single && !self.batch_first && i == self.inputs => Some([n, t]),
            _ => None,
        };
        let others = |&[n, _]: &[usize; 2]| {
            let (all, first) = (self.layers * self.directions(), self.first_state());
            let state = |input: usize, size: usize| {
                if self.single { fits(input, &[n, size]) } else { fits(input, &[all, n, size]) }
            };
            (!self.lengths || fits(1, &[n]))
                && (!self.states || state(first, self.outputs_of_one()))
                && (!self.states || !self.has_cells() || state(first + 1, self.hidden))
        };
        sizes.filter(others).ok_or_else(|| self.wrong_inputs((0..count).map(shape)))
    }

    #[cold]
    fn wrong_inputs<'s>(&self, got: impl Iterator<Item = &'s Shape>) -> Error {
        let (i, all) = (self.inputs, self.layers * self.directions());
        let mut expected = vec![match (self.single, self.batch_first) {
            (true, _) => format!("(N, {i})"),
            (false, true) => format!("(N, T, {i})"),
            (false, false) => format!("(T, N, {i})"),
        }];
        if self.lengths {
            expected.push("(N)".into());
        }
        let sizes = [self.outputs_of_one(), self.hidden];
        for size in sizes.iter().take(self.inputs() - expected.len()) {
            expected.push(if self.single { format!("(N, {size})") } else { format!("({all}, N, {size})") });
        }
        let got: Vec<String> = got.map(Shape::to_string).collect();
        Error::shape(format!(
            "{}: expected inputs {}, got {}",
            self.name,
            expected.join(", "),
            if got.is_empty() { "none".into() } else { got.join(", ") }
        ))
    }

    /// The shape of an output.
    pub(super) fn output_shape(&self, output: usize, [n, t]: [usize; 2]) -> Result<Shape> {
        let state = [self.outputs_of_one(), self.hidden];
        match output.checked_sub(self.first_final()) {
            Some(k) if self.single => Shape::new(&[n, state[k]]),
            Some(k) => Shape::new(&[self.layers * self.directions(), n, state[k]]),
            None if self.last => Shape::new(&[n, self.width()]),
            None if self.batch_first => Shape::new(&[n, t, self.width()]),
            None => Shape::new(&[t, n, self.width()]),
        }
    }

    pub(super) fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        let sizes = self.sizes(inputs.len(), |k| &inputs[k])?;
        (0..self.outputs()).map(|output| self.output_shape(output, sizes)).collect()
    }

    /// Multiply-adds of one row in one step.
    pub(super) fn cost_of_one(&self) -> u64 {
        let (d, p, rows) = (self.directions() as u64, self.outputs_of_one() as u64, self.gate_rows() as u64);
        let projected = if self.projection > 0 { p.saturating_mul(self.hidden as u64) } else { 0 };
        let layer = |inputs: u64| {
            let products = rows.saturating_mul(inputs.saturating_add(p));
            d.saturating_mul(products.saturating_add(projected))
        };
        let deep = layer(d * p).saturating_mul(self.layers.saturating_sub(1) as u64);
        layer(self.inputs as u64).saturating_add(deep)
    }

    pub(super) fn cost(&self, inputs: &[Shape]) -> u64 {
        let Some(x) = inputs.first() else { return 0 };
        let steps = x.iter().rev().skip(1).fold(1u64, |n, &axis| n.saturating_mul(axis as u64));
        steps.saturating_mul(self.cost_of_one())
    }
}
