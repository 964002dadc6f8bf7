//! LeNet-5 (LeCun, Bottou, Bengio and Haffner, 1998).

use chainrule_core::{BoxModule, Error, Result, Scalar};
use chainrule_layers::{AvgPool2d, Conv2d, Flatten, Linear, MaxPool2d, Sequential, Tanh};

/// Two convolutions of 5 × 5, each followed by an activation and a pool of 2 × 2, then three linear layers.
///
/// ```
/// use chainrule_core::{BoxModule, Module, Parameters, Tensor};
/// use chainrule_layers::Relu;
/// use chainrule_models::LeNet;
/// let model = LeNet { activation: BoxModule::new(Relu::new()), average: false, ..LeNet::new(3, 10) };
/// let model = model.build()?.init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([2, 3, 28, 28]))?.shape()[..], [2, 10]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LeNet<T: Scalar = f32> {
    /// Channels of the image.
    pub channels: usize,
    /// Its height and width.
    pub size: [usize; 2],
    /// Filters of the two convolutions.
    pub width: [usize; 2],
    /// Outputs of the first two linear layers.
    pub hidden: [usize; 2],
    /// Outputs of the last.
    pub classes: usize,
    /// Average pools in place of max pools.
    pub average: bool,
    /// The activation.
    pub activation: BoxModule<T>,
}

impl LeNet {
    /// The network of the paper for images of 28 × 28, with max pools and tanh.
    #[must_use]
    pub fn new(channels: usize, classes: usize) -> Self {
        Self::of(channels, classes)
    }
}

impl<T: Scalar> LeNet<T> {
    /// [`LeNet::new`] for any element type.
    #[must_use]
    pub fn of(channels: usize, classes: usize) -> Self {
        let activation = BoxModule::new(Tanh::new());
        Self {
            channels,
            size: [28, 28],
            width: [6, 16],
            hidden: [120, 84],
            classes,
            average: false,
            activation,
        }
    }

    /// x (N, channels, H, W) → logits (N, classes).
    ///
    /// # Errors
    /// An image that is too small.
    pub fn build(&self) -> Result<Sequential<T>> {
        let &Self { channels, size, width: [c1, c2], hidden: [f1, f2], classes, .. } = self;
        if size.iter().any(|&n| n < 12) {
            return Err(Error::value(format!("LeNet: expected an image of 12 × 12 or more, got {size:?}")));
        }
        let pool = || {
            if self.average { BoxModule::new(AvgPool2d::new(2)) } else { BoxModule::new(MaxPool2d::new(2)) }
        };
        let [h, w] = size.map(|n| (n / 2 - 4) / 2);
        let act = || self.activation.clone();
        Ok(Sequential::of()
            .named("conv1", Conv2d::new(channels, c1, 5).padding(2))
            .named("act1", act())
            .named("pool1", pool())
            .named("conv2", Conv2d::new(c1, c2, 5))
            .named("act2", act())
            .named("pool2", pool())
            .named("flatten", Flatten::new())
            .named("fc1", Linear::new(c2.saturating_mul(h).saturating_mul(w), f1))
            .named("act3", act())
            .named("fc2", Linear::new(f1, f2))
            .named("act4", act())
            .named("fc3", Linear::new(f2, classes)))
    }
}
