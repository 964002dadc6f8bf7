//! ConvNeXt (Liu et al., 2022).

use chainrule_core::Scalar;
use chainrule_layers::{
    Add, Conv2d, Gelu, Graph, LayerNorm, LayerNorm2d, Linear, Mean, Permute, Scale, Sequential,
};

/// ε of every norm.
const EPS: f64 = 1e-6;

/// Stages of blocks: a wide depthwise convolution, a norm over the channels, and a perceptron of each pixel, scaled.
///
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_models::ConvNeXt;
/// let model = ConvNeXt { width: vec![12, 20], blocks: vec![1, 2], ..ConvNeXt::tiny(3, 5) }.build().init(1)?;
/// assert_eq!(model.infer(&Tensor::<f32>::zeros([2, 3, 32, 32]))?.shape()[..], [2, 5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConvNeXt {
    /// Channels of the image.
    pub channels: usize,
    /// Height and width of a patch, which becomes a pixel of the first stage.
    pub patch: usize,
    /// Filters of each stage; each but the first halves height and width.
    pub width: Vec<usize>,
    /// Blocks of each stage.
    pub blocks: Vec<usize>,
    /// The kernel of the depthwise convolutions.
    pub kernel: usize,
    /// Outputs.
    pub classes: usize,
}

impl ConvNeXt {
    /// ConvNeXt-T.
    #[must_use]
    pub fn tiny(channels: usize, classes: usize) -> Self {
        Self {
            channels,
            patch: 4,
            width: vec![96, 192, 384, 768],
            blocks: vec![3, 3, 9, 3],
            kernel: 7,
            classes,
        }
    }

    /// x (N, channels, H, W) → logits (N, classes).
    #[must_use]
    pub fn build<T: Scalar>(&self) -> Sequential<T> {
        let (mut net, mut inputs) = (Sequential::of(), self.channels);
        for (i, (&width, &blocks)) in self.width.iter().zip(&self.blocks).enumerate() {
            let down = match i {
                0 => Sequential::of()
                    .add(Conv2d::new(inputs, width, self.patch).stride(self.patch))
                    .add(LayerNorm2d::new(width).eps(EPS)),
                _ => Sequential::of()
                    .add(LayerNorm2d::new(inputs).eps(EPS))
                    .add(Conv2d::new(inputs, width, 2).stride(2)),
            };
            let stage = (0..blocks).fold(Sequential::of(), |stage, _| stage.add(self.block(width)));
            net = net.named(format!("downsample_layers.{i}"), down).named(format!("stages.{i}"), stage);
            inputs = width;
        }
        net.named("mean", Mean::new([-2, -1]))
            .named("norm", LayerNorm::new([inputs]).eps(EPS))
            .named("head", Linear::new(inputs, self.classes))
    }

    /// y = x + γ ⊙ pwconv2(gelu(pwconv1(norm(dwconv x))))
    fn block<T: Scalar>(&self, width: usize) -> Graph<T> {
        let wide = width.saturating_mul(4);
        let mut graph = Graph::of();
        let x = graph.input("x");
        let y = graph.add(
            "dwconv",
            Conv2d::new(width, width, self.kernel).padding(self.kernel / 2).groups(width),
            x,
        );
        let y = graph.add("last", Permute::new([0, 2, 3, 1]), y);
        let y = graph.add("norm", LayerNorm::new([width]).eps(EPS), y);
        let y = graph.add("pwconv1", Linear::new(width, wide), y);
        let y = graph.add("act", Gelu::new(), y);
        let y = graph.add("pwconv2", Linear::new(wide, width), y);
        let y = graph.add("gamma", Scale::new([width]).init_value(1e-6).bare(), y);
        let y = graph.add("first", Permute::new([0, 3, 1, 2]), y);
        let y = graph.add("sum", Add::new(), [x, y]);
        graph.output("y", y);
        graph
    }
}
