//! Copies of images and matrices in the order that the kernels read them.

use crate::{
    Scalar,
    kernels::{
        dispatch::{Kernel, Set},
        lanes::Lanes,
    },
};

/// Rows of several planes copied: element (i, j) of a plane goes to `to[i·to_row + col(j + lead)]`, where
/// col(j) = (j mod phases)·phase + j / phases.
#[derive(Clone, Copy)]
pub(super) struct Rows<T> {
    pub from: *const T,
    pub from_row: usize,
    pub from_plane: usize,
    pub planes: usize,
    pub rows: usize,
    pub cols: usize,
    pub to: *mut T,
    pub to_row: usize,
    pub to_plane: usize,
    pub lead: usize,
    pub phases: usize,
    pub phase: usize,
}

impl<T: Scalar> Kernel for Rows<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { copied::<S::Of<T>>(self) }
    }
}

#[inline(always)]
unsafe fn copied<L: Lanes>(c: &Rows<L::T>) {
    for plane in 0..c.planes {
        for i in 0..c.rows {
            // SAFETY: the row lies in both.
            unsafe {
                let from = c.from.add(plane * c.from_plane + i * c.from_row);
                let to = c.to.add(plane * c.to_plane + i * c.to_row);
                if c.phases == 1 {
                    copy::<L>(from, to.add(c.lead), c.cols);
                } else {
                    split(c, from, to);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn copy<L: Lanes>(from: *const L::T, to: *mut L::T, n: usize) {
    let mut j = 0;
    // SAFETY: both have n elements.
    unsafe {
        while j + L::N <= n {
            L::load(from.add(j)).store(to.add(j));
            j += L::N;
        }
        if j < n && n >= L::N {
            L::load(from.add(n - L::N)).store(to.add(n - L::N));
        } else if j < n {
            let mask = L::mask(n - j);
            L::load_masked(from.add(j), mask).store_masked(to.add(j), mask);
        }
    }
}

/// A row into its phases.
#[inline(always)]
unsafe fn split<T: Scalar>(c: &Rows<T>, from: *const T, to: *mut T) {
    for first in 0..c.phases.min(c.cols) {
        let n = (c.cols - first).div_ceil(c.phases);
        let at = c.lead + first;
        // SAFETY: elements first, first + phases, … of the row, and as many of the phase.
        unsafe {
            let to = to.add(at % c.phases * c.phase + at / c.phases);
            let from = from.add(first);
            if c.phases == 2 {
                for i in 0..n {
                    *to.add(i) = *from.add(2 * i);
                }
            } else {
                for i in 0..n {
                    *to.add(i) = *from.add(c.phases * i);
                }
            }
        }
    }
}

/// The reverse: rows of a plane to every `phases`-th column of another, `to[i·to_row + j·phases]`.
#[derive(Clone, Copy)]
pub(super) struct Scatter<T> {
    pub from: *const T,
    pub from_row: usize,
    pub rows: usize,
    pub cols: usize,
    pub to: *mut T,
    pub to_row: usize,
    pub step: usize,
}

impl<T: Scalar> Scatter<T> {
    /// # Safety
    /// The elements lie in both planes, and `to` is borrowed exclusively.
    pub(super) unsafe fn run(&self) {
        for i in 0..self.rows {
            // SAFETY: the row lies in both planes.
            unsafe {
                let (from, to) = (self.from.add(i * self.from_row), self.to.add(i * self.to_row));
                for j in 0..self.cols {
                    *to.add(j * self.step) = *from.add(j);
                }
            }
        }
    }
}
