//! The convolution, block by block.

use super::{
    Pass, Workspace, apart,
    panels::{Panels, transform_weights},
    range::{self, Exempt, Strip, magnitudes},
    row,
    tiles::{self, Input, Output, Overlapping},
    wide::replace,
};
use crate::{
    Scalar,
    disjoint::Disjoint,
    kernels::{
        Isa,
        dispatch::dispatch,
        gemm::{Block, Buffer, RawEpilogue, most_rows, tile_rows},
        lanes::lanes,
    },
    par,
};
use std::{
    ops::Range,
    ptr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Tiles of a block, about: V of 64 channels (36 · 56 · 64 elements, 504 KiB in f32) then stays in the second-level cache.
pub(super) const TILES: usize = 56;
/// Up to so many tiles, fewer than two blocks, are one, of which threads share the channels and then the filters.
pub(super) const FEW: usize = 96;
/// C = A B + β C
pub(super) fn plain<T: Scalar>(beta: T) -> RawEpilogue<T> {
    RawEpilogue { alpha: T::ONE, beta, row: ptr::null(), col: ptr::null(), relu: false }
}

/// The convolution with the filters as they are; false if one of them is not tame.
pub(in crate::kernels::layers::conv) fn with_weights<T: Scalar>(
    isa: Isa,
    pass: &Pass,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) -> bool {
    assert_eq!(w.len(), 9 * pass.inner * pass.outer, "the length of w");
    let tame = if pass.images * pass.tiles()[0] * pass.tiles()[1] <= FEW {
        few(isa, pass, x, Filters::Plain(w), bias, y, work)
    } else {
        let mut u = std::mem::replace(&mut work.u, Buffer::new());
        let tame = transform_weights(isa, pass, w, &mut u);
        if tame {
            many(isa, pass, x, u.as_slice(), bias, y, work);
        }
        work.u = u;
        tame
    };
    if tame {
        replace(isa, pass, (x, w, bias), y, work);
    }
    tame
}

/// The convolution with filters that were transformed, and tame.
pub(super) fn with_prepared<T: Scalar>(
    isa: Isa,
    pass: &Pass,
    x: &[T],
    (w, u): (&[T], &[T]),
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) {
    assert_eq!(u.len(), Panels::new::<T>(isa, pass).len(), "the length of the transformed filters");
    if pass.images * pass.tiles()[0] * pass.tiles()[1] <= FEW {
        few(isa, pass, x, Filters::Prepared(u), bias, y, work);
    } else {
        many(isa, pass, x, u, bias, y, work);
    }
    replace(isa, pass, (x, w, bias), y, work);
}

#[derive(Clone, Copy)]
enum Filters<'a, T> {
    Plain(&'a [T]),
    Prepared(&'a [T]),
}

/// A pass over blocks of so many rows of tiles, and where the parts of a block's memory begin.
struct Job<'a, T> {
    isa: Isa,
    pass: &'a Pass,
    panels: Panels,
    x: *const T,
    bias: *const T,
    y: *mut T,
    /// Rows of tiles of an image and of a block, and tiles in a row.
    down: usize,
    rows: usize,
    across: usize,
    v_row: usize,
    v_plane: usize,
    m_plane: usize,
    /// Elements of `Input::padded` and `Input::middle`, and of `Output::flat`.
    padded: usize,
    spread: usize,
    flat: usize,
    /// Elements of the magnitudes of a strip.
    seen: usize,
}

// SAFETY: it represents shared borrows and an exclusive one, of which each thread has its own rows.
unsafe impl<T: Sync + Send> Sync for Job<'_, T> {}

impl<'a, T: Scalar> Job<'a, T> {
    /// With blocks of about `tiles` tiles.
    fn new(
        isa: Isa,
        pass: &'a Pass,
        tiles: usize,
        x: &'a [T],
        bias: Option<&'a [T]>,
        y: &'a mut [T],
    ) -> Self {
        let pixels = |size: [usize; 2]| size[0] * size[1];
        assert_eq!(x.len(), pass.images * pass.inner * pixels(pass.input), "the length of the input");
        assert_eq!(y.len(), pass.images * pass.outer * pixels(pass.output), "the length of the output");
        assert!(bias.is_none_or(|b| b.len() == pass.outer), "a bias has one element a filter");
        let (lanes, panels) = (lanes::<T>(isa), Panels::new::<T>(isa, pass));
        let [down, across] = pass.tiles();
        let all = down * pass.images;
        let rows = all.div_ceil(all.div_ceil((tiles / across).max(1)).max(1));
        let (v_row, in_image) = (row::<T>(pass.inner), rows.min(down));
        let padded = tiles::padded_len(in_image, across, lanes);
        Self {
            isa,
            pass,
            panels,
            x: x.as_ptr(),
            bias: bias.map_or(ptr::null(), <[T]>::as_ptr),
            y: y.as_mut_ptr(),
            down,
            rows,
            across,
            v_row,
            v_plane: apart::<T>(rows * across * v_row),
            m_plane: apart::<T>(rows * across * panels.width),
            padded,
            spread: apart::<T>(padded + tiles::middle_len(across, lanes)),
            flat: apart::<T>(tiles::flat_len(in_image, across, lanes)),
            seen: apart::<T>((4 * in_image + 2).min(pass.input[0]) * pass.input[1]),
        }
    }

    /// The strips of the images that make a block of rows of tiles, which are counted through all images: image, rows in
    /// it, and the first tile in the block.
    fn strips(&self, block: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>, usize)> {
        let (down, across, start) = (self.down, self.across, block.start);
        strips(block, down).map(move |strip| {
            let image = strip.start / down;
            (image, strip.start - image * down..strip.end - image * down, (strip.start - start) * across)
        })
    }

    /// Finds the exempt outputs of a block of rows of tiles.
    ///
    /// # Safety
    /// The processor has the instruction set; no other thread has the `seen` elements at `slot`.
    unsafe fn examine(&self, block: Range<usize>, exempt: &mut [Exempt], slot: *mut T) {
        let pass = self.pass;
        let [height, width] = pass.input;
        for (image, tiles, first) in self.strips(block) {
            let rows = range::rows_seen(&tiles, 6, pass.before[0], height);
            let pixels = rows.len() * width;
            // SAFETY: the rows lie in the image, and are not more than a block sees.
            let magnitudes = unsafe {
                let x = self.x.add(image * pass.inner * height * width + rows.start * width);
                magnitudes(self.isa, x, (pass.inner, height * width), pixels, slot);
                std::slice::from_raw_parts(slot, pixels)
            };
            let strip = Strip { magnitudes, rows, width, before: pass.before };
            let exempt = &mut exempt[first..][..tiles.len() * self.across];
            range::exempt(pass, &strip, tiles, exempt);
        }
    }

    /// V of some channels of a block of rows of tiles.
    ///
    /// # Safety
    /// The processor has the instruction set; no other thread has these channels of v, nor the `spread` elements at `slot`.
    unsafe fn spread(&self, block: Range<usize>, channels: Range<usize>, v: *mut T, slot: *mut T) {
        let pass = self.pass;
        for (image, rows, tile) in self.strips(block) {
            let plane = image * pass.inner + channels.start;
            // SAFETY: x and v are as long as the pass says, see the caller.
            unsafe {
                let job = Overlapping(Input {
                    x: self.x.add(plane * pass.input[0] * pass.input[1]),
                    channels: channels.len(),
                    size: pass.input,
                    before: pass.before,
                    rows,
                    across: self.across,
                    v: v.add(tile * self.v_row + channels.start),
                    plane: self.v_plane,
                    stride: self.v_row,
                    padded: slot,
                    middle: slot.add(self.padded),
                });
                dispatch(self.isa, &job);
            }
        }
    }

    /// A panel of filters of a block of rows of tiles, from V and U to y.
    ///
    /// # Safety
    /// As `spread`; no other thread has these rows and filters of y, nor the 36 planes and `flat` elements at `slot`.
    unsafe fn gather(&self, block: Range<usize>, panel: usize, u: *const T, v: *const T, slot: *mut T) {
        let (pass, Panels { width, plane, .. }) = (self.pass, self.panels);
        let first = panel * width;
        let filters = width.min(pass.outer - first);
        let tiles = block.len() * self.across;
        let mr = tile_rows(tiles, most_rows::<T>(self.isa)[1]);
        for p in 0..36 {
            // SAFETY: position p of V, U and M, which are as long as the planes say.
            unsafe {
                let block = Block {
                    keep: ptr::null_mut(),
                    m: tiles,
                    n: filters,
                    k: pass.inner,
                    a: v.add(p * self.v_plane),
                    a_row: self.v_row,
                    a_col: 1,
                    a_panel: mr * self.v_row,
                    mr,
                    b: u.add(p * plane),
                    b_row: width,
                    b_panel: 0,
                    nr: width,
                    c: slot.add(p * self.m_plane),
                    c_row: width,
                    c_col: 1,
                    epilogue: plain(T::ZERO),
                };
                T::block(self.isa, &block);
            }
        }
        for (image, rows, tile) in self.strips(block) {
            let y = (image * pass.outer + first) * pass.output[0] * pass.output[1];
            // SAFETY: M and y are as long as the pass says, see the caller.
            unsafe {
                let job = Output {
                    m: slot.add(tile * width),
                    plane: self.m_plane,
                    stride: width,
                    filters,
                    bias: if self.bias.is_null() { self.bias } else { self.bias.add(first) },
                    y: self.y.add(y),
                    size: pass.output,
                    rows,
                    across: self.across,
                    flat: slot.add(36 * self.m_plane),
                };
                dispatch(self.isa, &job);
            }
        }
    }

    /// Elements of the slot of `gather`.
    fn gather_len(&self) -> usize {
        36 * self.m_plane + self.flat
    }
}

/// Many tiles: threads share the blocks.
fn many<T: Scalar>(
    isa: Isa,
    pass: &Pass,
    x: &[T],
    u: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) {
    let job = &Job::new(isa, pass, TILES, x, bias, y);
    let all = pass.images * job.down;
    let blocks = all.div_ceil(job.rows.max(1));
    let workers = par::threads().min(blocks);
    let v_len = 36 * job.v_plane;
    let slot_len = v_len + job.spread.max(job.gather_len()).max(job.seen);
    work.slots.reset(slot_len * workers);
    work.exempt.clear();
    work.exempt.resize(all * job.across, Exempt::default());
    let (slots, exempt) = (Disjoint::new(work.slots.as_mut_slice()), Disjoint::new(&mut work.exempt));
    share(blocks, workers, |worker, block| {
        let block = block * job.rows..all.min((block + 1) * job.rows);
        // SAFETY: each worker has its slot, each block its rows of y and its tiles; u holds all panels.
        unsafe {
            let v = slots.pointer(worker * slot_len);
            let slot = v.add(v_len);
            let exempt = exempt.part(block.start * job.across, block.len() * job.across);
            job.examine(block.clone(), exempt, slot);
            job.spread(block.clone(), 0..pass.inner, v, slot);
            for panel in 0..job.panels.count {
                let u = u.as_ptr().add(36 * panel * job.panels.plane);
                job.gather(block.clone(), panel, u, v, slot);
            }
        }
    });
}

/// Few tiles: threads share the channels, then the filters, which are transformed where they are used. False if one of them is
/// not tame.
fn few<T: Scalar>(
    isa: Isa,
    pass: &Pass,
    x: &[T],
    w: Filters<'_, T>,
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) -> bool {
    let job = &Job::new(isa, pass, FEW, x, bias, y);
    let all = 0..pass.images * job.down;
    let lanes = lanes::<T>(isa);
    let (groups, panels) = (pass.inner.div_ceil(lanes), job.panels.count);
    let workers = par::threads().min(groups.max(panels));
    let plane = pass.input[0] * pass.input[1];
    let pixels = apart::<T>(pass.images * plane);
    let u_len = if matches!(w, Filters::Plain(_)) { 36 * job.panels.plane } else { 0 };
    let slot_len = job.spread.max(u_len + job.gather_len());
    work.tiles.reset(36 * job.v_plane);
    work.slots.reset(slot_len * workers);
    // Of each group of channels, then of all.
    work.magnitudes.reset((groups + 1) * pixels);
    work.exempt.clear();
    work.exempt.resize(all.len() * job.across, Exempt::default());
    let (v, slots) = (Disjoint::new(work.tiles.as_mut_slice()), Disjoint::new(work.slots.as_mut_slice()));
    let seen = Disjoint::new(work.magnitudes.as_mut_slice());
    share(groups, workers, |worker, group| {
        let channels = group * lanes..pass.inner.min((group + 1) * lanes);
        // SAFETY: each worker has its slot, each group its channels of V and its magnitudes.
        unsafe {
            for image in 0..pass.images {
                let x = job.x.add((image * pass.inner + channels.start) * plane);
                let to = seen.pointer(group * pixels + image * plane);
                magnitudes(isa, x, (channels.len(), plane), plane, to);
            }
            job.spread(all.clone(), channels, v.pointer(0), slots.pointer(worker * slot_len));
        }
    });
    // SAFETY: the groups' magnitudes lie side by side before those of all channels, and no thread has them.
    let seen = unsafe {
        let to = seen.pointer(groups * pixels);
        magnitudes(isa, seen.pointer(0), (groups, pixels), pass.images * plane, to);
        std::slice::from_raw_parts(to, pass.images * plane)
    };
    for (image, magnitudes) in seen.chunks(plane.max(1)).enumerate() {
        let strip = Strip { magnitudes, rows: 0..pass.input[0], width: pass.input[1], before: pass.before };
        let tiles = job.down * job.across;
        let exempt = &mut work.exempt[image * tiles..][..tiles];
        range::exempt(pass, &strip, 0..job.down, exempt);
    }
    let tame = AtomicBool::new(true);
    share(panels, workers, |worker, panel| {
        // SAFETY: each worker has its slot, each panel its filters of y.
        unsafe {
            let slot = slots.pointer(worker * slot_len);
            let u = match w {
                Filters::Prepared(u) => u.as_ptr().add(36 * panel * job.panels.plane),
                Filters::Plain(w) => {
                    if !job.panels.transform((isa, pass, w), panel, 0..pass.inner, slot) {
                        tame.store(false, Ordering::Relaxed);
                    }
                    slot.cast_const()
                }
            };
            job.gather(all.clone(), panel, u, v.pointer(0), slot.add(u_len));
        }
    });
    tame.into_inner()
}

/// Calls `f(worker, piece)` once for each piece; a worker has one piece at a time.
pub(super) fn share(pieces: usize, workers: usize, f: impl Fn(usize, usize) + Sync) {
    let next = AtomicUsize::new(0);
    par::for_each(workers.min(pieces), |worker| {
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                break;
            }
            f(worker, piece);
        }
    });
}

/// Rows of tiles, image by image.
pub(super) fn strips(rows: Range<usize>, down: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = rows.start;
    std::iter::from_fn(move || {
        let end = rows.end.min((at / down + 1) * down);
        let strip = at..end;
        at = end;
        (!strip.is_empty()).then_some(strip)
    })
}
