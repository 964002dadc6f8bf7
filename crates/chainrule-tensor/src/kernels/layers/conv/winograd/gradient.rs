//! The gradient of the weights, block by block of tiles.

use super::{
    Pass, Workspace, apart,
    forward::{plain, strips},
    range::{Strip, magnitudes, rows_seen, skipped},
    row,
    tiles::{self, Adjacent, Input, Overlapping},
    weights::Gradient,
    wide::{add_gradient, outputs},
};
use crate::{
    Scalar,
    disjoint::Disjoint,
    kernels::{
        Isa,
        dispatch::dispatch,
        gemm::{Block, LONG, most_rows, tile_rows},
        lanes::lanes,
        reduce::DEPTH,
    },
    par,
};
use std::ops::Range;

/// Tiles of a block, about: V of 64 channels (36 · 56 · 64 elements, 504 KiB in f32) then stays in the second-level cache.
const TILES: usize = 56;
/// Blocks, of about [`DEPTH`] tiles each, whose sums stay in T where there are many.
const SEGMENT: usize = 8;

/// Elements of U that a piece adds to the totals: 8 µs.
const PIECE: usize = 1 << 14;

/// Whether the sums are so long that their rounding would be seen.
pub(super) fn long(pass: &Pass) -> bool {
    pass.output.into_iter().fold(pass.images, usize::saturating_mul) > LONG
}

/// Rows of tiles in a block.
pub(super) fn rows_of_block(pass: &Pass) -> usize {
    let [down, across] = pass.tiles();
    let tiles = if long(pass) { DEPTH } else { TILES };
    (tiles / across).clamp(1, pass.images.saturating_mul(down))
}

