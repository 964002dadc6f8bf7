//! Means over windows. The rows of a window are added first, over the whole width; then windows are cut from that row.

use super::{in_blocks, planes_per_piece};
use crate::{
    Scalar,
    kernels::{reduce::sum, simd},
    par,
};

/// A window along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first element.
    pub start: usize,
    /// The element after its last.
    pub end: usize,
    /// How many elements it counts for in the mean, padding included where that is wanted.
    pub count: usize,
}

/// The windows of one axis (or all of another's) as the loops need them.
#[derive(Clone, Copy)]
pub struct Cut<'a> {
    rows: &'a [Window],
    cols: &'a [Window],
    width: usize,
    /// The windows are 2 × 2, side by side from the first corner on.
    corners: bool,
    /// What sums are divided by, instead of the count.
    divisor: Option<usize>,
}

impl Cut<'_> {
    /// 1/count of a window, 0 for one without elements.
    #[inline(always)]
    fn share<T: Scalar>(&self, row: &Window, col: &Window) -> T {
        match self.divisor.unwrap_or(row.count * col.count) {
            0 => T::ZERO,
            n => T::ONE / T::from_usize(n),
        }
    }
}

fn cut<'a>(rows: &'a [Window], cols: &'a [Window], [h, w]: [usize; 2], divisor: Option<usize>) -> Cut<'a> {
    let inside = |windows: &[Window], n: usize| windows.iter().all(|v| v.start >= v.end || v.end <= n);
    assert!(inside(rows, h) && inside(cols, w), "windows lie inside their axis");
    let pair = |(i, v): (usize, &Window)| *v == Window { start: 2 * i, end: 2 * i + 2, count: 2 };
    let corners = [rows, cols].iter().all(|windows| windows.iter().enumerate().all(pair));
    Cut { rows, cols, width: w, corners, divisor }
}

simd! {
    /// The means of one plane; `line` is scratch of one row.
    pub fn plane_means[T: Scalar](x: &[T], y: &mut [T], cut: &Cut<'_>, line: &mut [T]) {
        if cut.corners {
            let share = cut.share::<T>(&cut.rows[0], &cut.cols[0]);
            for (y, x) in y.chunks_exact_mut(cut.cols.len()).zip(x.chunks_exact(2 * cut.width)) {
                let (top, bottom) = x.split_at(cut.width);
                in_blocks!(y.len(), j, k => {
                    let (top, bottom) = (&top[2 * j..][..2 * k], &bottom[2 * j..][..2 * k]);
                    let corners = top.as_chunks::<2>().0.iter().zip(bottom.as_chunks::<2>().0);
                    for (y, (a, b)) in y[j..][..k].iter_mut().zip(corners) {
                        *y = ((a[0] + b[0]) + (a[1] + b[1])) * share;
                    }
                });
            }
            return;
        }
        for (y, row) in y.chunks_exact_mut(cut.cols.len()).zip(cut.rows) {
            let mut lines = x[row.start.min(row.end) * cut.width..row.end * cut.width].chunks_exact(cut.width);
            match lines.next() {
                Some(first) => line.copy_from_slice(first),
                None => line.fill(T::ZERO),
            }
            for x in lines {
                for (sum, &v) in line.iter_mut().zip(x) {
                    *sum += v;
                }
            }
            for (y, col) in y.iter_mut().zip(cut.cols) {
                let mut total = T::ZERO;
                for &v in &line[col.start.min(col.end)..col.end] {
                    total += v;
                }
                *y = total * cut.share(row, col);
            }
        }
    }
}

simd! {
    /// The gradients of one plane; `line` is scratch of one row.
    pub fn plane_gradients[T: Scalar](dy: &[T], dx: &mut [T], cut: &Cut<'_>, line: &mut [T]) {
        if cut.corners {
            let share = cut.share::<T>(&cut.rows[0], &cut.cols[0]);
            let (whole, odd) = dx.split_at_mut(cut.rows.len() * 2 * cut.width);
            odd.fill(T::ZERO);
            for (dy, dx) in dy.chunks_exact(cut.cols.len()).zip(whole.chunks_exact_mut(2 * cut.width)) {
                let (top, bottom) = dx.split_at_mut(cut.width);
                if cut.width % 2 == 1 {
                    (top[cut.width - 1], bottom[cut.width - 1]) = (T::ZERO, T::ZERO);
                }
                in_blocks!(dy.len(), j, k => {
                    let dy = &dy[j..][..k];
                    for row in [&mut *top, bottom] {
                        // By elements rather than pairs, which the compiler would write one number at a time.
                        for (i, dx) in row[2 * j..][..2 * k].iter_mut().enumerate() {
                            *dx = dy[i / 2] * share;
                        }
                    }
                });
            }
            return;
        }
        dx.fill(T::ZERO);
        for (dy, row) in dy.chunks_exact(cut.cols.len()).zip(cut.rows) {
            line.fill(T::ZERO);
            for (&g, col) in dy.iter().zip(cut.cols) {
                let g = g * cut.share(row, col);
                for v in &mut line[col.start.min(col.end)..col.end] {
                    *v += g;
                }
            }
            for dx in dx[row.start.min(row.end) * cut.width..row.end * cut.width].chunks_exact_mut(cut.width) {
                for (dx, &v) in dx.iter_mut().zip(&*line) {
                    *dx += v;
                }
            }
        }
    }
}

/// From a piece's scratch row to the next: threads that write to the same or to neighbouring cache lines wait for each other.
fn apart(width: usize) -> usize {
    width.next_multiple_of(32) + 32
}

