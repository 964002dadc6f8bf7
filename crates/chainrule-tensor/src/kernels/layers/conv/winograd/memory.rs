//! How much memory a [`Workspace`](super::Workspace) takes, before there is one.

use super::{Pass, forward, gradient};
use crate::{Scalar, kernels::Isa, kernels::lanes::lanes};

/// Elements of u, of the slots, of the tiles, of the magnitudes, and of the totals as so many of T. Sizes of tensors fit into an address; their products need not.
pub(super) type Lengths = [u128; 5];

/// [`super::apart`]
fn apart<T>(n: u128) -> u128 {
    let line = (64 / size_of::<T>()) as u128;
    (n.div_ceil(line) | 1) * line
}

/// [`super::row`]
fn row<T>(channels: usize) -> u128 {
    super::row::<T>(channels) as u128
}

/// The part of a padded strip and of a row of tiles in it.
fn spread<T>(rows: u128, across: u128, lanes: u128) -> u128 {
    apart::<T>((4 * rows + 8) * (4 * across + 2) * lanes)
}

/// Of [`super::forward`], by so many threads.
pub(super) fn of_forward<T: Scalar>(isa: Isa, pass: &Pass, threads: usize) -> Lengths {
    let (lanes, [down, across]) = (lanes::<T>(isa) as u128, pass.tiles().map(|n| n as u128));
    let (width, all) = (2 * lanes, down * pass.images as u128);
    if across == 0 || all == 0 {
        return [0; 5];
    }
    let few = all * across <= forward::FEW as u128;
    let tiles = if few { forward::FEW } else { forward::TILES } as u128;
    let rows = all.div_ceil(all.div_ceil((tiles / across).max(1)));
    let v = 36 * apart::<T>(rows * across * row::<T>(pass.inner));
    let flat = apart::<T>((16 * rows.min(down) * across + lanes) * lanes);
    let gather = 36 * apart::<T>(rows * across * width) + flat;
    let spread = spread::<T>(rows.min(down), across, lanes);
    let (u, panels) = (36 * apart::<T>(pass.inner as u128 * width), (pass.outer as u128).div_ceil(width));
    let threads = threads as u128;
    if few {
        let groups = (pass.inner as u128).div_ceil(lanes);
        let pixels = apart::<T>((pass.images * pass.input[0] * pass.input[1]) as u128);
        [0, threads.min(groups.max(panels)) * spread.max(u + gather), v, (groups + 1) * pixels, 0]
    } else {
        [panels * u, threads.min(all.div_ceil(rows)) * (v + spread.max(gather)), 0, 0, 0]
    }
}

/// Of [`super::weight_gradient`], by so many threads.
pub(super) fn of_weight_gradient<T: Scalar>(isa: Isa, pass: &Pass, threads: usize) -> Lengths {
    let (lanes, [down, across]) = (lanes::<T>(isa) as u128, pass.tiles().map(|n| n as u128));
    let all = down * pass.images as u128;
    if across == 0 || all == 0 {
        return [0; 5];
    }
    let rows = gradient::rows_of_block(pass) as u128;
    let (v_row, m_row) = (row::<T>(pass.inner), row::<T>(pass.outer));
    let tiles = 36 * (apart::<T>(rows * across * v_row) + apart::<T>(rows * across * m_row));
    let groups = [pass.inner, pass.outer].map(|n| (n as u128).div_ceil(lanes));
    let slots = (threads as u128).min(groups[0] + groups[1]) * spread::<T>(rows.min(down), across, lanes);
    let seen = |extra: u128, size: [usize; 2]| {
        apart::<T>((4 * rows.min(down) + extra).min(size[0] as u128) * size[1] as u128)
    };
    let seen = (groups[0] + 1) * seen(2, pass.input) + (groups[1] + 1) * seen(0, pass.output);
    let magnitudes = (rows.div_ceil(down) + 1) * seen;
    let u = 36 * apart::<T>(pass.outer as u128 * v_row);
    let totals = if gradient::long(pass) { u * 8 / size_of::<T>() as u128 } else { 0 };
    [u, slots, tiles, magnitudes, totals]
}
