//! From a product to its blocks and to the threads that share them.
//!
//! The way and the blocks of the inner dimension follow from the sizes and strides of the whole product alone, and
//! threads share out rows or columns of C: an element's sum has the same order however many threads there are.

use super::{
    dot::Dots,
    epilogue::RawEpilogue,
    pack::{Buffer, Pack, Scratch},
    plan::{Plan, orient, plan, tile_rows},
    portable,
    tile::Block,
};
use crate::{
    Scalar,
    kernels::{Isa, reduce::DEPTH},
    par,
};
use std::ptr;

/// Multiply-adds below which a product stays in its thread: at the peak of a Zen 4 core (59 a nanosecond) they take 9 µs, and waking
/// another thread takes 7 µs.
pub(super) const SERIAL: usize = 1 << 19;
/// Longest sum that stays in T. Its blocks have at most 768 addends, which a lane of a tile takes one after another: the rounding of
/// equal addends is then some 5e-6 of Σ |addends|. Longer ones are within 1e-6: T sums [`DEPTH`] addends, up to [`SEGMENT`] in
/// blocks of so many, and f64 the rest.
pub(in crate::kernels) const LONG: usize = 1 << 16;
const SEGMENT: usize = 256;
/// Elements of C whose long sums are kept at once.
const ROOM: usize = 1 << 20;
/// Multiply-adds up to which plain loops are the quickest: a product of 2 × 3 × 1 takes 16 ns by them.
const TINY: usize = 48;
/// An operand: element (j, k) at `data[j·side + k·inner]`, j along C and k along the sum. Or, when `width` is not 0,
/// panels of that width as `Pack` makes them.
#[derive(Clone, Copy, Debug)]
pub struct Side<T> {
    pub(super) data: *const T,
    pub(super) side: usize,
    pub(super) inner: usize,
    pub(super) width: usize,
}

/// A product, C = act(α A B + β C + bias).
#[derive(Clone, Copy)]
pub struct Product<T> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Side<T>,
    pub b: Side<T>,
    pub c: *mut T,
    pub c_row: usize,
    pub c_col: usize,
    pub epilogue: RawEpilogue<T>,
}

// SAFETY: a product represents two shared borrows and an exclusive one, of which each thread gets rows or columns.
unsafe impl<T: Sync> Sync for Product<T> {}

/// Computes a product with n, m > 0, which may be a part of sums of length `whole`. `STEADY`: in one order of the sum, whatever n
/// and m.
///
/// # Safety
/// All elements that `p` names are valid, those of C are disjoint and borrowed exclusively, and the processor has `isa`.
#[inline]
pub(super) unsafe fn run<const STEADY: bool, T: Scalar>(p: &mut Product<T>, isa: Isa, whole: usize) {
    // SAFETY: the caller's promises are those of both.
    unsafe { if p.k > LONG { long::<STEADY, T>(p, isa) } else { run_part::<STEADY, T>(p, isa, whole) } }
}

/// A product whose sums are so long that their rounding would be seen: in f64, from segments.
#[cold]
unsafe fn long<const STEADY: bool, T: Scalar>(p: &Product<T>, isa: Isa) {
    let segment = if isa == Isa::Portable { DEPTH } else { SEGMENT };
    let plain = RawEpilogue { alpha: T::ONE, beta: T::ZERO, row: ptr::null(), col: ptr::null(), relu: false };
    // Panels of packed rows stay whole.
    let step = (ROOM / p.n).clamp(1, p.m).next_multiple_of(p.a.width.max(1)).min(p.m);
    let (mut sums, mut totals) = (vec![T::ZERO; step * p.n], vec![0.0; step * p.n]);
    for first in (0..p.m).step_by(step) {
        // SAFETY: rows of C, and what they are made of.
        let (p, whole) = (unsafe { p.part(first..p.m.min(first + step), 0..p.n, p.k) }, p.k);
        let (sums, totals) = (&mut sums[..p.m * p.n], &mut totals[..p.m * p.n]);
        totals.fill(0.0);
        for l in (0..p.k).step_by(segment) {
            // SAFETY: the segment lies in both operands; `sums` is as large as C.
            unsafe {
                let mut part = Product {
                    k: segment.min(p.k - l),
                    a: p.a.along(l),
                    b: p.b.along(l),
                    c: sums.as_mut_ptr(),
                    c_row: p.n,
                    c_col: 1,
                    epilogue: plain,
                    ..p
                };
                run_part::<STEADY, T>(&mut part, isa, whole);
            }
            totals.iter_mut().zip(&*sums).for_each(|(total, sum)| *total += sum.to_f64());
        }
        for (i, row) in totals.chunks(p.n).enumerate() {
            for (j, &total) in row.iter().enumerate() {
                // SAFETY: element (i, j) of C.
                unsafe { p.epilogue.write(T::from_f64(total), i, j, p.c.add(i * p.c_row + j * p.c_col)) };
            }
        }
    }
}

