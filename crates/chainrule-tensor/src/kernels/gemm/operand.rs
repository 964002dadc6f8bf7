//! Operands, plain or packed once for many products.

use super::{
    Mat, Side,
    pack::{Buffer, Pack},
    plan::tile_rows,
    tile::most_rows,
};
use crate::{
    Scalar,
    kernels::{Isa, isa, lanes::lanes},
};
use std::marker::PhantomData;

/// The left operand A of a product: a [`Mat`] or a [`PackedA`].
#[derive(Clone, Copy, Debug)]
pub struct Left<'a, T> {
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) side: Side<T>,
    pub(super) isa: Option<Isa>,
    of: PhantomData<&'a [T]>,
}

/// The right operand B of a product: a [`Mat`] or a [`PackedB`].
#[derive(Clone, Copy, Debug)]
pub struct Right<'a, T> {
    pub(super) inner: usize,
    pub(super) cols: usize,
    pub(super) side: Side<T>,
    pub(super) isa: Option<Isa>,
    of: PhantomData<&'a [T]>,
}

impl<'a, T> From<Mat<'a, T>> for Left<'a, T> {
    #[inline]
    fn from(a: Mat<'a, T>) -> Self {
        let side = Side { data: a.data.as_ptr(), side: a.row_stride, inner: a.col_stride, width: 0 };
        Self { rows: a.rows, inner: a.cols, side, isa: None, of: PhantomData }
    }
}

impl<'a, T> From<Mat<'a, T>> for Right<'a, T> {
    #[inline]
    fn from(b: Mat<'a, T>) -> Self {
        let side = Side { data: b.data.as_ptr(), side: b.col_stride, inner: b.row_stride, width: 0 };
        Self { inner: b.rows, cols: b.cols, side, isa: None, of: PhantomData }
    }
}

impl<'a, T: Scalar> From<&'a PackedA<T>> for Left<'a, T> {
    #[inline]
    fn from(a: &'a PackedA<T>) -> Self {
        let a = &a.0;
        Self { rows: a.len, inner: a.inner, side: a.side(), isa: Some(a.isa), of: PhantomData }
    }
}

impl<'a, T: Scalar> From<&'a PackedB<T>> for Right<'a, T> {
    #[inline]
    fn from(b: &'a PackedB<T>) -> Self {
        let b = &b.0;
        Self { inner: b.inner, cols: b.len, side: b.side(), isa: Some(b.isa), of: PhantomData }
    }
}

/// An operand in panels: `len` long along C, `inner` along the sum.
struct Panels<T> {
    buffer: Buffer<T>,
    len: usize,
    inner: usize,
    width: usize,
    isa: Isa,
}

impl<T: Scalar> Panels<T> {
    fn new() -> Self {
        Self { buffer: Buffer::new(), len: 0, inner: 0, width: 1, isa: isa() }
    }

    fn reset(&mut self, len: usize, inner: usize, width: usize, isa: Isa) {
        // Products trust these sizes: a panic on the way leaves an operand of no elements.
        self.len = 0;
        self.buffer.reset(Pack::<T>::len(len, inner, width));
        (self.len, self.inner, self.width, self.isa) = (len, inner, width, isa);
    }

    /// On the portable set `width` is all of `len`, and the panel is a matrix as any other.
    fn pack(&mut self, from: Side<T>) {
        let Side { data, side, inner, .. } = from;
        let to = self.buffer.as_mut_slice().as_mut_ptr();
        let pack = Pack { n: self.len, k: self.inner, from: data, side, inner, width: self.width, to };
        // SAFETY: the operand was a `Mat` of these sizes, the buffer was made as long, and the processor has `isa`.
        unsafe {
            match self.isa {
                Isa::Portable => pack.one_by_one(),
                isa => T::pack(isa, &pack),
            }
        }
    }

    #[inline]
    fn side(&self) -> Side<T> {
        let width = if self.isa == Isa::Portable { 0 } else { self.width };
        Side { data: self.buffer.as_slice().as_ptr(), side: 1, inner: self.width, width }
    }
}

/// Columns of a panel of B: two vectors, or all where `matrixmultiply` packs by itself.
fn panel_width<T: Scalar>(isa: Isa, cols: usize) -> usize {
    if isa == Isa::Portable { cols.max(1) } else { 2 * lanes::<T>(isa) }
}

/// A left operand that is packed once and multiplied many times. Its memory is kept from one packing to the next.
pub struct PackedA<T>(Panels<T>);

/// A right operand that is packed once and multiplied many times. Its memory is kept from one packing to the next.
pub struct PackedB<T>(Panels<T>);

impl<T: Scalar> Default for PackedA<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Default for PackedB<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> PackedA<T> {
    /// An operand of no elements.
    #[must_use]
    pub fn new() -> Self {
        Self(Panels::new())
    }

    /// Packs a matrix.
    ///
    /// # Panics
    /// If its elements do not fit in memory; those of a matrix of stride 0 need not.
    pub fn pack(&mut self, a: Mat<'_, T>) {
        self.pack_for(isa(), a);
    }

    pub(super) fn pack_for(&mut self, isa: Isa, a: Mat<'_, T>) {
        let width = match isa {
            Isa::Portable => a.rows.max(1),
            isa => tile_rows(a.rows, most_rows::<T>(isa)[1]),
        };
        self.0.reset(a.rows, a.cols, width, isa);
        self.0.pack(Left::from(a).side);
    }
}

impl<T: Scalar> PackedB<T> {
    /// An operand of no elements.
    #[must_use]
    pub fn new() -> Self {
        Self(Panels::new())
    }

    /// Packs a matrix.
    ///
    /// # Panics
    /// If its elements do not fit in memory; those of a matrix of stride 0 need not.
    pub fn pack(&mut self, b: Mat<'_, T>) {
        self.pack_for(isa(), b);
    }

    pub(super) fn pack_for(&mut self, isa: Isa, b: Mat<'_, T>) {
        self.0.reset(b.cols, b.rows, panel_width::<T>(isa, b.cols), isa);
        self.0.pack(Right::from(b).side);
    }
}
