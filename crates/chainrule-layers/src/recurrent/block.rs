//! Some rows of a batch in all layers, and what the rows of all blocks give together.

use super::{
    packed::Packed,
    stack::{Cell, Stack},
    walk::{Memory, Walk, fit, gather},
};
use chainrule_core::{Context, Grads, Noise, Scalar};
use chainrule_tensor::{
    compiled,
    kernels::{
        gemm::{Mat, MatMut, matmul},
        layers::noise::dropout,
        reduce::add_rows_to,
    },
    par,
};
use std::ops::Range;

/// Most blocks of a batch, whose gradients are added in the scalar type.
const BLOCKS: usize = 32;
/// Rows of all steps beyond which gradients are summed in f64, from so many rows at a time.
const LONG: usize = 1 << 16;
const SEGMENT: usize = 32;
/// Multiply-adds of a pass below which it stays in its thread.
const SERIAL: usize = 1 << 19;

/// Some rows of the batch.
pub(super) struct Block<T> {
    pub(super) first: usize,
    pub(super) rows: usize,
    /// (T, rows, inputs)
    x: Vec<T>,
    /// Of each layer, the outputs of both directions with a step before and one behind: (T + 2, rows, D · outputs).
    pub(super) seq: Vec<Vec<T>>,
    /// The same after dropout, without the two more steps.
    dropped: Vec<Vec<T>>,
    memory: Vec<Memory<T>>,
    step: Vec<T>,
    /// The last states, (layers · D, rows, outputs) and (layers · D, rows, H).
    pub(super) h: Vec<T>,
    pub(super) c: Vec<T>,
    /// In backward: ∂E/∂a of each direction, for what the input gives and, for GRU, for what the state gives.
    da: [Vec<T>; 2],
    dq: [Vec<T>; 2],
    /// Their sums over all steps and rows of the block.
    db: [Vec<T>; 2],
    dbq: [Vec<T>; 2],
    /// ∂E/∂ of a layer's outputs and inputs, (T, rows, D · outputs) and (T, rows, inputs).
    dy: Vec<T>,
    pub(super) dx: Vec<T>,
    /// As `h` and `c`.
    pub(super) dh: Vec<T>,
    pub(super) dc: Vec<T>,
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
            db: [none(), none()],
            dbq: [none(), none()],
            dy: none(),
            dx: none(),
            dh: none(),
            dc: none(),
            dm: [none(), none()],
        }
    }
}

/// The blocks of a batch of n rows: how many rows each has, the last perhaps fewer. Few enough for tiles of full height, two as soon as
/// both are worth a thread, and no more than [`BLOCKS`].
pub(super) fn rows_of_block(n: usize) -> usize {
    let blocks = if n < 12 { 1 } else { n.div_ceil(16).next_multiple_of(2).clamp(2, BLOCKS) };
    n.div_ceil(blocks).max(1)
}

/// Calls `f` with each block: by threads, if that is worth it.
pub(super) fn for_blocks<T: Scalar>(blocks: &mut [Block<T>], work: u64, f: impl Fn(&mut Block<T>) + Sync) {
    let each = if work < SERIAL as u64 { blocks.len().max(1) } else { 1 };
    par::for_chunks(blocks, each, |_, blocks| blocks.iter_mut().for_each(&f));
}

/// ∂E/∂ of the outputs.
#[derive(Clone, Copy)]
pub(super) struct Dys<'a, T> {
    pub(super) y: Option<&'a [T]>,
    pub(super) h: Option<&'a [T]>,
    pub(super) c: Option<&'a [T]>,
}

/// A pass, as its blocks see it.
pub(super) struct Job<'a, T> {
    pub(super) stack: &'a Stack<T>,
    /// N and T
    pub(super) sizes: [usize; 2],
    pub(super) x: &'a [T],
    pub(super) in_place: bool,
    pub(super) lengths: &'a [usize],
    pub(super) packed: &'a [Packed<T>],
    pub(super) cx: Context,
    pub(super) record: bool,
}

/// The states of all rows, (all, N, size), from those of the blocks, (all, rows, size) each.
pub(super) fn gather_states<T: Scalar>(
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
pub(super) fn last_outputs<T: Scalar>(
    blocks: &[Block<T>],
    y: &mut [T],
    (all, d, size): (usize, usize, usize),
) {
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

    /// The key and the probability of the noise between a layer and the next, if there is any.
    fn noise(&self, job: &Job<'_, T>, layer: usize) -> Option<(u64, f64)> {
        let Noise { key, scale, .. } = job.cx.child(layer).child(self.first).noise()?;
        let p = job.stack.dropout * scale;
        (p > 0.0).then_some((key, p))
    }

    /// The inputs of a layer, (T, rows, inputs).
    fn input<'a>(&'a self, job: &Job<'a, T>, layer: usize) -> &'a [T] {
        let (s, [_, t]) = (job.stack, job.sizes);
        let slot = self.rows * s.width();
        match layer {
            0 if job.in_place => &job.x[self.first * t * s.inputs..][..t * self.rows * s.inputs],
            0 => &self.x[..t * self.rows * s.inputs],
            _ if self.noise(job, layer - 1).is_some() => &self.dropped[layer - 1][..t * slot],
            _ => &self.seq[s.seq_of(layer - 1, job.record)][slot..][..t * slot],
        }
    }

    pub(super) fn forward(&mut self, job: &Job<'_, T>, [h0, c0]: [Option<&[T]>; 2]) {
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
            if layer + 1 < s.layers
                && let Some((key, p)) = self.noise(job, layer)
            {
                let to = fit(&mut self.dropped[layer], t * slot);
                dropout(&self.seq[at][slot..][..t * slot], to, key, p);
            }
        }
    }

    /// ∂E/∂ of the last layer's outputs and of all last states.
    pub(super) fn begin_backward(&mut self, job: &Job<'_, T>, dys: Dys<'_, T>) {
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
    pub(super) fn backward(&mut self, job: &Job<'_, T>, layer: usize, weights: Option<[&[T]; 2]>) {
        let (s, [_, t]) = (job.stack, job.sizes);
        let (d, p, rows, slot) = (s.directions(), s.outputs_of_one(), self.rows, self.rows * s.width());
        if layer + 1 < s.layers {
            // What the layer above gave for its inputs, by the noise between.
            if let Some((key, p)) = self.noise(job, layer) {
                dropout(&self.dx[..t * slot], fit(&mut self.dy, t * slot), key, p);
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
        if s.bias {
            let (steps, gates) = (t * rows, s.gate_rows());
            for k in 0..d {
                let db = fit(&mut self.db[k], gates);
                db.fill(T::ZERO);
                add_rows_to(&self.da[k][..steps * gates], db);
                if s.cell == Cell::Gru {
                    let dbq = fit(&mut self.dbq[k], gates);
                    dbq.fill(T::ZERO);
                    add_rows_to(&self.dq[k][..steps * gates], dbq);
                }
            }
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
pub(super) fn weight_gradients<T: Scalar>(
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
                sums.clear();
                sums.resize(gates, 0.0);
                for block in blocks {
                    let of_state = which == 1 && s.cell == Cell::Gru;
                    add_in_f64(if of_state { &block.dbq[k] } else { &block.db[k] }, sums);
                }
                add_sums(sums, db); // ∂b += Σ δa
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
