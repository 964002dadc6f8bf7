//! Attention by tiles of queries and keys: scores are made a tile at a time, and softmax keeps a running maximum and sum (Rabe and
//! Staats, 2021; Dao, Fu, Ermon, Rudra and Ré, 2022), so that no matrix of T × S is held.
//!
//! Tiles of keys begin at multiples of `KEYS`, and a row's products are steady sums: the bits of a query's output depend neither
//! on which queries are computed with it nor on keys behind those it sees.

use crate::{
    Scalar, compiled,
    disjoint::Disjoint,
    kernels::{
        gemm::{Epilogue, Mat, MatMut, matmul, matmul_steady},
        kernel,
        reduce::{self, fold},
        transpose::transpose_to,
    },
    noise, par,
};
use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Queries and keys of a tile; the former divide the latter.
const QUERIES: usize = 64;
const KEYS: usize = 128;
/// Lanes of the sum of a row.
const LANES: usize = 16;
/// Most pieces that have scratch memory of their own.
const SLOTS: usize = 32;

/// Lengths of a call: N samples, T queries and S keys, `heads` of the queries over `kv_heads` of the keys, D elements of a query and
/// of a key, and those of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// N
    pub n: usize,
    /// T
    pub t: usize,
    /// S, with the keys that are added.
    pub s: usize,
    /// H
    pub heads: usize,
    /// Heads of keys and values, which divide H.
    pub kv_heads: usize,
    /// D
    pub d: usize,
    /// Elements of a value.
    pub dv: usize,
}

/// Queries, keys or values: row i of head h of sample n is at `n·batch + i·row + h·head`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, T> {
    /// The elements.
    pub data: &'a [T],
    /// From sample to sample.
    pub batch: usize,
    /// From row to row.
    pub row: usize,
    /// From head to head.
    pub head: usize,
}

impl<'a, T> Rows<'a, T> {
    /// (N, rows, heads, width), one after another.
    pub fn joined(data: &'a [T], rows: usize, heads: usize, width: usize) -> Self {
        Self { data, batch: rows * heads * width, row: heads * width, head: width }
    }

    #[inline(always)]
    fn mat(&self, n: usize, head: usize, rows: Range<usize>, width: usize) -> Mat<'a, T> {
        let from = n * self.batch + rows.start * self.row + head * self.head;
        Mat::strided(&self.data[from..], rows.len(), width, self.row, 1)
    }
}

/// A mask.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a, T> {
    /// None.
    None,
    /// What is not 0 is hidden.
    Boolean(&'a [T]),
    /// Added to the scores.
    Additive(&'a [T]),
}

/// What is done to the scores q·k.
#[derive(Clone, Copy, Debug)]
pub struct Scores<'a, T> {
    /// Their factor.
    pub scale: T,
    /// The position of the first query; that of a key is its number, added ones not counted.
    pub past: usize,
    /// Keys that are added before the others: every query sees them.
    pub extra: usize,
    /// Whether a query sees no later key.
    pub causal: bool,
    /// Keys as far away as this or farther are hidden.
    pub window: Option<usize>,
    /// Of each head, −slope · distance is added; empty for none.
    pub slopes: &'a [T],
    /// (N, S), a sample's elements `keys_stride` behind the last one's.
    pub keys: Mask<'a, T>,
    /// From sample to sample of `keys`.
    pub keys_stride: usize,
    /// (T, S), or (N H, T, S).
    pub pairs: Mask<'a, T>,
    /// Whether `pairs` has a mask for each head of each sample.
    pub pairs_by_head: bool,
    /// The key of the noise, and the probability at which weights become 0.
    pub dropout: Option<(u64, f64)>,
}

impl<T: Scalar> Scores<'_, T> {
    /// Scores q·k `scale` alone.
    pub fn plain(scale: T) -> Self {
        Self {
            scale,
            past: 0,
            extra: 0,
            causal: false,
            window: None,
            slopes: &[],
            keys: Mask::None,
            keys_stride: 0,
            pairs: Mask::None,
            pairs_by_head: false,
            dropout: None,
        }
    }

    /// The keys that the query at a position sees, by position.
    #[inline(always)]
    fn seen(&self, at: usize, keys: usize) -> Range<usize> {
        let low = self.window.map_or(0, |w| (at + 1).saturating_sub(w)).min(keys);
        let high = match (self.causal, self.window) {
            (true, _) => at + 1,
            (_, Some(w)) => at.saturating_add(w),
            _ => keys,
        };
        low..high.min(keys).max(low)
    }

    /// Of `s` keys, the first tile that some of these queries see, and the end of what they see.
    fn tiles(&self, queries: &Range<usize>, s: usize) -> (usize, usize) {
        let keys = s - self.extra;
        let first = self.seen(self.past + queries.start, keys).start;
        let end = self.seen(self.past + queries.end - 1, keys).end + self.extra;
        (if self.extra > 0 { 0 } else { first / KEYS }, end)
    }
}

/// The query tiles of a sample: at multiples of [`QUERIES`] among positions.
fn query_tiles(past: usize, t: usize) -> usize {
    if t == 0 { 0 } else { (past + t).div_ceil(QUERIES) - past / QUERIES }
}

fn query_tile(past: usize, t: usize, tile: usize) -> Range<usize> {
    let start = (past / QUERIES + tile) * QUERIES;
    start.max(past) - past..(start + QUERIES - past).min(t)
}

/// Where a tile lies.
#[derive(Clone, Copy)]
struct Place {
    n: usize,
    head: usize,
    first: usize,
    rows: usize,
    key: usize,
    width: usize,
}

