//! MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov and Chen, 2018).

use chainrule_core::Scalar;
use chainrule_layers::{
    AdaptiveAvgPool2d, Add, BatchNorm2d, Conv2d, Dropout, Flatten, Graph, Linear, Relu6, Sequential,
};

/// Inverted residuals: a 1 × 1 convolution widens, a depthwise one of 3 × 3 filters each channel, a 1 × 1 one narrows again.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::MobileNetV2;
/// let model = MobileNetV2 { stem: 8, plan: vec![[1, 8, 1, 1], [6, 12, 2, 2]], last: 48, ..MobileNetV2::new(10) };
/// let model = model.build().init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([2, 3, 32, 32]))?.shape()[..], [2, 10]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MobileNetV2 {
    /// Channels of the image.
    pub channels: usize,
    /// Filters of the first convolution.
    pub stem: usize,
    /// Of each stage: how many times a block widens, its filters, the number of blocks, the stride of the first.
    pub plan: Vec<[usize; 4]>,
    /// Filters of the last convolution.
    pub last: usize,
    /// The probability of dropout.
    pub dropout: f64,
    /// Outputs.
    pub classes: usize,
}

impl MobileNetV2 {
    /// The network of the paper.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        let plan = [
            [1, 16, 1, 1],
            [6, 24, 2, 2],
            [6, 32, 3, 2],
            [6, 64, 4, 2],
            [6, 96, 3, 1],
            [6, 160, 3, 2],
            [6, 320, 1, 1],
        ];
        Self { channels: 3, stem: 32, plan: plan.to_vec(), last: 1280, dropout: 0.2, classes }
    }

    /// x (N, channels, H, W) → logits (N, classes).
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Sequential<T> {
        let mut features = Sequential::of().add(convolution(self.channels, self.stem, 3, 2, 1));
        let mut inputs = self.stem;
        for &[ratio, filters, blocks, stride] in &self.plan {
            for i in 0..blocks {
                features = features.add(block(inputs, filters, if i == 0 { stride } else { 1 }, ratio));
                inputs = filters;
            }
        }
        let classifier =
            Sequential::of().add(Dropout::new(self.dropout)).add(Linear::new(self.last, self.classes));
        Sequential::of()
            .named("features", features.add(convolution(inputs, self.last, 1, 1, 1)))
            .named("avgpool", AdaptiveAvgPool2d::new(1))
            .named("flatten", Flatten::new())
            .named("classifier", classifier)
    }
}

/// A convolution that keeps the size at stride 1, normalised, and ReLU6.
fn convolution<T: Scalar>(
    inputs: usize,
    filters: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
) -> Sequential<T> {
    let conv = Conv2d::new(inputs, filters, kernel).stride(stride).padding((kernel - 1) / 2).groups(groups);
    Sequential::of().add(conv.bias(false)).add(BatchNorm2d::new(filters)).add(Relu6::new())
}

/// The `conv` of an inverted residual, and x beside it where the shapes agree.
fn block<T: Scalar>(inputs: usize, filters: usize, stride: usize, ratio: usize) -> Graph<T> {
    let wide = inputs.saturating_mul(ratio);
    let mut conv = Sequential::of();
    if ratio != 1 {
        conv = conv.add(convolution(inputs, wide, 1, 1, 1));
    }
    conv = conv
        .add(convolution(wide, wide, 3, stride, wide))
        .add(Conv2d::new(wide, filters, 1).bias(false))
        .add(BatchNorm2d::new(filters));
    let mut graph = Graph::of();
    let x = graph.input("x");
    let y = graph.add("conv", conv, x);
    let y = if stride == 1 && inputs == filters { graph.add("sum", Add::new(), [x, y]) } else { y };
    graph.output("y", y);
    graph
}