/// Whether there is one window, the whole plane.
fn whole(rows: &[Window], cols: &[Window], [h, w]: [usize; 2]) -> bool {
    let all = |windows: &[Window], n: usize| windows == [Window { start: 0, end: n, count: n }];
    all(rows, h) && all(cols, w)
}

/// y = the mean of each window, plane by plane: its sum by `divisor`, or else by the product of its counts. `scratch` is
/// for the pieces' rows.
///
/// # Panics
/// If the lengths do not fit together.
pub fn average_pool<T: Scalar>(
    x: &[T],
    y: &mut [T],
    size: [usize; 2],
    (rows, cols): (&[Window], &[Window]),
    divisor: Option<usize>,
    scratch: &mut Vec<T>,
) {
    let (plane, out) = (size[0] * size[1], rows.len() * cols.len());
    if y.is_empty() {
        return;
    }
    assert_eq!(x.len() / plane, y.len() / out);
    let (per, cut) = (planes_per_piece(plane), cut(rows, cols, size, divisor));
    if whole(rows, cols, size) {
        let share = cut.share::<T>(&rows[0], &cols[0]);
        return par::for_chunks(y, per, |i, y| {
            let planes = x[i * per * plane..].chunks_exact(plane);
            y.iter_mut().zip(planes).for_each(|(y, x)| *y = sum(x) * share);
        });
    }
    let apart = apart(cut.width);
    scratch.resize(y.len().div_ceil(per * out) * apart, T::ZERO);
    par::for_chunks2((y, per * out), (scratch, apart), |i, y, line| {
        let line = &mut line[..cut.width];
        let planes = x[i * per * plane..].chunks_exact(plane);
        y.chunks_exact_mut(out).zip(planes).for_each(|(y, x)| plane_means(x, y, &cut, line));
    });
}

/// dx = dy/count, added up over the windows that an element is in.
///
/// # Panics
/// If the lengths do not fit together.
pub fn average_pool_gradient<T: Scalar>(
    dy: &[T],
    dx: &mut [T],
    size: [usize; 2],
    (rows, cols): (&[Window], &[Window]),
    divisor: Option<usize>,
    scratch: &mut Vec<T>,
) {
    let (plane, out) = (size[0] * size[1], rows.len() * cols.len());
    if dx.is_empty() {
        return;
    }
    assert_eq!(dx.len() / plane, dy.len() / out);
    let (per, cut) = (planes_per_piece(plane), cut(rows, cols, size, divisor));
    if whole(rows, cols, size) {
        let share = cut.share::<T>(&rows[0], &cols[0]);
        return par::for_chunks(dx, per * plane, |i, dx| {
            dx.chunks_exact_mut(plane).zip(&dy[i * per..]).for_each(|(dx, &g)| dx.fill(g * share));
        });
    }
    let apart = apart(cut.width);
    scratch.resize(dx.len().div_ceil(per * plane) * apart, T::ZERO);
    par::for_chunks2((dx, per * plane), (scratch, apart), |i, dx, line| {
        let line = &mut line[..cut.width];
        let planes = dy[i * per * out..].chunks_exact(out);
        dx.chunks_exact_mut(plane).zip(planes).for_each(|(dx, dy)| plane_gradients(dy, dx, &cut, line));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 7919 + 13) % 101) as f64 - 50.0).collect()
    }

    fn windows(list: &[(usize, usize, usize)]) -> Vec<Window> {
        list.iter().map(|&(start, end, count)| Window { start, end, count }).collect()
    }

    #[test]
    fn all_windows_agree_with_the_naive_loop() {
        let pairs: Vec<_> = (0..20).map(|i| (2 * i, 2 * i + 2, 2)).collect();
        // (length, windows): the whole axis, pairs, pairs that leave one over, overlapping with padding, an empty one.
        let axes = [
            (7, vec![(0, 7, 7)]),
            (40, pairs.clone()),
            (41, pairs),
            (6, vec![(0, 2, 3), (1, 4, 3), (3, 6, 3), (5, 6, 2)]),
            (3, vec![(0, 1, 1), (2, 1, 0), (2, 3, 1)]),
        ];
        for (h, rows) in &axes {
            for (w, cols) in &axes {
                for divisor in [None, Some(3)] {
                    let (rows, cols) = (windows(rows), windows(cols));
                    let (x, dy) = (numbers(4 * h * w), numbers(4 * rows.len() * cols.len()));
                    let (mut y, mut dx) = (vec![f64::NAN; dy.len()], vec![f64::NAN; x.len()]);
                    let mut scratch = Vec::new();
                    average_pool(&x, &mut y, [*h, *w], (&rows, &cols), divisor, &mut scratch);
                    average_pool_gradient(&dy, &mut dx, [*h, *w], (&rows, &cols), divisor, &mut scratch);
                    let mut want = vec![0.0; x.len()];
                    for (o, (&y, &g)) in y.iter().zip(&dy).enumerate() {
                        let out = rows.len() * cols.len();
                        let (p, r, c) = (o / out, &rows[o % out / cols.len()], &cols[o % cols.len()]);
                        let by = divisor.unwrap_or(r.count * c.count).max(1) as f64;
                        let mut total = 0.0;
                        for i in r.start..r.end {
                            for j in c.start..c.end {
                                total += x[(p * h + i) * w + j];
                                want[(p * h + i) * w + j] += g / by;
                            }
                        }
                        assert!((y - total / by).abs() < 1e-12 * total.abs().max(1.0));
                    }
                    assert!(dx.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12 * b.abs().max(1.0)));
                }
            }
        }
    }
}