/// A product, or a segment of one of depth `whole`, whose elements are sums of T alone. Panels of packed operands are as deep as the
/// whole. It is an argument of its own, since a field of the product would go through memory.
///
/// # Safety
/// As [`run`].
unsafe fn run_part<const STEADY: bool, T: Scalar>(p: &mut Product<T>, isa: Isa, whole: usize) {
    let work = p.m.saturating_mul(p.n).saturating_mul(p.k);
    let packed = p.a.width != 0 || p.b.width != 0;
    if work <= TINY && !packed && !STEADY {
        // SAFETY: the elements that `p` names are valid.
        return unsafe { tiny(p) };
    }
    if isa == Isa::Portable {
        // SAFETY: the elements that `p` names are valid, and those of C disjoint.
        return unsafe { portable::run(p, work) };
    }
    let dots = !packed && orient::<STEADY, T>(p);
    let plan = plan(p, dots, work, isa, whole);
    // One to three rows or columns are memory-bound.
    let time = if p.m.min(p.n) < 4 { work.saturating_mul(2) } else { work };
    let pieces = if time < SERIAL { 1 } else { par::threads() };
    if pieces < 2 {
        // SAFETY: the elements that `p` names are valid, and the processor has `isa`.
        return unsafe { serial(p, &plan, isa) };
    }
    // By rows, as long as that does not make pieces flatter than by columns; whole panels in any case.
    let panels = p.n.div_ceil(plan.nr);
    let even = panels.is_multiple_of(pieces) || panels >= 8 * pieces;
    let by_rows = p.m >= 2 * pieces && (p.m >= p.n || !even);
    let (all, unit) = if by_rows { (p.m, p.a.width.max(1)) } else { (p.n, plan.nr) };
    let step = all.div_ceil(pieces).next_multiple_of(unit);
    let p = &*p;
    par::for_each(all.div_ceil(step), |i| {
        let (begin, end) = (i * step, all.min(i * step + step));
        // SAFETY: a range of rows or of columns of C, which no other piece has.
        unsafe {
            let part =
                if by_rows { p.part(begin..end, 0..p.n, whole) } else { p.part(0..p.m, begin..end, whole) };
            serial(&part, &plan, isa);
        }
    });
}

/// Plain loops, for when they are done before a kernel is chosen.
unsafe fn tiny<T: Scalar>(p: &Product<T>) {
    let Product { m, n, k, a, b, c, c_row, c_col, epilogue } = *p;
    let (mut a_row, mut c_row_at) = (a.data, c);
    for i in 0..m {
        let (mut b_row, mut c) = (b.data, c_row_at);
        for j in 0..n {
            // SAFETY: element (i, j) of C, and what it is made of.
            unsafe {
                let (mut a_at, mut b_at, mut sum) = (a_row, b_row, T::ZERO);
                for _ in 0..k {
                    sum += *a_at * *b_at;
                    (a_at, b_at) = (a_at.wrapping_add(a.inner), b_at.wrapping_add(b.inner));
                }
                epilogue.write(sum, i, j, c);
            }
            (b_row, c) = (b_row.wrapping_add(b.side), c.wrapping_add(c_col));
        }
        (a_row, c_row_at) = (a_row.wrapping_add(a.side), c_row_at.wrapping_add(c_row));
    }
}

impl<T: Scalar> Side<T> {
    /// The operand from row `first` along C on; `first` is a multiple of a panel's width.
    unsafe fn from(self, first: usize, k: usize) -> Self {
        let by = if self.width == 0 { first * self.side } else { first * k };
        // SAFETY: the caller has checked that row `first` exists.
        Self { data: unsafe { self.data.add(by) }, ..self }
    }

    /// The operand from element `l` of the sum on.
    unsafe fn along(self, l: usize) -> Self {
        // SAFETY: the caller has checked that there is one.
        Self { data: unsafe { self.data.add(l * self.inner) }, ..self }
    }
}

impl<T: Scalar> Product<T> {
    /// Some rows and columns of C; packed operands are of depth `whole`.
    pub(super) unsafe fn part(
        &self,
        rows: std::ops::Range<usize>,
        cols: std::ops::Range<usize>,
        whole: usize,
    ) -> Self {
        // SAFETY: they exist.
        unsafe {
            Self {
                m: rows.len(),
                n: cols.len(),
                a: self.a.from(rows.start, whole),
                b: self.b.from(cols.start, whole),
                c: self.c.add(rows.start * self.c_row + cols.start * self.c_col),
                epilogue: self.epilogue.at(rows.start, cols.start),
                ..*self
            }
        }
    }

    /// Cᵀ = Bᵀ Aᵀ
    pub(super) fn t(self) -> Self {
        Self {
            m: self.n,
            n: self.m,
            a: self.b,
            b: self.a,
            c_row: self.c_col,
            c_col: self.c_row,
            epilogue: self.epilogue.t(),
            ..self
        }
    }
}

