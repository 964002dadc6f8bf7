//! What activations with parameters share: one of all elements, or one of each channel.

use chainrule_core::{Error, Result, Shape};
use chainrule_tensor::kernels::layers::channel::sums_bytes;

/// Scratch space of backward.
#[derive(Clone, Debug, Default)]
pub struct ChannelsCache {
    /// Sums of ∂E/∂a by pieces.
    pub(super) shares: Vec<f64>,
}

/// The elements of a channel of a sample (N, C, …) of `parameters` channels; all elements share a single one.
pub(super) fn plane(layer: &str, parameters: usize, input: &[usize]) -> Result<usize> {
    let shape = Shape::new(input)?;
    if parameters == 1 {
        return Ok(shape.volume());
    }
    match *shape {
        [_, c, ref axes @ ..] if c == parameters => Ok(axes.iter().product()),
        _ => Err(Error::shape(format!("{layer}: expected input (N, {parameters}, ..), got {shape}"))),
    }
}

/// The bytes of the cache after a backward for this input.
pub(super) fn bytes(parameters: usize, input: &[usize]) -> usize {
    let volume = Shape::new(input).map_or(0, |shape| shape.volume());
    plane("", parameters, input).map_or(0, |plane| sums_bytes(volume, parameters, plane))
}
