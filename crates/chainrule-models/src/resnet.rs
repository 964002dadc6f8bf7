//! ResNet with basic blocks (He, Zhang, Ren and Sun, 2016).

use chainrule_core::Scalar;
use chainrule_layers::{
    AdaptiveAvgPool2d, Add, BatchNorm2d, Conv2d, Flatten, Graph, Identity, Linear, MaxPool2d, Relu,
    Sequential,
};

/// What stands before the first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stem {
    /// 7 × 7 at stride 2 and a pool of 3 × 3 at stride 2: for images of 224 × 224.
    ImageNet,
    /// 3 × 3 at stride 1: for images of 32 × 32.
    Cifar,
}

/// Stages of blocks y = relu(f(x) + x), where f is two convolutions of 3 × 3, each normalised.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::ResNet;
/// let model = ResNet { width: vec![8, 16], blocks: vec![1, 2], ..ResNet::cifar(10) }.build().init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([2, 3, 32, 32]))?.shape()[..], [2, 10]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ResNet {
    /// Channels of the image.
    pub channels: usize,
    /// What stands before the first block.
    pub stem: Stem,
    /// Filters of each stage; each but the first halves height and width.
    pub width: Vec<usize>,
    /// Blocks of each stage.
    pub blocks: Vec<usize>,
    /// Outputs.
    pub classes: usize,
}

impl ResNet {
    /// ResNet-18.
    #[must_use]
    pub fn resnet18(classes: usize) -> Self {
        Self {
            channels: 3,
            stem: Stem::ImageNet,
            width: vec![64, 128, 256, 512],
            blocks: vec![2; 4],
            classes,
        }
    }

    /// ResNet-34.
    #[must_use]
    pub fn resnet34(classes: usize) -> Self {
        Self { blocks: vec![3, 4, 6, 3], ..Self::resnet18(classes) }
    }

    /// ResNet-20 for images of 32 × 32, the paper's smallest for CIFAR-10.
    #[must_use]
    pub fn cifar(classes: usize) -> Self {
        Self { channels: 3, stem: Stem::Cifar, width: vec![16, 32, 64], blocks: vec![3; 3], classes }
    }

    /// x (N, channels, H, W) → logits (N, classes).
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Sequential<T> {
        let mut inputs = self.width.first().copied().unwrap_or(0);
        let (stem, large) = (Conv2d::new(self.channels, inputs, 3).padding(1), self.stem == Stem::ImageNet);
        let stem = if large { Conv2d::new(self.channels, inputs, 7).stride(2).padding(3) } else { stem };
        let mut net = Sequential::of()
            .named("conv1", stem.bias(false))
            .named("bn1", BatchNorm2d::new(inputs))
            .named("relu", Relu::new());
        net = match large {
            true => net.named("maxpool", MaxPool2d::new(3).stride(2).padding(1)),
            false => net.named("maxpool", Identity::new()),
        };
        for (i, (&filters, &blocks)) in self.width.iter().zip(&self.blocks).enumerate() {
            let mut stage = Sequential::of();
            for j in 0..blocks {
                let stride = if i > 0 && j == 0 { 2 } else { 1 };
                stage = stage.add(block(inputs, filters, stride));
                inputs = filters;
            }
            net = net.named(format!("layer{}", i + 1), stage);
        }
        net.named("avgpool", AdaptiveAvgPool2d::new(1))
            .named("flatten", Flatten::new())
            .named("fc", Linear::new(inputs, self.classes))
    }
}

/// y = relu(bn2(conv2(relu(bn1(conv1 x)))) + shortcut x); the shortcut is x itself where the shapes agree.
fn block<T: Scalar>(inputs: usize, filters: usize, stride: usize) -> Graph<T> {
    let conv = |inputs, stride| Conv2d::new(inputs, filters, 3).stride(stride).padding(1).bias(false);
    let mut graph = Graph::of();
    let x = graph.input("x");
    let y = graph.add("conv1", conv(inputs, stride), x);
    let y = graph.add("bn1", BatchNorm2d::new(filters), y);
    let y = graph.add("relu", Relu::new(), y);
    let y = graph.add("conv2", conv(filters, 1), y);
    let y = graph.add("bn2", BatchNorm2d::new(filters), y);
    let shortcut = if stride == 1 && inputs == filters {
        x
    } else {
        let fit = Conv2d::new(inputs, filters, 1).stride(stride).bias(false);
        graph.add("downsample", Sequential::of().add(fit).add(BatchNorm2d::new(filters)), x)
    };
    let y = graph.add("sum", Add::new(), [y, shortcut]);
    let y = graph.again("relu", y);
    graph.output("y", y);
    graph
}