/// The product in this thread.
unsafe fn serial<T: Scalar>(p: &Product<T>, plan: &Plan, isa: Isa) {
    if plan.dots {
        let d = Dots {
            m: p.m,
            n: p.n,
            k: p.k,
            a: p.a.data,
            a_row: p.a.side,
            b: p.b.data,
            b_row: p.b.side,
            c: p.c,
            c_row: p.c_row,
            c_col: p.c_col,
            epilogue: p.epilogue,
        };
        // SAFETY: the elements that `p` names are valid, and the processor has `isa`.
        return unsafe { T::dots(isa, &d) };
    }
    let mr = if p.a.width == 0 { tile_rows(p.m, plan.mr) } else { plan.mr };
    let plan = &Plan { mr, mc: (plan.mc / mr).max(1) * mr, ..*plan };
    if plan.kc >= p.k && !plan.pack_a && !plan.pack_b && !plan.keep_b && plan.mc >= p.m && plan.nc >= p.n {
        let panel =
            |s: &Side<T>, width: usize| if s.width == 0 { width * s.side } else { plan.whole * width };
        let b = Block {
            m: p.m,
            n: p.n,
            k: p.k,
            a: p.a.data,
            a_row: p.a.side,
            a_col: p.a.inner,
            a_panel: panel(&p.a, plan.mr),
            mr: plan.mr,
            b: p.b.data,
            b_row: p.b.inner,
            b_panel: panel(&p.b, plan.nr),
            nr: plan.nr,
            keep: ptr::null_mut(),
            c: p.c,
            c_row: p.c_row,
            c_col: p.c_col,
            epilogue: p.epilogue,
        };
        // SAFETY: the elements that `p` names are valid, and the processor has `isa`.
        return unsafe { T::block(isa, &b) };
    }
    let mut scratch = T::scratch().replace(Scratch::new());
    // SAFETY: the elements that `p` names are valid, and the processor has `isa`.
    unsafe { blocks(p, plan, isa, &mut scratch) };
    T::scratch().set(scratch);
}

/// The product block by block: columns of C, then the inner dimension, then rows of C.
unsafe fn blocks<T: Scalar>(p: &Product<T>, plan: &Plan, isa: Isa, scratch: &mut Scratch<T>) {
    let one_pass = plan.kc >= p.k;
    let plain = RawEpilogue { row: ptr::null(), col: ptr::null(), relu: false, ..p.epilogue };
    for j in (0..p.n).step_by(plan.nc) {
        let n = plan.nc.min(p.n - j);
        for l in (0..p.k.max(1)).step_by(plan.kc.max(1)) {
            let k = plan.kc.min(p.k - l);
            let mut epilogue = if one_pass || l + k == p.k { p.epilogue } else { plain };
            if l > 0 {
                epilogue.beta = T::ONE;
            }
            // SAFETY: the blocks tile the product, see the caller.
            unsafe {
                let (b, b_row, b_panel) = source(
                    &p.b,
                    plan.pack_b.then_some(&mut scratch.b),
                    (j, n),
                    (l, k, plan.whole),
                    plan.nr,
                    isa,
                );
                let keep = if plan.keep_b {
                    scratch.b.reset(k * plan.nr);
                    scratch.b.as_mut_slice().as_mut_ptr()
                } else {
                    ptr::null_mut()
                };
                for i in (0..p.m).step_by(plan.mc) {
                    let m = plan.mc.min(p.m - i);
                    let packed = plan.pack_a || p.a.width != 0;
                    let (a, a_col, a_panel) = source(
                        &p.a,
                        plan.pack_a.then_some(&mut scratch.a),
                        (i, m),
                        (l, k, plan.whole),
                        plan.mr,
                        isa,
                    );
                    let block = Block {
                        m,
                        n,
                        k,
                        a,
                        a_row: if packed { 1 } else { p.a.side },
                        a_col,
                        a_panel,
                        mr: plan.mr,
                        b,
                        b_row,
                        b_panel,
                        nr: plan.nr,
                        keep: if m > plan.mr { keep } else { ptr::null_mut() },
                        c: p.c.add(i * p.c_row + j * p.c_col),
                        c_row: p.c_row,
                        c_col: p.c_col,
                        epilogue: epilogue.at(i, j),
                    };
                    T::block(isa, &block);
                }
            }
        }
    }
}

/// Where the block `first..first + len`, `l..l + k` of an operand is read, its stride along the inner dimension and that
/// from panel to panel; packed first if there is a buffer for it.
#[inline]
unsafe fn source<T: Scalar>(
    s: &Side<T>,
    buffer: Option<&mut Buffer<T>>,
    (first, len): (usize, usize),
    (l, k, whole_k): (usize, usize, usize),
    width: usize,
    isa: Isa,
) -> (*const T, usize, usize) {
    // SAFETY: the block lies in the operand; the buffer is made long enough.
    unsafe {
        if s.width != 0 {
            return (s.data.add(first * whole_k + l * width), width, whole_k * width);
        }
        let from = s.data.add(first * s.side + l * s.inner);
        let Some(buffer) = buffer else { return (from, s.inner, width * s.side) };
        buffer.reset(Pack::<T>::len(len, k, width));
        let to = buffer.as_mut_slice().as_mut_ptr();
        T::pack(isa, &Pack { n: len, k, from, side: s.side, inner: s.inner, width, to });
        (to, width, k * width)
    }
}
