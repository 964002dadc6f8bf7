//! Means over windows. The rows of a window, of all of its slices, are added first, over the whole width; then windows are cut from
//! that row. Sequences are images of height 1, and images are volumes of depth 1.

use super::{
    super::window::{over, planes},
    in_blocks, planes_per_piece,
};
use crate::{
    Scalar, compiled,
    kernels::{
        kernel,
        reduce::{DEPTH, add_rows, sum},
    },
    par,
};

/// The elements of a window along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first element.
    pub start: usize,
    /// The element after its last.
    pub end: usize,
    /// How many elements it counts for in the mean, with or without padding.
    pub count: usize,
}

/// The windows of each axis as the loops need them.
#[derive(Clone, Copy)]
struct Cut<'a> {
    depths: &'a [Span],
    rows: &'a [Span],
    cols: &'a [Span],
    height: usize,
    width: usize,
    /// The windows are 2 × 2 in one slice, side by side from the first corner on.
    corners: bool,
    /// What sums are divided by, instead of the count.
    divisor: Option<usize>,
}

impl Cut<'_> {
    /// 1/count of a window, 0 for one without elements.
    #[inline(always)]
    fn share<T: Scalar>(&self, depth: &Span, row: &Span, col: &Span) -> T {
        let count = || depth.count.checked_mul(row.count)?.checked_mul(col.count);
        match self.divisor.or_else(count) {
            Some(n) => one_over(n),
            None => T::from_f64((depth.count as f64 * row.count as f64 * col.count as f64).recip()),
        }
    }

    /// Where the rows of a window begin, slice by slice.
    #[inline(always)]
    fn lines(&self, depth: &Span, row: &Span) -> impl Iterator<Item = usize> + Clone + use<> {
        let (height, width, rows) = (self.height, self.width, row.start.min(row.end)..row.end);
        let slices = depth.start.min(depth.end)..depth.end;
        slices.flat_map(move |d| rows.clone().map(move |i| (d * height + i) * width))
    }
}

/// 1/n, 0 for a window without elements.
#[inline(always)]
fn one_over<T: Scalar>(n: usize) -> T {
    if n == 0 { T::ZERO } else { T::ONE / T::from_usize(n) }
}

fn cut<'a>([_, h, w]: [usize; 3], [depths, rows, cols]: [&'a [Span]; 3], divisor: Option<usize>) -> Cut<'a> {
    let pair = |(i, v): (usize, &Span)| *v == Span { start: 2 * i, end: 2 * i + 2, count: 2 };
    let pairs = [rows, cols].iter().all(|windows| windows.iter().enumerate().all(pair));
    Cut { depths, rows, cols, height: h, width: w, corners: depths == ONE && pairs, divisor }
}

