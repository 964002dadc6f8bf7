//! What layers over sequences, images and volumes share: sizes along one, two or three axes.

use chainrule_core::{Error, Result, Shape};

/// A size for each of R axes, outermost first: from `3` (for every axis), `[3, 5]` or `(3, 5)`.
///
/// ```
/// use chainrule_layers::Sizes;
/// assert_eq!(Sizes::<2>::from(3), Sizes([3, 3]));
/// assert_eq!(Sizes::from((3, 5)), Sizes([3, 5]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes<const R: usize>(pub [usize; R]);

impl<const R: usize> From<usize> for Sizes<R> {
    fn from(all: usize) -> Self {
        Self([all; R])
    }
}

impl<const R: usize> From<[usize; R]> for Sizes<R> {
    fn from(sizes: [usize; R]) -> Self {
        Self(sizes)
    }
}

impl From<(usize, usize)> for Sizes<2> {
    fn from((h, w): (usize, usize)) -> Self {
        Self([h, w])
    }
}

impl From<(usize, usize, usize)> for Sizes<3> {
    fn from((d, h, w): (usize, usize, usize)) -> Self {
        Self([d, h, w])
    }
}

/// An axis of `rank` that is counted from the front, or from the back when negative; `None` if there is no such axis.
pub(crate) fn axis(dim: isize, rank: usize) -> Option<usize> {
    let at = if dim < 0 { rank.checked_add_signed(dim) } else { usize::try_from(dim).ok() };
    at.filter(|&at| at < rank)
}

/// Whether sizes are between `least` and 2³¹ − 1: sums, and products of two, then fit.
pub(crate) fn check_sizes<const R: usize>(
    layer: &str,
    what: &str,
    least: usize,
    sizes: [usize; R],
) -> Result<()> {
    if sizes.iter().all(|size| (least..1 << 31).contains(size)) {
        return Ok(());
    }
    Err(Error::value(format!("{layer}: expected {what} from {least} to 2³¹ − 1, got {sizes:?}")))
}

/// Whether a shape can be: what is wrong with it is told with the name of the layer.
pub(crate) fn check_shape(layer: &str, shape: Result<Shape>) -> Result<()> {
    shape.map(drop).map_err(|error| Error::shape(format!("{layer}: {error}")))
}

/// N, C and the lengths of the R axes behind them, none of them empty. C is `channels` if given.
pub(crate) fn split<const R: usize>(
    layer: &str,
    channels: Option<usize>,
    input: &[usize],
) -> Result<([usize; 2], [usize; R])> {
    if let [n, c, ref axes @ ..] = *input
        && let Ok(axes) = <[usize; R]>::try_from(axes)
        && channels.is_none_or(|channels| channels == c)
        && !axes.contains(&0)
    {
        return Ok(([n, c], axes));
    }
    let c = channels.map_or("C".to_owned(), |c| c.to_string());
    let axes = const { ["L", "H, W", "D, H, W"][R - 1] };
    Err(Error::shape(format!(
        "{layer}: expected input (N, {c}, {axes}) with at least one element per channel, got {input:?}"
    )))
}

/// The lengths of the R axes behind N and C of a shape that has them.
pub(crate) fn axes_of<const R: usize>(shape: &[usize]) -> [usize; R] {
    std::array::from_fn(|axis| shape[axis + 2])
}

/// The shape (a, b, …) with R more axes: (N, C, …) of a tensor, (out, in, …) of a kernel.
pub(crate) fn join<const R: usize>([a, b]: [usize; 2], axes: [usize; R]) -> Result<Shape> {
    let mut shape = [a, b, 0, 0, 0];
    shape[2..R + 2].copy_from_slice(&axes);
    Shape::new(&shape[..R + 2])
}