kernel! {
    /// Adds what is added to the scores of a tile, and hides what is hidden: −∞.
    fn cells[T: Scalar](tile: &mut [T], sizes: Sizes, scores: &Scores<'_, T>, at: Place) {
        let keys = sizes.s - scores.extra;
        let start = at.key.max(scores.extra).min(at.key + at.width) - at.key; // columns of added keys
        let first = at.key + start - scores.extra.min(at.key + start); // the position of the key behind them
        let end = first + at.width - start;
        for i in 0..at.rows {
            let q = scores.past + at.first + i;
            let line = &mut tile[i * KEYS..][..KEYS];
            let (known, behind) = line.split_at_mut(at.width);
            behind.fill(T::NEG_INFINITY);
            let line = &mut known[start..];
            if let Some(&slope) = scores.slopes.get(at.head) {
                for (v, key) in line.iter_mut().zip(first..) {
                    *v -= slope * T::from_usize(q.abs_diff(key));
                }
            }
            let row = if scores.pairs_by_head { (at.n * sizes.heads + at.head) * sizes.t } else { 0 };
            let pair = (row + at.first + i) * keys + first;
            let rows = [(scores.pairs, pair), (scores.keys, at.n * scores.keys_stride + first)];
            for (mask, from) in rows {
                match mask {
                    Mask::None => {}
                    Mask::Boolean(mask) => {
                        for (v, &m) in line.iter_mut().zip(&mask[from..][..end - first]) {
                            *v = if m != T::ZERO { T::NEG_INFINITY } else { *v };
                        }
                    }
                    Mask::Additive(mask) => {
                        for (v, &m) in line.iter_mut().zip(&mask[from..][..end - first]) {
                            *v += m;
                        }
                    }
                }
            }
            let seen = scores.seen(q, keys);
            let (low, high) = (seen.start.clamp(first, end) - first, seen.end.clamp(first, end) - first);
            line[..low].fill(T::NEG_INFINITY);
            line[high.max(low)..].fill(T::NEG_INFINITY);
        }
    }
}

/// exp(s − m), 0 of what is hidden.
#[inline(always)]
fn weight<T: Scalar, const FMA: bool>(s: T, m: T) -> T {
    let e = (m - s).v_exp_neg::<FMA>();
    if s == T::NEG_INFINITY { T::ZERO } else { e }
}

/// The largest score that is not −∞; 0 if all are.
#[inline(always)]
fn base<T: Scalar>(m: T) -> T {
    if m == T::NEG_INFINITY { T::ZERO } else { m }
}

/// The running maxima and sums of queries.
struct Running<T> {
    max: [T; QUERIES],
    sum: [f64; QUERIES],
    /// By what the sums before the last tile were multiplied.
    factor: [T; QUERIES],
}

impl<T: Scalar> Running<T> {
    fn new() -> Self {
        Self { max: [T::NEG_INFINITY; QUERIES], sum: [0.0; QUERIES], factor: [T::ONE; QUERIES] }
    }
}

kernel! {
    /// p = exp(s − max) of each of `rows` rows, with the maximum so far; `width` is a multiple of the lanes.
    fn running_rows[T: Scalar](tile: &mut [T], rows: usize, width: usize, of: &mut Running<T>) {
        let tile = &mut tile[..rows * KEYS];
        for ((line, max), factor) in tile.chunks_exact(KEYS).zip(&mut of.max).zip(&mut of.factor) {
            let mut lanes = [*max; LANES];
            for part in line[..width].as_chunks::<LANES>().0 {
                for (lane, &v) in lanes.iter_mut().zip(part) {
                    *lane = if v > *lane { v } else { *lane };
                }
            }
            (*max, *factor) = (largest(lanes), *max);
        }
        for (factor, &max) in of.factor[..rows].iter_mut().zip(&of.max) {
            *factor = if *factor == max { T::ONE } else { weight::<T, FMA>(*factor, base(max)) };
        }
        let sums = of.sum.iter_mut().zip(&of.factor);
        for ((line, &max), (sum, &factor)) in tile.chunks_exact_mut(KEYS).zip(&of.max).zip(sums) {
            let (m, mut lanes) = (base(max), [T::ZERO; LANES]);
            for part in line[..width].as_chunks_mut::<LANES>().0 {
                for (lane, v) in lanes.iter_mut().zip(part) {
                    *v = weight::<T, FMA>(*v, m);
                    *lane += *v;
                }
            }
            *sum = *sum * factor.to_f64() + fold(lanes).to_f64();
        }
    }
}

/// The largest of the lanes: of halves, until one is left.
#[inline(always)]
fn largest<T: Scalar>(mut lanes: [T; LANES]) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            let other = lanes[i + width];
            lanes[i] = if other > lanes[i] { other } else { lanes[i] };
        }
        width /= 2;
    }
    lanes[0]
}

kernel! {
    /// p = exp(s − m)/l of each row.
    fn weight_rows[T: Scalar](tile: &mut [T], width: usize, stats: &[[T; 2]], heads: usize) {
        for (line, stats) in tile.chunks_exact_mut(KEYS).zip(stats.iter().step_by(heads)) {
            let [m, by] = *stats;
            line[..width].iter_mut().for_each(|v| *v = weight::<T, FMA>(*v, m) * by);
        }
    }
}

kernel! {
    /// o = factor o + part of each row of o, which is `row` apart.
    fn add_rows[T: Scalar](o: &mut [T], row: usize, part: &[T], dv: usize, factors: &[T]) {
        for ((o, part), &factor) in o.chunks_mut(row).zip(part.chunks_exact(dv)).zip(factors) {
            for (o, &part) in o.iter_mut().zip(part) {
                *o = *o * factor + part;
            }
        }
    }
}

kernel! {
    /// Weights become 0 or are multiplied by 1/(1 − p), by the noise at their place in (N, H, T, S).
    fn drop_rows[T: Scalar](tile: &mut [T], sizes: Sizes, at: Place, key: u64, p: f64) {
        let threshold = (p * f64::from(u32::MAX)) as u32;
        let scale = if p < 1.0 { T::from_f64(1.0 / (1.0 - p)) } else { T::ZERO };
        for (i, line) in tile.chunks_exact_mut(KEYS).take(at.rows).enumerate() {
            let row = (at.n * sizes.heads + at.head) * sizes.t + at.first + i;
            let first = (row * sizes.s + at.key) as u64;
            for (v, position) in line[..at.width].iter_mut().zip(first..) {
                *v *= if noise(key, position) as u32 >= threshold { scale } else { T::ZERO };
            }
        }
    }
}

kernel! {
    /// ∂s = p ⊙ (∂p − δ) of each row.
    fn score_gradient_rows[T: Scalar](p: &mut [T], dp: &[T], width: usize, delta: &[T], heads: usize) {
        let rows = p.chunks_exact_mut(KEYS).zip(dp.chunks_exact(KEYS));
        for ((p, dp), &delta) in rows.zip(delta.iter().step_by(heads)) {
            for (p, &dp) in p[..width].iter_mut().zip(&dp[..width]) {
                *p *= dp - delta;
            }
        }
    }
}

