//! What convolutions and transposed convolutions share: filters by groups of channels, and what they start from.

use crate::rank::check_sizes;
use chainrule_core::{Error, Init, Param, Result, Scalar, Shape};

/// Whether there are channels in groups of one size, and windows of these sizes.
pub(super) fn check<const R: usize>(
    layer: &str,
    [inputs, outputs, groups]: [usize; 3],
    [kernel, stride, dilation]: [[usize; R]; 3],
) -> Result<()> {
    if inputs == 0 || outputs == 0 {
        return Err(Error::value(format!(
            "{layer}: expected at least one channel in and one out, got {inputs} and {outputs}"
        )));
    }
    for (what, sizes) in [("kernel_size", kernel), ("stride", stride), ("dilation", dilation)] {
        check_sizes(layer, what, 1, sizes)?;
    }
    if groups == 0 || !inputs.is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
        return Err(Error::value(format!(
            "{layer}: expected groups that divide {inputs} channels in and {outputs} out, got {groups}"
        )));
    }
    Ok(())
}

/// `weight` and, if there is one, `bias`: as the initialisers say, or uniform in ±1/√(channels·taps), as PyTorch's are. A weight
/// without a shape stands as a scalar; `check` refuses it.
pub(super) fn parameters<T: Scalar>(
    weight: Option<Shape>,
    outputs: usize,
    bias: bool,
    [weight_init, bias_init]: [Option<Init>; 2],
    default: Init,
) -> (Param<T>, Option<Param<T>>) {
    let weight = Param::new("weight", weight.unwrap_or_default(), weight_init.unwrap_or(default));
    (weight, bias.then(|| Param::new("bias", [outputs], bias_init.unwrap_or(default))))
}

/// What a filter over so many channels of each group starts from.
pub(super) fn default_init(channels: usize, kernel: &[usize]) -> Init {
    Init::torch_default(kernel.iter().fold(channels, |n, &k| n.saturating_mul(k)))
}
