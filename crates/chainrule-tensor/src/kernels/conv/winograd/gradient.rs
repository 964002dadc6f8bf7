//! The gradient of the weights, block by block of tiles.

use super::{
    Pass, Shared, Workspace, apart,
    forward::{plain, strips},
    row,
    tiles::{self, Input},
    weights::{self, Gradient},
};
use crate::{
    Scalar,
    kernels::{
        Isa,
        gemm::{Block, tile_rows},
    },
    par,
};
use std::ops::Range;

/// Tiles of a block: about so many.
const TILES: usize = 56;

pub(super) fn weight_gradient<T: Scalar>(
    isa: Isa,
    pass: &Pass,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
    work: &mut Workspace<T>,
) {
    let kernels = T::kernels(isa);
    let lanes = kernels.lanes;
    let (channels, filters) = (pass.inner, pass.outer);
    let plane = |size: [usize; 2]| size[0] * size[1];
    assert_eq!(x.len(), pass.images * channels * plane(pass.input), "the length of x");
    assert_eq!(dy.len(), pass.images * filters * plane(pass.output), "the length of dy");
    assert_eq!(dw.len(), 9 * channels * filters, "the length of dw");
    if pass.images == 0 {
        return;
    }
    let [down, across] = pass.tiles();
    let all = pass.images * down;
    let rows = (TILES / across).clamp(1, all);
    let (v_row, m_row) = (row::<T>(channels), row::<T>(filters));
    let (v_plane, m_plane) = (apart::<T>(rows * across * v_row), apart::<T>(rows * across * m_row));
    let u_plane = apart::<T>(filters * v_row);
    let padded = tiles::padded_len(rows.min(down), across, lanes);
    let slot = apart::<T>(padded + tiles::middle_len(across, lanes));
    let groups = (channels.div_ceil(lanes), filters.div_ceil(lanes));
    let workers = par::threads();
    work.slots.reset(workers.max(1) * slot);
    work.tiles.reset(36 * (v_plane + m_plane));
    work.u.reset(36 * u_plane);
    let [slots, v, u] =
        [&mut work.slots, &mut work.tiles, &mut work.u].map(|b| Shared(b.as_mut_slice().as_mut_ptr()));
    let dw = Shared(dw.as_mut_ptr());
    for block in (0..all).step_by(rows) {
        let block = block..all.min(block + rows);
        let spread = |strip: Range<usize>, group: usize, slot: *mut T| {
            let image = strip.start / down;
            let first = (strip.start - block.start) * across;
            let is_x = group < groups.0;
            let c = lanes * if is_x { group } else { group - groups.0 };
            let (from, all, size) = if is_x { (x, channels, pass.input) } else { (dy, filters, pass.output) };
            // SAFETY: the strip lies in the image; its tiles and channels are nobody else's, nor is the slot.
            unsafe {
                let job = Input {
                    x: from.as_ptr().add((image * all + c) * plane(size)),
                    channels: lanes.min(all - c),
                    size,
                    before: if is_x { pass.before } else { [0, 0] },
                    rows: strip.start - image * down..strip.end - image * down,
                    across,
                    v: if is_x { v.at(first * v_row + c) } else { v.at(36 * v_plane + first * m_row + c) },
                    plane: if is_x { v_plane } else { m_plane },
                    stride: if is_x { v_row } else { m_row },
                    padded: slot,
                    middle: slot.add(padded),
                };
                if is_x { tiles::input(isa, &job) } else { tiles::gradient(isa, &job) }
            }
        };
        let all_groups = groups.0 + groups.1;
        let workers = workers.min(all_groups);
        par::for_each(workers, |worker| {
            // SAFETY: a worker's own slot.
            let slot = unsafe { slots.at(worker * slot) };
            let share = |i: usize| i * all_groups / workers;
            for strip in strips(block.clone(), down) {
                for group in share(worker)..share(worker + 1) {
                    spread(strip.clone(), group, slot);
                }
            }
        });
        let mr = tile_rows(filters, kernels.rows[1]);
        par::for_each(36, |p| {
            // SAFETY: position p of the tiles, and of U, which is nobody else's.
            unsafe {
                (kernels.block)(&Block {
                    keep: std::ptr::null_mut(),
                    m: filters,
                    n: channels,
                    k: block.len() * across,
                    a: v.at(36 * v_plane + p * m_plane),
                    a_row: 1,
                    a_col: m_row,
                    a_panel: mr,
                    mr,
                    b: v.at(p * v_plane),
                    b_row: v_row,
                    b_panel: 2 * lanes,
                    nr: 2 * lanes,
                    c: u.at(p * u_plane),
                    c_row: v_row,
                    c_col: 1,
                    finish: plain(if block.start == 0 { T::ZERO } else { T::ONE }),
                });
            }
        });
    }
    // Eight filters a piece.
    par::for_each(filters.div_ceil(8), |i| {
        for k in 8 * i..filters.min(8 * i + 8) {
            // SAFETY: filter k of U and of dw, which is nobody else's.
            unsafe {
                let (u, dw) = (u.at(k * v_row), dw.at(9 * k * channels));
                weights::weight_gradient(isa, &Gradient { u, plane: u_plane, channels, dw });
            }
        }
    });
}
