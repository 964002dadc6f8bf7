//! U-Net (Ronneberger, Fischer and Brox, 2015).

use chainrule_core::Scalar;
use chainrule_layers::{BatchNorm2d, Concat, Conv2d, ConvTranspose2d, Graph, MaxPool2d, Relu, Sequential};

/// Down by pools of 2 × 2, up by transposed convolutions; each level on the way up also sees its image from the way down.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::UNet;
/// let model = UNet { width: vec![8, 16], ..UNet::new(1, 3) }.build().init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([2, 1, 24, 16]))?.shape()[..], [2, 3, 24, 16]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct UNet {
    /// Channels of the image.
    pub channels: usize,
    /// Filters of each level; height and width divide by 2 for each but the first.
    pub width: Vec<usize>,
    /// The kernel of the transposed convolutions, even.
    pub up_kernel: usize,
    /// Channels of the answer.
    pub classes: usize,
}

impl UNet {
    /// Five levels, as in the paper, with padding so that the answer has the image's size.
    #[must_use]
    pub fn new(channels: usize, classes: usize) -> Self {
        Self { channels, width: vec![64, 128, 256, 512, 1024], up_kernel: 2, classes }
    }

    /// x (N, channels, H, W) → logits (N, classes, H, W).
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Graph<T> {
        let (mut graph, width) = (Graph::of(), &self.width);
        let x = graph.input("x");
        let first = width.first().copied().unwrap_or(0);
        let mut skips = vec![graph.add("inc", convolutions(self.channels, first), x)];
        for (i, pair) in width.windows(2).enumerate() {
            let small = graph.add(format!("pool.{i}"), MaxPool2d::new(2), skips[i]);
            skips.push(graph.add(format!("down.{i}"), convolutions(pair[0], pair[1]), small));
        }
        let mut y = skips.pop().unwrap_or(x);
        for (i, pair) in width.windows(2).rev().enumerate() {
            let padding = self.up_kernel.saturating_sub(2) / 2;
            let up = ConvTranspose2d::new(pair[1], pair[0], self.up_kernel).stride(2).padding(padding);
            let large = graph.add(format!("up.{i}"), up, y);
            let skip = skips.pop().unwrap_or(x);
            let both = graph.add(format!("concat.{i}"), Concat::new(1), [skip, large]);
            y = graph.add(format!("dec.{i}"), convolutions(pair[0].saturating_mul(2), pair[0]), both);
        }
        let logits = graph.add("outc", Conv2d::new(first, self.classes, 1), y);
        graph.output("logits", logits);
        graph
    }
}

/// Two convolutions of 3 × 3, each normalised, with ReLU.
fn convolutions<T: Scalar>(inputs: usize, filters: usize) -> Sequential<T> {
    let conv = |inputs| Conv2d::new(inputs, filters, 3).padding(1).bias(false);
    Sequential::of()
        .add(conv(inputs))
        .add(BatchNorm2d::new(filters))
        .add(Relu::new())
        .add(conv(filters))
        .add(BatchNorm2d::new(filters))
        .add(Relu::new())
}
