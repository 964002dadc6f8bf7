//! One layer in one direction over all steps of some rows, forward and backward.

use super::{
    packed::Packed,
    stack::{Cell, Stack},
};
use chainrule_core::Scalar;
use chainrule_tensor::{
    compiled,
    kernels::{
        gemm::{Epilogue, Mat, MatMut, matmul_steady, matmul_with},
        layers::recurrent::{
            Rows, carry, gru_step, gru_step_gradient, lstm_step, lstm_step_gradient, rnn_step,
            rnn_step_gradient, take_state_gradient,
        },
    },
    par,
};
use std::ops::Range;

/// Elements of gates that are made by one product and used at once: 256 KiB of f32, which stay in the second-level cache.
pub(super) const CHUNK: usize = 1 << 16;
/// Elements of a piece that is copied.
const PIECE: usize = 1 << 15;

/// What a layer keeps in one direction.
pub(super) struct Memory<T> {
    /// The gates, (T, rows, gates · H), after their functions; of some steps where nothing is recorded.
    gates: Vec<T>,
    /// c before each step and after the last, in the order of the steps: (T + 1, rows, H).
    cells: Vec<T>,
    /// (T, rows, H): of GRU, what the state gives to the third gate; of a projection, what is projected.
    pub(super) extra: Vec<T>,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { gates: Vec::new(), cells: Vec::new(), extra: Vec::new() }
    }
}

/// The first elements of a buffer, which grows where it is shorter and never shrinks.
pub(super) fn fit<T: Scalar>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::ZERO);
    }
    &mut buffer[..len]
}

/// A layer in one direction, and the rows that go through it.
pub(super) struct Walk<'a, T> {
    pub(super) stack: &'a Stack<T>,
    pub(super) packed: &'a Packed<T>,
    pub(super) rows: usize,
    pub(super) t: usize,
    /// Of the rows; none if all are T long.
    pub(super) lengths: &'a [usize],
    /// 0 forward, 1 backward in time.
    pub(super) direction: usize,
    pub(super) record: bool,
}

/// Two slots of a buffer, of which the second is written to.
fn two<T>(buffer: &mut [T], slot: usize, from: usize, to: usize) -> (&[T], &mut [T]) {
    let (low, high) = buffer.split_at_mut(from.max(to) * slot);
    if from < to {
        (&low[from * slot..][..slot], &mut high[..slot])
    } else {
        (&high[..slot], &mut low[to * slot..][..slot])
    }
}

