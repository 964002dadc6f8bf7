//! The convolution, block by block.

use super::{
    Pass, Shared, Workspace, apart, row,
    tiles::{self, Input, Output},
    weights::{self, Weights},
    whole_lines,
};
use crate::{
    Scalar,
    kernels::{
        Isa,
        gemm::{Block, Buffer, Finish, tile_rows},
    },
    par,
};
use std::{
    ops::Range,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Tiles of a block: about so many.
const TILES: usize = 56;
/// Rows of a panel that are transformed at a time.
const ROWS: usize = 32;

/// C = A B, nothing besides.
pub(super) fn plain<T: Scalar>(beta: T) -> Finish<T> {
    Finish { alpha: T::ONE, beta, row: ptr::null(), col: ptr::null(), relu: false }
}

/// U, in panels of filters: position p of panel j at `u[(j·36 + p)·inner·width ..]`, channel by channel.
pub(super) fn transform_weights<T: Scalar>(isa: Isa, pass: &Pass, w: &[T], u: &mut Buffer<T>) {
    let width = 2 * T::kernels(isa).lanes;
    let (panels, parts) = (pass.outer.div_ceil(width), pass.inner.div_ceil(ROWS));
    assert_eq!(
        w.len(),
        9 * pass.inner * pass.outer,
        "as many weights as {} × {} × 3 × 3",
        pass.outer,
        pass.inner
    );
    u.reset(panels * 36 * pass.inner * width);
    let to = Shared(u.as_mut_slice().as_mut_ptr());
    par::for_each(panels * parts, |i| {
        let (panel, part) = (i / parts, i % parts);
        // SAFETY: the panel's filters lie in w; nobody else has its rows.
        unsafe {
            let range = part * ROWS..pass.inner.min((part + 1) * ROWS);
            transform_panel(isa, pass, w, panel, width, range, to.at(panel * 36 * pass.inner * width));
        }
    });
}

/// Some rows of a panel of U.
///
/// # Safety
/// The processor has `isa`; w holds the filters; `u` is the panel, and nobody else has those rows.
unsafe fn transform_panel<T: Scalar>(
    isa: Isa,
    pass: &Pass,
    w: &[T],
    panel: usize,
    width: usize,
    range: Range<usize>,
    u: *mut T,
) {
    let (column, row) = if pass.turned { (9, 9 * pass.outer) } else { (9 * pass.inner, 9) };
    let first = panel * width;
    // SAFETY: the caller's.
    unsafe {
        weights::weights(
            isa,
            &Weights {
                w: w.as_ptr().add(first * column),
                len: w.len() - first * column,
                columns: width.min(pass.outer - first),
                column,
                row,
                turned: pass.turned,
                range,
                rows: pass.inner,
                u,
                width,
            },
        );
    }
}

/// The convolution with the filters as they are.
pub(super) fn with_weights<T: Scalar>(
    isa: Isa,
    pass: &Pass,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) {
    if pass.images == 0 {
        return;
    }
    transform_weights(isa, pass, w, &mut work.u);
    with_prepared(isa, pass, x, work.u.as_slice(), bias, y, &mut work.slots);
}

/// How a pass is cut, and where the parts of a thread's memory begin.
struct Plan {
    /// Rows of tiles of a block, and tiles in a row.
    rows: usize,
    across: usize,
    /// Columns of a panel.
    width: usize,
    v_row: usize,
    v_plane: usize,
    m_plane: usize,
    m: usize,
    padded: usize,
    middle: usize,
    flat: usize,
    len: usize,
}

impl Plan {
    fn new<T: Scalar>(pass: &Pass, lanes: usize) -> Self {
        let [down, across] = pass.tiles();
        let rows = (TILES / across).clamp(1, down * pass.images);
        let width = 2 * lanes;
        let (v_row, in_image) = (row::<T>(pass.inner), rows.min(down));
        let (v_plane, m_plane) = (apart::<T>(rows * across * v_row), apart::<T>(rows * across * width));
        let m = 36 * v_plane;
        let padded = m + 36 * m_plane;
        let middle = padded + tiles::padded_len(in_image, across, lanes);
        let flat = middle + tiles::middle_len(across, lanes);
        let len = apart::<T>(flat + tiles::flat_len(in_image, across, lanes));
        Self { rows, across, width, v_row, v_plane, m_plane, m, padded, middle, flat, len }
    }
}

/// The convolution with filters that were transformed.
pub(super) fn with_prepared<T: Scalar>(
    isa: Isa,
    pass: &Pass,
    x: &[T],
    u: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
    slots: &mut Buffer<T>,
) {
    let lanes = T::kernels(isa).lanes;
    let plane = |size: [usize; 2]| size[0] * size[1];
    assert_eq!(x.len(), pass.images * pass.inner * plane(pass.input), "the length of the input");
    assert_eq!(y.len(), pass.images * pass.outer * plane(pass.output), "the length of the output");
    assert!(bias.is_none_or(|b| b.len() == pass.outer), "a bias has one number a filter");
    if pass.images == 0 {
        return;
    }
    let plan = Plan::new::<T>(pass, lanes);
    let all = pass.images * pass.tiles()[0];
    let blocks = all.div_ceil(plan.rows);
    let workers = par::threads().min(blocks);
    slots.reset(whole_lines::<T>(plan.len) * workers);
    let (slots, y, next) =
        (Shared(slots.as_mut_slice().as_mut_ptr()), Shared(y.as_mut_ptr()), AtomicUsize::new(0));
    let bias = bias.map_or(ptr::null(), <[T]>::as_ptr);
    let job = Job { isa, pass, plan: &plan, x: x.as_ptr(), u: u.as_ptr(), bias, y: y.0 };
    let job = &job;
    par::for_each(workers, |worker| {
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= blocks {
                break;
            }
            // SAFETY: each worker has its slot, each block its rows of y.
            unsafe {
                let slot = slots.at(worker * plan.len);
                job.block(block * plan.rows..all.min((block + 1) * plan.rows), slot);
            }
        }
    });
}

