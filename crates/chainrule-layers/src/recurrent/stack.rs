//! What RNN, LSTM and GRU share: layers in one or two directions over a batch of sequences, and their passes.
//!
//! The batch is cut into blocks of rows, by its size alone. A block goes through all steps by itself, so that threads meet once a layer
//! and not once a step. Within a block the step is the outer axis: rows of one step adjoin, and so do the rows of all steps, for the
//! products that need no order.

use super::walk::{CHUNK, Memory, Walk, fit, gather, scatter};
use crate::rank::{check_shape, check_sizes};
use chainrule_core::{
    Context, Error, Grads, Init, ModuleCall, Param, Params, ParamsMut, Result, Scalar, Shape, Tensor,
};
use chainrule_tensor::{
    compiled,
    kernels::{
        gemm::{Mat, MatMut, PackedB, matmul},
        layers::noise::dropout,
        reduce::add_rows_to,
    },
    par,
};
use std::{fmt, ops::Range};

/// Most layers of a stack.
const MOST_LAYERS: usize = 1 << 10;
/// Most blocks of a batch, whose gradients are added in the scalar type.
const BLOCKS: usize = 32;
/// Rows of all steps beyond which gradients are summed in f64, from so many rows at a time.
const LONG: usize = 1 << 16;
const SEGMENT: usize = 256;
/// Multiply-adds of a pass below which it stays in its thread.
const SERIAL: usize = 1 << 19;

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

/// What a pass of a recurrent layer keeps for backward, and between the pieces of a stream.
pub struct RecurrentCache<T> {
    recorded: Option<Recorded>,
    stream: Option<Stream>,
    /// The states after the last piece of a stream: h (layers, N, outputs) and c (layers, N, H).
    states: [Vec<T>; 2],
    /// Of the sequences in this batch, if they were given.
    lengths: Vec<usize>,
    packed: Vec<Packed<T>>,
    blocks: Vec<Block<T>>,
    /// A gradient from some rows of a long sum, and the sum over all.
    part: Vec<T>,
    sums: Vec<f64>,
}

/// A recorded pass, and the sizes of the layer that made it.
#[derive(Clone, Copy, PartialEq)]
struct Recorded {
    n: usize,
    t: usize,
    sizes: [usize; 5],
    cx: Context,
}

#[derive(Clone, Copy)]
struct Stream {
    n: usize,
    /// The steps so far.
    steps: usize,
}

/// The weights of one layer in one direction as products read them, and the versions that they were made of.
pub(super) struct Packed<T> {
    versions: [[u64; 2]; 5],
    backward: [[u64; 2]; 2],
    /// Wᵀ, Uᵀ and the transposed projection.
    pub(super) ih: PackedB<T>,
    pub(super) hh: PackedB<T>,
    pub(super) hr: PackedB<T>,
    /// What is added to W x; for GRU, what is added to U h.
    pub(super) bias: Vec<T>,
    pub(super) bias_h: Vec<T>,
    /// U and the projection, for backward.
    pub(super) hh_back: PackedB<T>,
    pub(super) hr_back: PackedB<T>,
}

/// Some rows of the batch.
struct Block<T> {
    first: usize,
    rows: usize,
    /// (T, rows, inputs)
    x: Vec<T>,
    /// Of each layer, the outputs of both directions with a step before and one behind: (T + 2, rows, D · outputs).
    seq: Vec<Vec<T>>,
    /// The same after dropout, without the two more steps.
    dropped: Vec<Vec<T>>,
    memory: Vec<Memory<T>>,
    step: Vec<T>,
    /// The last states, (layers · D, rows, outputs) and (layers · D, rows, H).
    h: Vec<T>,
    c: Vec<T>,
    /// In backward: ∂E/∂a of each direction, for what the input gives and, for GRU, for what the state gives.
    da: [Vec<T>; 2],
    dq: [Vec<T>; 2],
    /// ∂E/∂ of a layer's outputs and inputs, (T, rows, D · outputs) and (T, rows, inputs).
    dy: Vec<T>,
    dx: Vec<T>,
    /// As `h` and `c`.
    dh: Vec<T>,
    dc: Vec<T>,
    /// Of a projection.
    dm: [Vec<T>; 2],
}

impl<T> Default for Block<T> {
    fn default() -> Self {
        let none = Vec::new;
        Self {
            first: 0,
            rows: 0,
            x: none(),
            seq: Vec::new(),
            dropped: Vec::new(),
            memory: Vec::new(),
            step: none(),
            h: none(),
            c: none(),
            da: [none(), none()],
            dq: [none(), none()],
            dy: none(),
            dx: none(),
            dh: none(),
            dc: none(),
            dm: [none(), none()],
        }
    }
}

