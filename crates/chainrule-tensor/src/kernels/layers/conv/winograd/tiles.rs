//! Images to transformed tiles and back. Vectors run along the channels: images are transposed on the way in and out.

use super::lines;
use crate::{
    Scalar,
    kernels::{
        dispatch::{Kernel, Set},
        lanes::Lanes,
    },
};
use std::ops::Range;

/// Rows of tiles of one image, to be transformed: x is (channels, height, width), tile t has position p of channel c at
/// `v[p·plane + t·stride + c]`.
pub(super) struct Input<T> {
    pub x: *const T,
    pub channels: usize,
    pub size: [usize; 2],
    /// Zeros before the image, by height and width.
    pub before: [usize; 2],
    /// Rows of tiles, and tiles in a row.
    pub rows: Range<usize>,
    pub across: usize,
    /// The first tile of the first row.
    pub v: *mut T,
    pub plane: usize,
    pub stride: usize,
    /// The memory of `padded_len` and, after it, `middle_len` elements.
    pub padded: *mut T,
    pub middle: *mut T,
}

/// Elements of `Input::padded` for `rows` rows of `across` tiles, in vectors of `lanes`.
pub(super) fn padded_len(rows: usize, across: usize, lanes: usize) -> usize {
    (4 * rows + 2) * (4 * across + 2) * lanes
}

/// Elements of `Input::middle`.
pub(super) fn middle_len(across: usize, lanes: usize) -> usize {
    6 * (4 * across + 2) * lanes
}

/// Bᵀ d B of overlapping 6 × 6 tiles.
pub(super) struct Overlapping<T>(pub Input<T>);

impl<T: Scalar> Kernel for Overlapping<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { spread::<S::Of<T>, 6>(&self.0) }
    }
}

/// A d Aᵀ of 4 × 4 tiles side by side.
pub(super) struct Adjacent<T>(pub Input<T>);

impl<T: Scalar> Kernel for Adjacent<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { spread::<S::Of<T>, 4>(&self.0) }
    }
}

