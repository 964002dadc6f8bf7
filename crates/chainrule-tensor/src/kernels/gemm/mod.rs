//! Matrix products: C = act(α A B + β C + bias), by [`matmul`] or, with all that can be added, [`matmul_with`].
//!
//! A product is computed by tiles of C that stay in registers, `acc[i][j] += a[i][k] · b[k][j ..]`, of up to 14 rows and 2
//! vectors on AVX-512. Operands that are small, or that are read in order anyway, are read in place; others are
//! packed first, a block at a time, into memory that each thread keeps. x Wᵀ with few rows is a set of dot products. Where there
//! are no vectors ([`Isa::Portable`]), the products are those of the `matrixmultiply` crate.
//! Large products are split by rows or columns over threads, never along the sum: the bits do not depend on threads.

mod dot;
mod engine;
mod epilogue;
mod operand;
mod pack;
mod plan;
mod portable;
mod tile;

#[cfg(test)]
mod tests;

pub use epilogue::Epilogue;
pub use operand::{Left, PackedA, PackedB, Right};

use crate::{Scalar, kernels::Isa};
use engine::{Product, Side};

/// What kernels that lay out their own panels need of the products: blocks, and memory for panels.
pub(super) use dot::Dots;
pub(super) use engine::LONG;
pub(super) use epilogue::RawEpilogue;
pub(super) use pack::{Buffer, Pack, Scratch};
pub(super) use plan::tile_rows;
pub(super) use portable::Gemm;
pub(super) use tile::{Block, most_rows};

/// A matrix of `rows × cols` over a slice: element (i, j) is at `i·row_stride + j·col_stride`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A matrix that is written to. No two of its elements share a place.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// Panics unless the last element of the matrix lies within `len`; returns the strides, 0 where there are no elements.
#[inline]
fn check(len: usize, [rows, cols]: [usize; 2], [row_stride, col_stride]: [usize; 2]) -> [usize; 2] {
    if rows == 0 || cols == 0 {
        return [0; 2];
    }
    let last = (rows - 1)
        .checked_mul(row_stride)
        .and_then(|r| (cols - 1).checked_mul(col_stride).and_then(|c| r.checked_add(c)));
    assert!(
        last.is_some_and(|last| last < len),
        "a {rows} × {cols} matrix of strides ({row_stride}, {col_stride}) does not fit in {len} elements"
    );
    [row_stride, col_stride]
}

/// [`check`] of a row-major matrix.
#[inline]
fn check_rows(len: usize, [rows, cols]: [usize; 2]) -> [usize; 2] {
    let fits = rows.checked_mul(cols).is_some_and(|volume| volume <= len);
    assert!(fits, "a {rows} × {cols} matrix does not fit in {len} elements");
    [cols, 1]
}

impl<'a, T> Mat<'a, T> {
    /// A row-major matrix.
    ///
    /// # Panics
    /// If the slice is too short.
    #[inline]
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        let [row_stride, col_stride] = check_rows(data.len(), [rows, cols]);
        Self { data, rows, cols, row_stride, col_stride }
    }

    /// A matrix with its own strides.
    ///
    /// # Panics
    /// If the slice is too short.
    #[inline]
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        let [row_stride, col_stride] = check(data.len(), [rows, cols], [row_stride, col_stride]);
        Self { data, rows, cols, row_stride, col_stride }
    }

    /// The transpose.
    #[must_use]
    #[inline]
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

impl<'a, T> MatMut<'a, T> {
    /// A row-major matrix.
    ///
    /// # Panics
    /// If the slice is too short.
    #[inline]
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        let [row_stride, col_stride] = check_rows(data.len(), [rows, cols]);
        Self { data, rows, cols, row_stride, col_stride }
    }

    /// A matrix with its own strides.
    ///
    /// # Panics
    /// If the slice is too short or two elements would share a place.
    #[inline]
    pub fn strided(
        data: &'a mut [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        let [row_stride, col_stride] = check(data.len(), [rows, cols], [row_stride, col_stride]);
        // Within an axis, and across both: the shorter stride runs through its axis before the longer takes a step. The last
        // element lies in the slice, so that the products fit.
        let disjoint = match (rows, cols) {
            (0, _) | (_, 0) | (1, 1) => true,
            (_, 1) => row_stride > 0,
            (1, _) => col_stride > 0,
            _ => {
                (col_stride > 0 && row_stride >= cols * col_stride)
                    || (row_stride > 0 && col_stride >= rows * row_stride)
            }
        };
        assert!(disjoint, "elements of a matrix that is written to must not share a place");
        Self { data, rows, cols, row_stride, col_stride }
    }
}

/// C = α A B + β C. With β = 0, C is overwritten whatever it contained.
///
/// # Panics
/// If the sizes do not fit together.
#[inline]
pub fn matmul<T: Scalar>(alpha: T, a: Mat<'_, T>, b: Mat<'_, T>, beta: T, c: MatMut<'_, T>) {
    matmul_with(alpha, a, b, beta, c, Epilogue::default());
}

