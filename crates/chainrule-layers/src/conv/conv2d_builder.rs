//! How a convolution is asked for.

use super::{Conv2d, Padding, PaddingMode};
use crate::Pair;
use chainrule_core::{Init, Param, Scalar};

impl<T: Scalar> Conv2d<T> {
    /// A convolution from `inputs` to `outputs` channels with windows of a size (`3`, `[3, 5]`), at stride 1, without
    /// padding, with a bias.
    pub fn new(inputs: usize, outputs: usize, kernel: impl Into<Pair>) -> Self {
        let layer = Self {
            inputs,
            outputs,
            kernel: kernel.into(),
            stride: 1.into(),
            padding: Padding::Valid,
            padding_mode: PaddingMode::Zeros,
            dilation: 1.into(),
            groups: 1,
            weight: Param::new("weight", [0], Init::ZEROS),
            bias: None,
        };
        layer.groups(1).bias(true)
    }

    /// The distance between windows, 1 by default.
    #[must_use]
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Self { stride: stride.into(), ..self }
    }

    /// How far the image is extended at its edges, not at all by default.
    #[must_use]
    pub fn padding(self, padding: impl Into<Padding>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    /// What the image is extended with, zeros by default.
    #[must_use]
    pub fn padding_mode(self, padding_mode: PaddingMode) -> Self {
        Self { padding_mode, ..self }
    }

    /// The distance between the taps of a window, 1 by default.
    #[must_use]
    pub fn dilation(self, dilation: impl Into<Pair>) -> Self {
        Self { dilation: dilation.into(), ..self }
    }

    /// Groups of channels, of which each filter sees one; as many as channels for a depthwise convolution.
    #[must_use]
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        let (inputs, init) = (self.inputs.checked_div(groups).unwrap_or(0), self.default_init());
        self.weight = Param::new("weight", [self.outputs, inputs, self.kernel.h, self.kernel.w], init);
        let bias = self.bias.is_some();
        self.bias(bias)
    }

    /// With or without a bias.
    #[must_use]
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias.then(|| Param::new("bias", [self.outputs], self.default_init()));
        self
    }

    /// Another initialiser for the weight; call it after [`Self::groups`].
    #[must_use]
    pub fn weight_init(mut self, init: Init) -> Self {
        self.weight.set_initializer(init);
        self
    }

    /// Another initialiser for the bias, if there is one; call it after [`Self::groups`].
    #[must_use]
    pub fn bias_init(mut self, init: Init) -> Self {
        if let Some(bias) = &mut self.bias {
            bias.set_initializer(init);
        }
        self
    }

    fn default_init(&self) -> Init {
        let channels = self.inputs.checked_div(self.groups).unwrap_or(0);
        Init::torch_default(channels * self.kernel.h * self.kernel.w)
    }
}