impl<T> Default for RecurrentCache<T> {
    fn default() -> Self {
        Self {
            recorded: None,
            stream: None,
            states: [Vec::new(), Vec::new()],
            lengths: Vec::new(),
            packed: Vec::new(),
            blocks: Vec::new(),
            part: Vec::new(),
            sums: Vec::new(),
        }
    }
}

impl<T> fmt::Debug for RecurrentCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recorded = self.recorded.map(|recorded| (recorded.n, recorded.t));
        f.debug_struct("RecurrentCache").field("recorded", &recorded).finish_non_exhaustive()
    }
}

impl<T: Scalar> Packed<T> {
    fn new() -> Self {
        Self {
            versions: [[u64::MAX; 2]; 5],
            backward: [[u64::MAX; 2]; 2],
            ih: PackedB::new(),
            hh: PackedB::new(),
            hr: PackedB::new(),
            bias: Vec::new(),
            bias_h: Vec::new(),
            hh_back: PackedB::new(),
            hr_back: PackedB::new(),
        }
    }

    /// Packs what has changed.
    fn update(&mut self, w: &Weights<T>, gru: bool) -> Result<()> {
        let version = |param: Option<&Param<T>>| param.map_or([0; 2], Param::version);
        let [b_ih, b_hh] = [0, 1].map(|k| w.bias.as_ref().map(|bias| &bias[k]));
        let versions = [
            version(Some(&w.ih)),
            version(Some(&w.hh)),
            version(b_ih),
            version(b_hh),
            version(w.hr.as_ref()),
        ];
        if self.versions == versions {
            return Ok(());
        }
        self.versions = [[u64::MAX; 2]; 5];
        pack(&mut self.ih, &w.ih, true)?;
        pack(&mut self.hh, &w.hh, true)?;
        if let Some(hr) = &w.hr {
            pack(&mut self.hr, hr, true)?;
        }
        self.bias.clear();
        self.bias_h.clear();
        if let [Some(b_ih), Some(b_hh)] = [b_ih, b_hh] {
            let (b_ih, b_hh) = (b_ih.value()?, b_hh.value()?);
            if gru {
                self.bias.extend_from_slice(b_ih);
                self.bias_h.extend_from_slice(b_hh);
            } else {
                self.bias.extend(b_ih.iter().zip(b_hh).map(|(&b, &c)| b + c));
            }
        }
        self.versions = versions;
        Ok(())
    }

    /// Packs for backward what has changed.
    fn update_backward(&mut self, w: &Weights<T>) -> Result<()> {
        let versions = [w.hh.version(), w.hr.as_ref().map_or([0; 2], Param::version)];
        if self.backward == versions {
            return Ok(());
        }
        self.backward = [[u64::MAX; 2]; 2];
        pack(&mut self.hh_back, &w.hh, false)?;
        if let Some(hr) = &w.hr {
            pack(&mut self.hr_back, hr, false)?;
        }
        self.backward = versions;
        Ok(())
    }
}

/// Packs a weight as the right operand, transposed or not.
fn pack<T: Scalar>(to: &mut PackedB<T>, weight: &Param<T>, transposed: bool) -> Result<()> {
    let (rows, cols) = (weight.shape()[0], weight.shape()[1]);
    let w = Mat::new(weight.value()?, rows, cols);
    to.pack(if transposed { w.t() } else { w });
    Ok(())
}

/// The blocks of a batch of n rows: how many rows each has, the last perhaps fewer. Few enough for tiles of full height, two as soon as
/// both are worth a thread, and no more than [`BLOCKS`].
fn rows_of_block(n: usize) -> usize {
    let blocks = if n < 12 { 1 } else { n.div_ceil(16).clamp(2, BLOCKS) };
    n.div_ceil(blocks).max(1)
}