impl<T: Scalar> Walk<'_, T> {
    /// The s-th step of the walk in time, and the slots of the outputs with the state before it and after it: before the first
    /// step and behind the last stand those from which the two directions start.
    fn step(&self, s: usize) -> (usize, usize, usize) {
        if self.direction == 0 { (s, s, s + 1) } else { (self.t - 1 - s, self.t - s + 1, self.t - s) }
    }

    /// The steps that steps s0..s1 of the walk are.
    fn steps(&self, walked: Range<usize>) -> Range<usize> {
        if self.direction == 0 { walked } else { self.t - walked.end..self.t - walked.start }
    }

    /// The rows at a step, of which states of size h stand among others.
    fn at(&self, t: usize, h: usize, stride: usize) -> Rows<'_> {
        Rows { n: self.rows, h, stride, t, lengths: self.lengths }
    }

    /// Whether gates are needed after their step.
    fn keeps_gates(&self) -> bool {
        self.record && matches!(self.stack.cell, Cell::Lstm | Cell::Gru)
    }

    /// From inputs (T, rows, inputs) to outputs (T + 2, rows, D · outputs), and from the first states, (rows, outputs) and (rows, H), to
    /// the last.
    pub(super) fn forward(
        &self,
        input: &[T],
        seq: &mut [T],
        memory: &mut Memory<T>,
        scratch: &mut Vec<T>,
        (h_state, c_state): (&mut [T], &mut [T]),
    ) {
        let (s, n, t) = (self.stack, self.rows, self.t);
        let (p, h, gates, width) = (s.outputs_of_one(), s.hidden, s.gate_rows(), s.width());
        let inputs = input.len() / (t * n).max(1);
        let (slot, offset) = (n * width, self.direction * p);
        if n == 0 {
            return;
        }
        let (_, start, _) = if t > 0 { self.step(0) } else { (0, self.direction, 0) };
        let at_start = &mut seq[start * slot..][..slot];
        for (to, from) in at_start.chunks_exact_mut(width).zip(h_state.chunks_exact(p)) {
            to[offset..][..p].copy_from_slice(from);
        }
        let per = (CHUNK / (n * gates)).clamp(1, t.max(1));
        let all_gates = fit(&mut memory.gates, n * gates * if self.keeps_gates() { t } else { per });
        let cells = fit(&mut memory.cells, if s.cell == Cell::Lstm { (t + 1) * n * h } else { 0 });
        if s.cell == Cell::Lstm {
            cells[..n * h].copy_from_slice(c_state);
        }
        let kept = s.cell == Cell::Gru || s.projection > 0;
        let extra = fit(&mut memory.extra, if kept { t * n * h } else { 0 });
        let hidden = fit(scratch, if s.cell == Cell::Gru { n * gates } else { 0 });
        let bias = |bias: &'_ [T]| !bias.is_empty();
        let of = |row| Epilogue { row, ..Epilogue::default() };
        let bias_x = of(bias(&self.packed.bias).then_some(&self.packed.bias[..]));
        let bias_h = of(bias(&self.packed.bias_h).then_some(&self.packed.bias_h[..]));
        for begin in (0..t).step_by(per) {
            let end = t.min(begin + per);
            let steps = self.steps(begin..end);
            let first = if self.keeps_gates() { 0 } else { steps.start };
            let x = Mat::new(&input[steps.start * n * inputs..], steps.len() * n, inputs);
            let a = &mut all_gates[(steps.start - first) * n * gates..][..steps.len() * n * gates];
            let a = MatMut::new(a, steps.len() * n, gates);
            matmul_steady(T::ONE, x, &self.packed.ih, T::ZERO, a, bias_x); // a = W x + b, of some steps
            for walked in begin..end {
                let (at, from, to) = self.step(walked);
                let (before, out) = two(seq, slot, from, to);
                let (before, out) = (&before[offset..], &mut out[offset..]);
                let state = Mat::strided(before, n, p, width, 1);
                let a = &mut all_gates[(at - first) * n * gates..][..n * gates];
                let rows = self.at(at, h, width);
                match s.cell {
                    Cell::Tanh | Cell::Relu => {
                        let to = MatMut::new(a, n, gates);
                        matmul_steady(T::ONE, state, &self.packed.hh, T::ONE, to, of(None)); // a += U h
                        rnn_step(rows, s.cell == Cell::Relu, a, out);
                    }
                    Cell::Gru => {
                        let to = MatMut::new(hidden, n, gates);
                        matmul_steady(T::ONE, state, &self.packed.hh, T::ZERO, to, bias_h); // U h + b
                        gru_step(rows, a, hidden, before, &mut extra[at * n * h..][..n * h], out);
                    }
                    Cell::Lstm => {
                        let to = MatMut::new(a, n, gates);
                        matmul_steady(T::ONE, state, &self.packed.hh, T::ONE, to, of(None)); // a += U h
                        let (c, c_after) = two(cells, n * h, walked, walked + 1);
                        if s.projection == 0 {
                            lstm_step(rows, a, c, c_after, out);
                        } else {
                            let m = &mut extra[at * n * h..][..n * h];
                            lstm_step(self.at(at, h, h), a, c, c_after, m);
                            let (m, to) = (Mat::new(m, n, h), MatMut::strided(out, n, p, width, 1));
                            matmul_steady(T::ONE, m, &self.packed.hr, T::ZERO, to, of(None)); // h′ = R m
                        }
                    }
                }
                if !self.lengths.is_empty() {
                    carry(self.at(at, p, width), before, out);
                }
            }
        }
        let end = if self.direction == 0 { t } else { 1 };
        for (to, from) in h_state.chunks_exact_mut(p).zip(seq[end * slot..].chunks_exact(width)) {
            to.copy_from_slice(&from[offset..][..p]);
        }
        if s.cell == Cell::Lstm {
            c_state.copy_from_slice(&cells[t * n * h..]);
        }
    }

    /// From δy (T, rows, D · outputs) and those of the last states to δa (T, rows, gates · H) and those of the first states. With a
    /// projection, δy becomes δh of every step.
    pub(super) fn backward(
        &self,
        memory: &Memory<T>,
        seq: &[T],
        dy: &mut [T],
        (dh, dc): (&mut [T], &mut [T]),
        [da, dq]: [&mut Vec<T>; 2],
        [dm, none]: &mut [Vec<T>; 2],
    ) {
        let (s, n, t) = (self.stack, self.rows, self.t);
        let (p, h, gates, width) = (s.outputs_of_one(), s.hidden, s.gate_rows(), s.width());
        let (slot, offset) = (n * width, self.direction * p);
        let da = fit(da, t * n * gates);
        let dq = fit(dq, if s.cell == Cell::Gru { t * n * gates } else { 0 });
        let dm = fit(dm, if s.projection > 0 { n * h } else { 0 });
        let none = fit(none, if s.projection > 0 { n * h } else { 0 });
        none.fill(T::ZERO);
        for walked in (0..t).rev() {
            let (at, from, to) = self.step(walked);
            let own = at * n * gates..(at + 1) * n * gates;
            let da = &mut da[own.clone()];
            let dy = &mut dy[at * slot..][..slot][offset..];
            let rows = self.at(at, h, width);
            let (before, out) = (&seq[from * slot..][..slot][offset..], &seq[to * slot..][..slot][offset..]);
            let of_state: &[T] = match s.cell {
                Cell::Tanh | Cell::Relu => {
                    rnn_step_gradient(rows, s.cell == Cell::Relu, out, dy, dh, da);
                    da
                }
                Cell::Gru => {
                    let (kept, dq) = (&memory.extra[at * n * h..][..n * h], &mut dq[own.clone()]);
                    gru_step_gradient(rows, &memory.gates[own], [before, kept], dy, dh, da, dq);
                    dq
                }
                Cell::Lstm => {
                    let cells = [walked, walked + 1].map(|k| &memory.cells[k * n * h..][..n * h]);
                    if s.projection == 0 {
                        lstm_step_gradient(rows, &memory.gates[own], cells, dy, dh, dc, da);
                    } else {
                        take_state_gradient(self.at(at, p, width), dy, dh);
                        let (of_h, to) = (Mat::strided(dy, n, p, width, 1), MatMut::new(dm, n, h));
                        matmul_with(T::ONE, of_h, &self.packed.hr_back, T::ZERO, to, Epilogue::default()); // δm = Rᵀ δh
                        lstm_step_gradient(self.at(at, h, h), &memory.gates[own], cells, dm, none, dc, da);
                    }
                    da
                }
            };
            let (of_state, to) = (Mat::new(of_state, n, gates), MatMut::new(dh, n, p));
            matmul_with(T::ONE, of_state, &self.packed.hh_back, T::ONE, to, Epilogue::default()); // δh += Uᵀ δa
        }
    }
}

