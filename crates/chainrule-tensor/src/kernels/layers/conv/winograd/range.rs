//! The range of a tile's pixels.
//!
//! Every output of a tile is computed from all pixels of the tile. Those outside its window cancel, but not their rounding errors,
//! and not at all where they are infinite. So for each pixel the largest magnitude over the channels is found, exactly. Where a
//! tile's largest is more than [`RANGE`] times that of some window in it, or of all its other pixels, or not finite, the outputs
//! of the tile are summed over their windows (see `wide`). Windows that are wholly 0, as behind ReLU, are no reason: their sums are
//! known. In the gradient of the weights, whose sums go over all tiles, what each tap sees of a tile takes the place of the window.

use super::Pass;
use crate::{
    Scalar,
    kernels::{
        Isa,
        dispatch::{Kernel, Set, dispatch, kernel},
        lanes::Lanes,
    },
};
use std::ops::Range;

/// How much larger a pixel outside a window may be than the largest in it.
const RANGE: f64 = 64.0;
/// What every pixel must be below, so that sums of transformed products with filters whose squares add up to less than
/// [`SQUARES`] do not overflow: 2⁴⁰ · 2⁵⁰ · 189 · 9 C < 2¹²⁸ for C < 2²⁷.
const LIMIT: f64 = (1u64 << 40) as f64;
pub(super) const SQUARES: f64 = (1u128 << 100) as f64;

/// to[p] = max over planes c of |x[c·plane + p]|; NaN is larger than all.
struct Magnitudes<T> {
    x: *const T,
    planes: usize,
    plane: usize,
    pixels: usize,
    to: *mut T,
}

impl<T: Scalar> Kernel for Magnitudes<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { magnitudes_in::<S::Of<T>>(self) }
    }
}

/// # Safety
/// The memory of `j` is valid, and what it writes is borrowed exclusively.
#[inline(always)]
unsafe fn magnitudes_in<L: Lanes>(j: &Magnitudes<L::T>) {
    // SAFETY: the pixels lie in each plane.
    unsafe {
        let zero = L::splat(L::T::ZERO);
        let mut p = 0;
        while p + 8 * L::N <= j.pixels {
            let (mut largest, mut x) = ([zero; 8], j.x.add(p));
            for _ in 0..j.planes {
                for (i, largest) in largest.iter_mut().enumerate() {
                    *largest = largest.larger(L::load(x.add(i * L::N)));
                }
                x = x.wrapping_add(j.plane);
            }
            for (i, largest) in largest.into_iter().enumerate() {
                largest.store(j.to.add(p + i * L::N));
            }
            p += 8 * L::N;
        }
        while p < j.pixels {
            let (mask, mut largest) = (L::mask(L::N.min(j.pixels - p)), zero);
            for c in 0..j.planes {
                largest = largest.larger(L::load_masked(j.x.add(c * j.plane + p), mask));
            }
            largest.store_masked(j.to.add(p), mask);
            p += L::N;
        }
    }
}

/// The largest magnitude of each of some pixels over planes that are `plane` elements apart.
///
/// # Safety
/// The processor has `isa`; the pixels lie in each plane and in `to`, which is borrowed exclusively.
pub(super) unsafe fn magnitudes<T: Scalar>(
    isa: Isa,
    x: *const T,
    (planes, plane): (usize, usize),
    pixels: usize,
    to: *mut T,
) {
    // SAFETY: the caller's promises.
    unsafe { dispatch(isa, &Magnitudes { x, planes, plane, pixels, to }) };
}

kernel! {
    /// The smallest, the largest and the sum, which is not finite if one of them is not.
    fn extremes[T: Scalar](v: &[T]) -> [T; 3] {
        let (mut lo, mut hi, mut sum) = ([T::INFINITY; 32], [T::ZERO; 32], [T::ZERO; 32]);
        let (chunks, rest) = v.as_chunks::<32>();
        for chunk in chunks {
            for i in 0..32 {
                let v = chunk[i];
                lo[i] = if v < lo[i] { v } else { lo[i] };
                hi[i] = if v > hi[i] { v } else { hi[i] };
                sum[i] += v;
            }
        }
        for (i, &v) in rest.iter().enumerate() {
            lo[i] = if v < lo[i] { v } else { lo[i] };
            hi[i] = if v > hi[i] { v } else { hi[i] };
            sum[i] += v;
        }
        let (mut least, mut most, mut total) = (lo[0], hi[0], sum[0]);
        for i in 1..32 {
            least = if lo[i] < least { lo[i] } else { least };
            most = if hi[i] > most { hi[i] } else { most };
            total += sum[i];
        }
        [least, most, total]
    }
}

