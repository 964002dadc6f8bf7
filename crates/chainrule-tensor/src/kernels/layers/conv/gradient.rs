//! ∂W: shares of the images whose sums are added in a fixed order.

use super::{
    Geometry, Slot,
    frame::Frame,
    spread::Spread,
    taps::Taps,
    windows::{self, Way},
};
use crate::{
    Scalar,
    disjoint::Disjoint,
    kernels::{
        Isa,
        dispatch::dispatch,
        gemm::{self, Buffer, Epilogue, LONG, Mat, MatMut},
        reduce::DEPTH,
        transpose::Transpose,
    },
    par,
};

/// Multiply-adds that are worth a share of their own, 18 µs at the peak of a Zen 4 core, and most shares.
const SHARE: u64 = 1 << 20;
const SHARES: u64 = 8;
/// Most elements that all shares' sums take: 16 MiB in f32.
const SUMS: usize = 4 << 20;
/// Pixels that are combined with all filters and taps before the next, along the filters; twice as many along the
/// rows, where dy takes fewer bytes: a panel of 512 × 32 elements of dy is 64 KiB in f32.
const PIXELS: usize = 512;

/// Pixels, or vectors of them, whose products a lane takes before the next level of the sums, where those have more than [`LONG`]
/// addends: few enough for the rounding, and many enough that to add up the parts takes a twentieth of the time.
const PART: usize = 2 * DEPTH;

/// How ∂W is computed; the same for any number of images.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    way: Way,
    /// Windows are single pixels side by side: dW of a group is a product.
    single: bool,
    frame: Frame,
    /// Offsets of the taps of all channels of a group.
    off: Vec<usize>,
    /// `Spread`: the offset of each pixel.
    pixels: Vec<usize>,
    /// `Along`: where each whole vector begins in the frame and in the plane of dy, and each end of a row.
    whole: Vec<[usize; 2]>,
    ends: Vec<[usize; 2]>,
    /// Filters that are computed together, and the elements that their sums take.
    block: usize,
    sums: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            way: Way::Along,
            single: false,
            frame: Frame::new::<f32>([0; 2], 0, [0; 2], [0; 2], 1),
            off: Vec::new(),
            pixels: Vec::new(),
            whole: Vec::new(),
            ends: Vec::new(),
            block: 1,
            sums: 0,
        }
    }
}

impl Plan {
    pub(super) fn set<T: Scalar>(&mut self, g: &Geometry<2>) {
        let ([oh, ow], lanes) = (g.output(), T::LANES);
        let taps = g.kernel[0] * g.kernel[1] * g.group_channels();
        (self.way, self.single, self.block, self.sums) = choose::<T>(g);
        let lo: [isize; 2] = std::array::from_fn(|axis| -(g.padding[axis][0] as isize));
        let hi = std::array::from_fn(|axis| {
            lo[axis] + ((g.output()[axis] - 1) * g.stride[axis] + g.reach(axis)) as isize
        });
        let frame = Frame::new::<T>(g.input, g.group_channels(), lo, hi, windows::phases(self.way, g));
        self.frame = frame;
        for list in [&mut self.off, &mut self.pixels] {
            list.clear();
        }
        for list in [&mut self.whole, &mut self.ends] {
            list.clear();
        }
        let (rs, s) = (g.kernel[0] * g.kernel[1], g.kernel[1]);
        self.off.extend(
            (0..taps)
                .map(|t| t / rs * frame.plane + frame.at(t % rs / s * g.dilation[0], t % s * g.dilation[1])),
        );
        for i in 0..oh {
            let from = i * g.stride[0] * frame.row;
            match self.way {
                Way::Spread => self.pixels.extend((0..ow).map(|j| from + j * g.stride[1])),
                Way::Along => {
                    let whole = ow / lanes * lanes;
                    let whole_vectors = (0..whole).step_by(lanes);
                    self.whole.extend(whole_vectors.map(|j| [from + j, i * ow + j]));
                    self.ends.extend((whole < ow).then_some([from + whole, i * ow + whole]));
                }
            }
        }
    }
}

/// The levels of long sums: a part, which is added to the sums, and those to the totals.
#[derive(Default)]
pub(super) struct Levels<T> {
    part: Vec<T>,
    totals: Vec<f64>,
    parts: usize,
}

impl<T: Scalar> Levels<T> {
    /// For `len` sums.
    fn reset(&mut self, len: usize) {
        self.part.clear();
        self.totals.clear();
        self.parts = 0;
        self.part.resize(len, T::ZERO);
        self.totals.resize(len, 0.0);
    }

