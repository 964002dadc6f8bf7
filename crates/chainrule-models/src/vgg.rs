//! VGG (Simonyan and Zisserman, 2015).

use chainrule_core::Scalar;
use chainrule_layers::{
    AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, Relu, Sequential,
};

/// A stage of [`Vgg::plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A convolution of 3 × 3 with so many filters.
    Conv(usize),
    /// A max pool of 2 × 2.
    Pool,
}

/// Convolutions of 3 × 3 with ReLU and pools between them, an average of `pooled` × `pooled`, and three linear layers.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::{Stage::{Conv, Pool}, Vgg};
/// let plan = vec![Conv(8), Pool, Conv(16), Conv(16), Pool];
/// let model = Vgg { plan, pooled: 2, hidden: 32, ..Vgg::vgg11(3, 10) }.build().init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([2, 3, 32, 32]))?.shape()[..], [2, 10]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Vgg {
    /// Channels of the image.
    pub channels: usize,
    /// The features' stages.
    pub plan: Vec<Stage>,
    /// Whether convolutions are normalised.
    pub batch_norm: bool,
    /// Height and width that the features are averaged to.
    pub pooled: usize,
    /// Outputs of the first two linear layers.
    pub hidden: usize,
    /// The probability of dropout before the last two.
    pub dropout: f64,
    /// Outputs of the last.
    pub classes: usize,
}

impl Vgg {
    /// Configuration A of the paper, eight convolutions.
    #[must_use]
    pub fn vgg11(channels: usize, classes: usize) -> Self {
        use Stage::{Conv, Pool};
        let plan = [
            &[Conv(64), Pool, Conv(128), Pool][..],
            &[Conv(256), Conv(256), Pool],
            &[Conv(512), Conv(512), Pool].repeat(2),
        ];
        Self {
            channels,
            plan: plan.concat(),
            batch_norm: false,
            pooled: 7,
            hidden: 4096,
            dropout: 0.5,
            classes,
        }
    }

    /// x (N, channels, H, W) → logits (N, classes).
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Sequential<T> {
        let (mut features, mut inputs) = (Sequential::of(), self.channels);
        for stage in &self.plan {
            let &Stage::Conv(filters) = stage else {
                features = features.add(MaxPool2d::new(2));
                continue;
            };
            features = features.add(Conv2d::new(inputs, filters, 3).padding(1));
            if self.batch_norm {
                features = features.add(BatchNorm2d::new(filters));
            }
            features = features.add(Relu::new());
            inputs = filters;
        }
        let flat = inputs.saturating_mul(self.pooled).saturating_mul(self.pooled);
        let classifier = Sequential::of()
            .add(Linear::new(flat, self.hidden))
            .add(Relu::new())
            .add(Dropout::new(self.dropout))
            .add(Linear::new(self.hidden, self.hidden))
            .add(Relu::new())
            .add(Dropout::new(self.dropout))
            .add(Linear::new(self.hidden, self.classes));
        Sequential::of()
            .named("features", features)
            .named("avgpool", AdaptiveAvgPool2d::new(self.pooled))
            .named("flatten", Flatten::new())
            .named("classifier", classifier)
    }
}
