//! Transformed filters, as the products read them.

use super::{Pass, apart, range::SQUARES, weights::Weights};
use crate::{
    Scalar,
    disjoint::Disjoint,
    kernels::{Isa, dispatch::dispatch, gemm::Buffer, lanes::lanes},
    par,
};
use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

/// Rows of a panel that are transformed at a time.
const ROWS: usize = 32;

/// Transformed filters: panels of `width` filters, each with 36 positions of `inner` rows. Position p of panel j begins at
/// `(36·j + p)·plane`.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub width: usize,
    pub count: usize,
    pub plane: usize,
}

impl Panels {
    pub(super) fn new<T: Scalar>(isa: Isa, pass: &Pass) -> Self {
        let width = 2 * lanes::<T>(isa);
        Self { width, count: pass.outer.div_ceil(width), plane: apart::<T>(pass.inner * width) }
    }

    /// Elements of all panels.
    pub(super) fn len(&self) -> usize {
        self.count * 36 * self.plane
    }

    /// Transforms some rows of panel `panel`; false if an element is not finite or too large for its products.
    ///
    /// # Safety
    /// The processor has `isa`; w holds the filters; `u` is the panel, of which no other thread has those rows.
    pub(super) unsafe fn transform<T: Scalar>(
        &self,
        (isa, pass, w): (Isa, &Pass, &[T]),
        panel: usize,
        range: Range<usize>,
        u: *mut T,
    ) -> bool {
        let (column, row) = if pass.flipped { (9, 9 * pass.outer) } else { (9 * pass.inner, 9) };
        let first = panel * self.width;
        let mut squares = T::ZERO;
        // SAFETY: the caller vouches for the job.
        unsafe {
            let job = Weights {
                w: w.as_ptr().add(first * column),
                len: w.len() - first * column,
                columns: self.width.min(pass.outer - first),
                column,
                row,
                flipped: pass.flipped,
                range,
                u,
                plane: self.plane,
                width: self.width,
                squares: &raw mut squares,
            };
            dispatch(isa, &job);
        }
        squares < T::from_f64(SQUARES)
    }
}

/// All filters to `u`; false if an element is not finite or too large for its products.
pub(super) fn transform_weights<T: Scalar>(isa: Isa, pass: &Pass, w: &[T], u: &mut Buffer<T>) -> bool {
    let panels = Panels::new::<T>(isa, pass);
    let parts = pass.inner.div_ceil(ROWS);
    assert_eq!(w.len(), 9 * pass.inner * pass.outer, "the length of w");
    u.reset(panels.len());
    let (to, tame) = (Disjoint::new(u.as_mut_slice()), AtomicBool::new(true));
    par::for_each(panels.count * parts, |i| {
        let (panel, part) = (i / parts, i % parts);
        let range = part * ROWS..pass.inner.min((part + 1) * ROWS);
        // SAFETY: the panel's filters lie in w; no other piece has its rows.
        let part =
            unsafe { panels.transform((isa, pass, w), panel, range, to.pointer(36 * panel * panels.plane)) };
        if !part {
            tame.store(false, Ordering::Relaxed);
        }
    });
    tame.into_inner()
}
