//! Functions of an element and of a parameter of its channel: x (N, C, plane), a (C). One parameter is that of all elements.

use crate::{
    Scalar,
    kernels::{
        elementwise::{Function, map2_serial},
        kernel,
        reduce::{Columns, blocked},
    },
    par,
};

/// Elements of a piece, and the most pieces that have sums of their own.
const PIECE: usize = 1 << 15;
const MOST: usize = 64;

/// Lanes of the sum of a plane, and those for what is left at its end.
const LANES: usize = 64;
const FEW: usize = 8;
/// Columns whose sums are kept together.
const COLUMNS: usize = 256;
/// What counts as a plane where one parameter is that of all elements.
const PLANE: usize = 1 << 12;

kernel! {
    /// yᵢ = f((xᵢ, a)), of one plane.
    fn map_plane[T: Scalar, F: Function<(T, T), T>](x: &[T], a: T, y: &mut [T], f: F) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = f.of::<FMA>((x, a));
        }
    }
}

kernel! {
    /// dxᵢ = f((xᵢ, dyᵢ, a)), of one plane.
    fn map2_plane[T: Scalar, F: Function<(T, T, T), T>](x: &[T], dy: &[T], a: T, dx: &mut [T], f: F) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            *dx = f.of::<FMA>((x, dy, a));
        }
    }
}

kernel! {
    /// dxᵢ = f((xᵢ, dyᵢ, aᵢ)), of one row of channels.
    fn map2_row[T: Scalar, F: Function<(T, T, T), T>](x: &[T], dy: &[T], a: &[T], dx: &mut [T], f: F) {
        for (((dx, &x), &dy), &a) in dx.iter_mut().zip(x).zip(dy).zip(a) {
            *dx = f.of::<FMA>((x, dy, a));
        }
    }
}

/// The plane that calls of so many parameters see, and the length of a piece of whole rows or of any elements.
fn cut(elements: usize, channels: usize, plane: usize) -> (usize, usize) {
    match (channels, plane) {
        (1, _) => (elements, PIECE),
        (_, 1) => (1, (PIECE / channels.max(1)).max(1) * channels),
        _ => (plane, PIECE),
    }
}

/// Calls f with the start and the end of every run of one channel among the elements from `first` to `end`, from `first` on, and with
/// the channel.
fn runs(first: usize, end: usize, plane: usize, channels: usize, mut f: impl FnMut(usize, usize, usize)) {
    let mut at = first;
    while at < end {
        let index = at / plane;
        let next = end.min((index + 1) * plane);
        f(at - first, next - first, index % channels);
        at = next;
    }
}

/// yᵢ = f((xᵢ, a of i's channel)) for x (N, C, plane) and a (C).
///
/// # Panics
/// If the lengths do not fit together.
pub fn map<T: Scalar>(x: &[T], a: &[T], plane: usize, y: &mut [T], f: impl Function<(T, T), T>) {
    assert!(x.len() == y.len() && (!a.is_empty() && plane > 0 || x.is_empty()));
    let (plane, piece) = cut(x.len(), a.len(), plane);
    par::for_chunks(y, piece, |i, y| {
        let x = &x[i * piece..][..y.len()];
        if plane == 1 {
            for (x, y) in x.chunks(a.len()).zip(y.chunks_mut(a.len())) {
                map2_serial(x, &a[..x.len()], y, f);
            }
        } else {
            runs(i * piece, i * piece + x.len(), plane, a.len(), |start, end, channel| {
                map_plane(&x[start..end], a[channel], &mut y[start..end], f);
            });
        }
    });
}

/// dxᵢ = f((xᵢ, dyᵢ, a of i's channel)) for x and dy (N, C, plane) and a (C).
///
/// # Panics
/// If the lengths do not fit together.
pub fn map2<T: Scalar>(
    x: &[T],
    dy: &[T],
    a: &[T],
    plane: usize,
    dx: &mut [T],
    f: impl Function<(T, T, T), T>,
) {
    assert!(x.len() == dx.len() && dy.len() == dx.len() && (!a.is_empty() && plane > 0 || x.is_empty()));
    let (plane, piece) = cut(x.len(), a.len(), plane);
    par::for_chunks(dx, piece, |i, dx| {
        let at = i * piece..i * piece + dx.len();
        let (x, dy) = (&x[at.clone()], &dy[at.clone()]);
        if plane == 1 {
            let rows = x.chunks(a.len()).zip(dy.chunks(a.len()));
            for ((x, dy), dx) in rows.zip(dx.chunks_mut(a.len())) {
                map2_row(x, dy, &a[..x.len()], dx, f);
            }
        } else {
            runs(at.start, at.end, plane, a.len(), |start, end, channel| {
                map2_plane(&x[start..end], &dy[start..end], a[channel], &mut dx[start..end], f);
            });
        }
    });
}

kernel! {
    /// Σ f((xᵢ, dyᵢ, a)), of one plane.
    fn sum_plane[T: Scalar, F: Function<(T, T, T), T>](x: &[T], dy: &[T], a: T, f: F) -> f64 {
        let ((xs, x), (dys, dy)) = (x.as_chunks::<LANES>(), dy.as_chunks::<LANES>());
        let total = blocked::<T, LANES>(xs.len().min(dys.len()), |i, lanes| {
            for ((lane, &x), &dy) in lanes.iter_mut().zip(&xs[i]).zip(&dys[i]) {
                *lane += f.of::<FMA>((x, dy, a));
            }
        });
        let ((xs, x), (dys, dy)) = (x.as_chunks::<FEW>(), dy.as_chunks::<FEW>());
        let total = total + blocked::<T, FEW>(xs.len().min(dys.len()), |i, lanes| {
            for ((lane, &x), &dy) in lanes.iter_mut().zip(&xs[i]).zip(&dys[i]) {
                *lane += f.of::<FMA>((x, dy, a));
            }
        });
        total + x.iter().zip(dy).map(|(&x, &dy)| f.of::<FMA>((x, dy, a))).sum::<T>().to_f64()
    }
}

