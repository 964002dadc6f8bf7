//! A slice that several pieces write to at once, each its own parts.

use std::{marker::PhantomData, slice};

/// An exclusive borrow that is handed out in parts which the caller keeps apart.
pub(super) struct Parts<'a, T> {
    start: *mut T,
    length: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for an exclusive borrow whose parts go to different threads, as `&mut [T]` may if `T: Send`.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(super) fn new(data: &'a mut [T]) -> Self {
        Self { start: data.as_mut_ptr(), length: data.len(), borrow: PhantomData }
    }

    /// The part of `length` elements from `from` on.
    ///
    /// # Safety
    /// While the part lives, nobody else asks for one that overlaps it.
    #[expect(clippy::mut_from_ref)]
    #[inline(always)]
    pub(super) unsafe fn get(&self, from: usize, length: usize) -> &mut [T] {
        assert!(from <= self.length && length <= self.length - from, "a part lies within the slice");
        // SAFETY: the part lies within the slice; the caller promises that no other part overlaps it.
        unsafe { slice::from_raw_parts_mut(self.start.add(from), length) }
    }

    /// Asks for the memory of a part that will be needed soon.
    #[inline(always)]
    pub(super) fn ask(&self, from: usize, length: usize) {
        super::ask(self.start.wrapping_add(from), length);
    }
}
