//! Packing: an operand copied into panels that the kernels read front to back.

use crate::{
    Scalar,
    kernels::{
        dispatch::{Kernel, Set},
        lanes::Lanes,
    },
};
use std::{marker::PhantomData, slice};

/// Panels of `width` along one side of a matrix: `to[(j / width)·k·width + k'·width + j % width] = from[j·side + k'·inner]`
/// for j < n, k' < k. What is missing of the last panel is zero.
#[derive(Clone, Copy)]
pub struct Pack<T> {
    pub n: usize,
    pub k: usize,
    pub from: *const T,
    pub side: usize,
    pub inner: usize,
    pub width: usize,
    pub to: *mut T,
}

impl<T> Pack<T> {
    /// Elements that packing takes.
    ///
    /// # Panics
    /// If they do not fit in memory: a matrix of stride 0 may have more elements than any slice.
    pub(super) fn len(n: usize, k: usize, width: usize) -> usize {
        let len = n.div_ceil(width).checked_mul(width).and_then(|n| n.checked_mul(k));
        let fits = len.filter(|&len| len <= isize::MAX as usize / size_of::<T>());
        fits.unwrap_or_else(|| {
            panic!("expected a matrix to pack that fits in memory, got {n} × {k} elements")
        })
    }
}

impl<T: Scalar> Pack<T> {
    /// Packs one panel that is as wide as the matrix, element by element.
    ///
    /// # Safety
    /// The elements that it names are valid, and `to` is borrowed exclusively.
    pub(super) unsafe fn one_by_one(&self) {
        // SAFETY: the panel has `n` columns, all of which are in the matrix.
        unsafe { one_by_one(self, self.from, self.to, self.n, 0) }
    }
}

impl<T: Scalar> Kernel for Pack<T> {
    type T = T;
    const PORTABLE: bool = false;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { pack::<S::Of<T>>(self) }
    }
}

/// Packs.
///
/// # Safety
/// The elements that `p` names are valid, `to` has `Pack::len` of them and is borrowed exclusively, and the processor has the
/// instruction set.
#[inline(always)]
unsafe fn pack<L: Lanes>(p: &Pack<L::T>) {
    // Of contiguous rows, several panels at a time: a row is read further along before the next is begun.
    let group = if p.side == 1 { (PANELS / p.width).max(1) * p.width } else { p.width };
    for first in (0..p.n).step_by(group) {
        let cols = group.min(p.n - first);
        // SAFETY: a group of panels lies in both.
        unsafe {
            let (from, to) = (p.from.add(first * p.side), p.to.add(first * p.k));
            let last = cols % p.width;
            if last > 0 {
                to.add((cols - last) * p.k).write_bytes(0, p.k * p.width);
            }
            if p.side == 1 {
                copy::<L>(p, from, to, cols);
            } else if p.inner == 1 {
                transpose::<L>(p, from, to, cols);
            } else {
                one_by_one(p, from, to, cols, 0);
            }
        }
    }
}

/// Columns that are packed at a time from contiguous rows: 1 KiB of each row in f32.
const PANELS: usize = 256;

/// Panels of contiguous rows.
#[inline(always)]
unsafe fn copy<L: Lanes>(p: &Pack<L::T>, from: *const L::T, to: *mut L::T, cols: usize) {
    // SAFETY: row k has `cols` elements in `from`, and `width` of them in each panel.
    unsafe {
        for k in 0..p.k {
            let mut from = from.add(k * p.inner);
            let mut to = to.add(k * p.width);
            for first in (0..cols).step_by(p.width) {
                let cols = p.width.min(cols - first);
                let mut j = 0;
                while j + L::N <= cols {
                    L::load(from.add(j)).store(to.add(j));
                    j += L::N;
                }
                if j < cols {
                    let mask = L::mask(cols - j);
                    L::load_masked(from.add(j), mask).store_masked(to.add(j), mask);
                }
                (from, to) = (from.wrapping_add(p.width), to.wrapping_add(p.width * p.k));
            }
        }
    }
}

/// A panel of contiguous columns: transposed in N × N pieces.
#[inline(always)]
unsafe fn transpose<L: Lanes>(p: &Pack<L::T>, from: *const L::T, to: *mut L::T, cols: usize) {
    let whole = p.k / L::N * L::N;
    // SAFETY: the pieces lie in the panel.
    unsafe {
        for k in (0..whole).step_by(L::N) {
            for j in (0..cols).step_by(L::N) {
                let from = from.add(j * p.side + k);
                L::transpose(from, p.side, (cols - j).min(L::N), to.add(k * p.width + j), p.width);
            }
        }
        one_by_one(p, from, to, cols, whole);
    }
}

/// The rows of a panel from `start` on.
#[inline(always)]
unsafe fn one_by_one<T: Copy>(p: &Pack<T>, from: *const T, to: *mut T, cols: usize, start: usize) {
    for k in start..p.k {
        for j in 0..cols {
            // SAFETY: element (k, j) of the panel.
            unsafe { *to.add(k * p.width + j) = *from.add(j * p.side + k * p.inner) };
        }
    }
}

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Memory for packed panels that begins at a cache line and is kept for the next time.
pub struct Buffer<T> {
    lines: Vec<Line>,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Scalar> Buffer<T> {
    pub(in crate::kernels) const fn new() -> Self {
        Self { lines: Vec::new(), len: 0, of: PhantomData }
    }

    /// Makes it `len` elements long; their values are left over or zero.
    ///
    /// # Panics
    /// If they do not fit in memory; it is then empty.
    pub(in crate::kernels) fn reset(&mut self, len: usize) {
        self.len = 0;
        let lines = len.div_ceil(64 / size_of::<T>());
        if self.lines.len() < lines {
            self.lines.clear();
            if self.lines.try_reserve_exact(lines).is_err() {
                panic!("expected panels that fit in memory, got {len} elements");
            }
            self.lines.resize(lines, Line([0; 64]));
        }
        self.len = len;
    }

    pub(in crate::kernels) fn as_slice(&self) -> &[T] {
        // SAFETY: the lines hold at least `len` elements, for which every bit pattern is valid.
        unsafe { slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(in crate::kernels) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: the lines hold at least `len` elements and are borrowed exclusively; every bit pattern is valid.
        unsafe { slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// A thread's memory for A's and B's panels.
pub struct Scratch<T> {
    pub(super) a: Buffer<T>,
    pub(super) b: Buffer<T>,
}

impl<T: Scalar> Scratch<T> {
    pub(in crate::kernels) const fn new() -> Self {
        Self { a: Buffer::new(), b: Buffer::new() }
    }
}