/// Whether all pixels are finite, not too large for products with filters, and within `RANGE` of one another.
fn all_near<T: Scalar>(v: &[T]) -> bool {
    let [lo, hi, sum] = extremes(v);
    sum.is_finite() && hi < T::from_f64(LIMIT) && hi <= lo * T::from_f64(RANGE)
}

/// The rows of an image that rows of tiles of `side` pixels, four apart, see.
pub(super) fn rows_seen(tiles: &Range<usize>, side: usize, before: usize, height: usize) -> Range<usize> {
    let row = |padded: usize| padded.saturating_sub(before).min(height);
    row(4 * tiles.start)..row((4 * tiles.end + side).saturating_sub(4))
}

/// Magnitudes of the rows of an image that some rows of tiles see.
pub(super) struct Strip<'a, T> {
    pub magnitudes: &'a [T],
    /// Rows of the image.
    pub rows: Range<usize>,
    pub width: usize,
    pub before: [usize; 2],
}

impl<T: Scalar> Strip<'_, T> {
    /// Of `size` pixels from (top, left) of the padded image on, the magnitudes, 0 where there are none, and how many there are.
    fn tile(&self, [top, left]: [usize; 2], size: [usize; 2]) -> ([[T; 6]; 6], usize) {
        let (mut tile, mut inside) = ([[T::ZERO; 6]; 6], 0);
        for (r, line) in tile.iter_mut().enumerate().take(size[0]) {
            let Some(row) = (top + r).checked_sub(self.before[0]).filter(|r| self.rows.contains(r)) else {
                continue;
            };
            let from = &self.magnitudes[(row - self.rows.start) * self.width..][..self.width];
            for (c, v) in line.iter_mut().enumerate().take(size[1]) {
                if let Some(&m) = (left + c).checked_sub(self.before[1]).and_then(|c| from.get(c)) {
                    *v = m;
                    inside += 1;
                }
            }
        }
        (tile, inside)
    }

    /// Whether the four pixels in the middle, of which each window contains one, are near the largest of a tile that lies
    /// in the image.
    fn near_by_the_middle(&self, [top, left]: [usize; 2]) -> bool {
        let (Some(top), Some(left)) = (top.checked_sub(self.before[0]), left.checked_sub(self.before[1]))
        else {
            return false;
        };
        if top < self.rows.start || top + 6 > self.rows.end || left + 6 > self.width {
            return false;
        }
        let from = &self.magnitudes[(top - self.rows.start) * self.width + left..];
        let (mut hi, mut lo, mut sum) = (T::ZERO, T::INFINITY, T::ZERO);
        for r in 0..6 {
            let row = &from[r * self.width..][..6];
            for &v in row {
                hi = if v > hi { v } else { hi };
                sum += v;
            }
            if r == 2 || r == 3 {
                for v in [row[2], row[3]] {
                    lo = if v < lo { v } else { lo };
                }
            }
        }
        sum.is_finite() && hi < T::from_f64(LIMIT) && hi <= lo * T::from_f64(RANGE)
    }
}

/// The largest of some pixels; NaN is larger than all.
fn largest<T: Scalar>(tile: &[[T; 6]; 6], rows: Range<usize>, cols: Range<usize>) -> T {
    let mut hi = T::ZERO;
    for row in &tile[rows] {
        for &v in &row[cols.clone()] {
            hi = if v > hi || v.is_nan() { v } else { hi };
        }
    }
    hi
}

/// Of a tile, the outputs (i, j), as bit 4 i + j, for which the transforms are not used: those whose window is wholly 0, and
/// those that are summed over their windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exempt {
    pub zero: u16,
    pub wide: u16,
}

