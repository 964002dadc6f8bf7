//! An image with its zero padding, or as much of it as windows see.

use super::layout::Rows;
use crate::{
    Scalar,
    kernels::{Isa, dispatch::dispatch, gemm::Buffer},
};

/// Where the kernels find the pixels of a source. The frame spans source rows `lo[0]..hi[0]` and columns
/// `lo[1]..hi[1]`, zero where the source has none. Its columns are split by their remainder modulo `phases`, so that
/// windows at that stride see neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub lo: [isize; 2],
    pub hi: [isize; 2],
    source: [usize; 2],
    channels: usize,
    phases: usize,
    phase: usize,
    /// From row to row, and from channel to channel.
    pub row: usize,
    pub plane: usize,
    /// Windows lie within the source, which is read in place.
    direct: bool,
    /// Or there is padding around it.
    border: bool,
}

impl Frame {
    pub(super) fn new<T>(
        source: [usize; 2],
        channels: usize,
        lo: [isize; 2],
        hi: [isize; 2],
        phases: usize,
    ) -> Self {
        let size = |axis: usize| usize::try_from(hi[axis] - lo[axis]).unwrap_or(0);
        // Planes whole pages apart share a few sets of the first-level cache.
        let page_aliased = |plane: usize| {
            let rest = (plane * size_of::<T>()) % 4096;
            channels > 4 && !(256..=4096 - 256).contains(&rest)
        };
        let inside = (0..2).all(|axis| lo[axis] >= 0 && hi[axis] <= source[axis] as isize);
        let direct = inside && phases == 1 && !page_aliased(source[0] * source[1]);
        let phase = size(1).div_ceil(phases);
        let row = if direct { source[1] } else { phase * phases };
        let mut plane = if direct { source[0] * source[1] } else { size(0) * row };
        if !direct && page_aliased(plane) {
            plane += 512 / size_of::<T>();
        }
        Self { lo, hi, source, channels, phases, phase, row, plane, direct, border: !inside }
    }

    /// Elements of memory that it takes.
    fn len(&self) -> usize {
        if self.direct { 0 } else { self.channels * self.plane }
    }

    /// Makes memory ready for sources to be filled in.
    pub(super) fn prepare<T: Scalar>(&self, memory: &mut Buffer<T>) {
        memory.reset(self.len());
        if self.border {
            memory.as_mut_slice().fill(T::ZERO);
        }
    }

    /// Where row i, column j of the source is, counted from `lo`.
    pub(super) fn at(&self, i: usize, j: usize) -> usize {
        i * self.row + j % self.phases * self.phase + j / self.phases
    }

    /// Pixels of the frame from (lo[0], lo[1]) on, with the rows `rows` of the frame filled.
    ///
    /// # Safety
    /// The source's channels are at `source`; `memory` was prepared, is borrowed exclusively, and held nothing but sources of
    /// this frame since.
    pub(super) unsafe fn fill<T: Scalar>(
        &self,
        isa: Isa,
        source: *const T,
        memory: *mut T,
        rows: [usize; 2],
    ) -> *const T {
        let [h, w] = self.source;
        if self.direct {
            return source.wrapping_add(self.lo[0] as usize * w + self.lo[1] as usize);
        }
        let clamp = |v: isize, end: usize| v.clamp(0, end as isize) as usize;
        let row = |i: usize| clamp(self.lo[0].saturating_add_unsigned(i).min(self.hi[0]), h);
        let (top, bottom) = (row(rows[0]), row(rows[1]));
        let (left, right) = (clamp(self.lo[1], w), clamp(self.hi[1], w));
        if top >= bottom || left >= right {
            return memory;
        }
        // SAFETY: the rows and columns lie in the source and in the frame.
        unsafe {
            dispatch(
                isa,
                &Rows {
                    from: source.add(top * w + left),
                    from_row: w,
                    from_plane: h * w,
                    planes: self.channels,
                    rows: bottom - top,
                    cols: right - left,
                    to: memory.add((top as isize - self.lo[0]) as usize * self.row),
                    to_row: self.row,
                    to_plane: self.plane,
                    lead: (left as isize - self.lo[1]) as usize,
                    phases: self.phases,
                    phase: self.phase,
                },
            );
        }
        memory
    }
}
