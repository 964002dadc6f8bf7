//! Many small images: vectors along the images, so that no lane is empty however short the rows are, and no zero around
//! an image is multiplied.
//!
//! ```text
//! result[n, o, i, j] = bias[o] + Σ over c and the taps (r, s) inside the source of
//!                      w(o, c, r, s) · source[n, c, i·stride + r·step + lead, j·stride + s·step + lead]
//! ```
//!
//! for vectors of n: y with the dilation as step, ∂x (at stride 1) with the dilation backwards.
//!
//! A block of images is transposed so that the batch is innermost; the results are transposed back, a few pixels at
//! a time. Each sum has the same order as without a stack.

use super::{
    Geometry, Slot,
    correlate::{self, Packed},
    geometry::volume,
    windows::{Target, way},
};
use crate::{
    Scalar,
    kernels::{
        Isa,
        dispatch::{Kernel, Set, dispatch},
        lanes::Lanes,
        transpose::Transpose,
    },
};
use std::{ops::Range, ptr};

/// Vectors of a block of images.
const VECTORS: usize = 2;

/// Images of a block.
pub(super) const fn block(lanes: usize) -> usize {
    VECTORS * lanes
}

/// A convolution, or ∂X of one at stride 1, as sums over the taps inside the image.
#[derive(Clone, Debug, Default)]
pub(super) struct Stack {
    /// Channels of a group, of the source and of the result.
    inputs: usize,
    outputs: usize,
    source: [usize; 2],
    result: [usize; 2],
    kernel: [usize; 2],
    /// The distance between taps in pixels of the source, along each axis.
    step: [isize; 2],
    /// For each row and each column of the result, the taps inside the source, and where the first of them is.
    taps: [Vec<Inside>; 2],
    /// w(o, i, t) = w[o·w_out + i·w_in + t] in the weights of a group.
    w_out: usize,
    w_in: usize,
    /// Half cycles that an image costs here, and by sums over windows.
    cost: [usize; 2],
}

/// Of a row or a column of the result, the taps inside the source: the first, how many, and where the first is.
#[derive(Clone, Copy, Debug)]
struct Inside {
    first: usize,
    count: usize,
    place: usize,
}

/// Whether there are enough images to consider a stack: fewer would leave more lanes empty than rows do.
pub(super) fn enough(g: &Geometry<2>, target: Target) -> bool {
    g.images > target.lanes && !g.is_single()
}

impl Stack {
    /// y = w ⋆ x
    pub(super) fn forward(&mut self, g: &Geometry<2>, target: Target) {
        let taps = g.kernel[0] * g.kernel[1];
        (self.inputs, self.outputs) = (g.group_channels(), g.group_filters());
        (self.source, self.result) = (g.input, g.output());
        (self.w_out, self.w_in) = (self.inputs * taps, taps);
        let lead = g.padding.map(|p| -(p[0] as isize));
        self.set(
            g,
            target,
            [g.stride[0] as isize, g.stride[1] as isize],
            lead,
            g.dilation.map(|d| d as isize),
        );
    }

    /// dx = wᵀ ⋆ dy, where the stride is 1.
    pub(super) fn input_gradient(&mut self, g: &Geometry<2>, target: Target) {
        let taps = g.kernel[0] * g.kernel[1];
        (self.inputs, self.outputs) = (g.group_filters(), g.group_channels());
        (self.source, self.result) = (g.output(), g.input);
        (self.w_out, self.w_in) = (taps, self.outputs * taps);
        let lead = g.padding.map(|p| p[0] as isize);
        self.set(g, target, [1, 1], lead, g.dilation.map(|d| -(d as isize)));
    }

    /// Result i sees tap t at source place i·stride + t·step + lead.
    fn set(
        &mut self,
        g: &Geometry<2>,
        target: Target,
        stride: [isize; 2],
        lead: [isize; 2],
        step: [isize; 2],
    ) {
        (self.kernel, self.step) = (g.kernel, step);
        for axis in 0..2 {
            self.taps[axis].clear();
            let (source, kernel) = (self.source[axis], g.kernel[axis]);
            let (result, stride, step, lead) = (self.result[axis], stride[axis], step[axis], lead[axis]);
            self.taps[axis]
                .extend((0..result as isize).map(|i| inside(i * stride + lead, step, kernel, source)));
        }
        let inside = |axis: usize| self.taps[axis].iter().map(|m| m.count).sum::<usize>();
        // A tile of few outputs waits for its own sums. All but the last tiles are of one height.
        let most = height(target.wide, usize::MAX);
        let mut tiles = self.outputs / most;
        let (mut sums, mut o) = (tiles * most, tiles * most);
        while o < self.outputs {
            let rows = height(target.wide, self.outputs - o);
            (tiles, sums, o) = (tiles + 1, sums + rows.max(4), o + rows);
        }
        let [source, result] = [self.source, self.result].map(volume);
        let sums = volume([sums, self.inputs, inside(0), inside(1)]) / target.lanes
            + volume([tiles, result, 12]) / block(target.lanes);
        let moved = volume([self.inputs, source]).saturating_add(volume([self.outputs, result]));
        self.cost = [
            sums.saturating_add(moved.saturating_mul(24) / target.lanes),
            way(target, self.outputs, volume([self.inputs, g.kernel[0], g.kernel[1]]), self.result).1,
        ];
    }

