//! Maxima over windows. The first of equals wins, and NaN wins over all.

use super::{super::window::planes, planes_per_piece};
use crate::{
    Scalar, compiled,
    kernels::{kernel, layers::Window},
    par,
};

/// How a window slides along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slide {
    /// The length of the axis before pooling.
    input: usize,
    /// The length after pooling.
    output: usize,
    /// Elements of a window.
    kernel: usize,
    /// The distance between two windows.
    stride: usize,
    /// How far the first window begins before the axis.
    padding: usize,
    /// The distance between two elements of a window.
    dilation: usize,
    /// The first of its [`elements`](Self::elements), how many of them, and where in the window the others begin.
    first: [Seen; FEW],
    firsts: usize,
    others: usize,
}

/// An element of a window: the windows `from..to` have it on the axis, and the first of them at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    from: usize,
    to: usize,
    at: usize,
}

/// Elements of a window that are computed once for all rows: those of the usual windows, whose rows are short.
const FEW: usize = 8;

impl Slide {
    fn new(window: &Window<3>, axis: usize) -> Self {
        let mut slide = Self {
            input: window.input[axis],
            output: window.output()[axis],
            kernel: window.kernel[axis],
            stride: window.stride[axis],
            padding: window.padding[axis][0],
            dilation: window.dilation[axis],
            first: [const { Seen { from: 0, to: 0, at: 0 } }; FEW],
            firsts: 0,
            others: 0,
        };
        let mut k = 0;
        while slide.firsts < FEW
            && let Some(seen) = slide.next(&mut k)
        {
            slide.first[slide.firsts] = seen;
            slide.firsts += 1;
        }
        slide.others = k;
        slide
    }

    /// The next element of a window, from `k` on, that lies on the axis in any; `k` is then the one after it. The elements that lie in
    /// none are skipped, not counted through.
    fn next(&self, k: &mut usize) -> Option<Seen> {
        while *k < self.kernel {
            let ahead = *k * self.dilation;
            let from = self.padding.saturating_sub(ahead).div_ceil(self.stride);
            let last = (self.input + self.padding).checked_sub(ahead + 1)?;
            let to = (last / self.stride + 1).min(self.output);
            if from < to {
                *k += 1;
                return Some(Seen { from, to, at: from * self.stride + ahead - self.padding });
            }
            // The next window to reach the axis is the last of those whose element lies before it.
            let next = from.min(self.output).checked_sub(1)?;
            *k += (self.padding - ahead - next * self.stride).div_ceil(self.dilation);
        }
        None
    }

    /// The elements of a window that lie on the axis in any, in order.
    #[inline(always)]
    fn elements(&self) -> impl Iterator<Item = Seen> {
        let (mut i, mut k) = (0, self.others);
        std::iter::from_fn(move || {
            i += 1;
            if i <= self.firsts { Some(self.first[i - 1]) } else { self.next(&mut k) }
        })
    }
}

/// Elements that are gathered at once: the values of `BLOCK` windows, of `PART` together.
const BLOCK: usize = 64;
const PART: usize = 16;

/// Calls `f(first, v)` for blocks v of the n elements x[at + `stride` i], one behind the other, from the one of window `first` on. A
/// loop over them has no gaps, and no rest where n is a multiple of the vector's length.
#[inline(always)]
fn blocks<T: Scalar>(x: &[T], at: usize, stride: usize, n: usize, mut f: impl FnMut(usize, &[T])) {
    if stride == 1 {
        return f(0, &x[at..][..n]);
    }
    let mut block = [T::ZERO; BLOCK];
    for first in (0..n).step_by(BLOCK) {
        let block = &mut block[..BLOCK.min(n - first)];
        for (i, part) in block.chunks_mut(PART).enumerate() {
            let start = at + (first + i * PART) * stride;
            gather(x, start, stride, part);
        }
        f(first, block);
    }
}

/// v[i] = x[at + `stride` i]
#[inline(always)]
fn gather<T: Scalar>(x: &[T], at: usize, stride: usize, v: &mut [T]) {
    // Whole pairs around the elements are read as vectors and taken apart.
    let pairs = &x[at - at % 2..];
    match (stride, pairs.first_chunk::<{ 2 * PART }>(), v.first_chunk_mut::<PART>()) {
        (2, Some(pairs), Some(v)) if at.is_multiple_of(2) => *v = std::array::from_fn(|i| pairs[2 * i]),
        (2, Some(pairs), Some(v)) => *v = std::array::from_fn(|i| pairs[2 * i + 1]),
        _ => v.iter_mut().zip(x[at..].iter().step_by(stride)).for_each(|(v, &x)| *v = x),
    }
}