/// Calls `f` with each block: by threads, if that is worth it.
fn for_blocks<T: Scalar>(blocks: &mut [Block<T>], work: u64, f: impl Fn(&mut Block<T>) + Sync) {
    let each = if work < SERIAL as u64 { blocks.len().max(1) } else { 1 };
    par::for_chunks(blocks, each, |_, blocks| blocks.iter_mut().for_each(&f));
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

    fn has_cells(&self) -> bool {
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
            return Err(Error::value(format!("{name}: expected nonlinearity tanh or relu, got {unknown}")));
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
    fn first_state(&self) -> usize {
        1 + usize::from(self.lengths)
    }

    /// Where the last h stands among the outputs.
    fn first_final(&self) -> usize {
        usize::from(!self.single)
    }

    pub(super) fn differentiable_input(&self, input: usize) -> bool {
        !(self.lengths && input == 1)
    }

    /// N and T of inputs.
    fn sizes<'s>(&self, count: usize, shape: impl Fn(usize) -> &'s Shape) -> Result<[usize; 2]> {
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
    fn output_shape(&self, output: usize, [n, t]: [usize; 2]) -> Result<Shape> {
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
    fn cost_of_one(&self) -> u64 {
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

    /// Bytes that the cache holds after a step, in training and in inference.
    pub(super) fn held(&self, inputs: &[Shape]) -> [usize; 2] {
        let Ok([n, t]) = self.sizes(inputs.len(), |k| &inputs[k]) else { return [0; 2] };
        let (d, p, h, width, gates) =
            (self.directions(), self.outputs_of_one(), self.hidden, self.width(), self.gate_rows());
        let (all, steps) = (self.weights.len(), n.saturating_mul(t));
        let weights = |w: &Weights<T>| w.ih.volume() + w.hh.volume() + w.hr.as_ref().map_or(0, Param::volume);
        let back = |w: &Weights<T>| w.hh.volume() + w.hr.as_ref().map_or(0, Param::volume);
        let packed: usize = self.weights.iter().map(weights).sum();
        let packed_back: usize = self.weights.iter().map(back).sum();
        let x = if self.reads_in_place([n, t]) { 0 } else { steps.saturating_mul(self.inputs) };
        let cells = if self.has_cells() { n.saturating_mul(t + 1).saturating_mul(h) } else { 0 };
        let extra = if self.cell == Cell::Gru || self.projection > 0 { steps.saturating_mul(h) } else { 0 };
        let outputs = n.saturating_mul(t + 2).saturating_mul(width);
        let states = n.saturating_mul(all).saturating_mul(if self.has_cells() { p + h } else { p });
        let all_gates = steps.saturating_mul(gates);
        let keeps = matches!(self.cell, Cell::Lstm | Cell::Gru);
        let gates_of_some = all_gates.min(n.saturating_mul(gates).max(CHUNK));
        let of_one = cells.saturating_add(extra);
        let kept = of_one.saturating_add(if keeps { all_gates } else { gates_of_some });
        let da = all_gates.saturating_mul(if self.cell == Cell::Gru { 2 * d } else { d });
        let slopes = steps.saturating_mul(width.saturating_add(self.inputs.max(width)));
        let training = [
            packed.saturating_add(packed_back),
            x,
            all.saturating_mul(kept),
            self.layers.saturating_mul(outputs),
            states.saturating_mul(2),
            da,
            slopes,
        ];
        let inference =
            [packed, x, of_one, gates_of_some, self.layers.min(2).saturating_mul(outputs), states];
        let bytes = |parts: &[usize]| {
            parts.iter().fold(0usize, |sum, &part| sum.saturating_add(part)).saturating_mul(size_of::<T>())
        };
        [bytes(&training), bytes(&inference)]
    }

    /// What a cache has to fit besides N and T.
    fn signature(&self) -> [usize; 5] {
        [self.inputs, self.hidden, self.layers * self.directions(), self.width(), self.cell as usize]
    }

    /// Reads the lengths, of which `seen` steps are over.
    fn read_lengths(
        &self,
        x: &Tensor<T>,
        most: usize,
        (seen, t): (usize, usize),
        to: &mut Vec<usize>,
    ) -> Result<()> {
        to.clear();
        for (row, length) in x.data().iter().enumerate() {
            match length.to_index().filter(|length| (1..=most).contains(length)) {
                Some(length) => to.push(length.saturating_sub(seen).min(t)),
                None => {
                    let most = if most == usize::MAX { String::new() } else { format!(" to {most}") };
                    return Err(Error::value(format!(
                        "{}: expected a whole number from 1{most} as the length of row {row}, got {length}",
                        self.name
                    )));
                }
            }
        }
        Ok(())
    }

    /// Whether the rows of a block stand in x as they are needed.
    fn reads_in_place(&self, [n, t]: [usize; 2]) -> bool {
        !self.lengths && (t == 1 || n == 1 || (rows_of_block(n) == n && !self.batch_first))
    }

    pub(super) fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        cache: &mut RecurrentCache<T>,
        cx: Context,
    ) -> Result<()> {
        let sizes @ [n, t] = self.sizes(xs.len(), |k| xs[k].shape())?;
        if ys.len() != self.outputs() {
            return Err(Error::shape(format!(
                "{}: expected {} outputs, got {}",
                self.name,
                self.outputs(),
                ys.len()
            )));
        }
        let (streams, record) = (cx.streaming() && !self.single, cx.recording());
        let RecurrentCache { recorded, stream, states, lengths, packed, blocks, .. } = cache;
        *recorded = None;
        if !streams {
            *stream = None;
        } else if self.bidirectional {
            return Err(Error::value(format!(
                "{}: expected one direction in a stream, got a bidirectional layer, whose outputs depend on all steps to come",
                self.name
            )));
        }
        if let Some(before) = stream.filter(|before| before.n != n) {
            return Err(Error::shape(format!(
                "{}: expected the batch of {} of the stream so far, got {n}",
                self.name, before.n
            )));
        }
        let seen = stream.map_or(0, |stream| stream.steps);
        if self.lengths {
            self.read_lengths(xs[1], if streams { usize::MAX } else { t }, (seen, t), lengths)?;
        } else {
            lengths.clear();
        }
        if packed.len() < self.weights.len() {
            packed.resize_with(self.weights.len(), Packed::new);
        }
        for (packed, w) in packed.iter_mut().zip(&self.weights) {
            packed.update(w, self.cell == Cell::Gru)?;
        }

        for (output, y) in ys.iter_mut().enumerate() {
            y.reset(self.output_shape(output, sizes)?);
        }
        let per = rows_of_block(n);
        let count = n.div_ceil(per);
        if blocks.len() < count {
            blocks.resize_with(count, Block::default);
        }
        let blocks = &mut blocks[..count];
        for (k, block) in blocks.iter_mut().enumerate() {
            (block.first, block.rows) = (k * per, per.min(n - k * per));
        }
        let first = self.first_state();
        let initial = match stream {
            Some(_) => [Some(&states[0][..]), self.has_cells().then_some(&states[1][..])],
            None => [first, first + 1].map(|k| xs.get(k).map(|x| x.data())),
        };
        let job = Job {
            stack: self,
            sizes,
            x: xs[0].data(),
            in_place: self.reads_in_place(sizes),
            lengths,
            packed,
            cx,
            record,
        };
        let work = self.cost_of_one().saturating_mul(n as u64).saturating_mul(t as u64);
        for_blocks(blocks, work, |block| block.forward(&job, initial));

        let (all, sizes) = (self.weights.len(), [self.outputs_of_one(), self.hidden]);
        if !self.single {
            if self.last {
                last_outputs(blocks, ys[0].data_mut(), (all, self.directions(), sizes[0]));
            } else {
                let width = self.width();
                let rows = |row: usize| {
                    let block = &blocks[row / per];
                    (&block.seq[self.seq_of(self.layers - 1, record)][block.rows * width..], block.rows)
                };
                scatter(ys[0].data_mut(), [n, t, width], (self.batch_first, per), lengths, rows);
            }
        }
        for (k, y) in ys.iter_mut().skip(self.first_final()).enumerate() {
            gather_states(
                blocks,
                y.data_mut(),
                [all, n, sizes[k]],
                |block| if k == 0 { &block.h } else { &block.c },
            );
        }
        if streams {
            *stream = Some(Stream { n, steps: seen.saturating_add(t) });
            gather_states(blocks, fit(&mut states[0], all * n * sizes[0]), [all, n, sizes[0]], |b| &b.h);
            if self.has_cells() {
                gather_states(blocks, fit(&mut states[1], all * n * sizes[1]), [all, n, sizes[1]], |b| &b.c);
            }
        }
        if record {
            *recorded = Some(Recorded { n, t, sizes: self.signature(), cx });
        }
        Ok(())
    }

    /// Which buffer holds the outputs of a layer: where nothing is recorded, two take turns.
    fn seq_of(&self, layer: usize, record: bool) -> usize {
        if record { layer } else { layer % 2 }
    }

    pub(super) fn pull(
        &self,
        call: ModuleCall<'_, T>,
        cache: &mut RecurrentCache<T>,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let xs = call.xs;
        let sizes @ [n, t] = self.sizes(xs.len(), |k| xs[k].shape())?;
        if call.dys.len() != self.outputs() || dxs.len() != xs.len() {
            return Err(Error::shape(format!(
                "{}: expected {} ∂E/∂y and {} ∂E/∂x, got {} and {}",
                self.name,
                self.outputs(),
                xs.len(),
                call.dys.len(),
                dxs.len()
            )));
        }
        for (output, dy) in call.dys.iter().enumerate() {
            let want = self.output_shape(output, sizes)?;
            if let Some(dy) = dy.filter(|dy| *dy.shape() != want) {
                return Err(Error::shape(format!(
                    "{}: expected ∂E/∂y of shape {want}, got {}",
                    self.name,
                    dy.shape()
                )));
            }
        }
        let RecurrentCache { recorded, lengths, packed, blocks, part, sums, .. } = cache;
        let cx = match *recorded {
            Some(Recorded { n: rows, t: steps, sizes, cx })
                if [rows, steps] == [n, t] && sizes == self.signature() =>
            {
                cx
            }
            _ => {
                return Err(Error::not_recorded(format!(
                    "{}: expected a recorded forward of this batch",
                    self.name
                )));
            }
        };
        if n == 0 || call.dys.iter().all(Option::is_none) {
            for (k, dx) in dxs.iter_mut().enumerate().filter(|(k, _)| self.differentiable_input(*k)) {
                if let Some(dx) = dx {
                    dx.reset(*xs[k].shape()).fill(T::ZERO);
                }
            }
            return Ok(());
        }
        for (packed, w) in packed.iter_mut().zip(&self.weights) {
            packed.update_backward(w)?;
        }
        let per = rows_of_block(n);
        let blocks = &mut blocks[..n.div_ceil(per)];
        let job = Job {
            stack: self,
            sizes,
            x: xs[0].data(),
            in_place: self.reads_in_place(sizes),
            lengths,
            packed,
            cx,
            record: true,
        };
        let (d, final_h) = (self.directions(), self.first_final());
        let dys = Dys {
            y: call.dys[0].filter(|_| !self.single).map(|dy| dy.data()),
            h: call.dys.get(final_h).copied().flatten().map(|dy| dy.data()),
            c: call.dys.get(final_h + 1).copied().flatten().map(|dy| dy.data()),
        };
        let work = self.cost_of_one().saturating_mul(n as u64).saturating_mul(t as u64);
        for layer in (0..self.layers).rev() {
            let inputs_needed = layer > 0 || dxs[0].is_some();
            let w = [self.weights[layer * d].ih.value()?, self.weights[layer * d + d - 1].ih.value()?];
            for_blocks(blocks, work, |block| {
                if layer + 1 == self.layers {
                    block.begin_backward(&job, dys);
                }
                block.backward(&job, layer, inputs_needed.then_some(w));
            });
            weight_gradients(blocks, &job, layer, grads, (part, sums));
        }
        if let Some(dx) = dxs[0].as_deref_mut() {
            let dx = dx.reset(*xs[0].shape());
            let rows = |row: usize| (&blocks[row / per].dx[..], blocks[row / per].rows);
            scatter(dx, [n, t, self.inputs], (self.batch_first && !self.single, per), &[], rows);
        }
        let sizes = [self.outputs_of_one(), self.hidden];
        for (k, dx) in dxs.iter_mut().skip(self.first_state()).enumerate() {
            if let Some(dx) = dx {
                let dx = dx.reset(*xs[self.first_state() + k].shape());
                gather_states(blocks, dx, [self.weights.len(), n, sizes[k]], |b| {
                    if k == 0 { &b.dh } else { &b.dc }
                });
            }
        }
        Ok(())
    }
}

/// ∂E/∂ of the outputs.
#[derive(Clone, Copy)]
struct Dys<'a, T> {
    y: Option<&'a [T]>,
    h: Option<&'a [T]>,
    c: Option<&'a [T]>,
}

/// A pass, as its blocks see it.
struct Job<'a, T> {
    stack: &'a Stack<T>,
    /// N and T
    sizes: [usize; 2],
    x: &'a [T],
    in_place: bool,
    lengths: &'a [usize],
    packed: &'a [Packed<T>],
    cx: Context,
    record: bool,
}