    /// Whether it is the cheaper method for so many images.
    pub(super) fn pays(&self, images: usize, target: Target) -> bool {
        let [stacked, windows] = self.cost.map(|cost| cost as u128);
        stacked * (images.next_multiple_of(block(target.lanes)) as u128) < windows * images as u128
    }

    /// Elements of a piece's memory.
    pub(super) fn slot_len(&self, lanes: usize) -> usize {
        let (inputs, outputs) = (volume([self.inputs, volume(self.source)]), volume([self.outputs, lanes]));
        inputs.saturating_add(outputs).saturating_mul(block(lanes))
    }

    /// The weights in panels of as many outputs as the tiles have.
    pub(super) fn pack<T: Scalar>(
        &self,
        isa: Isa,
        target: Target,
        groups: usize,
        w: &[T],
        packed: &mut Packed<T>,
    ) {
        let taps = self.kernel[0] * self.kernel[1];
        packed.weights.reset(w.len());
        let mut panels = packed.weights.as_mut_slice();
        for w in w.chunks((w.len() / groups).max(1)) {
            let mut first = 0;
            while first < self.outputs {
                let rows = height(target.wide, self.outputs - first);
                let (panel, rest) = panels.split_at_mut(rows * taps * self.inputs);
                // The taps of a channel are contiguous, or even those of all channels.
                let cols = if self.w_out == self.inputs * taps { panel.len() / rows } else { taps };
                for (i, to) in panel.chunks_mut(rows * cols).enumerate() {
                    let from = &w[first * self.w_out + i * self.w_in..];
                    assert!((rows - 1) * self.w_out + cols <= from.len());
                    let (from, from_row, to) = (from.as_ptr(), self.w_out, to.as_mut_ptr());
                    let transpose = Transpose { from, from_row, rows, cols, padded: false, to, to_row: rows };
                    // SAFETY: both matrices lie in the slices; the caller's `isa` is the processor's.
                    unsafe { dispatch(isa, &transpose) };
                }
                (panels, first) = (rest, first + rows);
            }
        }
    }
}

/// A stack with its operands.
pub(super) struct Stacked<'a, T> {
    pub isa: Isa,
    pub target: Target,
    pub stack: &'a Stack,
    pub g: &'a Geometry<2>,
    pub packed: &'a Packed<T>,
    pub bias: Option<&'a [T]>,
    pub source: *const T,
    pub result: *mut T,
}

// SAFETY: it represents shared borrows and an exclusive one, of which each piece gets its own images or rows.
unsafe impl<T: Sync> Sync for Stacked<'_, T> {}