/// A pass, behind pointers.
struct Job<'a, T> {
    isa: Isa,
    pass: &'a Pass,
    plan: &'a Plan,
    x: *const T,
    u: *const T,
    bias: *const T,
    y: *mut T,
}

// SAFETY: it stands for shared borrows and an exclusive one, of which each thread has its own rows.
unsafe impl<T: Sync + Send> Sync for Job<'_, T> {}

impl<T: Scalar> Job<'_, T> {
    /// Rows of tiles, counted through all images.
    ///
    /// # Safety
    /// The processor has the instruction set; nobody else has these rows nor the slot.
    unsafe fn block(&self, rows: Range<usize>, slot: *mut T) {
        let (pass, plan) = (self.pass, self.plan);
        let down = pass.tiles()[0];
        let pixels = |size: [usize; 2]| size[0] * size[1];
        let tiles = rows.len() * plan.across;
        // SAFETY: the parts of the slot are as long as the plan says, x, u and y as the pass says.
        unsafe {
            for strip in strips(rows.clone(), down) {
                let image = strip.start / down;
                tiles::input(
                    self.isa,
                    &Input {
                        x: self.x.add(image * pass.inner * pixels(pass.input)),
                        channels: pass.inner,
                        size: pass.input,
                        before: pass.before,
                        rows: strip.start - image * down..strip.end - image * down,
                        across: plan.across,
                        v: slot.add((strip.start - rows.start) * plan.across * plan.v_row),
                        plane: plan.v_plane,
                        stride: plan.v_row,
                        padded: slot.add(plan.padded),
                        middle: slot.add(plan.middle),
                    },
                );
            }
            for first in (0..pass.outer).step_by(plan.width) {
                let filters = plan.width.min(pass.outer - first);
                self.products(first, filters, tiles, slot, slot.add(plan.m));
                for strip in strips(rows.clone(), down) {
                    let image = strip.start / down;
                    tiles::output(
                        self.isa,
                        &Output {
                            m: slot.add(plan.m + (strip.start - rows.start) * plan.across * plan.width),
                            plane: plan.m_plane,
                            stride: plan.width,
                            filters,
                            bias: self.bias.wrapping_add(if self.bias.is_null() { 0 } else { first }),
                            y: self.y.add((image * pass.outer + first) * pixels(pass.output)),
                            size: pass.output,
                            rows: strip.start - image * down..strip.end - image * down,
                            across: plan.across,
                            flat: slot.add(plan.flat),
                        },
                    );
                }
            }
        }
    }

    /// M = V U for a panel of filters from `first` on.
    ///
    /// # Safety
    /// As `block`; v holds the tiles.
    unsafe fn products(&self, first: usize, filters: usize, tiles: usize, v: *const T, m: *mut T) {
        let (plan, inner) = (self.plan, self.pass.inner);
        let kernels = T::kernels(self.isa);
        let mr = tile_rows(tiles, kernels.rows[1]);
        for p in 0..36 {
            // SAFETY: the caller's.
            unsafe {
                (kernels.block)(&Block {
                    m: tiles,
                    n: filters,
                    k: inner,
                    a: v.add(p * plan.v_plane),
                    a_row: plan.v_row,
                    a_col: 1,
                    a_panel: mr * plan.v_row,
                    mr,
                    b: self.u.add(first * 36 * inner + p * inner * plan.width),
                    b_row: plan.width,
                    b_panel: 0,
                    nr: plan.width,
                    c: m.add(p * plan.m_plane),
                    c_row: plan.width,
                    c_col: 1,
                    finish: plain(T::ZERO),
                });
            }
        }
    }
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