/// The states of all rows, (all, N, size), from those of the blocks, (all, rows, size) each.
fn gather_states<T: Scalar>(
    blocks: &[Block<T>],
    to: &mut [T],
    [all, n, size]: [usize; 3],
    of: impl Fn(&Block<T>) -> &[T],
) {
    for block in blocks {
        let part = block.rows * size;
        for k in 0..all {
            to[(k * n + block.first) * size..][..part].copy_from_slice(&of(block)[k * part..][..part]);
        }
    }
}

/// The states of a block from those of all rows; zeros if there are none.
fn own_states<T: Scalar>(
    from: Option<&[T]>,
    to: &mut [T],
    [all, n, size]: [usize; 3],
    [first, rows]: [usize; 2],
) {
    let Some(from) = from else { return to.fill(T::ZERO) };
    let part = rows * size;
    for k in 0..all {
        to[k * part..][..part].copy_from_slice(&from[(k * n + first) * size..][..part]);
    }
}

/// The last outputs of the last layer, (N, D · outputs), from its last states.
fn last_outputs<T: Scalar>(blocks: &[Block<T>], y: &mut [T], (all, d, size): (usize, usize, usize)) {
    for block in blocks {
        for (i, y) in y[block.first * d * size..].chunks_exact_mut(d * size).take(block.rows).enumerate() {
            for (k, y) in y.chunks_exact_mut(size).enumerate() {
                y.copy_from_slice(&block.h[((all - d + k) * block.rows + i) * size..][..size]);
            }
        }
    }
}