impl<T: Scalar> Stacked<'_, T> {
    /// All images, in at most `pieces` pieces.
    ///
    /// # Safety
    /// The operands are as long as the geometry says, the result is borrowed exclusively, and the processor has `isa`.
    pub(super) unsafe fn run(&self, pieces: usize, slots: &mut Vec<Slot<T>>) {
        let blocks = self.g.images.div_ceil(block(self.target.lanes));
        correlate::share(
            slots,
            pieces,
            blocks,
            |_| (),
            |slot, block, [from, to, cuts]| {
                let rows = self.stack.result[0] * from / cuts..self.stack.result[0] * to / cuts;
                for group in 0..self.g.groups {
                    // SAFETY: the caller's; pieces have different images or different rows.
                    unsafe { self.block(block, group, rows.clone(), slot) };
                }
            },
        );
    }

    /// Some rows of the results of a group, for a block of images.
    unsafe fn block(&self, block: usize, group: usize, rows: Range<usize>, slot: &mut Slot<T>) {
        let (s, g, lanes) = (self.stack, self.g, self.target.lanes);
        let width = self::block(lanes);
        let images = width.min(g.images - block * width);
        let [source, result] = [s.source, s.result].map(|[h, w]| h * w);
        let first = block * width * g.groups + group;
        let taps = s.kernel[0] * s.kernel[1];
        let needed = s.taps[0][rows.clone()].iter().filter(|m| m.count > 0).map(|m| {
            let last = m.place.wrapping_add_signed((m.count as isize - 1) * s.step[0]);
            [m.place.min(last), m.place.max(last) + 1]
        });
        let needed = needed.fold([usize::MAX, 0], |all, one| [all[0].min(one[0]), all[1].max(one[1])]);
        slot.frame.reset(s.inputs * source * width);
        slot.strip.reset(s.outputs * lanes * width);
        // SAFETY: the block's channels of these rows lie in the source, and its results in the result.
        unsafe {
            if needed[0] < needed[1] {
                let from = self.source.add(first * s.inputs * source);
                let row = g.groups * s.inputs * source;
                let pixels = needed[0] * s.source[1]..needed[1] * s.source[1];
                transpose_in(
                    self.isa,
                    (from, row, images),
                    (s.inputs, source, pixels),
                    slot.frame.as_mut_slice(),
                );
            }
            let ow = s.result[1];
            for p in (rows.start * ow..rows.end * ow).step_by(lanes) {
                let pixels = lanes.min(rows.end * ow - p);
                let strip = Strip {
                    x: slot.frame.as_slice().as_ptr(),
                    plane: source * width,
                    row: s.source[1] * width,
                    col: width,
                    step: [s.step[0] * (s.source[1] * width) as isize, s.step[1] * width as isize],
                    inputs: s.inputs,
                    kernel: s.kernel,
                    taps: [s.taps[0].as_ptr(), s.taps[1].as_ptr()],
                    first: [p / ow, p % ow],
                    pixels,
                    cols: ow,
                    w: self.packed.weights.as_slice()[group * s.outputs * s.inputs * taps..].as_ptr(),
                    outputs: s.outputs,
                    bias: self.bias.map_or(ptr::null(), |b| b[group * s.outputs..].as_ptr()),
                    y: slot.strip.as_mut_slice().as_mut_ptr(),
                };
                dispatch(self.isa, &strip);
                for o in 0..s.outputs {
                    let transpose = Transpose {
                        from: strip.y.add(o * lanes * width),
                        from_row: width,
                        rows: pixels,
                        cols: images,
                        padded: true,
                        to: self.result.add((first * s.outputs + o) * result + p),
                        to_row: g.groups * s.outputs * result,
                    };
                    dispatch(self.isa, &transpose);
                }
            }
        }
    }
}

/// Some pixels of all planes of a block of images, one image below the other, transposed: pixel p of plane c of image i goes to
/// `to[(c·plane + p)·width + i]`, and zeros to the lanes that have no image.
///
/// # Safety
/// The images are `row` elements apart at `from`, and contain the planes.
pub(super) unsafe fn transpose_in<T: Scalar>(
    isa: Isa,
    (from, row, images): (*const T, usize, usize),
    (planes, plane, pixels): (usize, usize, Range<usize>),
    to: &mut [T],
) {
    let width = to.len() / (planes * plane).max(1);
    if images < width {
        to.fill(T::ZERO);
    }
    let (count, cols) = if pixels.len() == plane { (1, planes * plane) } else { (planes, pixels.len()) };
    for c in 0..count {
        let at = c * plane + pixels.start;
        let transpose = Transpose {
            from: from.wrapping_add(at),
            from_row: row,
            rows: images,
            cols,
            padded: false,
            to: to[at * width..].as_mut_ptr(),
            to_row: width,
        };
        // SAFETY: the caller's; `to` is planes × plane × width.
        unsafe { dispatch(isa, &transpose) };
    }
}

/// Some pixels of the result for a block of transposed images.
#[derive(Clone, Copy)]
struct Strip<T> {
    /// Pixel (i, j) of channel c at `x[c·plane + i·row + j·col ..]`, a block of images each.
    x: *const T,
    plane: usize,
    row: usize,
    col: usize,
    /// The distance between taps.
    step: [isize; 2],
    inputs: usize,
    kernel: [usize; 2],
    /// One a row, and one a column of the result.
    taps: [*const Inside; 2],
    first: [usize; 2],
    pixels: usize,
    cols: usize,
    /// Panels of as many outputs as a tile has, inputs × taps × outputs.
    w: *const T,
    outputs: usize,
    /// One an output, or null.
    bias: *const T,
    /// Output o, pixel p at `y[(o·N + p)·block ..]`.
    y: *mut T,
}

impl<T: Scalar> Kernel for Strip<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { strip::<S::Of<T>>(self) }
    }
}

/// The taps t of `kernel` whose places first + t·step lie in 0..source; they are consecutive.
fn inside(first: isize, step: isize, kernel: usize, source: usize) -> Inside {
    let (source, floor) = (source as isize, isize::div_euclid);
    let (low, high) = if step > 0 {
        (-floor(first, step), -floor(first - source, step))
    } else {
        (floor(first - source, -step) + 1, floor(first, -step) + 1)
    };
    let (low, high) = (low.max(0), high.min(kernel as isize));
    if low >= high {
        return Inside { first: 0, count: 0, place: 0 };
    }
    Inside { first: low as usize, count: (high - low) as usize, place: (first + low * step) as usize }
}

