//! 3 × 3 convolutions by Winograd's F(4 × 4, 3 × 3): 36 multiplications for each 4 × 4 tile of the output and pair of
//! channels, where the sum takes 144 (Lavin and Gray, Fast algorithms for convolutional neural networks, 2016).
//!
//! ```text
//! y = Aᵀ [ Σ over c of (G g Gᵀ) ⊙ (Bᵀ d B) ] A
//! ```
//!
//! for tiles d of 6 × 6 pixels that overlap by two. The sum over channels of each of the 36 positions, over many tiles and
//! filters, is a product of matrices, tiles × channels times channels × filters. A block of tiles at a time goes through
//! all of this and stays in the second-level cache; filters are transformed once a call, or once for many calls
//! ([`Prepared`]). The input gradient is the same convolution with filters and channels exchanged and taps flipped. That of
//! the weights is its adjoint,
//!
//! ```text
//! dw = Gᵀ [ Σ over tiles of (A dy Aᵀ) ⊙ (Bᵀ d B) ] G
//! ```
//!
//! A tile whose pixels are of too wide a range for it (`range`) is not transformed: its outputs are summed over their windows
//! (`wide`), so that none depends on a pixel that it does not see.
//!
//! The points of the transforms are 0, ±√½, ±√2 and ∞. In f32 the largest error is then at most four times, and the
//! root-mean-square error at most three times, that of the plain sum in f32 (measured: 1.2 to 2.1 and 1.7 to 2.3 times; 64
//! channels of size 1, y up to 5.7: 9e-6 where the plain sum has 5e-6). The bits do not depend on threads.

mod forward;
mod gradient;
mod lines;
mod memory;
mod panels;
mod range;
mod tiles;
mod weights;
mod wide;

#[cfg(test)]
mod tests;

use super::Geometry;
use crate::{
    Scalar,
    kernels::{Isa, gemm::Buffer},
};
use std::fmt;

/// Memory that the kernels keep from one call to the next.
pub(super) struct Workspace<T> {
    /// Transformed filters, or their gradient.
    u: Buffer<T>,
    /// Their gradient's sums, where those are long.
    totals: Vec<f64>,
    /// What each thread needs for a block of tiles.
    slots: Buffer<T>,
    /// Transformed tiles that threads share.
    tiles: Buffer<T>,
    /// For each pixel, the largest magnitude over some channels.
    magnitudes: Buffer<T>,
    /// For each tile, the outputs that are computed from their windows, and memory for those.
    exempt: Vec<range::Exempt>,
    gathered: wide::Gathered<T>,
}

/// Filters, transformed.
pub(super) struct Prepared<T> {
    u: Buffer<T>,
    of: Option<(Isa, usize, usize)>,
    /// Whether their elements are finite, and not too large.
    tame: bool,
}

impl<T: Scalar> Default for Workspace<T> {
    fn default() -> Self {
        Self {
            u: Buffer::new(),
            totals: Vec::new(),
            slots: Buffer::new(),
            tiles: Buffer::new(),
            magnitudes: Buffer::new(),
            exempt: Vec::new(),
            gathered: wide::Gathered::default(),
        }
    }
}

impl<T: Scalar> Default for Prepared<T> {
    fn default() -> Self {
        Self { u: Buffer::new(), of: None, tame: false }
    }
}

/// A copy has no memory yet.
impl<T: Scalar> Clone for Workspace<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> fmt::Debug for Workspace<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspace").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Prepared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("of", &self.of).finish_non_exhaustive()
    }
}

/// Whether a [`Pass`] can compute it.
fn possible(g: &Geometry<2>) -> bool {
    let ones = [1, 1];
    g.kernel == [3, 3] && g.stride == ones && g.dilation == ones && g.groups == 1 && !g.output().contains(&0)
}

/// The least channels and filters, of which a vector holds sixteen, and the least tiles for which it pays.
const CHANNELS: usize = 12;
const TILES: usize = 4;

/// Whether y and ∂W are best computed by it: there are enough channels, and enough tiles, half
/// used at least.
pub(super) fn serves(g: &Geometry<2>) -> bool {
    let [oh, ow] = g.output();
    // Asked before the sizes are checked: they may overflow.
    let tiles = oh.div_ceil(4).saturating_mul(ow.div_ceil(4));
    possible(g)
        && g.channels.min(g.filters) >= CHANNELS
        && g.images.saturating_mul(tiles) >= TILES
        && oh.saturating_mul(ow).saturating_mul(2) >= tiles.saturating_mul(16)
}

/// Whether ∂X is best computed by it.
pub(super) fn serves_input_gradient(g: &Geometry<2>) -> bool {
    serves(g) && g.padding.iter().flatten().all(|&p| p <= 2)
}