impl<T: Scalar> Block<T> {
    fn lengths<'a>(&self, job: &Job<'a, T>) -> &'a [usize] {
        if job.stack.lengths { &job.lengths[self.first..][..self.rows] } else { &[] }
    }

    /// Rows of ∂E/∂a of direction k: for what the input gives, and for what the state gives, another one for GRU.
    fn da(&self, k: usize, gates: usize, rows: Range<usize>) -> &[T] {
        &self.da[k][rows.start * gates..rows.end * gates]
    }

    fn dq(&self, k: usize, cell: Cell, gates: usize, rows: Range<usize>) -> &[T] {
        let of_state = if cell == Cell::Gru { &self.dq[k] } else { &self.da[k] };
        &of_state[rows.start * gates..rows.end * gates]
    }

    fn walk<'a>(&self, job: &'a Job<'_, T>, k: usize) -> Walk<'a, T> {
        Walk {
            stack: job.stack,
            packed: &job.packed[k],
            rows: self.rows,
            t: job.sizes[1],
            lengths: self.lengths(job),
            direction: k % job.stack.directions(),
            record: job.record,
        }
    }

    /// Whether noise stands between a layer and the next.
    fn drops(job: &Job<'_, T>) -> bool {
        job.cx.training() && job.stack.dropout > 0.0
    }

    /// The key of the noise behind a layer.
    fn noise(&self, job: &Job<'_, T>, layer: usize) -> u64 {
        job.cx.child(layer).child(self.first).noise_key()
    }

    /// The inputs of a layer, (T, rows, inputs).
    fn input<'a>(&'a self, job: &Job<'a, T>, layer: usize) -> &'a [T] {
        let (s, [_, t]) = (job.stack, job.sizes);
        let slot = self.rows * s.width();
        match layer {
            0 if job.in_place => &job.x[self.first * t * s.inputs..][..t * self.rows * s.inputs],
            0 => &self.x[..t * self.rows * s.inputs],
            _ if Self::drops(job) => &self.dropped[layer - 1][..t * slot],
            _ => &self.seq[s.seq_of(layer - 1, job.record)][slot..][..t * slot],
        }
    }

    fn forward(&mut self, job: &Job<'_, T>, [h0, c0]: [Option<&[T]>; 2]) {
        let (s, [n, t]) = (job.stack, job.sizes);
        let (d, all, slot) = (s.directions(), s.weights.len(), self.rows * s.width());
        let (p, part) = (s.outputs_of_one(), [self.first, self.rows]);
        own_states(h0, fit(&mut self.h, all * self.rows * p), [all, n, p], part);
        if s.has_cells() {
            own_states(c0, fit(&mut self.c, all * self.rows * s.hidden), [all, n, s.hidden], part);
        }
        if !job.in_place {
            let lengths = self.lengths(job);
            let x = fit(&mut self.x, t * self.rows * s.inputs);
            gather(job.x, x, [n, t, s.inputs], (s.batch_first, part), lengths);
        }
        self.seq.resize_with(self.seq.len().max(s.layers), Vec::new);
        self.memory.resize_with(self.memory.len().max(all), Memory::default);
        self.dropped.resize_with(self.dropped.len().max(s.layers - 1), Vec::new);
        for layer in 0..s.layers {
            let at = s.seq_of(layer, job.record);
            let mut seq = std::mem::take(&mut self.seq[at]);
            let outputs = fit(&mut seq, (t + 2) * slot);
            for k in layer * d..(layer + 1) * d {
                let mut memory = std::mem::take(&mut self.memory[if job.record { k } else { 0 }]);
                let mut step = std::mem::take(&mut self.step);
                let (mut h, mut c) = (std::mem::take(&mut self.h), std::mem::take(&mut self.c));
                let own = |size: usize| k * self.rows * size..(k + 1) * self.rows * size;
                let cells = if s.has_cells() { &mut c[own(s.hidden)] } else { &mut [] };
                let states = (&mut h[own(p)], cells);
                self.walk(job, k).forward(self.input(job, layer), outputs, &mut memory, &mut step, states);
                (self.h, self.c, self.step) = (h, c, step);
                self.memory[if job.record { k } else { 0 }] = memory;
            }
            self.seq[at] = seq;
            if Self::drops(job) && layer + 1 < s.layers {
                let key = self.noise(job, layer);
                let to = fit(&mut self.dropped[layer], t * slot);
                dropout(&self.seq[at][slot..][..t * slot], to, key, s.dropout);
            }
        }
    }

    /// ∂E/∂ of the last layer's outputs and of all last states.
    fn begin_backward(&mut self, job: &Job<'_, T>, dys: Dys<'_, T>) {
        let (s, [n, t]) = (job.stack, job.sizes);
        let (d, all, width, p) = (s.directions(), s.weights.len(), s.width(), s.outputs_of_one());
        let part = [self.first, self.rows];
        own_states(dys.h, fit(&mut self.dh, all * self.rows * p), [all, n, p], part);
        if s.has_cells() {
            own_states(dys.c, fit(&mut self.dc, all * self.rows * s.hidden), [all, n, s.hidden], part);
        }
        let lengths = self.lengths(job);
        // The two change places from layer to layer.
        let most = t * self.rows * width.max(s.inputs);
        fit(&mut self.dx, most);
        let dy = &mut fit(&mut self.dy, most)[..t * self.rows * width];
        match dys.y {
            Some(y) if s.last => {
                dy.fill(T::ZERO);
                for (i, y) in y[self.first * width..].chunks_exact(width).take(self.rows).enumerate() {
                    for (k, y) in y.chunks_exact(p).enumerate() {
                        let dh = &mut self.dh[((all - d + k) * self.rows + i) * p..][..p];
                        dh.iter_mut().zip(y).for_each(|(dh, &y)| *dh += y);
                    }
                }
            }
            Some(y) => gather(y, dy, [n, t, width], (s.batch_first, part), lengths),
            None => dy.fill(T::ZERO),
        }
    }

    /// One layer backward: ∂E/∂a and ∂E/∂ of the states before, and, with the weights of both directions, that of the inputs.
    fn backward(&mut self, job: &Job<'_, T>, layer: usize, weights: Option<[&[T]; 2]>) {
        let (s, [_, t]) = (job.stack, job.sizes);
        let (d, p, rows, slot) = (s.directions(), s.outputs_of_one(), self.rows, self.rows * s.width());
        if layer + 1 < s.layers {
            // What the layer above gave for its inputs, by the noise between.
            if Self::drops(job) {
                let key = self.noise(job, layer);
                dropout(&self.dx[..t * slot], fit(&mut self.dy, t * slot), key, s.dropout);
            } else {
                std::mem::swap(&mut self.dx, &mut self.dy);
            }
        }
        for k in 0..d {
            let at = layer * d + k;
            let walk = self.walk(job, at);
            let own = |size: usize| at * rows * size..(at + 1) * rows * size;
            let dc = if s.has_cells() { &mut self.dc[own(s.hidden)] } else { &mut [] };
            let (dh, seq) = (&mut self.dh[own(p)], &self.seq[layer]);
            let da = [&mut self.da[k], &mut self.dq[k]];
            walk.backward(&self.memory[at], seq, &mut self.dy, (dh, dc), da, &mut self.dm);
        }
        let Some(weights) = weights else { return };
        let inputs = if layer == 0 { s.inputs } else { s.width() };
        let (steps, gates) = (t * rows, s.gate_rows());
        let dx = fit(&mut self.dx, steps * inputs);
        for k in 0..d {
            let da = Mat::new(&self.da[k], steps, gates);
            let beta = if k == 0 { T::ZERO } else { T::ONE };
            let w = Mat::new(weights[k], gates, inputs);
            matmul(T::ONE, da, w, beta, MatMut::new(dx, steps, inputs)); // δx = Wᵀ δa
        }
    }
}

