//! Borders around images: each pixel of the larger image is a copy of one of the smaller.

use crate::{Scalar, par};

/// Pixels that a piece of work copies at least.
const PIECE: usize = 1 << 14;

/// `y[p, i, j] = x[p, rows[i], cols[j]]` for every plane p of x (P, H, W).
///
/// # Panics
/// If the slices do not hold as many planes of these sizes, or a place lies outside the image.
pub fn pad<T: Scalar>(x: &[T], y: &mut [T], [h, w]: [usize; 2], rows: &[usize], cols: &[usize]) {
    let (small, large) = (h * w, rows.len() * cols.len());
    if large == 0 {
        return;
    }
    assert_eq!(x.len() / small * large, y.len(), "as many planes in y as in x");
    let planes = (PIECE / large).max(1);
    par::for_chunks(y, planes * large, |piece, y| {
        for (x, y) in x[piece * planes * small..].chunks(small).zip(y.chunks_mut(large)) {
            for (&row, y) in rows.iter().zip(y.chunks_mut(cols.len())) {
                let x = &x[row * w..][..w];
                cols.iter().zip(y).for_each(|(&col, y)| *y = x[col]);
            }
        }
    });
}

/// The transpose of [`pad`]: `dx[p, rows[i], cols[j]] = Σ dy[p, i, j]`.
///
/// # Panics
/// As [`pad`].
pub fn pad_gradient<T: Scalar>(dy: &[T], dx: &mut [T], [h, w]: [usize; 2], rows: &[usize], cols: &[usize]) {
    let (small, large) = (h * w, rows.len() * cols.len());
    dx.fill(T::ZERO);
    if large == 0 {
        return;
    }
    assert_eq!(dx.len() / small * large, dy.len(), "as many planes in dy as in dx");
    let planes = (PIECE / large).max(1);
    par::for_chunks(dx, planes * small, |piece, dx| {
        for (dx, dy) in dx.chunks_mut(small).zip(dy[piece * planes * large..].chunks(large)) {
            for (&row, dy) in rows.iter().zip(dy.chunks(cols.len())) {
                let dx = &mut dx[row * w..][..w];
                cols.iter().zip(dy).for_each(|(&col, &dy)| dx[col] += dy);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (1 2; 3 4) with its last row and first column repeated; every copy sends its gradient back.
    #[test]
    fn copies_and_their_gradient() {
        let (rows, cols) = ([0, 1, 1], [0, 0, 1]);
        let mut y = [0.0; 18];
        pad(&[1., 2., 3., 4., 10., 20., 30., 40.], &mut y, [2, 2], &rows, &cols);
        assert_eq!(y[..9], [1., 1., 2., 3., 3., 4., 3., 3., 4.]);
        assert_eq!(y[9..12], [10., 10., 20.]);
        let mut dx = [7.0; 8];
        pad_gradient(&[1.0; 18], &mut dx, [2, 2], &rows, &cols);
        assert_eq!(dx, [2., 1., 4., 2., 2., 1., 4., 2.]);
    }
}