/// # Safety
/// The memory of `j` is valid, what it writes is borrowed exclusively; 4 × the tiles and the overlap cover the padded image.
#[inline(always)]
unsafe fn spread<L: Lanes, const TAPS: usize>(j: &Input<L::T>) {
    let (height, width) = (4 * j.rows.len() + TAPS - 4, 4 * j.across + TAPS - 4);
    // Rows of the image that lie in the padded strip, and the place of their first pixel in it.
    let first = 4 * j.rows.start;
    let rows = first.saturating_sub(j.before[0]).min(j.size[0])
        ..(first + height).saturating_sub(j.before[0]).min(j.size[0]);
    let top = (rows.start + j.before[0]).saturating_sub(first);
    // SAFETY: all places lie in the strip, the image or the tiles, whose sizes the caller vouches for.
    unsafe {
        frame(j.padded, [height, width], top..top + rows.len(), j.before[1]..j.before[1] + j.size[1], L::N);
        for c in (0..j.channels).step_by(L::N) {
            let lanes = L::N.min(j.channels - c);
            let x = j.x.add(c * j.size[0] * j.size[1]);
            let to = j.padded.wrapping_add((top * width + j.before[1]) * L::N);
            if !rows.is_empty() {
                fill::<L>(x, j.size, rows.clone(), lanes, to, width);
            }
            for row in 0..j.rows.len() {
                let strip = j.padded.add(4 * row * width * L::N);
                for at in 0..width {
                    let taps = load::<L, TAPS>(strip.add(at * L::N), width * L::N);
                    store(line::<L, TAPS>(taps), j.middle.add(at * L::N), width * L::N);
                }
                for t in 0..j.across {
                    let to = j.v.add((row * j.across + t) * j.stride + c);
                    for p in 0..6 {
                        let taps = load::<L, TAPS>(j.middle.add((p * width + 4 * t) * L::N), L::N);
                        store(line::<L, TAPS>(taps), to.add(6 * p * j.plane), j.plane);
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn line<L: Lanes, const TAPS: usize>(taps: [L; TAPS]) -> [L; 6] {
    let (d, last) = (taps, TAPS - 1);
    // SAFETY: the caller has the instruction set.
    unsafe {
        if TAPS == 6 {
            lines::bt([d[0], d[1], d[2], d[3], d[last - 1], d[last]])
        } else {
            lines::a([d[0], d[1], d[2], d[3]])
        }
    }
}

/// N vectors, `step` elements apart. A loop: a closure would not be compiled for the instruction set.
#[inline(always)]
pub(super) unsafe fn load<L: Lanes, const N: usize>(from: *const L::T, step: usize) -> [L; N] {
    // SAFETY: the caller vouches for the vectors.
    unsafe {
        let mut v = [L::splat(L::T::ZERO); N];
        for (i, v) in v.iter_mut().enumerate() {
            *v = L::load(from.add(i * step));
        }
        v
    }
}

#[inline(always)]
pub(super) unsafe fn store<L: Lanes, const N: usize>(v: [L; N], to: *mut L::T, step: usize) {
    for (i, v) in v.into_iter().enumerate() {
        // SAFETY: the caller vouches for the vectors.
        unsafe { v.store(to.add(i * step)) };
    }
}

/// Zeros around the image in a strip.
unsafe fn frame<T>(strip: *mut T, size: [usize; 2], rows: Range<usize>, cols: Range<usize>, lanes: usize) {
    let zero = |row: usize, cols: Range<usize>| {
        // SAFETY: the places lie in the strip; all bits zero are the value 0.
        unsafe { strip.add((row * size[1] + cols.start) * lanes).write_bytes(0, cols.len() * lanes) }
    };
    for row in 0..size[0] {
        if rows.contains(&row) {
            zero(row, 0..cols.start);
            zero(row, cols.end..size[1]);
        } else {
            zero(row, 0..size[1]);
        }
    }
}

/// Rows of up to N channels, transposed: pixel (i, j) of channel c to `to[((i − rows.start)·width + j)·N + c]`.
#[inline(always)]
unsafe fn fill<L: Lanes>(
    x: *const L::T,
    size: [usize; 2],
    rows: Range<usize>,
    channels: usize,
    to: *mut L::T,
    width: usize,
) {
    let [h, w] = size;
    let (begin, end) = (rows.start * w, rows.end * w);
    let place = |pixel: usize| ((pixel - begin) / w * width + (pixel - begin) % w) * L::N;
    // SAFETY: N pixels from any `at` used lie in the plane of each channel, and `place` in the strip.
    unsafe {
        if w >= L::N {
            for (i, row) in rows.enumerate() {
                let mut j = 0;
                while j < w {
                    let at = j.min(w - L::N);
                    L::transpose(x.add(row * w + at), h * w, channels, to.add((i * width + at) * L::N), L::N);
                    j += L::N;
                }
            }
        } else if h * w >= L::N {
            let mut transposed = [L::splat(L::T::ZERO); 16];
            let transposed = transposed.as_mut_ptr().cast::<L::T>();
            let mut pixel = begin;
            while pixel < end {
                let at = pixel.min(h * w - L::N);
                L::transpose(x.add(at), h * w, channels, transposed, L::N);
                let next = end.min(at + L::N);
                for pixel in pixel..next {
                    L::load(transposed.add((pixel - at) * L::N)).store(to.add(place(pixel)));
                }
                pixel = next;
            }
        } else {
            for pixel in begin..end {
                for c in 0..channels {
                    *to.add(place(pixel) + c) = *x.add(c * h * w + pixel);
                }
            }
        }
    }
}

/// Rows of tiles of one image, to be transformed back: tile t has position p of filter k at `m[p·plane + t·stride + k]`,
/// y is (filters, height, width).
pub(super) struct Output<T> {
    /// The first tile of the first row.
    pub m: *const T,
    pub plane: usize,
    pub stride: usize,
    pub filters: usize,
    /// One element a filter, or null.
    pub bias: *const T,
    pub y: *mut T,
    pub size: [usize; 2],
    pub rows: Range<usize>,
    pub across: usize,
    /// The memory of `flat_len` elements.
    pub flat: *mut T,
}

/// Elements of `Output::flat` for `rows` rows of `across` tiles: a whole chunk of the image more than its pixels.
pub(super) fn flat_len(rows: usize, across: usize, lanes: usize) -> usize {
    (16 * rows * across + lanes) * lanes
}

impl<T: Scalar> Kernel for Output<T> {
    type T = T;

    #[inline(always)]
    unsafe fn run<S: Set>(&self) {
        // SAFETY: the caller's promises, see `Kernel::run`, are those of the function.
        unsafe { gather_output::<S::Of<T>>(self) }
    }
}

/// Aᵀ M A + bias, cut to the image.
///
/// # Safety
/// The memory of `j` is valid, and what it writes is borrowed exclusively.
#[inline(always)]
unsafe fn gather_output<L: Lanes>(j: &Output<L::T>) {
    let [h, w] = j.size;
    let (begin, end) = (4 * j.rows.start * w, h.min(4 * j.rows.end) * w);
    for k in (0..j.filters).step_by(L::N) {
        let filters = L::N.min(j.filters - k);
        // SAFETY: the tiles, the pixels and the filters' planes lie in the memory that the caller vouches for.
        unsafe {
            let bias = if j.bias.is_null() {
                L::splat(L::T::ZERO)
            } else {
                L::load_if(j.bias.add(k), L::mask(filters))
            };
            for row in 0..j.rows.len() {
                for t in 0..j.across {
                    let m = j.m.add((row * j.across + t) * j.stride + k);
                    let mut middle = [[bias; 6]; 4];
                    for q in 0..6 {
                        let column = lines::at(load::<L, 6>(m.add(q * j.plane), 6 * j.plane));
                        for (middle, v) in middle.iter_mut().zip(column) {
                            middle[q] = v;
                        }
                    }
                    let (left, below) = (4 * t, 4 * (j.rows.start + row));
                    let to = j.flat.add((4 * row * w + left) * L::N);
                    if left + 4 <= w && below + 4 <= h {
                        for (i, line) in middle.into_iter().enumerate() {
                            let y = lines::at_plus(line, bias);
                            store(y, to.add(i * w * L::N), L::N);
                        }
                    } else {
                        for (i, line) in middle.into_iter().enumerate().take(h - below) {
                            let y = lines::at_plus(line, bias);
                            for (s, y) in y.into_iter().enumerate().take(w - left) {
                                y.store(to.add((i * w + s) * L::N));
                            }
                        }
                    }
                }
            }
            let y = j.y.add(k * h * w);
            for pixel in (begin..end).step_by(L::N) {
                let (from, pixels) = (j.flat.add((pixel - begin) * L::N), L::N.min(end - pixel));
                if filters == L::N {
                    L::transpose(from, L::N, pixels, y.add(pixel), h * w);
                } else {
                    for f in 0..filters {
                        for i in 0..pixels {
                            *y.add(f * h * w + pixel + i) = *from.add(i * L::N + f);
                        }
                    }
                }
            }
        }
    }
}