/// Calls `f(unit, scratch)` for each unit, on several threads: each has scratch memory of its own, `size` elements.
fn each_unit<T: Scalar>(units: usize, scratch: &mut Vec<T>, size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    grow(scratch, units.min(SLOTS) * size);
    each_unit_in(units, scratch, size, f);
}

fn grow<T: Scalar>(scratch: &mut Vec<T>, size: usize) {
    if scratch.len() < size {
        scratch.resize(size, T::ZERO);
    }
}

fn each_unit_in<T: Scalar>(units: usize, scratch: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let slots = units.min(SLOTS);
    let scratch = Disjoint::new(scratch);
    par::for_each(slots, |slot| {
        // SAFETY: each slot is visited once, and their parts do not overlap.
        let scratch = unsafe { scratch.part(slot * size, size) };
        (slot..units).step_by(slots).for_each(|unit| f(unit, scratch));
    });
}

/// Keys or values as columns: a matrix (width, [`KEYS`]) for each tile of them. One copy serves all tiles of queries.
#[derive(Clone, Copy)]
struct Columns<'a, T>(&'a [T]);

impl<T: Scalar> Columns<'_, T> {
    /// Elements for `s` rows; none for queries of a single tile.
    fn len(sizes: Sizes, width: usize) -> usize {
        if sizes.t > QUERIES { sizes.s.next_multiple_of(KEYS) * width } else { 0 }
    }

    fn fill(to: &mut [T], rows: Rows<'_, T>, (n, head): (usize, usize), s: usize, width: usize) {
        for (to, key) in to.chunks_exact_mut(KEYS * width).zip((0..s).step_by(KEYS)) {
            let from = &rows.data[n * rows.batch + key * rows.row + head * rows.head..];
            transpose_to((from, rows.row), [KEYS.min(s - key), width], (to, KEYS));
        }
    }
}

/// The tile of keys or values of a place, transposed: (width of a row, keys).
#[inline(always)]
fn transposed<'a, T: Scalar>(
    rows: Rows<'a, T>,
    columns: Columns<'a, T>,
    kv: usize,
    at: Place,
    width: usize,
) -> Mat<'a, T> {
    match columns {
        Columns([]) => rows.mat(at.n, kv, at.key..at.key + at.width, width).t(),
        Columns(columns) => Mat::strided(&columns[at.key * width..], width, at.width, KEYS, 1),
    }
}

/// s = scale q kᵀ and what is added to it, of one tile.
#[inline(always)]
fn score_tile<T: Scalar>(
    sizes: Sizes,
    (q, k, columns): (Rows<'_, T>, Rows<'_, T>, Columns<'_, T>),
    scores: &Scores<'_, T>,
    at: Place,
    tile: &mut [T],
) {
    let kv = at.head / (sizes.heads / sizes.kv_heads);
    let queries = q.mat(at.n, at.head, at.first..at.first + at.rows, sizes.d); // (rows, D)
    let keys = transposed(k, columns, kv, at, sizes.d); // (D, width)
    let out = MatMut::strided(tile, at.rows, at.width, KEYS, 1);
    matmul_steady(scores.scale, queries, keys, T::ZERO, out, Epilogue::default()); // S = scale Q Kᵀ
    cells(tile, sizes, scores, at);
}

/// The places of the tiles of some queries of a head; the last is as wide as what they see.
fn places<T: Scalar>(
    sizes: Sizes,
    scores: &Scores<'_, T>,
    (n, head): (usize, usize),
    queries: Range<usize>,
) -> impl Iterator<Item = Place> + use<T> {
    let (tile, end) = scores.tiles(&queries, sizes.s);
    (tile * KEYS..end).step_by(KEYS).map(move |key| {
        let (first, rows) = (queries.start, queries.len());
        Place { n, head, first, rows, key, width: KEYS.min(end - key) }
    })
}

fn check<T>(sizes: Sizes, scores: &Scores<'_, T>, [q, k, v]: [Rows<'_, T>; 3]) {
    let Sizes { n, t, s, heads, kv_heads, d, dv } = sizes;
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "heads of keys divide those of queries");
    assert!(scores.extra <= s && d > 0 && dv > 0);
    if n == 0 {
        return;
    }
    let fits = |rows: Rows<'_, T>, count: usize, heads: usize, width: usize| {
        let last = [(n - 1, rows.batch), (count.saturating_sub(1), rows.row), (heads - 1, rows.head)];
        let last = last.iter().try_fold(width, |at, &(i, stride)| at.checked_add(i.checked_mul(stride)?));
        assert!(count == 0 || last.is_some_and(|end| end <= rows.data.len()), "the rows lie in the slice");
    };
    fits(q, t, heads, d);
    fits(k, s, kv_heads, d);
    fits(v, s, kv_heads, dv);
}

