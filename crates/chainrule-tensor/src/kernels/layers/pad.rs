//! Borders around images: each element of the larger image is a copy of one of the smaller.

use super::window::{over, planes};
use crate::{Scalar, compiled, par};

/// Elements that a piece of work copies at least: 64 KiB of f32; handing a piece out takes 0.3 µs.
const PIECE: usize = 1 << 14;

/// Where the row of the smaller volume begins that each row of the larger one copies.
fn rows([_, h, w]: [usize; 3], [depths, rows, _]: [&[usize]; 3]) -> impl Iterator<Item = usize> {
    depths.iter().flat_map(move |d| rows.iter().map(move |row| (d * h + row) * w))
}

/// Elements of a plane of the smaller and of the larger image, with the places inside the smaller one, of images of these lengths.
fn sizes<const R: usize>(size: [usize; R], places: [&[usize]; R], lengths: [usize; 2]) -> (usize, usize) {
    for (places, n) in places.into_iter().zip(size) {
        assert!(places.iter().all(|&i| i < n), "places lie inside their axis");
    }
    planes([size, places.map(<[usize]>::len)], lengths)
}

/// `y[p, i, j] = x[p, places[0][i], places[1][j]]` for every plane p of x (P, H, W), and likewise for any number of axes up to 3.
///
/// # Panics
/// If the slices do not contain as many planes of these sizes, or a place lies outside the image.
pub fn pad<T: Scalar, const R: usize>(x: &[T], y: &mut [T], size: [usize; R], places: [&[usize]; R]) {
    volumes(x, y, volume(size, 1), volume(places, &[0]));
}

/// The transpose of [`pad`]: `dx[p, places[0][i], places[1][j]] = Σ dy[p, i, j]`.
///
/// # Panics
/// As [`pad`].
pub fn pad_gradient<T: Scalar, const R: usize>(
    dy: &[T],
    dx: &mut [T],
    size: [usize; R],
    places: [&[usize]; R],
) {
    volumes_gradient(dy, dx, volume(size, 1), volume(places, &[0]));
}

/// [`pad_gradient`] where many elements are copies of one: their sum is kept in `sums`, as long as dx, until it is complete.
///
/// # Panics
/// As [`pad`], and if `sums` is not as long as dx.
pub fn pad_gradient_long<T: Scalar, const R: usize>(
    dy: &[T],
    dx: &mut [T],
    sums: &mut [f64],
    size: [usize; R],
    places: [&[usize]; R],
) {
    volumes_gradient_long(dy, dx, sums, volume(size, 1), volume(places, &[0]));
}

/// `y[p, i, j] = x[p, i − before[0], j − before[1]]` where x (P, H, W) has such an element, and `value` elsewhere; likewise for any
/// number of axes up to 3. Negative `before` crops. With `−before` and 0 it is its own transpose.
///
/// # Panics
/// If the slices do not contain as many planes of the sizes `from` and `to`.
pub fn place<T: Scalar, const R: usize>(
    x: &[T],
    y: &mut [T],
    [from, to]: [[usize; R]; 2],
    before: [isize; R],
    value: T,
) {
    place_volumes(x, y, [volume(from, 1), volume(to, 1)], volume(before, 0), value);
}

fn volume<V: Copy, const R: usize>(by_axis: [V; R], one: V) -> [V; 3] {
    over(by_axis, one).expect("at most three axes")
}

compiled! {
    fn volumes[T](x: &[T], y: &mut [T], size: [usize; 3], places: [&[usize]; 3]) {
        let (small, large) = sizes(size, places, [x.len(), y.len()]);
        if y.is_empty() {
            return;
        }
        let per = (PIECE / large).max(1);
        par::for_chunks(y, per * large, |piece, y| {
            for (x, y) in x[piece * per * small..].chunks(small).zip(y.chunks_mut(large)) {
                for (row, y) in rows(size, places).zip(y.chunks_mut(places[2].len())) {
                    let x = &x[row..][..size[2]];
                    places[2].iter().zip(y).for_each(|(&col, y)| *y = x[col]);
                }
            }
        });
    }
}

compiled! {
    fn volumes_gradient[T](dy: &[T], dx: &mut [T], size: [usize; 3], places: [&[usize]; 3]) {
        let (small, large) = sizes(size, places, [dx.len(), dy.len()]);
        dx.fill(T::ZERO);
        if dy.is_empty() {
            return;
        }
        let per = (PIECE / large).max(1);
        par::for_chunks(dx, per * small, |piece, dx| {
            for (dx, dy) in dx.chunks_mut(small).zip(dy[piece * per * large..].chunks(large)) {
                for (row, dy) in rows(size, places).zip(dy.chunks(places[2].len())) {
                    let dx = &mut dx[row..][..size[2]];
                    places[2].iter().zip(dy).for_each(|(&col, &dy)| dx[col] += dy);
                }
            }
        });
    }
}

compiled! {
    fn volumes_gradient_long[T](
        dy: &[T],
        dx: &mut [T],
        sums: &mut [f64],
        size: [usize; 3],
        places: [&[usize]; 3],
    ) {
        let (small, large) = sizes(size, places, [dx.len(), dy.len()]);
        assert_eq!(sums.len(), dx.len(), "a sum for each element");
        sums.fill(0.0);
        if dy.is_empty() {
            return dx.fill(T::ZERO);
        }
        let per = (PIECE / large).max(1);
        par::for_chunks2((dx, per * small), (sums, per * small), |piece, dx, sums| {
            for (sums, dy) in sums.chunks_mut(small).zip(dy[piece * per * large..].chunks(large)) {
                for (row, dy) in rows(size, places).zip(dy.chunks(places[2].len())) {
                    let sums = &mut sums[row..][..size[2]];
                    places[2].iter().zip(dy).for_each(|(&col, &dy)| sums[col] += dy.to_f64());
                }
            }
            dx.iter_mut().zip(sums).for_each(|(dx, &mut sum)| *dx = T::from_f64(sum));
        });
    }
}

