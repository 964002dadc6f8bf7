//! The critic of a Wasserstein GAN (Arjovsky, Chintala and Bottou, 2017; layer norm as by Gulrajani et al., 2017).

use chainrule_core::Scalar;
use chainrule_layers::{Conv2d, Flatten, GroupNorm, InstanceNorm2d, LeakyRelu, Sequential};

/// Convolutions of 4 × 4 at stride 2 down to one score an image.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::WganCritic;
/// let model = WganCritic { width: vec![8, 16], ..WganCritic::new(3, 32) }.build().init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([6, 3, 32, 32]))?.shape()[..], [6]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WganCritic {
    /// Channels of the image.
    pub channels: usize,
    /// Its height, and width.
    pub size: usize,
    /// Filters of each convolution but the last.
    pub width: Vec<usize>,
    /// Whether each sample is normalised as a whole, and not each of its channels.
    pub layer_norm: bool,
}

impl WganCritic {
    /// Three halvings, with instance norm.
    #[must_use]
    pub fn new(channels: usize, size: usize) -> Self {
        Self { channels, size, width: vec![64, 128, 256], layer_norm: false }
    }

    /// x (N, channels, size, size) → scores (N).
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Sequential<T> {
        let conv = |inputs, filters| Conv2d::new(inputs, filters, 4).stride(2).padding(1);
        let leaky = || LeakyRelu::new().negative_slope(0.2);
        let first = self.width.first().copied().unwrap_or(0);
        let mut main = Sequential::of().add(conv(self.channels, first)).add(leaky());
        for pair in self.width.windows(2) {
            main = main.add(conv(pair[0], pair[1]).bias(false));
            main = match self.layer_norm {
                true => main.add(GroupNorm::new(1, pair[1])),
                false => main.add(InstanceNorm2d::new(pair[1]).affine(true)),
            };
            main = main.add(leaky());
        }
        let rest = self.size.checked_shr(self.width.len() as u32).unwrap_or(0);
        let last = Conv2d::new(self.width.last().copied().unwrap_or(0), 1, rest).bias(false);
        Sequential::of().named("main", main.add(last)).named("flatten", Flatten::new().start_dim(0))
    }
}