kernel! {
    /// The maxima of one slice and of those before, which are in y.
    fn plane_maxima[T: Scalar](x: &[T], y: &mut [T], rows: &Slide, cols: &Slide) {
        for Seen { from, to, at: mut ih } in rows.elements() {
            for oh in from..to {
                let x = &x[ih * cols.input..][..cols.input];
                for Seen { from, to, at } in cols.elements() {
                    let y = &mut y[oh * cols.output..][from..to];
                    blocks(x, at, cols.stride, to - from, |first, v| {
                        for (y, &v) in y[first..].iter_mut().zip(v) {
                            *y = if v > *y || v.is_nan() { v } else { *y };
                        }
                    });
                }
                ih += rows.stride;
            }
        }
    }
}

/// The winner of a window without elements.
pub(super) const NONE: u32 = u32::MAX;

kernel! {
    /// The maxima of one slice and of those before, which are in y, and where in the plane they are; the slice begins at `base`.
    fn plane_winners[T: Scalar](
        x: &[T],
        y: &mut [T],
        winners: &mut [u32],
        base: usize,
        rows: &Slide,
        cols: &Slide,
    ) {
        for Seen { from, to, at: mut ih } in rows.elements() {
            for oh in from..to {
                let x = &x[ih * cols.input..][..cols.input];
                let start = (base + ih * cols.input) as u32;
                for Seen { from, to, at } in cols.elements() {
                    let out = oh * cols.output + from..oh * cols.output + to;
                    let (y, winners, stride) = (&mut y[out.clone()], &mut winners[out], cols.stride as u32);
                    blocks(x, at, cols.stride, to - from, |first, v| {
                        let mut place = start + (at + first * cols.stride) as u32;
                        for ((y, winner), &v) in y[first..].iter_mut().zip(&mut winners[first..]).zip(v) {
                            let wins = v > *y || v.is_nan() || *winner == NONE;
                            *y = if wins { v } else { *y };
                            *winner = if wins { place } else { *winner };
                            place = place.wrapping_add(stride);
                        }
                    });
                }
                ih += rows.stride;
            }
        }
    }
}

/// y = the maximum of each window, plane by plane; `winners`, if requested, the index in the plane where it is.
///
/// # Panics
/// If the window does not pass [`Window::check`], the lengths do not fit together, or winners are requested in planes of 2³² − 1
/// elements or more.
pub fn max_pool<T: Scalar, const R: usize>(
    x: &[T],
    y: &mut [T],
    winners: Option<&mut [u32]>,
    window: &Window<R>,
) {
    maxima(x, y, winners, &window.over().expect("at most three axes"));
}

/// Elements of a plane of x and of y, if all fits together.
fn sizes<const R: usize>(x: usize, y: usize, winners: Option<usize>, window: &Window<R>) -> (usize, usize) {
    if let Err(error) = window.check() {
        panic!("{error}");
    }
    let (plane, out) = planes([window.input, window.output()], [x, y]);
    if let Some(winners) = winners.filter(|_| y > 0) {
        assert!(plane < NONE as usize, "expected fewer than 2³² − 1 elements of a plane, got {plane}");
        assert_eq!(winners, y, "a winner for each element of y");
    }
    (plane, out)
}

compiled! {
    fn maxima[T](x: &[T], y: &mut [T], winners: Option<&mut [u32]>, window: &Window<3>) {
        let (plane, out) = sizes(x.len(), y.len(), winners.as_deref().map(<[u32]>::len), window);
        if y.is_empty() {
            return;
        }
        let (per, rows, cols) = (planes_per_piece(plane), Slide::new(window, 1), Slide::new(window, 2));
        let (slice, out_slice) = (rows.input * cols.input, rows.output * cols.output);
        let planes = |i: usize| x[i * per * plane..].chunks_exact(plane);
        // Where the slices of the windows of an output depth begin.
        let slices = |o: usize| window.taps(0, o).map(move |t| window.place(0, o, t) * slice);
        match winners {
            Some(winners) => par::for_chunks2((y, per * out), (winners, per * out), |i, y, winners| {
                y.fill(T::NEG_INFINITY);
                winners.fill(NONE);
                let ys = y.chunks_exact_mut(out).zip(winners.chunks_exact_mut(out));
                for (x, (y, winners)) in planes(i).zip(ys) {
                    let ys = y.chunks_exact_mut(out_slice).zip(winners.chunks_exact_mut(out_slice));
                    for (o, (y, winners)) in ys.enumerate() {
                        for base in slices(o) {
                            plane_winners(&x[base..][..slice], y, winners, base, &rows, &cols);
                        }
                    }
                }
            }),
            None => par::for_chunks(y, per * out, |i, y| {
                y.fill(T::NEG_INFINITY);
                for (x, y) in planes(i).zip(y.chunks_exact_mut(out)) {
                    for (o, y) in y.chunks_exact_mut(out_slice).enumerate() {
                        for base in slices(o) {
                            plane_maxima(&x[base..][..slice], y, &rows, &cols);
                        }
                    }
                }
            }),
        }
    }
}