compiled! {
    /// o = softmax(scale q kᵀ + masks) v, (N, T, H dv); of each query and head, the largest score and 1/Σ exp(s − max), (N, T, H).
    /// Returns the first of (N, T, H) that sees no key, if there is one.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn forward[T](
        sizes: Sizes,
        rows: [Rows<'_, T>; 3],
        scores: &Scores<'_, T>,
        o: &mut [T],
        stats: &mut [[T; 2]],
        scratch: &mut Vec<T>,
    ) -> Option<usize> {
        check(sizes, scores, rows);
        let (Sizes { n, t, s, heads, kv_heads, d, dv }, [q, k, v]) = (sizes, rows);
        let width = heads * dv;
        assert!(o.len() == n * t * width && stats.len() == n * t * heads);
        let tiles = query_tiles(scores.past, t);
        let blind = AtomicUsize::new(usize::MAX);
        let (o, stats) = (Disjoint::new(o), Disjoint::new(stats));
        let (own, of_head) = (QUERIES * (KEYS + dv), Columns::<T>::len(sizes, d));
        grow(scratch, (n * tiles).min(SLOTS) * own + n * kv_heads * of_head);
        let (columns, scratch) = scratch.split_at_mut(n * kv_heads * of_head);
        if of_head > 0 {
            par::for_chunks(columns, of_head, |i, to| Columns::fill(to, k, (i / kv_heads, i % kv_heads), s, d));
        }
        let columns = &*columns;
        each_unit_in(n * tiles, scratch, own, |unit, scratch| {
            let (n, queries) = (unit / tiles, query_tile(scores.past, t, unit % tiles));
            let (first, count) = (n * t + queries.start, queries.len());
            // SAFETY: these queries of this sample are those of no other unit.
            let (o, stats) =
                unsafe { (o.part(first * width, count * width), stats.part(first * heads, count * heads)) };
            let (tile, part) = scratch.split_at_mut(QUERIES * KEYS);
            o.fill(T::ZERO);
            for head in 0..heads {
                let mut of = Running::new();
                let o = &mut o[head * dv..];
                let kv = head / (heads / kv_heads);
                let columns = Columns(&columns[(n * kv_heads + kv) * of_head..][..of_head]);
                for at in places(sizes, scores, (n, head), queries.clone()) {
                    score_tile(sizes, (q, k, columns), scores, at, tile);
                    running_rows(tile, count, at.width.next_multiple_of(LANES), &mut of); // p = exp(s − max)
                    if let Some((key, p)) = scores.dropout {
                        drop_rows(tile, sizes, at, key, p);
                    }
                    let p = Mat::strided(tile, count, at.width, KEYS, 1);
                    let v = v.mat(n, kv, at.key..at.key + at.width, dv);
                    let out = MatMut::new(part, count, dv);
                    matmul_steady(T::ONE, p, v, T::ZERO, out, Epilogue::default());
                    add_rows(o, width, part, dv, &of.factor[..count]); // o = factor o + P V
                }
                for (i, (&max, &sum)) in of.max.iter().zip(&of.sum).enumerate().take(count) {
                    if sum == 0.0 {
                        blind.fetch_min((first + i) * heads + head, Ordering::Relaxed);
                    }
                    let by = T::from_f64(1.0 / sum);
                    stats[i * heads + head] = [base(max), by];
                    o[i * width..][..dv].iter_mut().for_each(|o| *o *= by); // o /= Σ p
                }
            }
        });
        Some(blind.into_inner()).filter(|&at| at < usize::MAX)
    }
}

/// The column of the weights that belongs to a key: added ones come last.
fn column(key: usize, s: usize, extra: usize) -> usize {
    if key < extra { s - extra + key } else { key - extra }
}

compiled! {
    /// The weights p that [`forward`] gave the values, dropout included: (N, H, T, S), or their mean over heads, (N, T, S). Added keys
    /// come last.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn weights[T](
        sizes: Sizes,
        rows: [Rows<'_, T>; 3],
        scores: &Scores<'_, T>,
        stats: &[[T; 2]],
        mean: bool,
        out: &mut [T],
        scratch: &mut Vec<T>,
    ) {
        check(sizes, scores, rows);
        let (Sizes { n, t, s, heads, .. }, [q, k, _]) = (sizes, rows);
        let (units, per) = if mean { (n, heads) } else { (n * heads, 1) };
        assert!(out.len() == units * t * s && stats.len() == n * t * heads);
        let by = T::ONE / T::from_usize(per);
        let out = Disjoint::new(out);
        each_unit(units, scratch, QUERIES * KEYS, |unit, tile| {
            // SAFETY: the weights of this sample, or of this head of it, are those of no other unit.
            let out = unsafe { out.part(unit * t * s, t * s) };
            out.fill(T::ZERO);
            for head in unit * per..(unit + 1) * per {
                let (n, head) = (head / heads, head % heads);
                for queries in (0..query_tiles(scores.past, t)).map(|tile| query_tile(scores.past, t, tile)) {
                    for at in places(sizes, scores, (n, head), queries.clone()) {
                        score_tile(sizes, (q, k, Columns(&[])), scores, at, tile);
                        let stats = &stats[(n * t + at.first) * heads + head..];
                        weight_rows(&mut tile[..at.rows * KEYS], at.width, stats, heads);
                        if let Some((key, p)) = scores.dropout {
                            drop_rows(tile, sizes, at, key, p);
                        }
                        for (i, line) in tile.chunks_exact(KEYS).take(at.rows).enumerate() {
                            let out = &mut out[(at.first + i) * s..][..s];
                            for (j, &p) in line[..at.width].iter().enumerate() {
                                out[column(at.key + j, s, scores.extra)] += p * by;
                            }
                        }
                    }
                }
            }
        });
    }
}