kernel! {
    /// totals_c += Σ f((x_c, dy_c, a_c)) over rows of channels.
    fn sum_rows[T: Scalar, F: Function<(T, T, T), T>](x: &[T], dy: &[T], a: &[T], totals: &mut [f64], f: F) {
        let width = a.len();
        for (first, totals) in (0..width).step_by(COLUMNS).zip(totals.chunks_mut(COLUMNS)) {
            let mut columns = Columns::<T, COLUMNS>::new();
            let at = first..first + totals.len();
            for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
                let values = x[at.clone()].iter().zip(&dy[at.clone()]).zip(&a[at.clone()]);
                for (sum, ((&x, &dy), &a)) in columns.row(totals.len()).iter_mut().zip(values) {
                    *sum += f.of::<FMA>((x, dy, a));
                }
            }
            let sums = columns.sums(totals.len());
            totals.iter_mut().zip(sums).for_each(|(total, &sum)| *total += sum);
        }
    }
}

/// The length of a sample, its planes, and the samples of a piece.
fn samples(elements: usize, channels: usize, plane: usize) -> [usize; 3] {
    let plane = if channels == 1 { PLANE } else { plane };
    let sample = channels.saturating_mul(plane).max(1);
    let count = elements.div_ceil(sample);
    [sample, plane, (PIECE / sample).max(count.div_ceil(MOST)).max(1)]
}

/// The bytes that [`sums`] takes.
pub fn sums_bytes(elements: usize, channels: usize, plane: usize) -> usize {
    let [sample, _, per] = samples(elements, channels, plane);
    elements.div_ceil(sample).div_ceil(per).saturating_mul(channels).saturating_mul(size_of::<f64>())
}

/// out_c += Σ over n and the plane of f((xᵢ, dyᵢ, a_c)) for x and dy (N, C, plane) and a (C).
///
/// # Panics
/// If the lengths do not fit together.
pub fn sums<T: Scalar>(
    (x, dy): (&[T], &[T]),
    a: &[T],
    plane: usize,
    out: &mut [T],
    shares: &mut Vec<f64>,
    f: impl Function<(T, T, T), T>,
) {
    assert!(x.len() == dy.len() && a.len() == out.len());
    if x.is_empty() {
        return;
    }
    assert!(!a.is_empty() && plane > 0);
    let [sample, plane, per] = samples(x.len(), a.len(), plane);
    let (length, pieces) = (per * sample, x.len().div_ceil(per * sample));
    shares.clear();
    shares.resize(pieces * a.len(), 0.0);
    par::for_chunks(shares, a.len(), |i, totals| {
        let at = i * length..x.len().min((i + 1) * length);
        let (x, dy) = (&x[at.clone()], &dy[at]);
        if plane == 1 {
            return sum_rows(x, dy, a, totals, f);
        }
        for (x, dy) in x.chunks(sample).zip(dy.chunks(sample)) {
            let planes = x.chunks(plane).zip(dy.chunks(plane));
            for (((x, dy), total), &a) in planes.zip(&mut *totals).zip(a) {
                *total += sum_plane(x, dy, a, f);
            }
        }
    });
    for (c, out) in out.iter_mut().enumerate() {
        let sum: f64 = shares[c..].iter().step_by(a.len()).sum();
        *out = T::from_f64(out.to_f64() + sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_agrees_with_the_plain_loops_on_any_number_of_threads() {
        for (n, c, plane) in [
            (3, 5, 1),
            (2, 3, 7),
            (1, 1, 5),
            (300, 300, 1),
            (5, 3, 9000),
            (70_000, 1, 1),
            (2, 1, 70_000),
            (0, 3, 4),
            (200, 2, 100),
        ] {
            let len = n * c * plane;
            let x: Vec<f64> = (0..len).map(|i| f64::from((i * 37 % 101) as u32) - 50.0).collect();
            let dy: Vec<f64> = (0..len).map(|i| f64::from((i * 53 % 97) as u32) - 48.0).collect();
            let a: Vec<f64> = (0..c).map(|i| i as f64 + 2.0).collect();
            for threads in [1, 2] {
                par::with_threads(threads, || {
                    let (mut y, mut dx) = (vec![f64::NAN; len], vec![f64::NAN; len]);
                    let (mut da, mut shares) = (vec![1.0; c], Vec::new());
                    map(&x, &a, plane, &mut y, |(x, a): (f64, f64)| x + a);
                    map2(&x, &dy, &a, plane, &mut dx, |(x, dy, a): (f64, f64, f64)| x * dy + a);
                    sums((&x, &dy), &a, plane, &mut da, &mut shares, |(x, dy, a): (f64, f64, f64)| {
                        x * dy + a
                    });
                    assert_eq!(shares.len() * 8, sums_bytes(len, c, plane));
                    let mut want = vec![1.0; c];
                    for i in 0..len {
                        let k = i / plane % c;
                        let v = x[i] * dy[i] + a[k];
                        assert!(y[i] == x[i] + a[k] && dx[i] == v, "{n} {c} {plane} {i}");
                        want[k] += v;
                    }
                    assert_eq!(da, want);
                });
            }
        }
    }
}