/// dw += Σ of `product(rows, part)` over parts of all rows of all blocks: `product` adds that of the rows of a block to what it is given. In f64
/// from short segments, where there are many rows.
fn add_to<T: Scalar>(
    blocks: &[Block<T>],
    t: usize,
    dw: &mut [T],
    (part, sums): (&mut Vec<T>, &mut Vec<f64>),
    product: impl Fn(&Block<T>, Range<usize>, &mut [T]),
) {
    let rows: usize = blocks.iter().map(|block| t * block.rows).sum();
    if rows <= LONG {
        return blocks.iter().for_each(|block| product(block, 0..t * block.rows, dw));
    }
    let part = fit(part, dw.len());
    sums.clear();
    sums.resize(dw.len(), 0.0);
    for block in blocks {
        let steps = t * block.rows;
        for first in (0..steps).step_by(SEGMENT) {
            part.fill(T::ZERO);
            product(block, first..steps.min(first + SEGMENT), part);
            add_in_f64(part, sums);
        }
    }
    add_sums(sums, dw);
}

compiled! {
    /// total += part
    fn add_in_f64[T](part: &[T], total: &mut [f64]) {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part.to_f64());
    }
}

compiled! {
    /// dw += total
    fn add_sums[T](total: &[f64], dw: &mut [T]) {
        dw.iter_mut().zip(total).for_each(|(dw, total)| *dw = T::from_f64(dw.to_f64() + total));
    }
}

