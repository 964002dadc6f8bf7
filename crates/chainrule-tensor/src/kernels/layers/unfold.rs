//! The elements that windows see, written out, and the sums of what windows hold: im2col and col2im.

use super::window::{Window, planes};
use crate::{compiled, par};
use std::ops::Range;

/// Elements that a piece of work copies at least: 64 KiB of f32; handing a piece out takes 0.3 µs.
const PIECE: usize = 1 << 14;

/// The windows whose tap t lies on an axis.
fn on_axis(window: &Window<2>, axis: usize, t: usize) -> Range<usize> {
    let (ahead, stride) = (t * window.dilation[axis], window.stride[axis]);
    let (before, windows) = (window.padding[axis][0], window.output()[axis]);
    let from = before.saturating_sub(ahead).div_ceil(stride).min(windows);
    let end = (before + window.input[axis]).saturating_sub(ahead).div_ceil(stride).min(windows);
    from..end.max(from)
}

/// Calls `f(row of windows, the windows of it whose tap lies on the image, the first's pixel)` for each tap (r, s) of the kernel, with
/// the index of the tap and of the row in an unfolded plane.
fn rows(window: &Window<2>, mut f: impl FnMut(usize, Option<(Range<usize>, usize)>)) {
    let [height, width] = window.output();
    for r in 0..window.kernel[0] {
        let on_rows = on_axis(window, 0, r);
        for s in 0..window.kernel[1] {
            let on_cols = on_axis(window, 1, s);
            for i in 0..height {
                let at = ((r * window.kernel[1] + s) * height + i) * width;
                let seen = (on_rows.contains(&i) && !on_cols.is_empty()).then(|| {
                    let [row, col] = [window.place(0, i, r), window.place(1, on_cols.start, s)];
                    (on_cols.clone(), row * window.input[1] + col)
                });
                f(at, seen);
            }
        }
    }
}

/// Elements of a plane of x and of its unfolded one.
fn sizes(window: &Window<2>, lengths: [usize; 2]) -> (usize, usize) {
    if let Err(error) = window.check() {
        panic!("{error}");
    }
    let ([kh, kw], [h, w]) = (window.kernel, window.output());
    let pair = |a: usize, b: usize| a.saturating_mul(b);
    planes([window.input, [pair(kh, kw), pair(h, w)]], lengths)
}

compiled! {
    /// y[p, tap, o] = the pixel of plane p that the tap of window o reads, 0 in the padding.
    ///
    /// # Panics
    /// If the window does not pass [`Window::check`], or the lengths do not fit together.
    pub fn unfold[T](x: &[T], y: &mut [T], window: &Window<2>) {
        let (plane, unfolded) = sizes(window, [x.len(), y.len()]);
        if y.is_empty() {
            return;
        }
        let (per, stride, width) = ((PIECE / unfolded).max(1), window.stride[1], window.output()[1]);
        par::for_chunks(y, per * unfolded, |piece, y| {
            for (x, y) in x[piece * per * plane..].chunks_exact(plane).zip(y.chunks_exact_mut(unfolded)) {
                rows(window, |at, seen| {
                    let y = &mut y[at..][..width];
                    let Some((windows, pixel)) = seen else { return y.fill(T::ZERO) };
                    y[..windows.start].fill(T::ZERO);
                    y[windows.end..].fill(T::ZERO);
                    let y = &mut y[windows];
                    match stride {
                        1 => y.copy_from_slice(&x[pixel..][..y.len()]),
                        _ => y.iter_mut().zip(x[pixel..].iter().step_by(stride)).for_each(|(y, &x)| *y = x),
                    }
                });
            }
        });
    }
}

compiled! {
    /// The transpose of [`unfold`]: `x[p, pixel] = Σ y[p, tap, o]` over the taps and windows that read the pixel.
    ///
    /// # Panics
    /// As [`unfold`].
    pub fn fold[T](y: &[T], x: &mut [T], window: &Window<2>) {
        let (plane, unfolded) = sizes(window, [x.len(), y.len()]);
        if x.is_empty() || y.is_empty() {
            return x.fill(T::ZERO);
        }
        let (per, stride, width) = ((PIECE / unfolded).max(1), window.stride[1], window.output()[1]);
        par::for_chunks(x, per * plane, |piece, x| {
            x.fill(T::ZERO);
            for (x, y) in x.chunks_exact_mut(plane).zip(y[piece * per * unfolded..].chunks_exact(unfolded)) {
                rows(window, |at, seen| {
                    let Some((windows, pixel)) = seen else { return };
                    let y = &y[at..][..width][windows];
                    match stride {
                        1 => x[pixel..].iter_mut().zip(y).for_each(|(x, &y)| *x += y),
                        _ => x[pixel..].iter_mut().step_by(stride).zip(y).for_each(|(x, &y)| *x += y),
                    }
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of 2 with stride 2 over 1 2 3, padded by 1: (0 1), (2 3). Taps first: 0 2, 1 3.
    #[test]
    fn a_row_by_hand() {
        let window = Window { stride: [1, 2], padding: [[0; 2], [1; 2]], ..Window::new([1, 3], [1, 2]) };
        let (mut y, mut x) = ([7.0; 4], [7.0; 3]);
        unfold(&[1., 2., 3.], &mut y, &window);
        assert_eq!(y, [0., 2., 1., 3.]);
        fold(&[1., 2., 4., 8.], &mut x, &window);
        assert_eq!(x, [4., 2., 8.]);
    }
}
