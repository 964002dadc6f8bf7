//! Forward and ∂X: windows, image by image, shared over threads.

use super::{
    Geometry, Slot,
    along::Along,
    layout::Scatter,
    spread::Spread,
    windows::{Pass, Target, Way, Windows},
};
use crate::{
    Scalar,
    kernels::{Isa, dispatch::dispatch, gemm::Buffer, transpose::Transpose},
    par,
};

/// Pixels whose results along the filters are kept until they are transposed: sixteen tiles of eleven rows, 22 KiB for a panel of
/// f32 on AVX-512, which stays in the first-level cache.
const STRIP: usize = 176;
/// Bytes of an image's rows that are combined with all filters before the next rows: a quarter of a second-level cache of 1 MiB.
const ROWS: usize = 256 << 10;

/// Windows with their operands.
pub(super) struct Correlation<'a, T> {
    pub isa: Isa,
    pub target: Target,
    pub windows: &'a Windows,
    pub g: &'a Geometry<2>,
    pub packed: &'a Packed<T>,
    pub source: *const T,
    pub result: *mut T,
}

// SAFETY: it represents shared borrows and an exclusive one, of which each piece gets its own rows.
unsafe impl<T: Sync> Sync for Correlation<'_, T> {}

/// The weights of all groups in panels, and their bias: for each group one element an output, padded to whole vectors.
pub(super) struct Packed<T> {
    pub weights: Buffer<T>,
    bias: Buffer<T>,
}

impl<T: Scalar> Default for Packed<T> {
    fn default() -> Self {
        Self { weights: Buffer::new(), bias: Buffer::new() }
    }
}

impl<T: Scalar> Packed<T> {
    pub(super) fn set(
        &mut self,
        isa: Isa,
        lanes: usize,
        windows: &Windows,
        groups: usize,
        w: &[T],
        bias: Option<&[T]>,
    ) {
        let (outputs, full) = (windows.outputs, windows.outputs.next_multiple_of(lanes));
        self.weights.reset(groups * windows.weights);
        self.bias.reset(groups * full);
        for g in 0..groups {
            let full_bias = &mut self.bias.as_mut_slice()[g * full..][..full];
            full_bias.fill(T::ZERO);
            if let Some(bias) = bias {
                full_bias[..outputs].copy_from_slice(&bias[g * outputs..][..outputs]);
            }
            let w = &w[g * (w.len() / groups)..][..w.len() / groups];
            let packed = &mut self.weights.as_mut_slice()[g * windows.weights..][..windows.weights];
            for p in &windows.passes {
                let mut packed = &mut packed[p.weights..];
                for first in (0..outputs).step_by(p.panel) {
                    let count = p.panel.min(outputs - first);
                    let width = if p.way == Way::Spread { count.next_multiple_of(lanes) } else { count };
                    let (panel, rest) = packed.split_at_mut(windows.off(p).len() * width);
                    pack_panel(isa, windows, p, &w[first * windows.w_out..], panel, (count, width));
                    packed = rest;
                }
            }
        }
    }
}

/// Shares images, or blocks of them, over pieces of which each has a slot. Each is cut as often as the pieces come out even:
/// `f(slot, i, [from, to, cuts])` does the part `from / cuts .. to / cuts` of the i-th.
pub(super) fn share<T: Scalar>(
    slots: &mut Vec<Slot<T>>,
    pieces: usize,
    count: usize,
    begin: impl Fn(&mut Slot<T>) + Sync,
    f: impl Fn(&mut Slot<T>, usize, [usize; 3]) + Sync,
) {
    let pieces = pieces.max(1);
    if slots.len() < pieces {
        slots.resize_with(pieces, Slot::default);
    }
    let cuts = if count.is_multiple_of(pieces) { 1 } else { pieces };
    let units = count * cuts;
    par::for_chunks(&mut slots[..pieces], 1, |i, slot| {
        let (mut unit, end) = (units * i / pieces, units * (i + 1) / pieces);
        begin(&mut slot[0]);
        while unit < end {
            let (which, from) = (unit / cuts, unit % cuts);
            let to = cuts.min(from + end - unit);
            f(&mut slot[0], which, [from, to, cuts]);
            unit += to - from;
        }
    });
}

