//! Matrix products: one entry point, [`matmul`].

use crate::Scalar;

/// A matrix of `rows × cols` over a slice: element (i, j) stands at `i·row_stride + j·col_stride`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A matrix that is written to. No two elements may stand in the same place.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// Panics unless the last element of the matrix lies within `len`.
fn check(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) {
    if rows > 0 && cols > 0 {
        let last = (rows - 1)
            .checked_mul(row_stride)
            .and_then(|r| (cols - 1).checked_mul(col_stride).and_then(|c| r.checked_add(c)));
        assert!(
            last.is_some_and(|last| last < len),
            "a {rows} × {cols} matrix of strides ({row_stride}, {col_stride}) does not fit in {len} elements"
        );
    }
}

impl<'a, T> Mat<'a, T> {
    /// A row-major matrix.
    ///
    /// # Panics
    /// If the slice is too short.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols, 1)
    }

    /// A matrix with its own strides.
    ///
    /// # Panics
    /// If the slice is too short.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        check(data.len(), rows, cols, row_stride, col_stride);
        Self { data, rows, cols, row_stride, col_stride }
    }

    /// The transpose.
    #[must_use]
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
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols, 1)
    }

    /// A matrix with its own strides.
    ///
    /// # Panics
    /// If the slice is too short or two elements would stand in the same place.
    pub fn strided(
        data: &'a mut [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        check(data.len(), rows, cols, row_stride, col_stride);
        let apart = rows <= 1
            || cols <= 1
            || (col_stride > 0 && row_stride >= cols * col_stride)
            || (row_stride > 0 && col_stride >= rows * row_stride);
        assert!(apart, "elements of a matrix that is written to must stand apart");
        Self { data, rows, cols, row_stride, col_stride }
    }
}

/// C = α A B + β C. With β = 0, C is overwritten whatever it held.
///
/// # Panics
/// If the sizes do not fit together.
pub fn matmul<T: Scalar>(alpha: T, a: Mat<'_, T>, b: Mat<'_, T>, beta: T, c: MatMut<'_, T>) {
    assert!(
        a.cols == b.rows && a.rows == c.rows && b.cols == c.cols,
        "({} × {}) times ({} × {}) is not ({} × {})",
        a.rows,
        a.cols,
        b.rows,
        b.cols,
        c.rows,
        c.cols
    );
    if c.rows > 0 && c.cols > 0 {
        T::gemm(alpha, a, b, beta, c);
    }
}

/// The matrix product of each scalar type.
pub trait GemmScalar: Sized {
    #[doc(hidden)]
    fn gemm(alpha: Self, a: Mat<'_, Self>, b: Mat<'_, Self>, beta: Self, c: MatMut<'_, Self>);
}

macro_rules! engine {
    ($t:ty, $gemm:path) => {
        impl GemmScalar for $t {
            fn gemm(alpha: Self, a: Mat<'_, Self>, b: Mat<'_, Self>, beta: Self, c: MatMut<'_, Self>) {
                // SAFETY: `Mat` and `MatMut` were checked at construction to hold all their elements, those of C
                // apart from each other; A and B are borrowed shared and C exclusively, so C overlaps neither.
                unsafe {
                    $gemm(
                        a.rows,
                        a.cols,
                        b.cols,
                        alpha,
                        a.data.as_ptr(),
                        a.row_stride as isize,
                        a.col_stride as isize,
                        b.data.as_ptr(),
                        b.row_stride as isize,
                        b.col_stride as isize,
                        beta,
                        c.data.as_mut_ptr(),
                        c.row_stride as isize,
                        c.col_stride as isize,
                    );
                }
            }
        }
    };
}

engine!(f32, matrixmultiply::sgemm);
engine!(f64, matrixmultiply::dgemm);

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729 + 13) % 31) as f64 - 15.0).collect()
    }

    /// The plain loop that every product is compared with.
    fn naive(alpha: f64, a: Mat<'_, f64>, b: Mat<'_, f64>, beta: f64, c: &mut [f64]) {
        for i in 0..a.rows {
            for j in 0..b.cols {
                let at = |k| a.data[i * a.row_stride + k * a.col_stride];
                let bt = |k| b.data[k * b.row_stride + j * b.col_stride];
                let sum: f64 = (0..a.cols).map(|k| at(k) * bt(k)).sum();
                let old = if beta == 0.0 { 0.0 } else { beta * c[i * b.cols + j] };
                c[i * b.cols + j] = alpha * sum + old;
            }
        }
    }

    #[test]
    fn products_agree_with_the_naive_loop() {
        for (m, k, n) in [(1, 1, 1), (1, 7, 5), (3, 0, 4), (4, 4, 1), (17, 9, 33), (64, 31, 8), (0, 3, 2)] {
            for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
                for (alpha, beta) in [(1.0, 0.0), (2.0, 1.0), (-1.0, 0.5)] {
                    let (da, db) = (numbers(m * k, 1), numbers(k * n, 2));
                    let a = if ta { Mat::new(&da, k, m).t() } else { Mat::new(&da, m, k) };
                    let b = if tb { Mat::new(&db, n, k).t() } else { Mat::new(&db, k, n) };
                    let mut want = numbers(m * n, 3);
                    let mut got = want.clone();
                    if beta == 0.0 {
                        got.fill(f64::NAN);
                    }
                    naive(alpha, a, b, beta, &mut want);
                    matmul(alpha, a, b, beta, MatMut::new(&mut got, m, n));
                    assert_eq!(got, want, "{m} {k} {n} {ta} {tb} {alpha} {beta}");
                }
            }
        }
    }
}
