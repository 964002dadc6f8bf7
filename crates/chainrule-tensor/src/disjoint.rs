//! A slice that several threads write to at once, each its own part.

use std::{marker::PhantomData, slice};

/// An exclusive borrow that is handed out in parts which do not overlap.
pub(crate) struct Disjoint<'a, V> {
    start: *mut V,
    len: usize,
    borrow: PhantomData<&'a mut [V]>,
}

// SAFETY: it represents an exclusive borrow whose parts go to different threads, as `&mut [V]` may if `V: Send`.
unsafe impl<V: Send> Sync for Disjoint<'_, V> {}

impl<'a, V> Disjoint<'a, V> {
    #[inline]
    pub(crate) fn new(data: &'a mut [V]) -> Self {
        Self { start: data.as_mut_ptr(), len: data.len(), borrow: PhantomData }
    }

    /// The `len` elements from `from` on.
    ///
    /// # Safety
    /// While the part lives, nothing else reads or writes its elements.
    #[expect(clippy::mut_from_ref)]
    #[inline(always)]
    pub(crate) unsafe fn part(&self, from: usize, len: usize) -> &mut [V] {
        assert!(from <= self.len && len <= self.len - from, "a part lies within the slice");
        // SAFETY: the part lies within the slice by the assertion; the caller promises that no other part overlaps it.
        unsafe { slice::from_raw_parts_mut(self.start.add(from), len) }
    }

    /// The number of parts of `len` elements, the last of which may be shorter.
    #[inline]
    pub(crate) fn count(&self, len: usize) -> usize {
        self.len.div_ceil(len.max(1))
    }

    /// Part `i` of those that [`Disjoint::count`] counts.
    ///
    /// # Safety
    /// While the part lives, nothing else reads or writes its elements.
    #[expect(clippy::mut_from_ref)]
    #[inline(always)]
    pub(crate) unsafe fn chunk(&self, i: usize, len: usize) -> &mut [V] {
        let from = i * len.max(1);
        // SAFETY: the caller's promise; `part` checks the bounds.
        unsafe { self.part(from, len.max(1).min(self.len - from)) }
    }

    /// Where element `at` is, or the end; what is read and written through it must not overlap what other threads write.
    #[inline(always)]
    pub(crate) fn pointer(&self, at: usize) -> *mut V {
        assert!(at <= self.len, "a part lies within the slice");
        self.start.wrapping_add(at)
    }

    /// Prefetches elements that will be needed soon; they may lie beyond the slice.
    #[inline(always)]
    pub(crate) fn prefetch(&self, from: usize, len: usize) {
        crate::kernels::prefetch(self.start.wrapping_add(from), len);
    }
}