/// A panel of `count` outputs, padded to `width` with zeros; w begins with the first of them.
fn pack_panel<T: Scalar>(
    isa: Isa,
    windows: &Windows,
    p: &Pass,
    w: &[T],
    to: &mut [T],
    (count, width): (usize, usize),
) {
    let (taps, w_in, w_out) = (windows.taps(p), windows.w_in, windows.w_out);
    if count < width {
        to.fill(T::ZERO);
    }
    // The taps of a channel are contiguous, or even those of all channels.
    let (runs, run) = match taps.len() {
        n if n == w_in => (1, n * windows.inputs),
        n if n == w_out => (windows.inputs, n),
        _ => (0, 0),
    };
    for i in 0..runs {
        assert!(i * w_in + (count - 1) * w_out + run <= w.len() && (i + 1) * run * width <= to.len());
        let (from, to) = (w[i * w_in..].as_ptr(), to[i * run * width..].as_mut_ptr());
        let transpose =
            Transpose { from, from_row: w_out, rows: count, cols: run, padded: false, to, to_row: width };
        // SAFETY: both matrices lie in the slices; the caller's `isa` is the processor's.
        unsafe { dispatch(isa, &transpose) };
    }
    if runs == 0 && !taps.is_empty() {
        for (row, to) in to.chunks_mut(width).enumerate() {
            let from = &w[row / taps.len() * w_in + taps[row % taps.len()]..];
            for (f, to) in to[..count].iter_mut().enumerate() {
                *to = from[f * w_out];
            }
        }
    }
}

