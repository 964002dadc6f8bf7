//! Which way a product is computed, and in which blocks.
//!
//! The figures were measured on a Zen 4 with 32 KiB, 1 MiB and 32 MiB of cache and on a Sapphire Rapids with 48 KiB and
//! 2 MiB, which does twice the arithmetic in a cycle; the example `gemm_peak` shows what they give.

use super::{
    engine::{LONG, Product, SERIAL},
    tile::most_rows,
};
use crate::{
    Scalar,
    kernels::{Isa, lanes::lanes, reduce},
};

/// Bytes of a packed block of A, which stays in the second-level cache, and of B, in the third.
const A_BYTES: usize = 512 << 10;
const B_BYTES: usize = 4 << 20;
/// Bytes of a block of B that is transposed as it is packed, for rows of A that are read in place: an eighth of a second-level cache
/// of 1 MiB, so that A's rows stay there too.
const TRANSPOSED: usize = 128 << 10;
/// Most of the inner dimension that is packed at a time: a panel of two vectors of f32 is then 64 KiB on AVX-512, and a tile's
/// rows of A 28 KiB.
const DEPTH: usize = 512;
/// Most addends that a lane of a tile takes one after another, packed or not: their rounding is what [`LONG`] allows for.
const MOST: usize = DEPTH * 3 / 2;

/// How a product is computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub dots: bool,
    pub pack_a: bool,
    pub pack_b: bool,
    /// Whether the first tile of a panel of B packs it for the others.
    pub keep_b: bool,
    /// Most rows of a tile, and its columns.
    pub mr: usize,
    pub nr: usize,
    /// Rows and columns of C, and depth of the sum, of a block.
    pub mc: usize,
    pub nc: usize,
    pub kc: usize,
    /// The length of the whole sum, of which the product may be a part.
    pub whole: usize,
}

/// Chooses between C and Cᵀ, and whether dot products are the cheaper way: by an estimate of cycles. Never dot products if `STEADY`.
#[inline]
pub(super) fn orient<const STEADY: bool, T: Scalar>(p: &mut Product<T>) -> bool {
    // A side of one element is contiguous with any stride.
    if p.m == 1 {
        (p.a.side, p.c_row) = (1, 1);
    }
    if p.n == 1 {
        (p.b.side, p.c_col) = (1, 1);
    }
    if p.k == 1 {
        (p.a.inner, p.b.inner) = (1, 1);
    }
    // Lanes are a power of two; divisions would be a tenth of a small product. Those of a sum and not of a vector: whether products are
    // sums along vectors must not depend on the instruction set.
    let over = |n: usize| n & (T::LANES - 1);
    let filled = |n: usize| (n + T::LANES - 1) & !(T::LANES - 1);
    // In sixteenths of a cycle, for vectors of sixteen.
    let cost = |p: &Product<T>| {
        let pack = if p.b.side == 1 { 0 } else { p.n * (6 * p.k + 26 * over(p.k)) };
        let scatter = if p.c_col == 1 { 0 } else { 10 * p.m * p.n };
        p.m * p.k * filled(p.n) + pack + scatter
    };
    let (straight, transposed) = (cost(p), cost(&p.t()));
    // Dot products read all of B for four rows of A.
    let near = p.m.min(p.n) <= 8 || p.k * (p.m + p.n) <= 1 << 14;
    if !STEADY && p.a.inner == 1 && p.b.inner == 1 && near && p.k <= MOST * T::LANES {
        let dots = p.m * p.n * (filled(p.k) * 9 / 8 + 60);
        if dots < straight.min(transposed) {
            return true;
        }
    }
    if transposed < straight {
        *p = p.t();
    }
    false
}

/// How many rows and columns make a tile, what is packed, and in which blocks.
pub(super) fn plan<T: Scalar>(p: &Product<T>, dots: bool, work: usize, isa: Isa, whole: usize) -> Plan {
    let (lanes, rows) = (lanes::<T>(isa), most_rows::<T>(isa));
    if dots {
        return Plan {
            dots,
            pack_a: false,
            pack_b: false,
            keep_b: false,
            mr: 4,
            nr: 8,
            mc: p.m,
            nc: p.n,
            kc: p.k,
            whole,
        };
    }
    let vectors = match p.b.width / lanes {
        0 if p.m <= rows[3] && p.n > 4 * lanes => 8,
        0 if p.m <= rows[2] && p.n > 2 * lanes => 4,
        0 if p.n > lanes => 2,
        0 => 1,
        packed => packed,
    };
    let nr = vectors * lanes;
    let mr = match p.a.width {
        0 => rows[vectors.ilog2() as usize],
        packed => packed,
    };
    // A block of B is packed if it has to be transposed, or is streamed from memory for many rows. Otherwise, unless it stays in
    // the first-level cache anyway, the first tile of a panel packs it for the others, which costs that tile nothing.
    let bytes = p.n * p.k * size_of::<T>();
    let pack_b = p.b.width == 0 && (p.b.side != 1 || (p.m > 16 * mr && bytes >= 1 << 20));
    let keep_b = p.b.width == 0 && !pack_b && vectors == 2 && p.m > mr && bytes > 32 << 10;
    // Rows whole pages apart share a few sets of the first-level cache; others are worth packing for many panels.
    let pages = |stride: usize| (stride * size_of::<T>()).is_multiple_of(4096);
    let page_aliased =
        if p.a.side == 1 { p.k > 64 && pages(p.a.inner) } else { p.a.inner != 1 || pages(p.a.side) };
    let pack_a = p.a.width == 0 && ((page_aliased && p.n >= 2 * nr) || (p.m > 6 && p.n >= 8 * nr));
    let kc = match p.k {
        _ if whole > LONG => reduce::DEPTH,
        k if k <= MOST => k,
        k => k.div_ceil(k.div_ceil(DEPTH)),
    };
    if !pack_a && !pack_b && !keep_b && work < SERIAL {
        return Plan { dots, pack_a, pack_b, keep_b, mr, nr, mc: p.m, nc: p.n, kc, whole };
    }
    let fit = |bytes: usize, unit: usize| (bytes / size_of::<T>() / kc.max(1) / unit).max(1) * unit;
    Plan {
        dots,
        pack_a,
        pack_b,
        keep_b,
        mr,
        nr,
        mc: fit(A_BYTES, 1),
        nc: fit(if pack_b && !pack_a && p.a.width == 0 { TRANSPOSED } else { B_BYTES }, nr),
        kc,
        whole,
    }
}

/// Rows of a tile: at most `most`, and all tiles about as high.
pub(in crate::kernels) fn tile_rows(m: usize, most: usize) -> usize {
    m.div_ceil(m.div_ceil(most).max(1)).max(1)
}