/// A convolution or an input gradient: `outer` channels of size `output` from `inner` ones of size `input`.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    images: usize,
    inner: usize,
    outer: usize,
    input: [usize; 2],
    output: [usize; 2],
    before: [usize; 2],
    /// Whether it is the gradient, and the filters are flipped.
    flipped: bool,
}

impl Pass {
    pub(super) fn forward(g: &Geometry<2>) -> Self {
        assert!(possible(g), "not a 3 × 3 convolution of stride 1: {g:?}");
        Self {
            images: g.images,
            inner: g.channels,
            outer: g.filters,
            input: g.input,
            output: g.output(),
            before: g.padding.map(|p| p[0]),
            flipped: false,
        }
    }

    pub(super) fn input_gradient(g: &Geometry<2>) -> Self {
        let pass = Self::forward(g);
        assert!(g.padding.iter().flatten().all(|&p| p <= 2), "padding of more than 2: {g:?}");
        Self {
            inner: pass.outer,
            outer: pass.inner,
            input: pass.output,
            output: pass.input,
            before: pass.before.map(|p| 2 - p),
            flipped: true,
            ..pass
        }
    }

    /// Tiles by height and width.
    fn tiles(&self) -> [usize; 2] {
        self.output.map(|n| n.div_ceil(4))
    }
}

/// The distance of planes of `n` elements, such that 36 of them begin in different sets of the caches.
fn apart<T>(n: usize) -> usize {
    let line = 64 / size_of::<T>();
    (n.div_ceil(line) | 1) * line
}

/// The distance of the channels of one tile from those of the next: whole lines, rows not in the same set of the cache.
fn row<T>(channels: usize) -> usize {
    let line = 64 / size_of::<T>();
    let lines = channels.div_ceil(line);
    (lines + usize::from(lines.is_multiple_of(16))) * line
}

/// y = w ⋆ x + b, or dx = wᵀ ⋆ dy by the pass of the input gradient. False, and y unspecified, if an element of w is not finite
/// or larger than 2⁵⁰: the transforms would carry it to all taps.
///
/// # Panics
/// If a slice is not as long as the pass says.
pub(super) use forward::with_weights as forward;

/// dw += dy ⋆ x
///
/// # Panics
/// If a slice is not as long as the pass says.
pub(super) use gradient::weight_gradient;

/// Bytes of the [`Workspace`] after a forward pass by so many threads, and, if they are wanted, the gradients of the weights
/// and of the input.
pub(super) fn workspace_bytes<T: Scalar>(
    isa: Isa,
    g: &Geometry<2>,
    threads: usize,
    [weights, input]: [bool; 2],
) -> usize {
    let pass = Pass::forward(g);
    let mut most = memory::of_forward::<T>(isa, &pass, threads);
    let mut also = |other: memory::Lengths| {
        most.iter_mut().zip(other).for_each(|(most, other)| *most = other.max(*most));
    };
    if weights {
        also(memory::of_weight_gradient::<T>(isa, &pass, threads));
    }
    if input && serves_input_gradient(g) {
        also(memory::of_forward::<T>(isa, &Pass::input_gradient(g), threads));
    }
    let elements: u128 = most.iter().sum();
    usize::try_from(elements * size_of::<T>() as u128).unwrap_or(usize::MAX)
}

/// Transforms the filters for [`forward_prepared`].
///
/// # Panics
/// If there are not as many filters as the pass says.
pub(super) fn prepare<T: Scalar>(isa: Isa, pass: &Pass, w: &[T], prepared: &mut Prepared<T>) {
    prepared.of = None; // as long as they are not prepared
    prepared.tame = panels::transform_weights(isa, pass, w, &mut prepared.u);
    prepared.of = Some((isa, pass.inner, pass.outer));
}

/// y = w ⋆ x + b, with the filters that [`prepare`] has transformed from w. False as [`forward()`].
///
/// # Panics
/// If a slice is not as long as the pass says, or the filters were prepared for another convolution.
pub(super) fn forward_prepared<T: Scalar>(
    isa: Isa,
    pass: &Pass,
    x: &[T],
    (w, prepared): (&[T], &Prepared<T>),
    bias: Option<&[T]>,
    y: &mut [T],
    work: &mut Workspace<T>,
) -> bool {
    assert_eq!(
        prepared.of,
        Some((isa, pass.inner, pass.outer)),
        "the filters were prepared for another convolution"
    );
    if prepared.tame {
        forward::with_prepared(isa, pass, x, (w, prepared.u.as_slice()), bias, y, work);
    }
    prepared.tame
}