/// Outputs of a tile, of `left` that remain.
fn height(wide: bool, left: usize) -> usize {
    let heights: &[usize] = if wide { &[8, 6, 4, 2, 1] } else { &[6, 4, 2, 1] };
    heights.iter().copied().find(|&h| h <= left).unwrap_or(1)
}

#[inline(always)]
unsafe fn strip<L: Lanes>(s: &Strip<L::T>) {
    let [mut i, mut j] = s.first;
    for p in 0..s.pixels {
        // SAFETY: the row and the column exist; the taps inside the source lie in it.
        unsafe {
            let (row, col) = (*s.taps[0].add(i), *s.taps[1].add(j));
            let x = s.x.add(row.place * s.row + col.place * s.col);
            let mut o = 0;
            while o < s.outputs {
                let rows = height(const { size_of::<L>() == 64 }, s.outputs - o);
                match rows {
                    1 => tile::<L, 1>(s, [row, col], x, o, p),
                    2 => tile::<L, 2>(s, [row, col], x, o, p),
                    4 => tile::<L, 4>(s, [row, col], x, o, p),
                    6 => tile::<L, 6>(s, [row, col], x, o, p),
                    8 if const { size_of::<L>() == 64 } => tile::<L, 8>(s, [row, col], x, o, p),
                    _ => unreachable!("a tile of {rows} outputs"),
                }
                o += rows;
            }
        }
        j += 1;
        if j == s.cols {
            (i, j) = (i + 1, 0);
        }
    }
}

/// R outputs from o on at pixel p, whose first tap is at x.
#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize>(
    s: &Strip<L::T>,
    [row, col]: [Inside; 2],
    mut x: *const L::T,
    o: usize,
    p: usize,
) {
    // SAFETY: the outputs exist, and the taps lie in the source.
    unsafe {
        let mut acc = [[L::splat(L::T::ZERO); VECTORS]; R];
        if !s.bias.is_null() {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = [L::splat(*s.bias.add(o + r)); VECTORS];
            }
        }
        let taps = s.kernel[0] * s.kernel[1];
        let mut w = s.w.add(o * s.inputs * taps + (row.first * s.kernel[1] + col.first) * R);
        for _ in 0..s.inputs {
            let (mut x_row, mut w_row) = (x, w);
            for _ in 0..row.count {
                let (mut x_tap, mut w_tap) = (x_row, w_row);
                for _ in 0..col.count {
                    let xs = [L::load(x_tap), L::load(x_tap.add(L::N))];
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let w = L::splat(*w_tap.add(r));
                        for (acc, x) in acc.iter_mut().zip(xs) {
                            *acc = w.mul_add(x, *acc);
                        }
                    }
                    (x_tap, w_tap) = (x_tap.wrapping_offset(s.step[1]), w_tap.wrapping_add(R));
                }
                (x_row, w_row) = (x_row.wrapping_offset(s.step[0]), w_row.wrapping_add(s.kernel[1] * R));
            }
            (x, w) = (x.wrapping_add(s.plane), w.wrapping_add(taps * R));
        }
        for (r, acc) in acc.iter().enumerate() {
            let y = s.y.add(((o + r) * L::N + p) * VECTORS * L::N);
            acc[0].store(y);
            acc[1].store(y.add(L::N));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_inside_are_those_that_a_loop_finds() {
        for (kernel, source) in [(1, 1), (1, 5), (3, 4), (5, 3), (7, 1), (2, 0)] {
            for (first, step) in (-12..12isize).flat_map(|f| [-3, -2, -1, 1, 2, 3].map(|s| (f, s))) {
                let place = |t: usize| first + t as isize * step;
                let mut all = (0..kernel).filter(|&t| (0..source as isize).contains(&place(t)));
                let want = all.next().map(|t| (t, 1 + all.count(), place(t) as usize));
                let got = inside(first, step, kernel, source);
                let got = (got.count > 0).then_some((got.first, got.count, got.place));
                assert_eq!(got, want, "{kernel} taps from {first} by {step} over {source}");
            }
        }
    }

    /// 2¹⁶ windows of 2¹⁶ taps: a table of either axis is counted, not walked.
    #[test]
    fn a_stack_of_large_windows_is_planned_at_once() {
        let g = Geometry {
            images: 1 << 20,
            channels: 1,
            filters: 1 << 31,
            groups: 1,
            input: [2, 2],
            kernel: [1 << 16; 2],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [[(1 << 16) - 2; 2]; 2],
        };
        let (mut stack, begun) = (Stack::default(), std::time::Instant::now());
        for wide in [false, true] {
            stack.forward(&g, Target { lanes: 8, wide });
            stack.input_gradient(&g, Target { lanes: 8, wide });
        }
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    }
}