    /// Begins the next part.
    fn next(&mut self, sums: &mut [T]) {
        for (sum, part) in sums.iter_mut().zip(&mut self.part) {
            *sum += *part;
            *part = T::ZERO;
        }
        self.parts += 1;
        if self.parts == DEPTH {
            self.settle(sums);
        }
    }

    fn settle(&mut self, sums: &mut [T]) {
        for (total, sum) in self.totals.iter_mut().zip(sums) {
            *total += sum.to_f64();
            *sum = T::ZERO;
        }
        self.parts = 0;
    }

    /// sums = the totals.
    fn finish(&mut self, sums: &mut [T]) {
        self.settle(sums);
        sums.iter_mut().zip(&self.totals).for_each(|(sum, &total)| *sum = T::from_f64(total));
    }
}

/// How ∂W is computed, whether its windows are single pixels, how many filters are computed together, and the elements that
/// their sums take. By the lanes of a sum and not of a vector: the bits are those of any instruction set.
fn choose<T: Scalar>(g: &Geometry<2>) -> (Way, bool, usize, usize) {
    let ([oh, ow], lanes) = (g.output(), T::LANES);
    let taps = g.kernel[0] * g.kernel[1] * g.group_channels();
    let filters = g.group_filters();
    // In half cycles: sums along the filters need dy transposed; those along the rows are kept in vectors, and load
    // two elements, most of them across cache lines, for each that the others load.
    let panels = filters.div_ceil(lanes);
    let spread = oh * ow * panels * (taps * if panels == 1 { 5 } else { 4 } / 4 + 12);
    let along = filters * taps * (oh * ow.div_ceil(lanes) * 7 / 4 + 6);
    let small = filters * taps * lanes * g.groups <= SUMS / SHARES as usize;
    let way = if along <= spread && small { Way::Along } else { Way::Spread };
    let single = g.is_single() && taps * filters >= 256;
    let (block, sums) = match way {
        _ if single => (2 * lanes, 2 * lanes * taps),
        Way::Spread => (2 * lanes, 2 * lanes * taps),
        Way::Along => (6, filters.min(6) * taps * lanes),
    };
    (way, single, block, sums)
}

/// The shares of the images, for blocks of filters whose sums take so many elements.
fn shares(g: &Geometry<2>, blocks: usize, sums: usize) -> usize {
    let room = (SUMS / (blocks * sums).max(1)).max(1) as u64;
    let shares = (g.multiply_adds() / SHARE).min(SHARES).min(room).clamp(1, g.images.max(1) as u64) as usize;
    // A power of two divides evenly among two and four threads.
    1 << shares.ilog2()
}

/// Elements of the sums of ∂W, before there is a plan; of work that no machine does, some.
pub(super) fn sums_len<T: Scalar>(g: &Geometry<2>) -> usize {
    let g = &g.flat(T::LANES);
    if g.multiply_adds() > 1 << 48 {
        return g.w_len();
    }
    let (_, _, block, sums) = choose::<T>(g);
    let blocks = g.groups * g.group_filters().div_ceil(block);
    shares(g, blocks, sums).saturating_mul(blocks).saturating_mul(sums)
}

/// ∂W's operands.
pub(super) struct Gradient<'a, T> {
    pub isa: Isa,
    /// Of a vector.
    pub lanes: usize,
    pub g: &'a Geometry<2>,
    /// How many products an element of dW is the sum of, in all calls together.
    pub addends: usize,
    pub plan: &'a Plan,
    pub x: &'a [T],
    pub dy: &'a [T],
}

