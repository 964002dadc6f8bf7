//! Maxima over windows that are given by their spans along each axis: adaptive and global pools.

use super::{
    average::{Span, sizes, volume},
    max::NONE,
    planes_per_piece,
};
use crate::{Scalar, compiled, kernels::kernel, par};

/// Columns whose maxima over the rows of a window are kept at a time.
const BLOCK: usize = 64;

/// Whether an element takes the place of the best so far: the first of equals wins, NaN wins over all, the last of several.
#[inline(always)]
fn wins<T: Scalar>((v, at): (T, u32), (best, best_at): (T, u32)) -> bool {
    let earlier = v == best && at < best_at;
    v > best || earlier || (v.is_nan() && (!best.is_nan() || at > best_at)) || best_at == NONE
}

kernel! {
    /// The maxima of one plane and where they are. Rows of a window are compared first, over a block of columns.
    fn plane_winners[T: Scalar](
        x: &[T],
        y: &mut [T],
        winners: &mut [u32],
        size: [usize; 2],
        by_axis: [&[Span]; 3],
    ) {
        let ([height, width], [depths, rows, cols]) = (size, by_axis);
        y.fill(T::NEG_INFINITY);
        winners.fill(NONE);
        let outs = y.chunks_exact_mut(cols.len()).zip(winners.chunks_exact_mut(cols.len()));
        let windows = depths.iter().flat_map(|depth| rows.iter().map(move |row| (depth, row)));
        for ((y, winners), (depth, row)) in outs.zip(windows) {
            for start in (0..width).step_by(BLOCK) {
                let end = (start + BLOCK).min(width);
                let (mut best, mut at) = ([T::NEG_INFINITY; BLOCK], [NONE; BLOCK]);
                let (best, at) = (&mut best[..end - start], &mut at[..end - start]);
                for d in depth.start..depth.end {
                    for h in row.start..row.end {
                        let from = (d * height + h) * width + start;
                        let x = &x[from..][..end - start];
                        for (i, (&v, (best, at))) in x.iter().zip(best.iter_mut().zip(&mut *at)).enumerate() {
                            let wins = v > *best || v.is_nan() || *at == NONE;
                            *best = if wins { v } else { *best };
                            *at = if wins { (from + i) as u32 } else { *at };
                        }
                    }
                }
                for (col, (y, winner)) in cols.iter().zip(y.iter_mut().zip(&mut *winners)) {
                    for j in col.start.max(start)..col.end.min(end) {
                        let candidate = (best[j - start], at[j - start]);
                        if candidate.1 != NONE && wins(candidate, (*y, *winner)) {
                            (*y, *winner) = candidate;
                        }
                    }
                }
            }
        }
    }
}

/// y = the maximum of each window, plane by plane, and the index in the plane where it is. The windows are given by their spans along each
/// axis, whose counts are ignored; `size` are the axes of x.
///
/// # Panics
/// If the lengths do not fit together, a window does not lie inside its axis, or planes have 2³² − 1 elements or more.
pub fn max_pool_spans<T: Scalar, const R: usize>(
    x: &[T],
    y: &mut [T],
    winners: &mut [u32],
    size: [usize; R],
    by_axis: [&[Span]; R],
) {
    let (size, by_axis) = volume(size, by_axis);
    maxima(x, y, winners, size, by_axis);
}

compiled! {
    fn maxima[T](x: &[T], y: &mut [T], winners: &mut [u32], size: [usize; 3], by_axis: [&[Span]; 3]) {
        let (plane, out) = sizes(size, by_axis, [x.len(), y.len()]);
        assert_eq!(winners.len(), y.len(), "a winner for each element of y");
        if y.is_empty() {
            return;
        }
        assert!(plane < NONE as usize, "expected fewer than 2³² − 1 elements of a plane, got {plane}");
        let per = planes_per_piece(plane);
        par::for_chunks2((y, per * out), (winners, per * out), |i, y, winners| {
            let ys = y.chunks_exact_mut(out).zip(winners.chunks_exact_mut(out));
            for (x, (y, winners)) in x[i * per * plane..].chunks_exact(plane).zip(ys) {
                plane_winners(x, y, winners, [size[1], size[2]], by_axis);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows (1 5 5) and (5 2) of a row, over two slices: the first of equals, the last NaN.
    #[test]
    fn the_first_of_equals_and_the_last_nan_win() {
        let span = |start, end| Span { start, end, count: 0 };
        let (one, cols) = ([span(0, 2)], [span(0, 3), span(2, 4)]);
        let (mut y, mut winners) = ([0.0; 2], [0; 2]);
        let mut x = [1., 5., 5., 2., 5., 0., 0., 9.];
        max_pool_spans(&x, &mut y, &mut winners, [2, 1, 4], [&one, &[span(0, 1)], &cols]);
        assert_eq!((y, winners), ([5., 9.], [1, 7]));
        (x[0], x[4], x[3]) = (f64::NAN, f64::NAN, f64::NAN);
        max_pool_spans(&x, &mut y, &mut winners, [2, 1, 4], [&one, &[span(0, 1)], &cols]);
        assert!(y.iter().all(|v| v.is_nan()));
        assert_eq!(winners, [4, 3]);
    }

    #[test]
    fn all_columns_of_a_long_row_are_compared() {
        let x: Vec<f32> = (0..300).map(|i| ((i * 7919 + 13) % 301) as f32).collect();
        let cols: Vec<Span> = [(0, 300), (0, 64), (63, 65), (190, 299)]
            .map(|(start, end)| Span { start, end, count: 1 })
            .into();
        let (mut y, mut winners) = (vec![0.0; 4], vec![0; 4]);
        max_pool_spans(&x, &mut y, &mut winners, [300], [&cols]);
        for ((y, at), col) in y.iter().zip(&winners).zip(&cols) {
            let want = x[col.start..col.end].iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!((*y, x[*at as usize]), (want, want));
        }
    }
}
