//! Forward and ∂X as one operation: windows over a padded image, and where their results go.

use super::{Geometry, along, frame::Frame, geometry::volume};
use crate::kernels::gemm::tile_rows;
use std::ops::Range;

/// The axis along which vectors run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Along the rows of the image.
    Along,
    /// Along the filters.
    Spread,
}

/// What an instruction set offers to a scalar type: elements of a vector, and whether there are 32 registers or 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub lanes: usize,
    pub wide: bool,
}

/// Windows at every pixel of a grid, which all see the same taps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    pub way: Way,
    pub grid: [usize; 2],
    /// The result's pixel of the first window.
    pub first: [usize; 2],
    /// The least and the greatest row of the frame that the first window sees.
    pub rows: [usize; 2],
    /// Its part of `taps`, and of `off`.
    taps: [usize; 2],
    off: [usize; 2],
    /// The beginning of its part of `pixels` or `vectors`, and vectors of a row of the grid.
    places: usize,
    row_vectors: usize,
    /// Filters side by side in the packed weights, which begin here in those of a group.
    pub panel: usize,
    pub weights: usize,
}

/// A sum over windows: result[o] = bias[o] + Σ over channels i and taps t of w(o, i, t) · source[i] at t.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    /// Channels of a group, of the source and of the result.
    pub inputs: usize,
    pub outputs: usize,
    pub source: [usize; 2],
    pub result: [usize; 2],
    pub frame: Frame,
    /// From a window to the next in rows of the frame, and in pixels of the result.
    pub stride: usize,
    pub step: [usize; 2],
    /// w(o, i, t) = w[o·w_out + i·w_in + t] in the weights of a group.
    pub w_out: usize,
    pub w_in: usize,
    /// Packed weights of a group.
    pub weights: usize,
    pub passes: Vec<Pass>,
    /// The taps (r, s), numbered r·S + s.
    taps: Vec<usize>,
    /// Offsets of the taps in all channels of a group.
    off: Vec<usize>,
    /// `Spread`: the offset of each pixel.
    pixels: Vec<usize>,
    /// `Along`: where each vector begins in the frame, and in the plane of results.
    vectors: Vec<[usize; 2]>,
}

/// The windows along an axis that see the same taps.
#[derive(Clone, Copy, Debug)]
struct Phase {
    /// The first result, and how many.
    first: usize,
    count: usize,
    /// Which remainder of t·dilation by the stride its taps have; tap t is at source place `place − t·dilation / stride`.
    rest: usize,
    place: isize,
}

fn phase(g: &Geometry<2>, axis: usize, first: usize) -> Phase {
    let (stride, at) = (g.stride[axis], first + g.padding[axis][0]);
    let count = (g.input[axis] - first).div_ceil(stride);
    Phase { first, count, rest: at % stride, place: (at / stride) as isize }
}

impl Phase {
    /// The taps, and the places that the first result takes them from.
    fn taps(self, g: &Geometry<2>, axis: usize) -> impl Iterator<Item = (usize, isize)> + Clone {
        let (dilation, stride) = (g.dilation[axis], g.stride[axis]);
        (0..g.kernel[axis])
            .filter(move |t| t * dilation % stride == self.rest)
            .map(move |t| (t, self.place - (t * dilation / stride) as isize))
    }
}

/// The cheaper axis for an image, and an estimate of its half cycles: two vectors are multiplied
/// in a cycle, a panel of one vector loses a quarter, and a pixel's results take 12 to transpose. The example `conv_peak` shows what
/// it chooses.
pub(super) fn way(target: Target, outputs: usize, depth: usize, grid: [usize; 2]) -> (Way, usize) {
    let panels = outputs.div_ceil(target.lanes);
    let tap = (depth.saturating_mul(if panels == 1 { 5 } else { 4 }) / 4).saturating_add(12);
    let spread = volume([grid[0], grid[1], panels, tap]);
    let row = grid[1].div_ceil(target.lanes);
    let single = if outputs == 1 { 2 } else { 1 };
    let along = volume([grid[0], row, outputs, depth.saturating_mul(single).saturating_add(3)]);
    if along <= spread { (Way::Along, along) } else { (Way::Spread, spread) }
}

/// How many rows of neighbours a row of the frame is split into: one for each remainder by the stride, where vectors run over
/// windows that far apart.
pub(super) fn phases(way: Way, g: &Geometry<2>) -> usize {
    if way == Way::Along && g.output()[1] > 1 { g.stride[1] } else { 1 }
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            inputs: 0,
            outputs: 0,
            source: [0; 2],
            result: [0; 2],
            frame: Frame::new::<f32>([0; 2], 0, [0; 2], [0; 2], 1),
            stride: 1,
            step: [1; 2],
            w_out: 0,
            w_in: 0,
            weights: 0,
            passes: Vec::new(),
            taps: Vec::new(),
            off: Vec::new(),
            pixels: Vec::new(),
            vectors: Vec::new(),
        }
    }
}

impl Windows {
    fn clear(&mut self) {
        self.weights = 0;
        self.passes.clear();
        self.taps.clear();
        self.off.clear();
        self.pixels.clear();
        self.vectors.clear();
    }