/// What backward is given: what forward was given and gave.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a, T> {
    /// Queries, keys and values.
    pub rows: [Rows<'a, T>; 3],
    /// The output, (N, T, H dv).
    pub o: &'a [T],
    /// The largest scores and inverse sums, (N, T, H).
    pub stats: &'a [[T; 2]],
    /// ∂E/∂o, (N, T, H dv).
    pub d_o: &'a [T],
    /// ∂E/∂weights, (N, H, T, S), or of their mean over heads, (N, T, S), if the flag says so.
    pub dw: Option<(&'a [T], bool)>,
}

/// ∂p̃ += ∂E/∂weights of a tile, for weights p̃.
#[inline(always)]
fn add_weight_gradient<T: Scalar>(sizes: Sizes, extra: usize, dw: (&[T], bool), at: Place, dp: &mut [T]) {
    let Sizes { t, s, heads, .. } = sizes;
    let (dw, mean) = dw;
    let (row, by) =
        if mean { (at.n * t, T::ONE / T::from_usize(heads)) } else { ((at.n * heads + at.head) * t, T::ONE) };
    for (i, dp) in dp.chunks_exact_mut(KEYS).take(at.rows).enumerate() {
        let dw = &dw[(row + at.first + i) * s..][..s];
        for (j, dp) in dp[..at.width].iter_mut().enumerate() {
            *dp += dw[column(at.key + j, s, extra)] * by;
        }
    }
}

/// Computes p and ∂s of a tile, between which `with_weights` is called with p̃, the weights after dropout.
#[inline(always)]
fn gradient_tile<T: Scalar>(
    sizes: Sizes,
    call: &Recorded<'_, T>,
    scores: &Scores<'_, T>,
    delta: &[T],
    at: Place,
    [columns, of_values]: [Columns<'_, T>; 2],
    (p, dp): (&mut [T], &mut [T]),
    with_weights: impl FnOnce(Mat<'_, T>),
) {
    let Sizes { t, heads, kv_heads, dv, .. } = sizes;
    let [q, k, v] = call.rows;
    score_tile(sizes, (q, k, columns), scores, at, p);
    let first = (at.n * t + at.first) * heads + at.head;
    weight_rows(&mut p[..at.rows * KEYS], at.width, &call.stats[first..], heads); // p = exp(s − m)/l
    match scores.dropout {
        Some((key, share)) => {
            dp[..at.rows * KEYS].copy_from_slice(&p[..at.rows * KEYS]);
            drop_rows(dp, sizes, at, key, share);
            with_weights(Mat::strided(dp, at.rows, at.width, KEYS, 1));
        }
        None => with_weights(Mat::strided(p, at.rows, at.width, KEYS, 1)),
    }
    let d_o = Rows::joined(call.d_o, t, heads, dv).mat(at.n, at.head, at.first..at.first + at.rows, dv);
    let v = transposed(v, of_values, at.head / (heads / kv_heads), at, dv);
    matmul(T::ONE, d_o, v, T::ZERO, MatMut::strided(dp, at.rows, at.width, KEYS, 1)); // dP = dO Vᵀ
    if let Some(dw) = call.dw {
        add_weight_gradient(sizes, scores.extra, dw, at, dp);
    }
    if let Some((key, share)) = scores.dropout {
        drop_rows(dp, sizes, at, key, share);
    }
    score_gradient_rows(&mut p[..at.rows * KEYS], dp, at.width, &delta[first..], heads); // dS = P ⊙ (dP − δ)
}

compiled! {
    /// δ = Σ ∂p ⊙ p of each query and head, (N, T, H): ∂o · o, and the part of ∂E/∂weights.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn deltas[T](
        sizes: Sizes,
        call: Recorded<'_, T>,
        scores: &Scores<'_, T>,
        delta: &mut [T],
        scratch: &mut Vec<T>,
    ) {
        check(sizes, scores, call.rows);
        let (Sizes { n, t, heads, dv, .. }, [q, k, _]) = (sizes, call.rows);
        let width = heads * dv;
        assert!(call.o.len() == n * t * width && call.d_o.len() == n * t * width);
        assert!(call.stats.len() == n * t * heads && delta.len() == n * t * heads);
        let tiles = query_tiles(scores.past, t);
        let delta = Disjoint::new(delta);
        each_unit(n * tiles, scratch, 2 * QUERIES * KEYS, |unit, scratch| {
            let (n, queries) = (unit / tiles, query_tile(scores.past, t, unit % tiles));
            let first = n * t + queries.start;
            // SAFETY: these queries of this sample are those of no other unit.
            let delta = unsafe { delta.part(first * heads, queries.len() * heads) };
            let of = first * width..(first + queries.len()) * width;
            for ((delta, o), d_o) in
                delta.iter_mut().zip(call.o[of.clone()].chunks(dv)).zip(call.d_o[of].chunks(dv))
            {
                *delta = T::from_f64(reduce::dot(o, d_o)); // δ = dO · O
            }
            let Some(dw) = call.dw else { return };
            let (tile, dp) = scratch.split_at_mut(QUERIES * KEYS);
            for head in 0..heads {
                for at in places(sizes, scores, (n, head), queries.clone()) {
                    score_tile(sizes, (q, k, Columns(&[])), scores, at, tile);
                    let stats = &call.stats[first * heads + head..];
                    weight_rows(&mut tile[..at.rows * KEYS], at.width, stats, heads);
                    dp.fill(T::ZERO);
                    add_weight_gradient(sizes, scores.extra, dw, at, dp);
                    if let Some((key, p)) = scores.dropout {
                        drop_rows(tile, sizes, at, key, p);
                    }
                    let lines = tile.chunks_exact(KEYS).zip(dp.chunks_exact(KEYS));
                    for (i, (p, dp)) in lines.take(at.rows).enumerate() {
                        let part = reduce::dot(&p[..at.width], &dp[..at.width]);
                        delta[i * heads + head] += T::from_f64(part); // δ += ∂E/∂w · w
                    }
                }
            }
        });
    }
}

compiled! {
    /// ∂q (N, H, T, D), ∂k (N, Hk, S, D) and ∂v (N, Hk, S, dv), Hk the heads of the keys; δ is that of [`deltas`].
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn backward[T](
        sizes: Sizes,
        call: Recorded<'_, T>,
        scores: &Scores<'_, T>,
        delta: &[T],
        gradients: [&mut [T]; 3],
        scratch: &mut Vec<T>,
    ) {
        check(sizes, scores, call.rows);
        let (Sizes { n, t, s, heads, kv_heads, d, dv }, [q, k, v]) = (sizes, call.rows);
        let [dq, dk, dvs] = gradients;
        assert!(dq.len() == n * heads * t * d && dk.len() == n * kv_heads * s * d);
        assert!(dvs.len() == n * kv_heads * s * dv && delta.len() == n * t * heads);
        assert!(call.d_o.len() == n * t * heads * dv && call.stats.len() == delta.len());
        let group = heads / kv_heads;
        let [dq, dk, dvs] = [dq, dk, dvs].map(Disjoint::new);
        let lengths = [d, dv].map(|width| Columns::<T>::len(sizes, width));
        each_unit(n * kv_heads, scratch, 2 * QUERIES * KEYS + lengths[0] + lengths[1], |unit, scratch| {
            let (n, kv) = (unit / kv_heads, unit % kv_heads);
            // SAFETY: this head of keys of this sample and its heads of queries are those of no other unit.
            let (dq, dk, dvs) = unsafe {
                (
                    dq.part(unit * group * t * d, group * t * d),
                    dk.part(unit * s * d, s * d),
                    dvs.part(unit * s * dv, s * dv),
                )
            };
            [&mut *dq, &mut *dk, &mut *dvs].into_iter().for_each(|g| g.fill(T::ZERO));
            let (p, scratch) = scratch.split_at_mut(QUERIES * KEYS);
            let (dp, scratch) = scratch.split_at_mut(QUERIES * KEYS);
            let (of_keys, of_values) = scratch.split_at_mut(lengths[0]);
            Columns::fill(of_keys, k, (n, kv), s, d);
            Columns::fill(of_values, v, (n, kv), s, dv);
            let columns = [Columns(of_keys), Columns(of_values)];
            for (head, dq) in (kv * group..).zip(dq.chunks_mut((t * d).max(1))) {
                for queries in (0..query_tiles(scores.past, t)).map(|tile| query_tile(scores.past, t, tile)) {
                    let of_queries = Rows::joined(call.d_o, t, heads, dv).mat(n, head, queries.clone(), dv);
                    let dq = &mut dq[queries.start * d..][..queries.len() * d];
                    for at in places(sizes, scores, (n, head), queries.clone()) {
                        let keys = at.key..at.key + at.width;
                        gradient_tile(sizes, &call, scores, delta, at, columns, (&mut *p, &mut *dp), |weights| {
                            let dvs = MatMut::new(&mut dvs[at.key * dv..], at.width, dv);
                            matmul(T::ONE, weights.t(), of_queries, T::ONE, dvs); // dV += P̃ᵀ dO
                        });
                        let ds = Mat::strided(p, at.rows, at.width, KEYS, 1);
                        let dq = MatMut::new(dq, at.rows, d);
                        matmul(scores.scale, ds, k.mat(n, kv, keys, d), T::ONE, dq); // dQ += scale dS K
                        let of = q.mat(n, head, queries.clone(), d);
                        let dk = MatMut::new(&mut dk[at.key * d..], at.width, d);
                        matmul(scores.scale, ds.t(), of, T::ONE, dk); // dK += scale dSᵀ Q
                    }
                }
            }
        });
    }
}

compiled! {
    /// ∂E/∂mask of an additive mask of pairs, of its shape, and of one of keys (N, S).
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn mask_gradients[T](
        sizes: Sizes,
        call: Recorded<'_, T>,
        scores: &Scores<'_, T>,
        delta: &[T],
        pairs: Option<&mut [T]>,
        keys: Option<&mut [T]>,
        scratch: &mut Vec<T>,
        sums: &mut Vec<f64>,
    ) {
        check(sizes, scores, call.rows);
        let Sizes { n, t, s, heads, .. } = sizes;
        let (known, extra) = (s - scores.extra, scores.extra);
        let tiles = query_tiles(scores.past, t);
        assert!(delta.len() == n * t * heads && call.stats.len() == delta.len());
        // One thread: it is seldom requested.
        let size = 2 * QUERIES * KEYS;
        if scratch.len() < size {
            scratch.resize(size, T::ZERO);
        }
        let (p, dp) = scratch[..size].split_at_mut(QUERIES * KEYS);
        let mut tile = |at: Place, f: &mut dyn FnMut(usize, usize, T)| {
            gradient_tile(sizes, &call, scores, delta, at, [Columns(&[]); 2], (&mut *p, &mut *dp), |_| ());
            for (i, line) in p.chunks_exact(KEYS).take(at.rows).enumerate() {
                for (j, &ds) in line[..at.width].iter().enumerate() {
                    if at.key + j >= extra {
                        f(at.first + i, at.key + j - extra, ds);
                    }
                }
            }
        };
        let mut add = |sums: &mut Vec<f64>, of: Range<usize>, f: &dyn Fn(usize, usize) -> usize| {
            for sample in of.clone() {
                let (n, head) = (sample / heads, sample % heads);
                for queries in (0..tiles).map(|tile| query_tile(scores.past, t, tile)) {
                    for at in places(sizes, scores, (n, head), queries.clone()) {
                        tile(at, &mut |i, j, ds| sums[f(i, j)] += ds.to_f64());
                    }
                }
            }
        };
        if let Some(pairs) = pairs {
            let (masks, per) = if scores.pairs_by_head { (n * heads, 1) } else { (1, n * heads) };
            assert!(pairs.len() == masks * t * known);
            for (mask, out) in pairs.chunks_mut((t * known).max(1)).enumerate() {
                sums.clear();
                sums.resize(t * known, 0.0);
                add(sums, mask * per..(mask + 1) * per, &|i, j| i * known + j); // dM = Σ dS
                out.iter_mut().zip(&*sums).for_each(|(out, &sum)| *out = T::from_f64(sum));
            }
        }
        if let Some(keys) = keys {
            assert!(keys.len() == n * known);
            for (n, out) in keys.chunks_mut(known.max(1)).enumerate() {
                sums.clear();
                sums.resize(known, 0.0);
                add(sums, n * heads..(n + 1) * heads, &|_, j| j); // dM = Σ dS
                out.iter_mut().zip(&*sums).for_each(|(out, &sum)| *out = T::from_f64(sum));
            }
        }
    }
}

/// Elements of a piece of [`rotate`].
const PIECE: usize = 1 << 14;

compiled! {
    /// Rotates pairs of the rows of x (.., rows, heads, D) by the angles of a table of cosines and sines, (rows, D/2): of `halves`, i and
    /// i + D/2, otherwise neighbours. Back if `inverse`.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn rotate[T](x: &mut [T], table: &[[T; 2]], widths: [usize; 2], halves: bool, inverse: bool) {
        let [heads, d] = widths;
        let (half, row) = (d / 2, heads * d);
        if x.is_empty() {
            return;
        }
        let rows = table.len() / half;
        assert!(d > 0 && d.is_multiple_of(2) && rows > 0 && x.len().is_multiple_of(rows * row));
        let per = PIECE.div_ceil(row);
        par::for_chunks(x, per * row, |piece, x| {
            for (i, x) in x.chunks_exact_mut(row).enumerate() {
                let angles = &table[(piece * per + i) % rows * half..][..half];
                for x in x.chunks_exact_mut(d) {
                    if halves {
                        let (a, b) = x.split_at_mut(half);
                        for ((a, b), &[cos, sin]) in a.iter_mut().zip(b).zip(angles) {
                            let sin = if inverse { -sin } else { sin };
                            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                        }
                    } else {
                        for ([a, b], &[cos, sin]) in x.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                            let sin = if inverse { -sin } else { sin };
                            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                        }
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    fn normal(n: usize, seed: u64) -> Vec<f64> {
        let mut v = vec![0.0; n];
        Rng::new(seed).fill_normal(&mut v);
        v
    }

    /// What the plain formula gives, with the whole matrix of weights: o, weights, and of ∂o = `d_o` and ∂weights = `dw` the
    /// gradients of q, k, v, the pairs' mask and the keys'. All (N, rows, heads, width) but the weights, (N, H, T, S).
    struct Plain {
        o: Vec<f64>,
        weights: Vec<f64>,
        gradients: [Vec<f64>; 3],
        pairs: Vec<f64>,
        keys: Vec<f64>,
    }

    fn value(mask: Mask<'_, f64>, at: usize) -> f64 {
        match mask {
            Mask::None => 0.0,
            Mask::Boolean(mask) if mask[at] != 0.0 => f64::NEG_INFINITY,
            Mask::Boolean(_) => 0.0,
            Mask::Additive(mask) => mask[at],
        }
    }

    fn plain(sizes: Sizes, [q, k, v]: [&[f64]; 3], c: &Scores<'_, f64>, d_o: &[f64], dw: &[f64]) -> Plain {
        let Sizes { n, t, s, heads, kv_heads, d, dv } = sizes;
        let known = s - c.extra;
        let mut out = Plain {
            o: vec![0.0; n * t * heads * dv],
            weights: vec![0.0; n * heads * t * s],
            gradients: [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]],
            pairs: vec![0.0; if c.pairs_by_head { n * heads } else { 1 } * t * known],
            keys: vec![0.0; n * known],
        };
        for (b, h, i) in (0..n).flat_map(|b| (0..heads).flat_map(move |h| (0..t).map(move |i| (b, h, i)))) {
            let kv = h / (heads / kv_heads);
            let q_at = |x: usize| ((b * t + i) * heads + h) * d + x;
            let k_at = |j: usize, x: usize| ((b * s + j) * kv_heads + kv) * d + x;
            let v_at = |j: usize, x: usize| ((b * s + j) * kv_heads + kv) * dv + x;
            let o_at = |x: usize| ((b * t + i) * heads + h) * dv + x;
            let pair =
                |j: usize| (if c.pairs_by_head { (b * heads + h) * t } else { 0 } + i) * known + j - c.extra;
            let score = |j: usize| {
                let dot: f64 = (0..d).map(|x| q[q_at(x)] * k[k_at(j, x)]).sum();
                if j < c.extra {
                    return c.scale * dot;
                }
                let (at, key) = (c.past + i, j - c.extra);
                let near = c.window.is_none_or(|w| at.abs_diff(key) < w);
                if !near || (c.causal && key > at) {
                    return f64::NEG_INFINITY;
                }
                let slope = c.slopes.get(h).copied().unwrap_or(0.0);
                c.scale * dot - slope * at.abs_diff(key) as f64
                    + value(c.pairs, pair(j))
                    + value(c.keys, b * known + key)
            };
            let scores: Vec<f64> = (0..s).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            let row = ((b * heads + h) * t + i) * s;
            let kept = |j: usize| {
                let Some((key, p)) = c.dropout else { return 1.0 };
                let bits = noise(key, (row + j) as u64) as u32;
                if bits >= (p * f64::from(u32::MAX)) as u32 { 1.0 / (1.0 - p) } else { 0.0 }
            };
            let p: Vec<f64> = scores.iter().map(|s| (s - max).exp() / sum).collect();
            let mut dp = vec![0.0; s];
            for j in 0..s {
                let w = p[j] * kept(j);
                let at = row + column(j, s, c.extra);
                out.weights[at] = w;
                let mut dw = dw[at];
                for x in 0..dv {
                    out.o[o_at(x)] += w * v[v_at(j, x)];
                    out.gradients[2][v_at(j, x)] += w * d_o[o_at(x)];
                    dw += d_o[o_at(x)] * v[v_at(j, x)];
                }
                dp[j] = dw * kept(j);
            }
            let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
            for j in 0..s {
                let ds = p[j] * (dp[j] - mean);
                for x in 0..d {
                    out.gradients[0][q_at(x)] += c.scale * ds * k[k_at(j, x)];
                    out.gradients[1][k_at(j, x)] += c.scale * ds * q[q_at(x)];
                }
                if j >= c.extra {
                    out.pairs[pair(j)] += ds;
                    out.keys[b * known + j - c.extra] += ds;
                }
            }
        }
        out
    }

    fn close(what: &str, got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len(), "{what}");
        let far = got.iter().zip(want).position(|(g, w)| (g - w).abs() > 1e-10 * w.abs().max(1.0));
        assert!(far.is_none(), "{what} at {far:?}: {} for {}", got[far.unwrap()], want[far.unwrap()]);
    }

    /// (N, heads, rows, width) as (N, rows, heads, width).
    fn by_rows(x: &[f64], heads: usize, rows: usize, width: usize) -> Vec<f64> {
        let mut y = vec![0.0; x.len()];
        for (i, &v) in x.iter().enumerate() {
            let (n, h, r, c) =
                (i / (heads * rows * width), i / (rows * width) % heads, i / width % rows, i % width);
            y[((n * rows + r) * heads + h) * width + c] = v;
        }
        y
    }

    fn agrees(sizes: Sizes, c: &Scores<'_, f64>, mean: bool) {
        let Sizes { n, t, s, heads, kv_heads, d, dv } = sizes;
        let (q, k, v) =
            (normal(n * t * heads * d, 1), normal(n * s * kv_heads * d, 2), normal(n * s * kv_heads * dv, 3));
        let d_o = normal(n * t * heads * dv, 4);
        let mut dw = normal(n * heads * t * s, 5);
        let of_mean: Vec<f64> = normal(n * t * s, 6);
        if mean {
            for (i, dw) in dw.iter_mut().enumerate() {
                *dw = of_mean[(i / (heads * t * s) * t + i / s % t) * s + i % s] / heads as f64;
            }
        }
        let want = plain(sizes, [&q, &k, &v], c, &d_o, &dw);
        let rows = [
            Rows::joined(&q, t, heads, d),
            Rows::joined(&k, s, kv_heads, d),
            Rows::joined(&v, s, kv_heads, dv),
        ];
        let (mut o, mut stats, mut scratch) =
            (vec![f64::NAN; n * t * heads * dv], vec![[0.0; 2]; n * t * heads], Vec::new());
        assert_eq!(forward(sizes, rows, c, &mut o, &mut stats, &mut scratch), None);
        close("o", &o, &want.o);
        let mut weighted = vec![f64::NAN; if mean { n } else { n * heads } * t * s];
        weights(sizes, rows, c, &stats, mean, &mut weighted, &mut scratch);
        if mean {
            let by_sample = |i: usize| {
                let (b, at) = (i / (t * s), i % (t * s));
                (0..heads).map(|h| want.weights[(b * heads + h) * t * s + at]).sum::<f64>() / heads as f64
            };
            close("mean weights", &weighted, &(0..n * t * s).map(by_sample).collect::<Vec<_>>());
        } else {
            close("weights", &weighted, &want.weights);
        }
        let dw = if mean { (&of_mean[..], true) } else { (&dw[..], false) };
        let call = Recorded { rows, o: &o, stats: &stats, d_o: &d_o, dw: Some(dw) };
        let mut delta = vec![f64::NAN; n * t * heads];
        deltas(sizes, call, c, &mut delta, &mut scratch);
        let [mut dq, mut dk, mut dvs] = [q.len(), k.len(), v.len()].map(|len| vec![f64::NAN; len]);
        backward(sizes, call, c, &delta, [&mut dq, &mut dk, &mut dvs], &mut scratch);
        close("dq", &by_rows(&dq, heads, t, d), &want.gradients[0]);
        close("dk", &by_rows(&dk, kv_heads, s, d), &want.gradients[1]);
        close("dv", &by_rows(&dvs, kv_heads, s, dv), &want.gradients[2]);
        let (mut pairs, mut keys) = (want.pairs.clone(), want.keys.clone());
        pairs.fill(f64::NAN);
        keys.fill(f64::NAN);
        let sums = &mut Vec::new();
        mask_gradients(sizes, call, c, &delta, Some(&mut pairs), Some(&mut keys), &mut scratch, sums);
        close("dpairs", &pairs, &want.pairs);
        close("dkeys", &keys, &want.keys);
    }

    #[test]
    fn tiles_agree_with_the_plain_formula() {
        let sizes = |n, t, s, heads, kv_heads| Sizes { n, t, s, heads, kv_heads, d: 3, dv: 2 };
        let plain = Scores::plain(0.7);
        for (t, s) in [(1, 1), (3, 5), (64, 128), (70, 300), (150, 129)] {
            agrees(sizes(2, t, s, 2, 2), &plain, true);
            agrees(sizes(1, t, s, 4, 2), &Scores { extra: s.min(2), ..plain }, false);
            agrees(sizes(2, t, s, 2, 1), &Scores { dropout: Some((7, 0.3)), extra: 1, ..plain }, true);
        }
        for t in [1, 63, 65, 200, 300] {
            agrees(sizes(1, t, t, 2, 2), &Scores { causal: true, ..plain }, false);
            agrees(
                sizes(1, t, t + 1, 2, 2),
                &Scores { causal: true, extra: 1, window: Some(40), ..plain },
                true,
            );
            agrees(sizes(1, t, t, 2, 1), &Scores { window: Some(3), slopes: &[0.5, 0.25], ..plain }, false);
            agrees(sizes(1, t, t, 1, 1), &Scores { causal: true, window: Some(70), ..plain }, true);
            agrees(sizes(1, t, t + 77, 1, 1), &Scores { causal: true, past: 77, ..plain }, true);
            let (pairs, keys) = (normal(t * t, 8), normal(2 * t, 9));
            let hidden = |x: &[f64], row: usize| -> Vec<f64> {
                x.iter().enumerate().map(|(i, &v)| f64::from(u8::from(i % row > 0 && v > 0.5))).collect()
            };
            let (no_pairs, no_keys) = (hidden(&pairs, t), hidden(&keys, t));
            let additive = Scores {
                pairs: Mask::Additive(&pairs),
                keys: Mask::Additive(&keys),
                keys_stride: t,
                ..plain
            };
            agrees(sizes(2, t, t, 2, 2), &additive, true);
            let causal = Scores {
                pairs: Mask::Boolean(&no_pairs),
                keys: Mask::Boolean(&no_keys),
                keys_stride: t,
                causal: true,
                ..plain
            };
            agrees(sizes(2, t, t, 2, 2), &causal, true);
            let by_head = normal(4 * t * t, 10);
            let of_heads = Scores { pairs: Mask::Additive(&by_head), pairs_by_head: true, ..causal };
            agrees(sizes(2, t, t, 2, 2), &of_heads, false);
        }
    }

    #[test]
    fn a_query_alone_has_the_bits_that_it_has_among_others() {
        fn check<T: Scalar>(d: usize, window: Option<usize>) {
            let (t, heads) = (300, 2);
            let x: Vec<T> = normal(3 * t * heads * d, 3).iter().map(|&v| T::from_f64(v)).collect();
            let rows = |part: usize, from: usize| Rows {
                data: &x[part * t * heads * d + from * heads * d..],
                ..Rows::joined(&x, t, heads, d)
            };
            let run = |from: usize, to: usize| {
                let sizes = Sizes { n: 1, t: to - from, s: to, heads, kv_heads: heads, d, dv: d };
                let scores = Scores { causal: true, past: from, window, ..Scores::plain(T::from_f64(0.3)) };
                let mut o = vec![T::ZERO; (to - from) * heads * d];
                let mut stats = vec![[T::ZERO; 2]; (to - from) * heads];
                let rows = [rows(0, from), rows(1, 0), rows(2, 0)];
                assert_eq!(forward(sizes, rows, &scores, &mut o, &mut stats, &mut Vec::new()), None);
                o
            };
            let all = run(0, t);
            for (from, to) in
                [(0, 1), (1, 2), (40, 41), (63, 70), (64, 65), (127, 129), (255, 300), (299, 300)]
            {
                assert!(run(from, to) == all[from * heads * d..to * heads * d], "{from}..{to} of {d}");
            }
        }
        for d in [1, 2, 5, 16, 33, 64] {
            check::<f32>(d, None);
            check::<f64>(d, None);
            check::<f32>(d, Some(50));
        }
    }

    #[test]
    fn a_query_without_a_key_is_named() {
        let x = vec![1.0f64; 12];
        let sizes = Sizes { n: 2, t: 3, s: 3, heads: 2, kv_heads: 2, d: 1, dv: 1 };
        let hidden = [0.0, 0.0, 1.0, 1.0, 1.0, 0.0];
        let scores =
            Scores { keys: Mask::Boolean(&hidden), keys_stride: 3, causal: true, ..Scores::plain(1.0) };
        let rows = [Rows::joined(&x, 3, 2, 1); 3];
        let (mut o, mut stats) = ([0.0; 12], [[0.0; 2]; 12]);
        assert_eq!(forward(sizes, rows, &scores, &mut o, &mut stats, &mut Vec::new()), Some(6));
    }
}