impl<T: Scalar> Gradient<'_, T> {
    /// dw += dy ⋆ x, in at most `pieces` pieces.
    ///
    /// # Safety
    /// The slices are as long as the geometry says, and the processor has `isa`.
    pub(super) unsafe fn run(
        &self,
        pieces: usize,
        dw: &mut [T],
        sums: &mut Buffer<T>,
        slots: &mut Vec<Slot<T>>,
    ) {
        let (g, plan) = (self.g, self.plan);
        let blocks = g.groups * g.group_filters().div_ceil(plan.block);
        let shares = shares(g, blocks, plan.sums);
        // With few shares, pieces take some of the blocks each. A product chooses its way by its sizes, which must not depend on the
        // number of threads: it stays whole.
        let whole = plan.single || shares.is_multiple_of(pieces);
        let cuts = if whole { 1 } else { pieces.min(blocks) };
        let pieces = pieces.min(shares * cuts);
        if slots.len() < pieces {
            slots.resize_with(pieces, Slot::default);
        }
        sums.reset(shares * blocks * plan.sums);
        {
            let sums = &Disjoint::new(sums.as_mut_slice());
            let units = shares * cuts;
            par::for_chunks(&mut slots[..pieces], 1, |i, slot| {
                for unit in units * i / pieces..units * (i + 1) / pieces {
                    let (share, cut) = (unit / cuts, unit % cuts);
                    let images = g.images * share / shares..g.images * (share + 1) / shares;
                    let some = blocks * cut / cuts..blocks * (cut + 1) / cuts;
                    let from = (share * blocks + some.start) * plan.sums;
                    // SAFETY: units have different shares or different blocks.
                    let sums = unsafe { sums.part(from, some.len() * plan.sums) };
                    // SAFETY: the slices are as long as the geometry says, and the processor has `isa`.
                    unsafe { self.share(images, some, sums, &mut slot[0]) };
                }
            });
        }
        let sums = sums.as_mut_slice();
        let (first, others) = sums.split_at_mut(blocks * plan.sums);
        for other in others.chunks(blocks * plan.sums) {
            crate::kernels::elementwise::add_assign(first, other);
        }
        self.finish(first, dw);
    }

    /// The sums of some images for some blocks of filters.
    unsafe fn share(
        &self,
        images: std::ops::Range<usize>,
        blocks: std::ops::Range<usize>,
        sums: &mut [T],
        slot: &mut Slot<T>,
    ) {
        let (g, plan) = (self.g, self.plan);
        let [oh, ow] = g.output();
        sums.fill(T::ZERO);
        let mut memory = std::mem::take(&mut slot.levels);
        let mut levels = (self.addends > LONG).then_some(&mut memory);
        if let Some(levels) = &mut levels {
            levels.reset(sums.len());
        }
        if plan.single {
            self.products(images, sums, levels);
            slot.levels = memory;
            return;
        }
        plan.frame.prepare(&mut slot.frame);
        let (plane, per_group) = (oh * ow, g.group_filters().div_ceil(plan.block));
        let pixels = match (plan.way, &levels) {
            (Way::Along, None) => 2 * PIXELS,
            (Way::Along, Some(_)) => PART * T::LANES,
            (Way::Spread, None) => PIXELS,
            (Way::Spread, Some(_)) => PART,
        };
        let rows = (pixels / ow).clamp(1, oh);
        for image in images {
            let mut block = blocks.start;
            while block < blocks.end {
                let group = block / per_group;
                let end = blocks.end.min((group + 1) * per_group);
                let at = image * g.groups + group;
                let memory = slot.frame.as_mut_slice().as_mut_ptr();
                let x = self.x[at * g.group_channels() * g.input[0] * g.input[1]..].as_ptr();
                // SAFETY: the group's channels of the image; the frame's memory is this piece's.
                let x = unsafe { plan.frame.fill(self.isa, x, memory, [0, usize::MAX]) };
                for i in (0..oh).step_by(rows) {
                    let rows = i..oh.min(i + rows);
                    for block in block..end {
                        let first = block % per_group * plan.block;
                        let filters = plan.block.min(g.group_filters() - first);
                        let dy = &self.dy[(at * g.group_filters() + first) * plane..][..filters * plane];
                        let sums = levels.as_mut().map_or(&mut *sums, |levels| &mut levels.part);
                        let sums = &mut sums[(block - blocks.start) * plan.sums..][..plan.sums];
                        // SAFETY: the caller's; the sums are as long as a block's.
                        unsafe {
                            match plan.way {
                                Way::Along => self.along(rows.clone(), filters, x, dy, sums),
                                Way::Spread => self.spread(rows.clone(), filters, x, dy, sums, slot),
                            }
                        }
                    }
                    if let Some(levels) = &mut levels {
                        levels.next(sums);
                    }
                }
                block = end;
            }
        }
        if let Some(levels) = levels {
            levels.finish(sums);
        }
        slot.levels = memory;
    }

    /// dW += dY Xᵀ for each image and group; the blocks of a group are contiguous, so its sums are filters × channels.
    fn products(&self, images: std::ops::Range<usize>, sums: &mut [T], mut levels: Option<&mut Levels<T>>) {
        let (g, plan) = (self.g, self.plan);
        let (plane, filters, channels) = (g.input[0] * g.input[1], g.group_filters(), g.group_channels());
        let of_group = filters.div_ceil(plan.block) * plan.sums;
        for image in images {
            for group in 0..g.groups {
                let at = image * g.groups + group;
                let dy = Mat::new(&self.dy[at * filters * plane..], filters, plane);
                let x = Mat::new(&self.x[at * channels * plane..], channels, plane).t();
                let sums = levels.as_mut().map_or(&mut *sums, |levels| &mut levels.part);
                let dw = MatMut::new(&mut sums[group * of_group..], filters, channels);
                let whole = (self.isa, self.addends);
                gemm::product(whole, T::ONE, dy.into(), x.into(), T::ONE, dw, Epilogue::default());
            }
            if let Some(levels) = &mut levels {
                levels.next(sums);
            }
        }
        if let Some(levels) = levels {
            levels.finish(sums);
        }
    }

    unsafe fn along(
        &self,
        rows: std::ops::Range<usize>,
        filters: usize,
        x: *const T,
        dy: &[T],
        sums: &mut [T],
    ) {
        let (plan, lanes) = (self.plan, self.lanes);
        let [_, ow] = self.g.output();
        let (per_row, end) = (ow / T::LANES, ow % T::LANES);
        let whole = &plan.whole[rows.start * per_row..rows.end * per_row];
        let ends = if end == 0 { &[] } else { &plan.ends[rows] };
        let parts = sums.chunks_mut(filters * plan.off.len() * lanes);
        for (first, sums) in (0..T::LANES).step_by(lanes).zip(parts) {
            let width = end.saturating_sub(first).min(lanes);
            let job = Taps {
                x: x.wrapping_add(first),
                off: plan.off.as_ptr(),
                taps: plan.off.len(),
                dy: dy.as_ptr().wrapping_add(first),
                plane: dy.len() / filters,
                filters,
                whole: whole.as_ptr(),
                wholes: whole.len(),
                ends: ends.as_ptr(),
                end_count: if width == 0 { 0 } else { ends.len() },
                width,
                acc: sums.as_mut_ptr(),
            };
            // SAFETY: the vectors lie in dy and, at every tap, in x; a part of a block's sums holds filters × taps vectors.
            unsafe { dispatch(self.isa, &job) };
        }
    }

    unsafe fn spread(
        &self,
        rows: std::ops::Range<usize>,
        filters: usize,
        x: *const T,
        dy: &[T],
        sums: &mut [T],
        slot: &mut Slot<T>,
    ) {
        let (plan, lanes) = (self.plan, self.lanes);
        let ow = self.g.output()[1];
        let (plane, row) = (dy.len() / filters, filters.next_multiple_of(lanes));
        let pixels = &plan.pixels[rows.start * ow..rows.end * ow];
        for first in (0..filters).step_by(2 * lanes) {
            let filters = (2 * lanes).min(filters - first);
            let width = filters.next_multiple_of(lanes);
            slot.strip.reset(width * pixels.len());
            let transposed = slot.strip.as_mut_slice();
            if width != filters {
                transposed.fill(T::ZERO);
            }
            let transpose = Transpose {
                from: dy[first * plane + rows.start * ow..].as_ptr(),
                from_row: plane,
                rows: filters,
                cols: pixels.len(),
                padded: false,
                to: transposed.as_mut_ptr(),
                to_row: width,
            };
            let sums = &mut sums[first..];
            let job = Spread {
                x,
                at: plan.off.as_ptr(),
                rows: plan.off.len(),
                off: pixels.as_ptr(),
                depth: pixels.len(),
                b: transposed.as_ptr(),
                vectors: width / lanes,
                start: sums.as_ptr(),
                start_row: row,
                c: sums.as_mut_ptr(),
                c_row: row,
            };
            // SAFETY: the pixels lie in dy and, at every tap, in x; a block's sums contain taps rows of `row` elements, of which
            // these filters have `width` from `first` on.
            unsafe {
                dispatch(self.isa, &transpose);
                dispatch(self.isa, &job);
            }
        }
    }

    /// dw += the sums.
    fn finish(&self, sums: &[T], dw: &mut [T]) {
        let (g, plan, lanes) = (self.g, self.plan, self.lanes);
        let (taps, of_group) = (plan.off.len(), g.group_filters());
        let per_group = of_group.div_ceil(plan.block);
        for (block, sums) in sums.chunks(plan.sums).enumerate() {
            let first = block % per_group * plan.block;
            let filters = plan.block.min(of_group - first);
            let dw = &mut dw[(block / per_group * of_group + first) * taps..][..filters * taps];
            match plan.way {
                _ if plan.single => {
                    for (dw, &sum) in dw.iter_mut().zip(sums) {
                        *dw += sum;
                    }
                }
                Way::Along => {
                    let part = filters * taps * lanes;
                    for (i, dw) in dw.iter_mut().enumerate() {
                        let parts = sums.chunks(part).take(T::LANES / lanes);
                        *dw += parts.flat_map(|part| &part[i * lanes..][..lanes]).copied().sum::<T>();
                    }
                }
                Way::Spread => {
                    let width = filters.next_multiple_of(lanes);
                    for (f, dw) in dw.chunks_mut(taps).enumerate() {
                        for (dw, &sum) in dw.iter_mut().zip(sums[f..].iter().step_by(width)) {
                            *dw += sum;
                        }
                    }
                }
            }
        }
    }
}