/// The element of an axis of n that is `before` elements further on.
fn inside(i: usize, before: isize, n: usize) -> Option<usize> {
    i.checked_add_signed(before.checked_neg()?).filter(|&i| i < n)
}

compiled! {
    fn place_volumes[T](x: &[T], y: &mut [T], sizes: [[usize; 3]; 2], before: [isize; 3], value: T) {
        let [from @ [_, h, w], to @ [depth, height, width]] = sizes;
        let (small, large) = planes([from, to], [x.len(), y.len()]);
        if y.is_empty() {
            return;
        }
        // Columns lo .. hi of a row of y are in x.
        let lo = usize::try_from(before[2]).unwrap_or(0).min(width);
        let hi = w.checked_add_signed(before[2]).unwrap_or(0).clamp(lo, width);
        let first = usize::try_from(before[2].saturating_neg()).unwrap_or(0);
        let per = (PIECE / large).max(1);
        par::for_chunks(y, per * large, |piece, y| {
            for (x, y) in x[piece * per * small..].chunks(small).zip(y.chunks_mut(large)) {
                let at = (0..depth).flat_map(|i| (0..height).map(move |j| (i, j)));
                for ((i, j), y) in at.zip(y.chunks_mut(width)) {
                    match (inside(i, before[0], from[0]), inside(j, before[1], h)) {
                        (Some(i), Some(j)) if hi > lo => {
                            y[..lo].fill(value);
                            y[lo..hi].copy_from_slice(&x[(i * h + j) * w + first..][..hi - lo]);
                            y[hi..].fill(value);
                        }
                        _ => y.fill(value),
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (1 2; 3 4) with its last row and first column repeated; every copy sends its gradient back.
    #[test]
    fn copies_and_their_gradient() {
        let places = [&[0, 1, 1][..], &[0, 0, 1]];
        let mut y = [0.0; 18];
        pad(&[1., 2., 3., 4., 10., 20., 30., 40.], &mut y, [2, 2], places);
        assert_eq!(y[..9], [1., 1., 2., 3., 3., 4., 3., 3., 4.]);
        assert_eq!(y[9..12], [10., 10., 20.]);
        let mut dx = [7.0; 8];
        pad_gradient(&[1.0; 18], &mut dx, [2, 2], places);
        assert_eq!(dx, [2., 1., 4., 2., 2., 1., 4., 2.]);
    }

    /// (1 2; 3 4) with a column of 9 before it and without its first row; the way back crops the column.
    #[test]
    fn places_and_crops() {
        let mut y = [0.0; 6];
        place(&[1., 2., 3., 4., 5., 6., 7., 8.], &mut y, [[2, 2], [1, 3]], [-1, 1], 9.0);
        assert_eq!(y, [9., 3., 4., 9., 7., 8.]);
        let mut dx = [7.0; 8];
        place(&y, &mut dx, [[1, 3], [2, 2]], [1, -1], 0.0);
        assert_eq!(dx, [0., 0., 3., 4., 0., 0., 7., 8.]);
        let mut far = [0.0; 2];
        place(&[1., 2.], &mut far, [[2], [2]], [isize::MIN], 5.0);
        assert_eq!(far, [5.0; 2]);
        place(&[1., 2.], &mut far, [[2], [2]], [isize::MAX], 4.0);
        assert_eq!(far, [4.0; 2]);
    }

    #[test]
    fn sums_of_many_copies() {
        let (mut dx, mut sums) = ([7.0f32; 2], [1.0; 2]);
        pad_gradient_long(&[1., 2., 4., 8.], &mut dx, &mut sums, [2], [&[1, 0, 1, 1]]);
        assert_eq!(dx, [2., 13.]);
    }

    #[test]
    fn sequences_and_volumes() {
        let (mut y, mut dx) = ([0.0; 4], [0.0; 2]);
        pad(&[5., 6.], &mut y, [2], [&[1, 0, 1, 1]]);
        assert_eq!(y, [6., 5., 6., 6.]);
        pad_gradient(&[1., 2., 4., 8.], &mut dx, [2], [&[1, 0, 1, 1]]);
        assert_eq!(dx, [2., 13.]);
        let places = [&[1, 0][..], &[0], &[1, 0, 1]];
        let (mut y, mut dx) = ([0.0; 6], [0.0; 4]);
        pad(&[1., 2., 3., 4.], &mut y, [2, 1, 2], places);
        assert_eq!(y, [4., 3., 4., 2., 1., 2.]);
        pad_gradient(&[1., 2., 4., 8., 16., 32.], &mut dx, [2, 1, 2], places);
        assert_eq!(dx, [16., 40., 2., 5.]);
    }

    #[test]
    #[should_panic(expected = "places lie inside their axis")]
    fn a_place_outside_the_image_is_refused() {
        pad(&[1.0f32; 4], &mut [0.0; 4], [2, 2], [&[0, 1], &[0, 2]]);
    }
}