impl<T: Scalar> Correlation<'_, T> {
    /// All images, in at most `pieces` pieces.
    ///
    /// # Safety
    /// The operands are as long as the windows say, the result is borrowed exclusively, and the processor has `isa`.
    pub(super) unsafe fn run(&self, pieces: usize, slots: &mut Vec<Slot<T>>) {
        share(
            slots,
            pieces,
            self.g.images,
            |slot| self.windows.frame.prepare(&mut slot.frame),
            // SAFETY: the caller's; pieces have different images or different cuts.
            |slot, image, cut| unsafe { self.image(image, cut, slot) },
        );
    }

    /// The part `from / cuts .. to / cuts` of an image's results.
    unsafe fn image(&self, image: usize, [from, to, cuts]: [usize; 3], slot: &mut Slot<T>) {
        let w = self.windows;
        let rows = |p: &Pass| p.grid[0] * from / cuts..p.grid[0] * to / cuts;
        let mut needed = [usize::MAX, 0];
        for p in &w.passes {
            let rows = rows(p);
            if !rows.is_empty() && p.rows[0] <= p.rows[1] {
                needed[0] = needed[0].min(p.rows[0] + rows.start * w.stride);
                needed[1] = needed[1].max(p.rows[1] + (rows.end - 1) * w.stride + 1);
            }
        }
        let planes = [w.source[0] * w.source[1], w.result[0] * w.result[1]];
        for g in 0..self.g.groups {
            let group = image * self.g.groups + g;
            // SAFETY: the group of the image lies in source and result.
            unsafe {
                let memory = slot.frame.as_mut_slice().as_mut_ptr();
                let source = self.source.add(group * w.inputs * planes[0]);
                let x = if needed[0] < needed[1] {
                    w.frame.fill(self.isa, source, memory, needed)
                } else {
                    memory
                };
                let y = self.result.add(group * w.outputs * planes[1]);
                for p in &w.passes {
                    self.pass(p, g, rows(p), x, y, slot);
                }
            }
        }
    }

    /// Some rows of a pass over the frame x of group g, whose results begin at y.
    unsafe fn pass(
        &self,
        p: &Pass,
        g: usize,
        rows: std::ops::Range<usize>,
        x: *const T,
        y: *mut T,
        slot: &mut Slot<T>,
    ) {
        let w = self.windows;
        let plane = w.result[0] * w.result[1];
        let whole = w.step == [1, 1];
        let pass_plane = if whole { plane } else { p.grid[0] * p.grid[1] };
        if rows.is_empty() || p.grid[1] == 0 {
            return;
        }
        if !whole {
            slot.temp.reset(w.outputs * pass_plane);
        }
        let to = if whole { y } else { slot.temp.as_mut_slice().as_mut_ptr() };
        // SAFETY: the rows exist; `to` is a plane for each output.
        unsafe {
            match p.way {
                Way::Along => self.along(p, g, rows.clone(), x, to, pass_plane),
                Way::Spread => self.spread(p, g, rows.clone(), x, to, pass_plane, &mut slot.strip),
            }
            for o in 0..if whole { 0 } else { w.outputs } {
                let [i, j] = p.first;
                let row = w.result[1];
                let scatter = Scatter {
                    from: to.add(o * pass_plane + rows.start * p.grid[1]),
                    from_row: p.grid[1],
                    rows: rows.len(),
                    cols: p.grid[1],
                    to: y.add(o * plane + (i + rows.start * w.step[0]) * row + j),
                    to_row: w.step[0] * row,
                    step: w.step[1],
                };
                scatter.run();
            }
        }
    }

    unsafe fn along(
        &self,
        p: &Pass,
        g: usize,
        rows: std::ops::Range<usize>,
        x: *const T,
        y: *mut T,
        plane: usize,
    ) {
        let w = self.windows;
        let off = w.off(p);
        let row_bytes = w.inputs * w.frame.row * w.stride * size_of::<T>();
        let chunk = (ROWS / row_bytes.max(1)).max(4);
        let weights = &self.packed.weights.as_slice()[g * w.weights + p.weights..];
        for begin in rows.clone().step_by(chunk) {
            let vectors = w.vectors(p, begin..rows.end.min(begin + chunk));
            for first in (0..w.outputs).step_by(p.panel) {
                let filters = p.panel.min(w.outputs - first);
                let bias = g * w.outputs.next_multiple_of(self.target.lanes) + first;
                // SAFETY: the vectors lie in x and y, see `Windows`; the panel holds depth × filters weights.
                unsafe {
                    let job = Along {
                        x,
                        at: vectors.as_ptr(),
                        vectors: vectors.len(),
                        width: p.grid[1].min(self.target.lanes),
                        off: off.as_ptr(),
                        depth: off.len(),
                        w: weights[first * off.len()..].as_ptr(),
                        filters,
                        bias: self.packed.bias.as_slice()[bias..].as_ptr(),
                        y: y.add(first * plane),
                        y_plane: plane,
                    };
                    dispatch(self.isa, &job);
                }
            }
        }
    }

    unsafe fn spread(
        &self,
        p: &Pass,
        g: usize,
        rows: std::ops::Range<usize>,
        x: *const T,
        y: *mut T,
        plane: usize,
        strip: &mut Buffer<T>,
    ) {
        let (w, lanes) = (self.windows, self.target.lanes);
        let off = w.off(p);
        let pixels = w.pixels(p, rows.clone());
        strip.reset(STRIP * p.panel);
        let strip = strip.as_mut_slice().as_mut_ptr();
        let weights = &self.packed.weights.as_slice()[g * w.weights + p.weights..];
        for (s, pixels) in pixels.chunks(STRIP).enumerate() {
            for first in (0..w.outputs).step_by(p.panel) {
                let filters = p.panel.min(w.outputs - first);
                let width = filters.next_multiple_of(lanes);
                let bias = g * w.outputs.next_multiple_of(lanes) + first;
                // SAFETY: the pixels lie in x at every offset, see `Windows`; the panel holds depth × width weights, the
                // strip STRIP × width sums, and y the pixels from the first row on.
                unsafe {
                    let job = Spread {
                        x,
                        at: pixels.as_ptr(),
                        rows: pixels.len(),
                        off: off.as_ptr(),
                        depth: off.len(),
                        b: weights[first * off.len()..].as_ptr(),
                        vectors: width / lanes,
                        start: self.packed.bias.as_slice()[bias..].as_ptr(),
                        start_row: 0,
                        c: strip,
                        c_row: width,
                    };
                    dispatch(self.isa, &job);
                    let transpose = Transpose {
                        from: strip,
                        from_row: width,
                        rows: pixels.len(),
                        cols: filters,
                        padded: true,
                        to: y.add(first * plane + rows.start * p.grid[1] + s * STRIP),
                        to_row: plane,
                    };
                    dispatch(self.isa, &transpose);
                }
            }
        }
    }
}
