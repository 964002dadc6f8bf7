//! Gates: halves a and b along one axis, joined to one. x (rows, 2 h) holds both, y (rows, h).

use crate::{
    Scalar,
    kernels::{
        elementwise::{Function, map2},
        kernel,
    },
    par,
};

/// Elements of a piece, of whole rows.
const PIECE: usize = 1 << 15;

/// yᵢ = f((aᵢ, bᵢ)) for rows of x that hold a, then b, of h elements each.
///
/// # Panics
/// If the lengths do not fit together.
pub fn forward<T: Scalar>(x: &[T], h: usize, y: &mut [T], f: impl Function<(T, T), T>) {
    assert!(y.len().checked_mul(2) == Some(x.len()) && (h > 0 && y.len().is_multiple_of(h) || y.is_empty()));
    let rows = (PIECE / h.max(1)).max(1);
    par::for_chunks(y, rows * h, |i, y| {
        for (x, y) in x[i * rows * 2 * h..].chunks_exact(2 * h).zip(y.chunks_exact_mut(h)) {
            map2(&x[..h], &x[h..], y, f);
        }
    });
}

kernel! {
    /// (daᵢ, dbᵢ) = f((aᵢ, bᵢ, dyᵢ)), of one row.
    fn backward_row[T: Scalar, F: Function<(T, T, T), (T, T)>](
        a: &[T],
        b: &[T],
        dy: &[T],
        da: &mut [T],
        db: &mut [T],
        f: F,
    ) {
        let values = a.iter().zip(b).zip(dy);
        for ((da, db), ((&a, &b), &dy)) in da.iter_mut().zip(db).zip(values) {
            (*da, *db) = f.of::<FMA>((a, b, dy));
        }
    }
}

/// dx of [`forward`], whose rows hold da, then db: (daᵢ, dbᵢ) = f((aᵢ, bᵢ, dyᵢ)).
///
/// # Panics
/// If the lengths do not fit together.
pub fn backward<T: Scalar>(x: &[T], dy: &[T], h: usize, dx: &mut [T], f: impl Function<(T, T, T), (T, T)>) {
    assert!(x.len() == dx.len() && dy.len().checked_mul(2) == Some(x.len()));
    assert!(h > 0 && dy.len().is_multiple_of(h) || dy.is_empty());
    let rows = (PIECE / (2 * h).max(1)).max(1);
    par::for_chunks(dx, rows * 2 * h, |i, dx| {
        let at = i * rows * h..i * rows * h + dx.len() / 2;
        let values = x[2 * at.start..2 * at.end].chunks_exact(2 * h).zip(dy[at].chunks_exact(h));
        for ((x, dy), dx) in values.zip(dx.chunks_exact_mut(2 * h)) {
            let (da, db) = dx.split_at_mut(h);
            backward_row(&x[..h], &x[h..], dy, da, db, f);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_joined_and_their_gradients_parted_on_any_number_of_threads() {
        for (rows, h) in [(1, 1), (3, 5), (1, 70_000), (400, 130), (70_000, 1), (0, 3)] {
            let x: Vec<f64> = (0..rows * 2 * h).map(|i| (i % 1013) as f64).collect();
            let dy: Vec<f64> = (0..rows * h).map(|i| (i % 97) as f64 + 1.0).collect();
            for threads in [1, 2] {
                par::with_threads(threads, || {
                    let (mut y, mut dx) = (vec![f64::NAN; rows * h], vec![f64::NAN; rows * 2 * h]);
                    forward(&x, h, &mut y, |(a, b): (f64, f64)| a - 2.0 * b);
                    backward(&x, &dy, h, &mut dx, |(a, b, g): (f64, f64, f64)| (g * b, g * a));
                    for i in 0..rows * h {
                        let a = i / h * 2 * h + i % h;
                        let b = a + h;
                        assert_eq!([y[i], dx[a], dx[b]], [x[a] - 2.0 * x[b], dy[i] * x[b], dy[i] * x[a]]);
                    }
                });
            }
        }
    }
}