/// C = act(α A B + β C + bias), where A and B may be packed before ([`PackedA`], [`PackedB`]). With β = 0, C is
/// overwritten whatever it contained.
///
/// ```
/// use chainrule_tensor::kernels::gemm::{Epilogue, Mat, MatMut, PackedB, matmul_with};
/// let mut w = PackedB::new();
/// w.pack(Mat::new(&[1.0f32, 2.0, 3.0, 4.0], 2, 2).t());
/// let mut y = [0.0; 2];
/// // y = relu(x Wᵀ + b)
/// let epilogue = Epilogue { row: Some(&[0.5, -20.0]), relu: true, ..Epilogue::default() };
/// matmul_with(1.0, Mat::new(&[1.0, 1.0], 1, 2), &w, 0.0, MatMut::new(&mut y, 1, 2), epilogue);
/// assert_eq!(y, [3.5, 0.0]);
/// ```
///
/// # Panics
/// If the sizes do not fit together.
// In line: an operand that goes through memory is read in wider pieces than it was written in, and store forwarding fails.
#[inline(always)]
pub fn matmul_with<'a, T: Scalar>(
    alpha: T,
    a: impl Into<Left<'a, T>>,
    b: impl Into<Right<'a, T>>,
    beta: T,
    c: MatMut<'_, T>,
    epilogue: Epilogue<'_, T>,
) {
    let (a, b) = (a.into(), b.into());
    product((super::isa(), a.inner), alpha, a, b, beta, c, epilogue);
}

/// [`matmul_with`], where the bits of a row of C do not depend on how many rows there are, nor those of a column on how many
/// columns: each element is one sum in the order of the inner dimension. A product of few rows, which dot products would do
/// quicker, pays for it unless B is packed or its rows are contiguous.
///
/// ```
/// use chainrule_tensor::kernels::gemm::{Epilogue, Mat, MatMut, matmul_steady};
/// let (x, w) = ([0.1f32, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]);
/// let (mut all, mut one) = ([0.0; 4], [0.0; 2]);
/// let w = Mat::new(&w, 2, 2).t();
/// matmul_steady(1.0, Mat::new(&x, 2, 2), w, 0.0, MatMut::new(&mut all, 2, 2), Epilogue::default());
/// matmul_steady(1.0, Mat::new(&x[2..], 1, 2), w, 0.0, MatMut::new(&mut one, 1, 2), Epilogue::default());
/// assert_eq!(one, all[2..]);
/// ```
///
/// # Panics
/// If the sizes do not fit together.
#[inline(always)]
pub fn matmul_steady<'a, T: Scalar>(
    alpha: T,
    a: impl Into<Left<'a, T>>,
    b: impl Into<Right<'a, T>>,
    beta: T,
    c: MatMut<'_, T>,
    epilogue: Epilogue<'_, T>,
) {
    let (a, b) = (a.into(), b.into());
    product_as::<true, T>((super::isa(), a.inner), alpha, a, b, beta, c, epilogue);
}

/// A product that is a part of sums of length `whole`, and rounds as little as those need.
#[inline(always)]
pub(super) fn product<T: Scalar>(
    isa: (Isa, usize),
    alpha: T,
    a: Left<'_, T>,
    b: Right<'_, T>,
    beta: T,
    c: MatMut<'_, T>,
    epilogue: Epilogue<'_, T>,
) {
    product_as::<false, T>(isa, alpha, a, b, beta, c, epilogue);
}

/// [`product`], or the product of [`matmul_steady`].
#[inline(always)]
fn product_as<const STEADY: bool, T: Scalar>(
    (isa, whole): (Isa, usize),
    alpha: T,
    a: Left<'_, T>,
    b: Right<'_, T>,
    beta: T,
    c: MatMut<'_, T>,
    epilogue: Epilogue<'_, T>,
) {
    assert!(
        a.inner == b.inner && a.rows == c.rows && b.cols == c.cols,
        "({} × {}) times ({} × {}) is not ({} × {})",
        a.rows,
        a.inner,
        b.inner,
        b.cols,
        c.rows,
        c.cols
    );
    assert!(epilogue.row.is_none_or(|v| v.len() == c.cols), "a bias by columns has one element a column");
    assert!(epilogue.col.is_none_or(|v| v.len() == c.rows), "a bias by rows has one element a row");
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    let isa = match (a.isa, b.isa) {
        (None, None) => isa,
        (Some(one), None) | (None, Some(one)) => one,
        (Some(one), Some(two)) if one == two => one,
        _ => panic!("both operands are packed, for two instruction sets"),
    };
    let null = std::ptr::null();
    let epilogue = RawEpilogue {
        alpha,
        beta,
        row: epilogue.row.map_or(null, <[T]>::as_ptr),
        col: epilogue.col.map_or(null, <[T]>::as_ptr),
        relu: epilogue.relu,
    };
    let mut p = Product {
        m: c.rows,
        n: c.cols,
        k: a.inner,
        a: a.side,
        b: b.side,
        c: c.data.as_mut_ptr(),
        c_row: c.row_stride,
        c_col: c.col_stride,
        epilogue,
    };
    // SAFETY: `Mat` and `MatMut` were checked at construction to contain all their elements, those of C disjoint, and packed operands are as long as their sizes say; A and B are borrowed shared and C exclusively, so C
    // overlaps neither. An `Isa` is named only if the processor has it.
    unsafe { engine::run::<STEADY, T>(&mut p, isa, whole) };
}