/// Adds to the gradients of a layer's weights, from δa of all steps of all rows.
fn weight_gradients<T: Scalar>(
    blocks: &[Block<T>],
    job: &Job<'_, T>,
    layer: usize,
    grads: &mut Grads<T>,
    (part, sums): (&mut Vec<T>, &mut Vec<f64>),
) {
    let (s, [_, t]) = (job.stack, job.sizes);
    let (d, p, h, width, gates) = (s.directions(), s.outputs_of_one(), s.hidden, s.width(), s.gate_rows());
    let inputs = if layer == 0 { s.inputs } else { width };
    if t == 0 {
        return;
    }
    for k in 0..d {
        let w = &s.weights[layer * d + k];
        if let Some(dw) = grads.of(&w.ih) {
            add_to(blocks, t, dw, (&mut *part, &mut *sums), |block, rows, dw| {
                let x = &block.input(job, layer)[rows.start * inputs..rows.end * inputs];
                let (n, da) = (rows.len(), block.da(k, gates, rows));
                let (da, x) = (Mat::new(da, n, gates), Mat::new(x, n, inputs));
                matmul(T::ONE, da.t(), x, T::ONE, MatMut::new(dw, gates, inputs)); // ∂W += δaᵀ x
            });
        }
        if let Some(du) = grads.of(&w.hh) {
            add_to(blocks, t, du, (&mut *part, &mut *sums), |block, rows, du| {
                let before = &block.seq[layer][(2 * k * block.rows + rows.start) * width + k * p..];
                let (n, dq) = (rows.len(), block.dq(k, s.cell, gates, rows));
                let (dq, before) = (Mat::new(dq, n, gates), Mat::strided(before, n, p, width, 1));
                matmul(T::ONE, dq.t(), before, T::ONE, MatMut::new(du, gates, p)); // ∂U += δaᵀ h
            });
        }
        for (which, bias) in w.bias.iter().flatten().enumerate() {
            if let Some(db) = grads.of(bias) {
                add_to(blocks, t, db, (&mut *part, &mut *sums), |block, rows, db| {
                    let da =
                        if which == 0 { block.da(k, gates, rows) } else { block.dq(k, s.cell, gates, rows) };
                    add_rows_to(da, db); // ∂b += Σ δa
                });
            }
        }
        if let Some(dr) = w.hr.as_ref().and_then(|hr| grads.of(hr)) {
            add_to(blocks, t, dr, (&mut *part, &mut *sums), |block, rows, dr| {
                let n = rows.len();
                let m = &block.memory[layer * d + k].extra[rows.start * h..rows.end * h];
                let dh = Mat::strided(&block.dy[rows.start * width + k * p..], n, p, width, 1);
                matmul(T::ONE, dh.t(), Mat::new(m, n, h), T::ONE, MatMut::new(dr, p, h)); // ∂R += δhᵀ m
            });
        }
    }
}