kernel! {
    /// The means of one plane; `line` is scratch of one row.
    fn plane_means[T: Scalar](x: &[T], y: &mut [T], cut: &Cut<'_>, line: &mut [T]) {
        if cut.corners {
            let share = cut.share::<T>(&ONE[0], &cut.rows[0], &cut.cols[0]);
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
        for (y, depth) in y.chunks_exact_mut(cut.rows.len() * cut.cols.len()).zip(cut.depths) {
            for (y, row) in y.chunks_exact_mut(cut.cols.len()).zip(cut.rows) {
                let mut lines = cut.lines(depth, row).map(|at| &x[at..][..cut.width]);
                let count = |span: &Span| span.end.saturating_sub(span.start);
                if count(depth) * count(row) > DEPTH {
                    line.fill(T::ZERO);
                    add_rows(lines, line);
                } else {
                    match lines.next() {
                        Some(first) => line.copy_from_slice(first),
                        None => line.fill(T::ZERO),
                    }
                    for x in lines {
                        for (sum, &v) in line.iter_mut().zip(x) {
                            *sum += v;
                        }
                    }
                }
                for (y, col) in y.iter_mut().zip(cut.cols) {
                    let total = line[col.start.min(col.end)..col.end].iter().map(|v| v.to_f64()).sum();
                    *y = T::from_f64(total) * cut.share(depth, row, col);
                }
            }
        }
    }
}

kernel! {
    /// The gradients of one plane; `line` is scratch of one row.
    fn plane_gradients[T: Scalar](dy: &[T], dx: &mut [T], cut: &Cut<'_>, line: &mut [T]) {
        if cut.corners {
            let share = cut.share::<T>(&ONE[0], &cut.rows[0], &cut.cols[0]);
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
                        // By elements rather than pairs, which the compiler would write one element at a time.
                        for (i, dx) in row[2 * j..][..2 * k].iter_mut().enumerate() {
                            *dx = dy[i / 2] * share;
                        }
                    }
                });
            }
            return;
        }
        dx.fill(T::ZERO);
        for (dy, depth) in dy.chunks_exact(cut.rows.len() * cut.cols.len()).zip(cut.depths) {
            for (dy, row) in dy.chunks_exact(cut.cols.len()).zip(cut.rows) {
                line.fill(T::ZERO);
                for (&g, col) in dy.iter().zip(cut.cols) {
                    let g = g * cut.share(depth, row, col);
                    for v in &mut line[col.start.min(col.end)..col.end] {
                        *v += g;
                    }
                }
                for at in cut.lines(depth, row) {
                    for (dx, &v) in dx[at..][..cut.width].iter_mut().zip(&*line) {
                        *dx += v;
                    }
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
fn whole(size: [usize; 3], by_axis: [&[Span]; 3]) -> bool {
    let all = |windows: &[Span], n: usize| windows == [Span { start: 0, end: n, count: n }];
    by_axis.into_iter().zip(size).all(|(windows, n)| all(windows, n))
}

/// The elements of a plane of x and of y, with the spans inside their axes, of x and y of these lengths.
pub(super) fn sizes<const R: usize>(
    size: [usize; R],
    by_axis: [&[Span]; R],
    lengths: [usize; 2],
) -> (usize, usize) {
    for (spans, n) in by_axis.into_iter().zip(size) {
        assert!(spans.iter().all(|v| v.start >= v.end || v.end <= n), "windows lie inside their axis");
    }
    planes([size, by_axis.map(<[Span]>::len)], lengths)
}

/// The spans of an axis of one element.
const ONE: &[Span] = &[Span { start: 0, end: 1, count: 1 }];

/// y = the mean of each window, plane by plane: its sum by `divisor`, or else by the product of its counts. The windows are given
/// by their spans along each axis, `size` are the axes of x, and `scratch` is for the pieces' rows.
///
/// # Panics
/// If the lengths do not fit together, or a window does not lie inside its axis.
pub fn average_pool<T: Scalar, const R: usize>(
    x: &[T],
    y: &mut [T],
    size: [usize; R],
    by_axis: [&[Span]; R],
    divisor: Option<usize>,
    scratch: &mut Vec<T>,
) {
    let (size, by_axis) = volume(size, by_axis);
    means(x, y, size, by_axis, divisor, scratch);
}

/// dx = dy/count, summed over the windows that an element is in.
///
/// # Panics
/// If the lengths do not fit together, or a window does not lie inside its axis.
pub fn average_pool_gradient<T: Scalar, const R: usize>(
    dy: &[T],
    dx: &mut [T],
    size: [usize; R],
    by_axis: [&[Span]; R],
    divisor: Option<usize>,
    scratch: &mut Vec<T>,
) {
    let (size, by_axis) = volume(size, by_axis);
    gradients(dy, dx, size, by_axis, divisor, scratch);
}

/// The axes of a volume and its windows; those of an image have one slice.
pub(super) fn volume<const R: usize>(size: [usize; R], by_axis: [&[Span]; R]) -> ([usize; 3], [&[Span]; 3]) {
    let most = "at most three axes";
    (over(size, 1).expect(most), over(by_axis, ONE).expect(most))
}

compiled! {
    fn means[T](
        x: &[T],
        y: &mut [T],
        size: [usize; 3],
        by_axis: [&[Span]; 3],
        divisor: Option<usize>,
        scratch: &mut Vec<T>,
    ) {
        let (plane, out) = sizes(size, by_axis, [x.len(), y.len()]);
        if y.is_empty() {
            return;
        }
        let (per, cut) = (planes_per_piece(plane), cut(size, by_axis, divisor));
        if whole(size, by_axis) {
            let share = cut.share::<T>(&by_axis[0][0], &by_axis[1][0], &by_axis[2][0]);
            return par::for_chunks(y, per, |i, y| {
                let planes = x[i * per * plane..].chunks_exact(plane);
                y.iter_mut().zip(planes).for_each(|(y, x)| *y = T::from_f64(sum(x)) * share);
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
}

compiled! {
    fn gradients[T](
        dy: &[T],
        dx: &mut [T],
        size: [usize; 3],
        by_axis: [&[Span]; 3],
        divisor: Option<usize>,
        scratch: &mut Vec<T>,
    ) {
        let (plane, out) = sizes(size, by_axis, [dx.len(), dy.len()]);
        if dx.is_empty() || dy.is_empty() {
            return dx.fill(T::ZERO);
        }
        if by_axis.into_iter().map(overlap).max() > Some(DEPTH) {
            return long_gradients(dy, dx, size, by_axis, divisor);
        }
        let (per, cut) = (planes_per_piece(plane), cut(size, by_axis, divisor));
        if whole(size, by_axis) {
            let share = cut.share::<T>(&by_axis[0][0], &by_axis[1][0], &by_axis[2][0]);
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
}

/// Most windows that an element of an axis is in: windows begin and end in order.
fn overlap(spans: &[Span]) -> usize {
    let mut last = 0;
    let windows = spans.iter().enumerate().map(|(first, span)| {
        while last < spans.len() && spans[last].start < span.end {
            last += 1;
        }
        last.saturating_sub(first)
    });
    windows.max().unwrap_or(0)
}

/// Gradients of elements in so many windows that the rounding of their sums would be seen.
fn long_gradients<T: Scalar>(
    dy: &[T],
    dx: &mut [T],
    size: [usize; 3],
    by_axis: [&[Span]; 3],
    divisor: Option<usize>,
) {
    let (plane, out) = sizes(size, by_axis, [dx.len(), dy.len()]);
    let ([depths, rows, cols], cut, mut sums) = (by_axis, cut(size, by_axis, divisor), vec![0.0; plane]);
    for (dx, dy) in dx.chunks_exact_mut(plane).zip(dy.chunks_exact(out)) {
        sums.fill(0.0);
        let lines = depths.iter().flat_map(|depth| rows.iter().map(move |row| (depth, row)));
        for (dy, (depth, row)) in dy.chunks_exact(cols.len()).zip(lines) {
            for (&g, col) in dy.iter().zip(cols) {
                let g = (g * cut.share::<T>(depth, row, col)).to_f64();
                for line in cut.lines(depth, row) {
                    for sum in &mut sums[line + col.start.min(col.end)..line + col.end] {
                        *sum += g;
                    }
                }
            }
        }
        dx.iter_mut().zip(&sums).for_each(|(dx, &sum)| *dx = T::from_f64(sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 7919 + 13) % 101) as f64 - 50.0).collect()
    }

    fn windows(list: &[(usize, usize, usize)]) -> Vec<Span> {
        list.iter().map(|&(start, end, count)| Span { start, end, count }).collect()
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
                    let (x, dy) = (values(4 * h * w), values(4 * rows.len() * cols.len()));
                    let (mut y, mut dx) = (vec![f64::NAN; dy.len()], vec![f64::NAN; x.len()]);
                    let mut scratch = Vec::new();
                    average_pool(&x, &mut y, [*h, *w], [&rows, &cols], divisor, &mut scratch);
                    average_pool_gradient(&dy, &mut dx, [*h, *w], [&rows, &cols], divisor, &mut scratch);
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

    /// Each of the middle elements lies in 4,096 windows: their shares are equal.
    #[test]
    fn gradients_of_many_windows_do_not_drift() {
        let spans: Vec<_> = (0..8193).map(|i| Span { start: i, end: i + 4096, count: 1 }).collect();
        let (dy, mut dx) = (vec![0.1f32; 8193], vec![f32::NAN; 12288]);
        average_pool_gradient(&dy, &mut dx, [12288], [&spans], None, &mut Vec::new());
        let want = 4096.0 * f64::from(0.1f32);
        assert!((f64::from(dx[6000]) - want).abs() < 1e-6 * want, "{} for {want}", dx[6000]);
        assert_eq!([dx[0], dx[12287]], [0.1; 2]);
    }

    /// Rows of a sequence, and columns of depth 2 of a volume of side 2.
    #[test]
    fn sequences_and_volumes_by_hand() {
        let spans = windows(&[(0, 2, 2), (1, 3, 4)]);
        let (mut y, mut dx, mut scratch) = ([0.0; 2], [0.0; 3], Vec::new());
        average_pool(&[1.0, 3.0, 5.0], &mut y, [3], [&spans], None, &mut scratch);
        assert_eq!(y, [2.0, 2.0]);
        average_pool_gradient(&[2.0, 4.0], &mut dx, [3], [&spans], None, &mut scratch);
        assert_eq!(dx, [1.0, 2.0, 1.0]);
        let (all, each) = (windows(&[(0, 2, 2)]), windows(&[(0, 1, 1), (1, 2, 1)]));
        let (x, mut y, mut dx) = ([0., 1., 2., 3., 4., 5., 6., 7.], [0.0; 4], [0.0; 8]);
        average_pool(&x, &mut y, [2; 3], [&all, &each, &each], None, &mut scratch);
        assert_eq!(y, [2., 3., 4., 5.]);
        average_pool_gradient(&[2., 4., 6., 8.], &mut dx, [2; 3], [&all, &each, &each], None, &mut scratch);
        assert_eq!(dx, [1., 2., 3., 4., 1., 2., 3., 4.]);
        average_pool(&x, &mut y, [2; 3], [&all, &each, &each], Some(4), &mut scratch);
        assert_eq!(y, [1., 1.5, 2., 2.5]);
    }
}