compiled! {
    /// Rows of x, (N, T, width) or (T, N, width), with the step as the outer axis: (T, rows, width); zeros after a sequence's end.
    fn gather_rows[T](x: &[T], to: &mut [T], sizes: [usize; 3], layout: (bool, [usize; 2]), lengths: &[usize]) {
        let ([n, t, width], (batch_first, [first, rows])) = (sizes, layout);
        for step in 0..t {
            for (i, to) in to[step * rows * width..][..rows * width].chunks_exact_mut(width).enumerate() {
                let row = if batch_first { (first + i) * t + step } else { step * n + first + i };
                if lengths.get(i).is_some_and(|&length| length <= step) {
                    to.fill(T::ZERO);
                } else {
                    to.copy_from_slice(&x[row * width..][..width]);
                }
            }
        }
    }
}

/// Rows `first..first + rows` of x, (N, T, width) if `batch_first` or else (T, N, width), as (T, rows, width).
pub(super) fn gather<T: Scalar>(
    x: &[T],
    to: &mut [T],
    sizes: [usize; 3],
    layout: (bool, [usize; 2]),
    lengths: &[usize],
) {
    gather_rows(x, to, sizes, layout, lengths);
}

compiled! {
    /// One row of (N, T, width) from (T, rows, width).
    fn put_row[T](from: &[T], to: &mut [T], width: usize, at: [usize; 2], length: usize) {
        let [i, rows] = at;
        for (step, to) in to.chunks_exact_mut(width).enumerate() {
            if step < length {
                to.copy_from_slice(&from[(step * rows + i) * width..][..width]);
            } else {
                to.fill(T::ZERO);
            }
        }
    }
}

/// y, (N, T, width) if `batch_first` or else (T, N, width), from blocks of `per` rows, (T, rows, width) each: `block` gives that of a row and
/// its number of rows. Zeros after a sequence's end.
pub(super) fn scatter<'a, T: Scalar>(
    y: &mut [T],
    [n, t, width]: [usize; 3],
    (batch_first, per): (bool, usize),
    lengths: &[usize],
    block: impl Fn(usize) -> (&'a [T], usize) + Sync,
) {
    let length = |row: usize| lengths.get(row).copied().unwrap_or(t);
    if y.is_empty() {
        return;
    }
    if batch_first {
        let rows_of_piece = (PIECE / (t * width)).max(1);
        par::for_chunks(y, rows_of_piece * t * width, |piece, y| {
            for (k, y) in y.chunks_exact_mut(t * width).enumerate() {
                let row = piece * rows_of_piece + k;
                let (from, rows) = block(row);
                put_row(from, y, width, [row % per, rows], length(row));
            }
        });
    } else {
        let steps = (PIECE / (n * width)).max(1);
        par::for_chunks(y, steps * n * width, |piece, y| {
            for (k, y) in y.chunks_exact_mut(n * width).enumerate() {
                let step = piece * steps + k;
                for (row, y) in y.chunks_exact_mut(width).enumerate() {
                    let (from, rows) = block(row);
                    let real = usize::from(step < length(row));
                    put_row(&from[step * rows * width..], y, width, [row % per, rows], real);
                }
            }
        });
    }
}
