//! Maxima over windows of one size whose places are given for each plane: fractional pools.

use super::{super::window::planes, max::NONE, planes_per_piece};
use crate::{compiled, par};

compiled! {
    /// y = the maximum of each window of each plane, and the index in the plane where it is. `starts` lists, plane by plane, where the
    /// windows begin along each axis: `out[0]` + `out[1]` + `out[2]` places.
    ///
    /// # Panics
    /// If the lengths do not fit together, a window does not lie inside its axis, or planes have 2³² − 1 elements or more.
    pub fn max_pool_starts[T](
        x: &[T],
        y: &mut [T],
        winners: &mut [u32],
        size: [usize; 3],
        out: [usize; 3],
        kernel: [usize; 3],
        starts: &[usize],
    ) {
        let (plane, outputs) = planes([size, out], [x.len(), y.len()]);
        assert_eq!(winners.len(), y.len(), "a winner for each element of y");
        if y.is_empty() {
            return;
        }
        assert!(plane < NONE as usize, "expected fewer than 2³² − 1 elements of a plane, got {plane}");
        let each = out[0] + out[1] + out[2];
        assert_eq!(starts.len(), y.len() / outputs * each, "the starts of each plane");
        let of = |plane: usize| {
            let starts = &starts[plane * each..][..each];
            let (depths, rest) = starts.split_at(out[0]);
            let (rows, cols) = rest.split_at(out[1]);
            [depths, rows, cols]
        };
        let inside = |i: usize| {
            let ends = |axis: usize| size[axis].checked_sub(kernel[axis]);
            (0..3).all(|axis| ends(axis).is_some_and(|end| of(i)[axis].iter().all(|&at| at <= end)))
        };
        assert!((0..y.len() / outputs).all(inside), "windows lie inside their axis");
        let per = planes_per_piece(plane);
        par::for_chunks2((y, per * outputs), (winners, per * outputs), |piece, y, winners| {
            let ys = y.chunks_exact_mut(outputs).zip(winners.chunks_exact_mut(outputs));
            for (i, (y, winners)) in (piece * per..).zip(ys) {
                let (x, [depths, rows, cols]) = (&x[i * plane..][..plane], of(i));
                let mut o = 0;
                for &depth in depths {
                    for &row in rows {
                        for &col in cols {
                            let mut best = (T::NEG_INFINITY, NONE);
                            for d in depth..depth + kernel[0] {
                                for h in row..row + kernel[1] {
                                    let at = (d * size[1] + h) * size[2] + col;
                                    for (j, &v) in x[at..][..kernel[2]].iter().enumerate() {
                                        if v > best.0 || v.is_nan() || best.1 == NONE {
                                            best = (v, (at + j) as u32);
                                        }
                                    }
                                }
                            }
                            (y[o], winners[o]) = best;
                            o += 1;
                        }
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of 2 at 0 and 1 of the row 3 1 4, and at 0 and 0 of the row 1 5 9.
    #[test]
    fn each_plane_has_windows_of_its_own() {
        let (mut y, mut winners) = ([0.0; 4], [0; 4]);
        let starts = [0, 0, 0, 1, 0, 0, 0, 0];
        max_pool_starts(
            &[3., 1., 4., 1., 5., 9.],
            &mut y,
            &mut winners,
            [1, 1, 3],
            [1, 1, 2],
            [1, 1, 2],
            &starts,
        );
        assert_eq!((y, winners), ([3., 4., 5., 5.], [0, 2, 1, 1]));
    }

    #[test]
    #[should_panic(expected = "windows lie inside their axis")]
    fn a_window_outside_is_refused() {
        max_pool_starts(&[0.0f32; 3], &mut [0.0; 1], &mut [0; 1], [1, 1, 3], [1; 3], [1, 1, 2], &[0, 0, 2]);
    }
}