    /// y = w ⋆ x
    pub(super) fn forward<T>(&mut self, g: &Geometry<2>, target: Target) {
        self.clear();
        let taps = g.kernel[0] * g.kernel[1];
        (self.inputs, self.outputs) = (g.group_channels(), g.group_filters());
        (self.source, self.result) = (g.input, g.output());
        (self.stride, self.step) = (g.stride[0], [1, 1]);
        (self.w_out, self.w_in) = (self.inputs * taps, taps);
        let lo: [isize; 2] = std::array::from_fn(|axis| -(g.padding[axis][0] as isize));
        let hi = std::array::from_fn(|axis| {
            lo[axis] + ((self.result[axis] - 1) * g.stride[axis] + g.reach(axis)) as isize
        });
        let way = way(target, self.outputs, self.inputs * taps, self.result).0;
        self.frame = Frame::new::<T>(g.input, self.inputs, lo, hi, phases(way, g));
        let step = if way == Way::Along { 1 } else { g.stride[1] };
        let all = (0..taps).map(|t| {
            let (r, s) = (t / g.kernel[1], t % g.kernel[1]);
            (t, [r * g.dilation[0], s * g.dilation[1]])
        });
        self.pass(way, target, self.result, [0, 0], step, all);
    }

    /// dx = wᵀ ⋆ dy: one pass for each phase of the stride.
    pub(super) fn input_gradient<T>(&mut self, g: &Geometry<2>, target: Target) {
        self.clear();
        let taps = g.kernel[0] * g.kernel[1];
        (self.inputs, self.outputs) = (g.group_filters(), g.group_channels());
        (self.source, self.result) = (g.output(), g.input);
        (self.stride, self.step) = (1, g.stride);
        (self.w_out, self.w_in) = (taps, self.outputs * taps);
        let phases = |axis: usize| (0..g.stride[axis].min(g.input[axis])).map(move |i| phase(g, axis, i));
        let (mut lo, mut hi) = ([0; 2], [0; 2]);
        for axis in 0..2 {
            let ends = phases(axis)
                .flat_map(|p| p.taps(g, axis).map(move |(_, place)| (place, place + p.count as isize)));
            lo[axis] = ends.clone().map(|e| e.0).min().unwrap_or(0);
            hi[axis] = ends.map(|e| e.1).max().unwrap_or(0);
        }
        self.frame = Frame::new::<T>(g.output(), self.inputs, lo, hi, 1);
        for p in phases(0) {
            for q in phases(1) {
                let all = p.taps(g, 0).flat_map(|(r, i)| {
                    q.taps(g, 1).map(move |(s, j)| {
                        (r * g.kernel[1] + s, [(i - lo[0]) as usize, (j - lo[1]) as usize])
                    })
                });
                let grid = [p.count, q.count];
                let way = way(target, self.outputs, self.inputs * all.clone().count(), grid).0;
                self.pass(way, target, grid, [p.first, q.first], 1, all);
            }
        }
    }

    /// Adds a pass; `all` are its taps and where the first window sees them in the frame.
    fn pass(
        &mut self,
        way: Way,
        target: Target,
        grid: [usize; 2],
        first: [usize; 2],
        step: usize,
        all: impl Iterator<Item = (usize, [usize; 2])> + Clone,
    ) {
        let (taps, off) = (self.taps.len(), self.off.len());
        self.taps.extend(all.clone().map(|(t, _)| t));
        for channel in 0..self.inputs {
            let frame = &self.frame;
            self.off.extend(all.clone().map(|(_, [i, j])| channel * frame.plane + frame.at(i, j)));
        }
        let rows = all.fold([usize::MAX, 0], |rows, (_, [i, _])| [rows[0].min(i), rows[1].max(i)]);
        let (places, mut row_vectors) = match way {
            Way::Spread => (self.pixels.len(), 0),
            Way::Along => (self.vectors.len(), grid[1].div_ceil(target.lanes)),
        };
        // Results whose pixels are not contiguous are made in a plane of their own.
        let result_row = if self.step == [1, 1] { self.result[1] } else { grid[1] };
        for i in 0..grid[0] {
            let from = i * self.stride * self.frame.row;
            match way {
                Way::Spread => self.pixels.extend((0..grid[1]).map(|j| from + j * step)),
                Way::Along => self.vectors.extend((0..row_vectors).map(|v| {
                    // The last vector ends with the row, and overlaps the one before.
                    let j = (v * target.lanes).min(grid[1].saturating_sub(target.lanes));
                    [from + j * step, i * result_row + j]
                })),
            }
        }
        if grid[1] == 0 {
            row_vectors = 0;
        }
        let panel = match way {
            Way::Spread => 2 * target.lanes,
            Way::Along => {
                let vectors = [8, 4].into_iter().find(|&v| self.outputs <= along::most(target.wide, v));
                tile_rows(self.outputs, along::most(target.wide, vectors.unwrap_or(2)))
            }
        };
        let depth = self.off.len() - off;
        self.passes.push(Pass {
            way,
            grid,
            first,
            rows,
            taps: [taps, self.taps.len()],
            off: [off, self.off.len()],
            places,
            row_vectors,
            panel,
            weights: self.weights,
        });
        self.weights += match way {
            Way::Spread => self.outputs.next_multiple_of(target.lanes) * depth,
            Way::Along => self.outputs * depth,
        };
    }

    pub(super) fn taps(&self, p: &Pass) -> &[usize] {
        &self.taps[p.taps[0]..p.taps[1]]
    }

    pub(super) fn off(&self, p: &Pass) -> &[usize] {
        &self.off[p.off[0]..p.off[1]]
    }

    /// The pixels of some rows of the grid.
    pub(super) fn pixels(&self, p: &Pass, rows: Range<usize>) -> &[usize] {
        &self.pixels[p.places + rows.start * p.grid[1]..p.places + rows.end * p.grid[1]]
    }

    /// The vectors of some rows of the grid.
    pub(super) fn vectors(&self, p: &Pass, rows: Range<usize>) -> &[[usize; 2]] {
        &self.vectors[p.places + rows.start * p.row_vectors..p.places + rows.end * p.row_vectors]
    }
}
