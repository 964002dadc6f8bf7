//! Forward and backward of a whole batch.
//!
//! The batch is cut into blocks of rows, by its size alone. A block goes through all steps by itself, so that threads meet once a layer
//! and not once a step. Within a block the step is the outer axis: the rows of one step lie next to each other, and so do those of all steps, for the
//! products that need no order.

use super::{
    block::{Block, Dys, Job, for_blocks, gather_states, last_outputs, rows_of_block, weight_gradients},
    packed::Packed,
    stack::{Cell, Stack, Weights},
    walk::{CHUNK, fit, scatter},
};
use chainrule_core::{Context, Error, Grads, Memory, ModuleCall, Param, Result, Scalar, Shape, Tensor};
use std::fmt;

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

impl<T: Scalar> Stack<T> {
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

    pub(super) fn remember(&self, cache: &mut RecurrentCache<T>, out: &mut Memory<'_, T>) -> Result<()> {
        let RecurrentCache { stream, states, .. } = cache;
        let mut started = stream.is_some();
        out.flag("started", &mut started)?;
        if !started {
            return Ok(());
        }
        let Stream { mut n, mut steps } = stream.unwrap_or(Stream { n: 0, steps: 0 });
        out.batch("batch", &mut n)?;
        out.count("steps", &mut steps)?;
        out.rows("h", &mut states[0], [self.weights.len(), n, self.outputs_of_one()])?;
        if self.has_cells() {
            out.rows("c", &mut states[1], [self.weights.len(), n, self.hidden])?;
        }
        *stream = Some(Stream { n, steps });
        Ok(())
    }

    /// Which buffer holds the outputs of a layer: where nothing is recorded, two take turns.
    pub(super) fn seq_of(&self, layer: usize, record: bool) -> usize {
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