pub(in crate::kernels::layers::conv) fn weight_gradient<T: Scalar>(
    isa: Isa,
    pass: &Pass,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
    work: &mut Workspace<T>,
) {
    let lanes = lanes::<T>(isa);
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
    let rows = rows_of_block(pass);
    let (v_row, m_row) = (row::<T>(channels), row::<T>(filters));
    let (v_plane, m_plane) = (apart::<T>(rows * across * v_row), apart::<T>(rows * across * m_row));
    let u_plane = apart::<T>(filters * v_row);
    let padded = tiles::padded_len(rows.min(down), across, lanes);
    let slot = apart::<T>(padded + tiles::middle_len(across, lanes));
    let groups = (channels.div_ceil(lanes), filters.div_ceil(lanes));
    // Magnitudes of the strips of a block: of each group of channels of x, of all, and of dy likewise.
    let in_image = rows.min(down);
    let x_seen = apart::<T>((4 * in_image + 2).min(pass.input[0]) * pass.input[1]);
    let dy_seen = apart::<T>((4 * in_image).min(pass.output[0]) * pass.output[1]);
    let strip_seen = (groups.0 + 1) * x_seen + (groups.1 + 1) * dy_seen;
    let all_groups = groups.0 + groups.1;
    let workers = par::threads().min(all_groups);
    work.slots.reset(workers * slot);
    work.tiles.reset(36 * (v_plane + m_plane));
    work.u.reset(36 * u_plane);
    work.magnitudes.reset((rows.div_ceil(down) + 1) * strip_seen);
    work.gathered.places.clear();
    let [slots, v, seen] =
        [&mut work.slots, &mut work.tiles, &mut work.magnitudes].map(|b| Disjoint::new(b.as_mut_slice()));
    work.totals.clear();
    work.totals.resize(if long(pass) { 36 * u_plane } else { 0 }, 0.0);
    for (number, block) in (0..all).step_by(rows).enumerate() {
        let block = block..all.min(block + rows);
        let spread = |number: usize, strip: Range<usize>, group: usize, slot: *mut T| {
            let image = strip.start / down;
            let first = (strip.start - block.start) * across;
            let tiles = strip.start - image * down..strip.end - image * down;
            let is_x = group < groups.0;
            let c = lanes * if is_x { group } else { group - groups.0 };
            let (from, all, size) = if is_x { (x, channels, pass.input) } else { (dy, filters, pass.output) };
            let before = if is_x { pass.before } else { [0, 0] };
            let rows = rows_seen(&tiles, if is_x { 6 } else { 4 }, before[0], size[0]);
            let to = number * strip_seen
                + if is_x { group * x_seen } else { (groups.0 + 1) * x_seen + (group - groups.0) * dy_seen };
            // SAFETY: the strip lies in the image; no other piece has its tiles, channels and magnitudes, nor the slot.
            unsafe {
                let from = from.as_ptr().add((image * all + c) * plane(size));
                let planes = (lanes.min(all - c), plane(size));
                let first_pixel = from.add(rows.start * size[1]);
                magnitudes(isa, first_pixel, planes, rows.len() * size[1], seen.pointer(to));
                let job = Input {
                    x: from,
                    channels: planes.0,
                    size,
                    before,
                    rows: tiles,
                    across,
                    v: if is_x {
                        v.pointer(first * v_row + c)
                    } else {
                        v.pointer(36 * v_plane + first * m_row + c)
                    },
                    plane: if is_x { v_plane } else { m_plane },
                    stride: if is_x { v_row } else { m_row },
                    padded: slot,
                    middle: slot.add(padded),
                };
                if is_x { dispatch(isa, &Overlapping(job)) } else { dispatch(isa, &Adjacent(job)) }
            }
        };
        par::for_each(workers, |worker| {
            let slot = slots.pointer(worker * slot); // a worker's own
            let share = |i: usize| i * all_groups / workers;
            for (number, strip) in strips(block.clone(), down).enumerate() {
                for group in share(worker)..share(worker + 1) {
                    spread(number, strip.clone(), group, slot);
                }
            }
        });
        for (number, strip) in strips(block.clone(), down).enumerate() {
            let (image, first) = (strip.start / down, (strip.start - block.start) * across);
            let tiles = strip.start - image * down..strip.end - image * down;
            let of_all = |is_x: bool| {
                let (groups, apart, from, side, size, before) = if is_x {
                    (groups.0, x_seen, 0, 6, pass.input, pass.before)
                } else {
                    (groups.1, dy_seen, (groups.0 + 1) * x_seen, 4, pass.output, [0, 0])
                };
                let rows = rows_seen(&tiles, side, before[0], size[0]);
                let pixels = rows.len() * size[1];
                let from = number * strip_seen + from;
                // SAFETY: the groups' magnitudes lie side by side before those of all channels, and no thread has them.
                let magnitudes = unsafe {
                    let to = seen.pointer(from + groups * apart);
                    magnitudes(isa, seen.pointer(from), (groups, apart), pixels, to);
                    std::slice::from_raw_parts(to, pixels)
                };
                Strip { magnitudes, rows, width: size[1], before }
            };
            skipped(pass, (&of_all(true), &of_all(false)), tiles.clone(), |row, t, bits| {
                let tile = first + (row - tiles.start) * across + t;
                for p in 0..36 {
                    // SAFETY: the tile's channels and filters, which no thread has; all bits zero are the value 0.
                    unsafe {
                        v.pointer(p * v_plane + tile * v_row).write_bytes(0, channels);
                        v.pointer(36 * v_plane + p * m_plane + tile * m_row).write_bytes(0, filters);
                    }
                }
                work.gathered.places.extend(outputs(pass, (image * down + row) * across + t, bits));
            });
        }
        let (depth, last) = (block.len() * across, block.end == all);
        let first = if work.totals.is_empty() { number == 0 } else { number % SEGMENT == 0 };
        let u = Disjoint::new(work.u.as_mut_slice());
        let mr = tile_rows(filters, most_rows::<T>(isa)[1]);
        par::for_each(36, |p| {
            // SAFETY: position p of the tiles, and of U, which no other piece has.
            unsafe {
                let block = Block {
                    keep: std::ptr::null_mut(),
                    m: filters,
                    n: channels,
                    k: depth,
                    a: v.pointer(36 * v_plane + p * m_plane),
                    a_row: 1,
                    a_col: m_row,
                    a_panel: mr,
                    mr,
                    b: v.pointer(p * v_plane),
                    b_row: v_row,
                    b_panel: 2 * lanes,
                    nr: 2 * lanes,
                    c: u.pointer(p * u_plane),
                    c_row: v_row,
                    c_col: 1,
                    epilogue: plain(if first { T::ZERO } else { T::ONE }),
                };
                T::block(isa, &block);
            }
        });
        if last || number % SEGMENT == SEGMENT - 1 {
            let u = work.u.as_slice();
            par::for_chunks(&mut work.totals, PIECE, |i, totals| {
                totals.iter_mut().zip(&u[i * PIECE..]).for_each(|(total, u)| *total += u.to_f64());
            });
        }
    }
    work.u.as_mut_slice().iter_mut().zip(&work.totals).for_each(|(u, &total)| *u = T::from_f64(total));
    let (u, total) = (Disjoint::new(work.u.as_mut_slice()), Disjoint::new(&mut *dw));
    // Eight filters a piece.
    par::for_each(filters.div_ceil(8), |i| {
        for k in 8 * i..filters.min(8 * i + 8) {
            // SAFETY: filter k of U and of dw, which no other piece has.
            unsafe {
                let (u, dw) = (u.pointer(k * v_row), total.pointer(9 * k * channels));
                dispatch(isa, &Gradient { u, plane: u_plane, channels, dw });
            }
        }
    });
    add_gradient(isa, pass, (x, dy), dw, &mut work.gathered);
}
