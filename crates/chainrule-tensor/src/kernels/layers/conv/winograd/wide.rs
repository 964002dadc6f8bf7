//! What the transforms are not used for, summed over windows instead: a product of matrices for each tap.

use super::{Pass, Workspace, range::Exempt};
use crate::{
    Scalar,
    kernels::{
        Isa,
        gemm::{Buffer, Epilogue, Mat, MatMut, product},
    },
    par,
};

/// Windows of a product, and of a piece that a thread gathers.
const WINDOWS: usize = 256;
const PIECE: usize = 16;

/// An output: image, row and column.
pub(super) type Place = [usize; 3];

/// Memory for the windows of some outputs.
pub(super) struct Gathered<T> {
    pub places: Vec<Place>,
    windows: Buffer<T>,
    sums: Buffer<T>,
}

impl<T: Scalar> Default for Gathered<T> {
    fn default() -> Self {
        Self { places: Vec::new(), windows: Buffer::new(), sums: Buffer::new() }
    }
}

/// The outputs of tile `tile`, counted through all images, whose bits are set.
pub(super) fn outputs(pass: &Pass, tile: usize, bits: u16) -> impl Iterator<Item = Place> {
    let [down, across] = pass.tiles();
    let (image, tile) = (tile / (down * across), tile % (down * across));
    let (row, column) = (4 * (tile / across), 4 * (tile % across));
    (0..16).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| [image, row + bit / 4, column + bit % 4])
}

/// The pixel of the plane that a tap of an output reads.
fn pixel(pass: &Pass, &[_, i, j]: &Place, tap: usize) -> Option<usize> {
    let [row, column] = [(i + tap / 3, 0), (j + tap % 3, 1)]
        .map(|(at, axis)| at.checked_sub(pass.before[axis]).filter(|&at| at < pass.input[axis]));
    Some(row? * pass.input[1] + column?)
}

/// windows[p, tap, c] = the pixel that a tap of the p-th output reads of channel c, 0 in the padding.
fn gather<T: Scalar>(pass: &Pass, places: &[Place], x: &[T], windows: &mut [T]) {
    let (inner, plane) = (pass.inner, pass.input[0] * pass.input[1]);
    par::for_chunks(windows, PIECE * 9 * inner, |piece, windows| {
        for (place, window) in places[piece * PIECE..].iter().zip(windows.chunks_exact_mut(9 * inner)) {
            let image = &x[place[0] * inner * plane..][..inner * plane];
            for (tap, to) in window.chunks_exact_mut(inner).enumerate() {
                match pixel(pass, place, tap) {
                    Some(pixel) => {
                        for (to, from) in to.iter_mut().zip(image.chunks_exact(plane)) {
                            *to = from[pixel];
                        }
                    }
                    None => to.fill(T::ZERO),
                }
            }
        }
    });
}

/// Overwrites the exempt outputs of all tiles with w ⋆ x + b, or wᵀ ⋆ dy.
pub(super) fn replace<T: Scalar>(
    isa: Isa,
    pass: &Pass,
    (x, w, bias): (&[T], &[T], Option<&[T]>),
    y: &mut [T],
    work: &mut Workspace<T>,
) {
    let Workspace { exempt, gathered: Gathered { places, windows, sums }, .. } = work;
    let [oh, ow] = pass.output;
    let (inner, outer, plane) = (pass.inner, pass.outer, oh * ow);
    let b = |o: usize| bias.map_or(T::ZERO, |b| b[o]);
    places.clear();
    for (tile, &Exempt { zero, wide }) in exempt.iter().enumerate() {
        if zero | wide == 0 {
            continue;
        }
        for [n, i, j] in outputs(pass, tile, zero) {
            for o in 0..outer {
                y[(n * outer + o) * plane + i * ow + j] = b(o);
            }
        }
        places.extend(outputs(pass, tile, wide));
    }
    for places in places.chunks(WINDOWS) {
        windows.reset(places.len() * 9 * inner);
        sums.reset(places.len() * outer);
        gather(pass, places, x, windows.as_mut_slice());
        for tap in 0..9 {
            let x = Mat::strided(&windows.as_slice()[tap * inner..], places.len(), inner, 9 * inner, 1);
            let w = if pass.flipped {
                Mat::strided(&w[8 - tap..], inner, outer, 9 * outer, 9)
            } else {
                Mat::strided(&w[tap..], inner, outer, 9, 9 * inner)
            };
            let beta = if tap == 0 { T::ZERO } else { T::ONE };
            let sums = MatMut::new(sums.as_mut_slice(), places.len(), outer);
            product((isa, inner), T::ONE, x.into(), w.into(), beta, sums, Epilogue::default());
        }
        for (&[n, i, j], sums) in places.iter().zip(sums.as_slice().chunks_exact(outer)) {
            for (o, &sum) in sums.iter().enumerate() {
                y[(n * outer + o) * plane + i * ow + j] = sum + b(o);
            }
        }
    }
}

/// dw += dy ⋆ x over the outputs that were gathered.
pub(super) fn add_gradient<T: Scalar>(
    isa: Isa,
    pass: &Pass,
    (x, dy): (&[T], &[T]),
    dw: &mut [T],
    work: &mut Gathered<T>,
) {
    let Gathered { places, windows, sums } = work;
    let [oh, ow] = pass.output;
    let (channels, filters, plane) = (pass.inner, pass.outer, oh * ow);
    for places in places.chunks(WINDOWS) {
        windows.reset(places.len() * 9 * channels);
        sums.reset(places.len() * filters);
        gather(pass, places, x, windows.as_mut_slice());
        for tap in 0..9 {
            // What a tap reads in the padding is no product: 0 · ∞ would be NaN.
            for (place, g) in places.iter().zip(sums.as_mut_slice().chunks_exact_mut(filters)) {
                let &[n, i, j] = place;
                let inside = pixel(pass, place, tap).is_some();
                for (k, g) in g.iter_mut().enumerate() {
                    *g = if inside { dy[(n * filters + k) * plane + i * ow + j] } else { T::ZERO };
                }
            }
            let x =
                Mat::strided(&windows.as_slice()[tap * channels..], places.len(), channels, 9 * channels, 1);
            let g = Mat::new(sums.as_slice(), places.len(), filters).t();
            let dw = MatMut::strided(&mut dw[tap..], filters, channels, 9 * channels, 9);
            product((isa, places.len()), T::ONE, g.into(), x.into(), T::ONE, dw, Epilogue::default());
        }
    }
}