/// Finds the exempt outputs of the tiles in some rows of tiles of an image.
pub(super) fn exempt<T: Scalar>(pass: &Pass, strip: &Strip<'_, T>, tiles: Range<usize>, to: &mut [Exempt]) {
    // With so little padding each window contains a pixel of the image.
    let after = |axis: usize| (pass.output[axis] + 2).saturating_sub(pass.input[axis] + pass.before[axis]);
    let seen = (0..2).all(|axis| pass.before[axis] <= 2 && after(axis) <= 2);
    to.fill(Exempt::default());
    if seen && all_near(strip.magnitudes) {
        return;
    }
    let across = pass.tiles()[1];
    for (row, to) in tiles.zip(to.chunks_exact_mut(across)) {
        for (t, to) in to.iter_mut().enumerate() {
            let corner = [4 * row, 4 * t];
            if strip.near_by_the_middle(corner) {
                continue;
            }
            let (tile, inside) = strip.tile(corner, [6, 6]);
            let hi = largest(&tile, 0..6, 0..6);
            if hi == T::ZERO {
                continue;
            }
            let (mut near, mut other) = (hi < T::from_f64(LIMIT) && no_outlier(&tile, inside, hi), 0);
            for i in 0..4.min(pass.output[0] - corner[0]) {
                for j in 0..4.min(pass.output[1] - corner[1]) {
                    let own = largest(&tile, i..i + 3, j..j + 3);
                    let bit = 1 << (4 * i + j);
                    if own == T::ZERO {
                        to.zero |= bit;
                    } else {
                        near &= hi <= own * T::from_f64(RANGE);
                        other |= bit;
                    }
                }
            }
            to.wide = if near { 0 } else { other };
        }
    }
}

/// Whether at least two of the pixels are near the largest, or there is but one.
fn no_outlier<T: Scalar>(tile: &[[T; 6]; 6], inside: usize, hi: T) -> bool {
    let near = |v: &&T| hi <= **v * T::from_f64(RANGE);
    hi == T::ZERO || inside < 2 || tile.iter().flatten().filter(near).count() > 1
}

/// The tiles of a strip of x and of ∂E/∂y whose products are not to be added up transformed: calls
/// `skip(tile's row, tile in it, its outputs)`, those of which that add something to ∂E/∂w, as bit 4 i + j.
pub(super) fn skipped<T: Scalar>(
    pass: &Pass,
    (x, dy): (&Strip<'_, T>, &Strip<'_, T>),
    tiles: Range<usize>,
    mut skip: impl FnMut(usize, usize, u16),
) {
    let [oh, ow] = pass.output;
    if all_near(x.magnitudes) && all_near(dy.magnitudes) {
        return;
    }
    for row in tiles {
        for t in 0..pass.tiles()[1] {
            let corner = [4 * row, 4 * t];
            let size = [4.min(oh - corner[0]), 4.min(ow - corner[1])];
            let (d, d_inside) = x.tile(corner, size.map(|n| n + 2));
            let (g, g_inside) = dy.tile(corner, size);
            let (d_hi, g_hi) = (largest(&d, 0..6, 0..6), largest(&g, 0..6, 0..6));
            let finite = d_hi < T::from_f64(LIMIT) && g_hi < T::from_f64(LIMIT);
            // Whether along an axis the tile's pixels that a tap sees are padding, where nothing in the tile compares with what it sees.
            let padding = |axis: usize, tap: usize| {
                let (from, before) = (corner[axis] + tap, x.before[axis]);
                from + size[axis] <= before || from >= before + pass.input[axis]
            };
            let seen = |tap: usize| {
                let (r, s) = (tap / 3, tap % 3);
                let own = largest(&d, r..r + size[0], s..s + size[1]);
                padding(0, r) || padding(1, s) || d_hi <= own * T::from_f64(RANGE)
            };
            // There it sees them with the outputs of the tile before.
            let compares = |axis: usize| {
                let Some(before) = corner[axis].checked_sub(4) else { return false };
                let (mut corner, mut size) = (corner, size);
                (corner[axis], size[axis]) = (before, 4);
                let (other, _) = dy.tile(corner, size);
                g_hi <= largest(&other, 0..6, 0..6) * T::from_f64(RANGE)
            };
            let near = finite
                && (0..9).all(seen)
                && (0..2).all(|axis| d_hi == T::ZERO || !(0..3).any(|t| padding(axis, t)) || compares(axis))
                && no_outlier(&d, d_inside, d_hi)
                && no_outlier(&g, g_inside, g_hi);
            if near {
                continue;
            }
            let mut outputs = 0;
            for i in 0..size[0] {
                for j in 0..size[1] {
                    let (window, g) = (largest(&d, i..i + 3, j..j + 3), g[i][j]);
                    let nothing =
                        (window == T::ZERO && g.is_finite()) || (g == T::ZERO && window.is_finite());
                    outputs |= u16::from(!nothing) << (4 * i + j);
                }
            }
            skip(row, t, outputs);
        }
    }
}