compiled! {
    /// dx = dy at the winners, summed, and 0 elsewhere; `plane` is the number of elements of a plane of x.
    ///
    /// # Panics
    /// If the lengths do not fit together, or a winner lies outside of its plane.
    pub fn max_pool_gradient[T](dy: &[T], winners: &[u32], dx: &mut [T], plane: usize) {
        assert_eq!(dy.len(), winners.len(), "a winner for each element of dy");
        if dx.is_empty() || dy.is_empty() {
            return dx.fill(T::ZERO);
        }
        assert!(
            plane > 0 && dx.len().is_multiple_of(plane) && dy.len().is_multiple_of(dx.len() / plane),
            "expected whole planes of {plane} elements, got dx of {} and dy of {}",
            dx.len(),
            dy.len()
        );
        let (per, out) = (planes_per_piece(plane), dy.len() / (dx.len() / plane));
        par::for_chunks(dx, per * plane, |i, dx| {
            dx.fill(T::ZERO);
            let planes = dy[i * per * out..].chunks_exact(out).zip(winners[i * per * out..].chunks_exact(out));
            for (dx, (dy, winners)) in dx.chunks_exact_mut(plane).zip(planes) {
                for (&g, &at) in dy.iter().zip(winners) {
                    if at != NONE {
                        dx[at as usize] += g;
                    }
                }
            }
        });
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::shape::positions;

    /// The definition: the maximum of window `o` of one plane over any number of axes, and where in the plane it is.
    fn winner<T: Scalar, const R: usize>(x: &[T], window: &Window<R>, o: [usize; R]) -> (T, u32) {
        let mut best = (T::NEG_INFINITY, NONE);
        let taps: [_; R] = std::array::from_fn(|axis| window.taps(axis, o[axis]));
        for t in positions::<R>(std::array::from_fn(|axis| taps[axis].len())) {
            let at = (0..R).fold(0, |at, axis| {
                at * window.input[axis] + window.place(axis, o[axis], taps[axis].start + t[axis])
            });
            if x[at] > best.0 || x[at].is_nan() || best.1 == NONE {
                best = (x[at], at as u32);
            }
        }
        best
    }

    pub(crate) fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + 13) % 101) as f32 - 50.0).collect()
    }

    /// (length, kernel, stride, padding, dilation) of each axis.
    pub(crate) fn window<const R: usize>(axes: [(usize, usize, usize, usize, usize); R]) -> Window<R> {
        Window {
            input: axes.map(|a| a.0),
            kernel: axes.map(|a| a.1),
            stride: axes.map(|a| a.2),
            dilation: axes.map(|a| a.4),
            padding: axes.map(|a| [a.3; 2]),
            ceil: false,
        }
    }

    /// The definition: the maximum of each window, where it is, and the gradient of dy.
    fn check<const R: usize>(window: &Window<R>) {
        let [plane, out] = [window.input, window.output()].map(|axes| axes.iter().product::<usize>());
        let mut x = values(3 * plane);
        (x[plane / 2], x[2 * plane]) = (f32::NAN, f32::NEG_INFINITY);
        let (mut y, mut y_alone, mut winners) = (vec![0.0; 3 * out], vec![0.0; 3 * out], vec![0; 3 * out]);
        max_pool(&x, &mut y, Some(&mut winners), window);
        max_pool(&x, &mut y_alone, None, window);
        let (dy, mut dx, mut want) = (values(3 * out), vec![f32::NAN; x.len()], vec![0.0; x.len()]);
        max_pool_gradient(&dy, &winners, &mut dx, plane);
        for (i, (p, o)) in (0..3).flat_map(|p| positions(window.output()).map(move |o| (p, o))).enumerate() {
            let (v, at) = winner(&x[p * plane..][..plane], window, o);
            assert_eq!((y[i].to_bits(), y_alone[i].to_bits(), winners[i]), (v.to_bits(), v.to_bits(), at));
            if at != NONE {
                want[p * plane + at as usize] += dy[i];
            }
        }
        assert_eq!(dx, want);
    }

    #[test]
    fn all_geometries_agree_with_the_definition() {
        let axes = [
            (7, 3, 2, 1, 1),
            (9, 2, 2, 0, 1),
            (5, 1, 3, 0, 1),
            (12, 4, 1, 2, 2),
            (3, 2, 1, 1, 4),
            (40, 3, 1, 1, 1),
        ];
        for &a in &axes {
            check(&window([a]));
            for &b in &axes {
                check(&window([a, b]));
            }
            check(&window([(3, 2, 1, 1, 1), a, (4, 2, 2, 0, 1)]));
        }
    }

    /// A volume (0 … 7) of side 2 whose windows are columns of depth 2: the maxima are those behind.
    #[test]
    fn a_volume_by_hand() {
        let x: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let (mut y, mut winners) = ([0.0; 4], [0; 4]);
        max_pool(&x, &mut y, Some(&mut winners), &Window::new([2, 2, 2], [2, 1, 1]));
        assert_eq!((y, winners), ([4., 5., 6., 7.], [4, 5, 6, 7]));
    }
}
