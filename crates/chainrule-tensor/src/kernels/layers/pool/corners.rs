//! Maxima of 2 × 2 windows that neither overlap nor leave gaps: whole rows at a time, and one byte for each winner.

use super::{super::window::planes, in_blocks, planes_per_piece};
use crate::{Scalar, compiled, kernels::kernel, par};

kernel! {
    /// Maxima of 2 × 2 corners of two rows, and which corner won: 0 1 over 2 3.
    fn corner_rows[T: Scalar](top: &[T], bottom: &[T], y: &mut [T], corners: &mut [u8]) {
        in_blocks!(y.len(), j, k => {
            let (top, bottom) = (&top[2 * j..][..2 * k], &bottom[2 * j..][..2 * k]);
            let rows = top.as_chunks::<2>().0.iter().zip(bottom.as_chunks::<2>().0);
            for (((a, b), y), corner) in rows.zip(&mut y[j..][..k]).zip(&mut corners[j..][..k]) {
                let (mut m, mut c) = (a[0], 0);
                for (v, i) in [(a[1], 1), (b[0], 2), (b[1], 3)] {
                    let wins = v > m || v.is_nan();
                    (m, c) = if wins { (v, i) } else { (m, c) };
                }
                (*y, *corner) = (m, c);
            }
        });
    }
}

kernel! {
    /// Maxima of 2 × 2 corners of two rows.
    fn corner_maxima[T: Scalar](top: &[T], bottom: &[T], y: &mut [T]) {
        in_blocks!(y.len(), j, k => {
            let (top, bottom) = (&top[2 * j..][..2 * k], &bottom[2 * j..][..2 * k]);
            let rows = top.as_chunks::<2>().0.iter().zip(bottom.as_chunks::<2>().0);
            for ((a, b), y) in rows.zip(&mut y[j..][..k]) {
                let mut m = a[0];
                for v in [a[1], b[0], b[1]] {
                    m = if v > m || v.is_nan() { v } else { m };
                }
                *y = m;
            }
        });
    }
}

compiled! {
    /// [`super::max_pool`] with windows of 2 × 2 that neither overlap nor leave gaps; `corners`, if requested, says which of a window's
    /// elements won: 0 1 over 2 3. `h` and `w` are the sizes of a plane of x.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn max_pool_corners[T](x: &[T], y: &mut [T], corners: Option<&mut [u8]>, size: [usize; 2]) {
        let [h, w] = size;
        let (plane, out) = planes([[h, w], [h / 2, w / 2]], [x.len(), y.len()]);
        assert!(corners.as_ref().is_none_or(|c| c.len() == y.len()), "a corner for each element of y");
        if y.is_empty() {
            return;
        }
        let width = w / 2;
        let per = planes_per_piece(plane);
        // The two rows of x under row i of a piece of y.
        let rows = |piece: usize, i: usize| {
            let (p, i) = (piece * per + i / (h / 2), i % (h / 2));
            x[p * plane + 2 * i * w..][..2 * w].split_at(w)
        };
        match corners {
            Some(corners) => par::for_chunks2((y, per * out), (corners, per * out), |piece, y, corners| {
                let out = y.chunks_exact_mut(width).zip(corners.chunks_exact_mut(width));
                for (i, (y, corners)) in out.enumerate() {
                    let (top, bottom) = rows(piece, i);
                    corner_rows(top, bottom, y, corners);
                }
            }),
            None => par::for_chunks(y, per * out, |piece, y| {
                for (i, y) in y.chunks_exact_mut(width).enumerate() {
                    let (top, bottom) = rows(piece, i);
                    corner_maxima(top, bottom, y);
                }
            }),
        }
    }
}

kernel! {
    /// One row of windows of [`max_pool_corners_gradient`].
    fn corner_gradient[T: Scalar](dy: &[T], corners: &[u8], top: &mut [T], bottom: &mut [T]) {
        for (row, first) in [(top, 0), (bottom, 2)] {
            for ((pair, &g), &c) in row.as_chunks_mut::<2>().0.iter_mut().zip(dy).zip(corners) {
                *pair = [first, first + 1].map(|i| if c == i { g } else { T::ZERO });
            }
        }
    }
}

compiled! {
    /// dx = dy at the winning corners and 0 elsewhere.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn max_pool_corners_gradient[T](dy: &[T], corners: &[u8], dx: &mut [T], size: [usize; 2]) {
        let [h, w] = size;
        let (plane, out) = planes([[h, w], [h / 2, w / 2]], [dx.len(), dy.len()]);
        assert_eq!(dy.len(), corners.len(), "a corner for each element of dy");
        if dx.is_empty() {
            return;
        }
        let width = w / 2;
        let per = planes_per_piece(plane);
        par::for_chunks(dx, per * plane, |piece, dx| {
            for (p, dx) in (piece * per..).zip(dx.chunks_exact_mut(plane)) {
                let (even, odd) = dx.split_at_mut(h / 2 * 2 * w);
                odd.fill(T::ZERO);
                for (i, rows) in even.chunks_exact_mut(2 * w).enumerate() {
                    let (top, bottom) = rows.split_at_mut(w);
                    if w % 2 == 1 {
                        (top[w - 1], bottom[w - 1]) = (T::ZERO, T::ZERO);
                    }
                    let at = p * out + i * width..p * out + (i + 1) * width;
                    corner_gradient(&dy[at.clone()], &corners[at], top, bottom);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::max::{
            max_pool, max_pool_gradient,
            tests::{values, window},
        },
        *,
    };

    #[test]
    fn corners_agree_with_the_general_loop() {
        for (h, w) in [(2, 2), (3, 5), (32, 32), (6, 70), (41, 9)] {
            let window = window([(h, 2, 2, 0, 1), (w, 2, 2, 0, 1)]);
            let out = (h / 2) * (w / 2);
            let mut x = values(5 * h * w);
            (x[0], x[h * w - 1], x[h * w]) = (f32::NAN, f32::NAN, f32::NEG_INFINITY);
            let [mut y, mut y_fast, mut y_alone] = [(); 3].map(|()| vec![0.0; 5 * out]);
            let (mut winners, mut corners) = (vec![0; 5 * out], vec![0; 5 * out]);
            max_pool(&x, &mut y, Some(&mut winners), &window);
            max_pool_corners(&x, &mut y_fast, Some(&mut corners), [h, w]);
            max_pool_corners(&x, &mut y_alone, None, [h, w]);
            let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(&y) == bits(&y_fast) && bits(&y) == bits(&y_alone));
            let (dy, mut dx, mut dx_fast) =
                (values(5 * out), vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            max_pool_gradient(&dy, &winners, &mut dx, h * w);
            max_pool_corners_gradient(&dy, &corners, &mut dx_fast, [h, w]);
            assert_eq!(dx, dx_fast);
        }
    }
}
