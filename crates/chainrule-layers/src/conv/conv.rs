//! The convolution (strictly a cross-correlation, as everywhere in this field). Over two axes:
//!
//! ```text
//! y[n, k, i, j] = b[k] + Σ over c, r, s of W[k, c, r, s] · x[n, c, i·stride + r·dilation − p, j·stride + s·dilation − p]
//! ```
//!
//! Given G = ∂E/∂y, where (a, b) is the pixel that tap (r, s) of window (i, j) reads:
//!
//! ```text
//! ∂E/∂x[n, c, a, b] = Σ over k and all (i, j), (r, s) that read it of W[k, c, r, s] · G[n, k, i, j]
//! ∂E/∂W[k, c, r, s] = Σ over n, i, j of G[n, k, i, j] · x[n, c, a, b]        ∂E/∂b[k] = Σ over n, i, j of G[n, k, i, j]
//! ```
//!
//! Keeps nothing but scratch space. Derivation: docs/layers/conv/conv2d.md; sequences and what is causal: conv1d.md; volumes: conv3d.md.

use super::{Padding, PaddingMode, filters};
use crate::{
    Sizes,
    rank::{axes_of, check_shape, join, split},
};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Init, Layer, Param, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::{
    layers::conv::{
        Filters, Geometry, Workspace, conv, conv_input_gradient, conv_weight_gradient, workspace_bytes,
    },
    layers::pad::{pad, pad_gradient},
    reduce::add_planes_to,
};

/// y = W ⋆ x + b over R axes: every filter is applied at every window. LeCun, Bottou, Bengio and Haffner, 1998.
///
/// # Shapes
/// x (N, in, H, W), y (N, out, H′, W′) with H′ = ⌊(H + top + bottom − dilation·(kernel − 1) − 1)/stride⌋ + 1; `weight`
/// (out, in/groups, kernel height, kernel width), `bias` (out). Both start uniform in ±1/√fan-in, as PyTorch's do.
///
/// # Errors
/// Groups that do not divide the channels, sizes of 0, "same" padding with a stride, causal padding of more than one axis: when
/// built.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::Conv2d;
/// let layer = Conv2d::new(3, 16, 3).stride(2).padding(1).init(1)?;
/// let y = layer.infer(&Tensor::<f32>::zeros([8, 3, 32, 32]))?;
/// assert_eq!(y.shape()[..], [8, 16, 16, 16]);
/// let layer = chainrule_layers::Conv1d::new(3, 16, 3).padding(chainrule_layers::Padding::Causal).init(1)?;
/// assert_eq!(layer.infer(&Tensor::<f32>::zeros([8, 3, 100]))?.shape()[..], [8, 16, 100]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Conv<const R: usize, T = f32> {
    inputs: usize,
    outputs: usize,
    kernel: [usize; R],
    stride: [usize; R],
    padding: Padding<R>,
    padding_mode: PaddingMode,
    dilation: [usize; R],
    groups: usize,
    /// Initialisers other than the default.
    weight_init: Option<Init>,
    bias_init: Option<Init>,
    weight: Param<T>,
    bias: Option<Param<T>>,
}

/// The convolution of sequences.
pub type Conv1d<T = f32> = Conv<1, T>;
/// The convolution of images.
pub type Conv2d<T = f32> = Conv<2, T>;
/// The convolution of volumes.
pub type Conv3d<T = f32> = Conv<3, T>;

/// Scratch space; forward leaves nothing in it that backward needs.
#[derive(Debug)]
pub struct ConvCache<const R: usize, T: Scalar> {
    work: Workspace<T>,
    /// With a padding that is not zeros: the padded input, (N, in, …), its gradient, and the source of each of its elements
    /// along each axis.
    padded: Tensor<T>,
    dpadded: Tensor<T>,
    sources: [Vec<usize>; R],
}

impl<const R: usize, T: Scalar> Default for ConvCache<R, T> {
    fn default() -> Self {
        Self {
            work: Workspace::default(),
            padded: Tensor::default(),
            dpadded: Tensor::default(),
            sources: [const { Vec::new() }; R],
        }
    }
}

impl<const R: usize, T: Scalar> Conv<R, T> {
    const NAME: &'static str = ["Conv1d", "Conv2d", "Conv3d"][R - 1];

    /// A convolution from `inputs` to `outputs` channels with windows of a size (`3`, `[3, 5]`), at stride 1, without
    /// padding, with a bias.
    pub fn new(inputs: usize, outputs: usize, kernel: impl Into<Sizes<R>>) -> Self {
        let Sizes(kernel) = kernel.into();
        let layer = Self {
            inputs,
            outputs,
            kernel,
            stride: [1; R],
            padding: 0.into(),
            padding_mode: PaddingMode::Zeros,
            dilation: [1; R],
            groups: 1,
            weight_init: None,
            bias_init: None,
            weight: Param::new("weight", [], Init::ZEROS),
            bias: None,
        };
        layer.with_parameters(true)
    }

    /// The distance between windows, 1 by default.
    #[must_use]
    pub fn stride(self, stride: impl Into<Sizes<R>>) -> Self {
        let Sizes(stride) = stride.into();
        Self { stride, ..self }
    }

    /// How far the input is padded at its ends, not at all by default.
    #[must_use]
    pub fn padding(self, padding: impl Into<Padding<R>>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    /// What the input is padded with, zeros by default.
    #[must_use]
    pub fn padding_mode(self, padding_mode: PaddingMode) -> Self {
        Self { padding_mode, ..self }
    }

    /// The distance between the taps of a window, 1 by default.
    #[must_use]
    pub fn dilation(self, dilation: impl Into<Sizes<R>>) -> Self {
        let Sizes(dilation) = dilation.into();
        Self { dilation, ..self }
    }

    /// Groups of channels, of which each filter sees one; as many as channels for a depthwise convolution.
    #[must_use]
    pub fn groups(self, groups: usize) -> Self {
        let bias = self.bias.is_some();
        Self { groups, ..self }.with_parameters(bias)
    }

    /// With or without a bias.
    #[must_use]
    pub fn bias(self, bias: bool) -> Self {
        self.with_parameters(bias)
    }

    /// Another initialiser for the weight.
    #[must_use]
    pub fn weight_init(self, init: Init) -> Self {
        let bias = self.bias.is_some();
        Self { weight_init: Some(init), ..self }.with_parameters(bias)
    }

    /// Another initialiser for the bias.
    #[must_use]
    pub fn bias_init(self, init: Init) -> Self {
        let bias = self.bias.is_some();
        Self { bias_init: Some(init), ..self }.with_parameters(bias)
    }

    /// Its parameters made from its settings.
    fn with_parameters(self, bias: bool) -> Self {
        let (shape, inits) = (self.weight_shape().ok(), [self.weight_init, self.bias_init]);
        let (weight, bias) = filters::parameters(shape, self.outputs, bias, inits, self.default_init());
        Self { weight, bias, ..self }
    }

    /// (out, in/groups, kernel…)
    fn weight_shape(&self) -> Result<Shape> {
        let inputs = self.inputs.checked_div(self.groups).unwrap_or(0);
        join([self.outputs, inputs], self.kernel)
    }

    fn default_init(&self) -> Init {
        filters::default_init(self.inputs.checked_div(self.groups).unwrap_or(0), &self.kernel)
    }

    /// Elements that a window spans.
    fn span(&self) -> [usize; R] {
        std::array::from_fn(|axis| self.dilation[axis] * (self.kernel[axis] - 1) + 1)
    }

    /// Whether the input is padded before the convolution, and not by it.
    fn pads(&self, sides: [[usize; 2]; R]) -> bool {
        self.padding_mode != PaddingMode::Zeros && sides != [[0; 2]; R]
    }

    /// The convolution of inputs (N, in, …).
    fn geometry(&self, input: &[usize], padding: [[usize; 2]; R]) -> Geometry<R> {
        Geometry {
            images: input[0],
            channels: self.inputs,
            filters: self.outputs,
            groups: self.groups,
            input: axes_of(input),
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            padding,
        }
    }

    /// The geometry and the input that the kernels see for an output (N, out, …): x, or x padded.
    fn padded<'a>(
        &self,
        x: &'a Tensor<T>,
        output: &[usize],
        padded: &'a mut Tensor<T>,
        sources: &mut [Vec<usize>; R],
    ) -> (Geometry<R>, &'a [T]) {
        let (shape, sides) = (*x.shape(), self.padding.sides(self.span()));
        if !self.pads(sides) {
            return (self.geometry(&shape, sides), x.data());
        }
        let (mut larger, mut geometry) = (shape, self.geometry(&shape, [[0; 2]; R]));
        for (axis, sources) in sources.iter_mut().enumerate() {
            let (n, [before, after]) = (shape[axis + 2], sides[axis]);
            let (kernel, stride, dilation) = (self.kernel[axis], self.stride[axis], self.dilation[axis]);
            let (windows, all) = (output[axis + 2], before + n + after);
            sources.clear();
            // Where windows or taps are far apart they read a part of the padded axis, which is laid out window by window.
            let read = windows.saturating_mul(kernel);
            if read < all {
                let place = |i: usize| i / kernel * stride + i % kernel * dilation;
                sources.extend((0..read).map(|i| self.padding_mode.source(place(i), n, before)));
                (geometry.stride[axis], geometry.dilation[axis]) = (kernel, 1);
            } else {
                sources.extend((0..all).map(|i| self.padding_mode.source(i, n, before)));
            }
            geometry.input[axis] = sources.len();
            larger = larger.with(axis + 2, sources.len());
        }
        pad(x.data(), padded.reset(larger), axes_of(&shape), sources.each_ref().map(Vec::as_slice));
        (geometry, padded.data())
    }
}

impl<const R: usize, T: Scalar> Layer for Conv<R, T> {
    type T = T;
    type Cache = ConvCache<R, T>;

    fn check(&self) -> Result<()> {
        let (stride, channels) = (self.stride, [self.inputs, self.outputs, self.groups]);
        filters::check(Self::NAME, channels, [self.kernel, stride, self.dilation])?;
        self.padding.check(Self::NAME)?;
        if self.padding == Padding::Same && stride.iter().any(|&stride| stride != 1) {
            return Err(Error::value(format!(
                "{}: expected stride 1 with padding \"same\", got stride {stride:?}",
                Self::NAME
            )));
        }
        check_shape(Self::NAME, self.weight_shape())
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        Shape::new(input)?; // lengths that can be added
        let ([n, c], mut axes): (_, [usize; R]) = split(Self::NAME, Some(self.inputs), input)?;
        let sides = self.padding.sides(self.span());
        if self.pads(sides) {
            for (n, side) in axes.iter_mut().zip(sides) {
                self.padding_mode.check(Self::NAME, *n, side)?;
                *n += side[0] + side[1];
            }
            join([n, c], axes)?;
        }
        let output = self.geometry(input, sides).output();
        if output.contains(&0) {
            return Err(Error::shape(format!(
                "{}: expected an input that holds a window of {:?} at dilation {:?}, got {input:?}",
                Self::NAME,
                self.kernel,
                self.dilation
            )));
        }
        join([n, self.outputs], output)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let y = y.reset(shape);
        let ConvCache { work, padded, sources, .. } = cache;
        let (geometry, x) = self.padded(x, &shape, padded, sources);
        let bias = self.bias.as_ref().map(Param::value).transpose()?; // (K)
        let w = self.weight.value()?;
        // In training the weight is another one in every pass.
        let filters =
            if cx.recording() { Filters::new(w) } else { Filters::versioned(w, self.weight.version()) };
        conv(&geometry, x, filters, bias, y, work); // y = W ⋆ x + b
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let (shape, dy) = (*call.x.shape(), call.dy.data());
        let ConvCache { work, padded, dpadded, sources } = cache;
        let (geometry, x) = self.padded(call.x, call.dy.shape(), padded, sources);
        if let Some(dw) = grads.of(&self.weight) {
            conv_weight_gradient(&geometry, x, dy, dw, work); // dW += dy ⋆ x
        }
        if let Some(db) = self.bias.as_ref().and_then(|bias| grads.of(bias)) {
            let plane = call.dy.shape()[2..].iter().product();
            add_planes_to(dy, plane, db); // db += Σ over n, i, j of dy
        }
        let Some(dx) = dx else { return Ok(()) };
        let (dx, w) = (dx.reset(shape), self.weight.value()?);
        if !self.pads(self.padding.sides(self.span())) {
            conv_input_gradient(&geometry, w, dy, dx, work); // dx = Wᵀ ⋆ dy
        } else {
            conv_input_gradient(&geometry, w, dy, dpadded.reset(*padded.shape()), work);
            let sources = sources.each_ref().map(Vec::as_slice);
            pad_gradient(dpadded.data(), dx, axes_of(&shape), sources); // dx[i] = Σ over the copies of i
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.weight);
        self.bias.iter().for_each(|bias| out.add(bias));
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.weight);
        self.bias.iter_mut().for_each(|bias| out.add(bias));
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        let Ok(output) = self.output_shape(input) else { return 0 };
        let (pixels, filter) = (output.volume() / self.outputs, self.weight.volume());
        (pixels as u64).saturating_mul(filter as u64)
    }

    fn cache_bytes(&self, input: &[usize], dx: bool) -> usize {
        if self.output_shape(input).is_err() {
            return 0;
        }
        let (sides, mut shape) = (self.padding.sides(self.span()), input.to_vec());
        let pads = self.pads(sides);
        let mut bytes = 0;
        if pads {
            shape[2..].iter_mut().zip(sides).for_each(|(n, side)| *n += side[0] + side[1]);
            let padded = shape.iter().fold(size_of::<T>(), |n, &axis| n.saturating_mul(axis));
            bytes = padded.saturating_mul(1 + usize::from(dx)); // the padded input and its gradient
        }
        let geometry = self.geometry(&shape, if pads { [[0; 2]; R] } else { sides });
        workspace_bytes::<T, R>(&geometry, [self.weight.trainable(), dx]).saturating_add(bytes)
    }

    fn spec(&self) -> Spec {
        let default = self.default_init();
        Spec::new(Self::NAME)
            .with("in_channels", self.inputs)
            .with("out_channels", self.outputs)
            .with("kernel_size", self.kernel)
            .with("stride", self.stride)
            .with("padding", self.padding)
            .with("dilation", self.dilation)
            .with("groups", self.groups)
            .with("bias", self.bias.is_some())
            .with("padding_mode", self.padding_mode)
            .with_unless(default, "weight_init", self.weight_init.unwrap_or(default))
            .with_unless(default, "bias_init", self.bias_init.unwrap_or(default))
    }
}

impl<const R: usize, T: Scalar> FromSpec<T> for Conv<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("conv")
        .formula("Σ W ⋆ x + b")
        .page(["layers/conv/conv1d.md", "layers/conv/conv2d.md", "layers/conv/conv3d.md"][R - 1])
        .torch(Self::NAME);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let kernel: [usize; R] = args.get("kernel_size")?;
        let layer = Self::new(args.get("in_channels")?, args.get("out_channels")?, kernel)
            .stride(args.or("stride", [1; R])?)
            .padding(args.or("padding", Padding::from(0))?)
            .dilation(args.or("dilation", [1; R])?)
            .groups(args.or("groups", 1)?)
            .padding_mode(args.or("padding_mode", PaddingMode::Zeros)?);
        let (weight_init, bias_init) = (args.optional("weight_init")?, args.optional("bias_init")?);
        Ok(Self { weight_init, bias_init, ..layer }.bias(args.or("bias", true)?))
    }

    fn examples() -> Vec<Example> {
        let sides: [[usize; 2]; R] = std::array::from_fn(|axis| [[1, 0], [0, 2]][axis % 2]);
        let strided = Self::new(4, 6, std::array::from_fn(|axis| 3 - axis % 2))
            .stride(std::array::from_fn(|axis| 2 - axis % 2))
            .padding(sides)
            .dilation(std::array::from_fn(|axis| 1 + axis % 2));
        let reflected = Self::new(2, 2, 3).padding(Padding::Same).padding_mode(PaddingMode::Reflect);
        // (N, C) and axes of one length, the last of them longer by one.
        let sized = |n: usize, c: usize, axis: usize, longer: usize| {
            let mut shape = [n, c, axis, axis, axis];
            shape[R + 1] += longer;
            Shape::new(&shape[..R + 2]).unwrap_or_default()
        };
        let bench = |layer: Self, input: Shape| Example::bench(layer.spec(), [input]);
        let mut examples = vec![
            Example::new(Self::new(2, 3, 3).spec(), [sized(2, 2, 5, 1)]),
            Example::new(strided.groups(2).bias(false).spec(), [sized(2, 4, 6, 1)]),
            Example::new(reflected.weight_init(Init::kaiming_normal()).spec(), [sized(1, 2, 4, 1)]),
        ];
        examples.extend(match R {
            1 => vec![
                Example::new(Self::new(2, 2, 3).dilation(2).padding(Padding::Causal).spec(), [[2, 2, 7]]),
                bench(Self::new(64, 64, 3).padding(1), sized(16, 64, 1024, 0)),
                bench(Self::new(64, 64, 3).dilation(4).padding(Padding::Causal), sized(16, 64, 1024, 0)),
            ],
            2 => vec![
                bench(Self::new(64, 64, 3).padding(1), sized(16, 64, 32, 0)),
                bench(Self::new(64, 128, 1), sized(16, 64, 32, 0)),
                bench(Self::new(1, 6, 5).padding(2), sized(64, 1, 28, 0)),
                bench(Self::new(64, 64, 3).padding(1).groups(64), sized(16, 64, 32, 0)),
            ],
            _ => vec![
                bench(Self::new(32, 32, 3).padding(1), sized(2, 32, 16, 0)),
                bench(Self::new(3, 32, 3).padding(1).stride(2), sized(2, 3, 32, 0)),
            ],
        });
        examples
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Parameters;
    use chainrule_gradcheck::laws;
    use proptest::prelude::*;

    laws! {
        obeys_the_laws(
            groups in 1..4usize, [inputs, outputs] in [1..4usize, 1..4], kernel in [1..4usize, 1..4],
            stride in [1..4usize, 1..4], dilation in [1..3usize, 1..3],
            padding in prop_oneof![
                Just(Padding::Valid),
                Just(Padding::Same),
                [[0..3usize, 0..3], [0..3, 0..3]].prop_map(Padding::Sides),
            ],
            mode in prop_oneof![
                Just(PaddingMode::Zeros),
                Just(PaddingMode::Reflect),
                Just(PaddingMode::Replicate),
                Just(PaddingMode::Circular),
            ],
            bias in any::<bool>(), n in 1..3usize, extra in [0..5usize, 0..5],
        ) {
            layer: Conv2d::new(groups * inputs, groups * outputs, kernel)
                .stride(if padding == Padding::Same { [1, 1] } else { stride })
                .dilation(dilation)
                .padding(padding)
                .padding_mode(mode)
                .groups(groups)
                .bias(bias),
            // Room for a window, and for a reflection.
            input: {
                let room = |axis: usize| ((kernel[axis] - 1) * dilation[axis] + 1).max(3) + extra[axis];
                [n, groups * inputs, room(0), room(1)]
            },
            wrong: [n, groups * inputs + 1, 9, 9],
            wrong: [n, groups * inputs, 9],
        }
    }

    laws! {
        #![cases = 6]
        obeys_the_laws_where_winograd_serves(
            [inputs, outputs] in [8..12usize, 8..12], padding in 0..3usize, n in 1..3usize, [h, w] in [3..9usize, 3..9],
        ) {
            layer: Conv2d::new(inputs, outputs, 3).padding(padding),
            input: [n, inputs, h, w],
            large: [4, inputs, 40, 40],
        }
    }

    /// Options of an axis: kernel, stride, dilation, padding, elements beyond what a window or a reflection needs.
    fn axis() -> impl Strategy<Value = [usize; 6]> {
        [1..4usize, 1..4, 1..3, 0..3, 0..3, 0..4]
    }

    fn padding_mode() -> impl Strategy<Value = PaddingMode> {
        prop_oneof![
            Just(PaddingMode::Zeros),
            Just(PaddingMode::Reflect),
            Just(PaddingMode::Replicate),
            Just(PaddingMode::Circular),
        ]
    }

    /// A convolution with these options, padded "same", "valid", causally or by sides as `kind` says.
    fn layer<const R: usize, T: Scalar>(
        axes: [[usize; 6]; R],
        [groups, inputs, outputs]: [usize; 3],
        mode: PaddingMode,
        kind: usize,
    ) -> Conv<R, T> {
        let padding = match kind {
            0 => Padding::Same,
            1 => Padding::Valid,
            2 if R == 1 => Padding::Causal,
            _ => Padding::Sides(axes.map(|[.., before, after, _]| [before, after])),
        };
        Conv::new(groups * inputs, groups * outputs, axes.map(|axis| axis[0]))
            .stride(axes.map(|axis| if kind == 0 { 1 } else { axis[1] }))
            .dilation(axes.map(|axis| axis[2]))
            .padding(padding)
            .padding_mode(mode)
            .groups(groups)
            .bias(kind.is_multiple_of(2))
    }

    fn room([kernel, _, dilation, .., extra]: [usize; 6]) -> usize {
        let span = (kernel - 1) * dilation + 1;
        (2 * span).max(3) + extra
    }

    laws! {
        convolutions_of_sequences_obey_the_laws(
            a in axis(), sizes in [1..4usize, 1..4, 1..4], mode in padding_mode(), kind in 0..4usize, n in 1..3usize,
        ) {
            layer: layer::<1, T>([a], sizes, mode, kind),
            input: [n, sizes[0] * sizes[1], room(a)],
            wrong: [n, sizes[0] * sizes[1] + 1, 9],
            wrong: [n, sizes[0] * sizes[1], 9, 9],
        }
    }

    laws! {
        #![cases = 24]
        convolutions_of_volumes_obey_the_laws(
            axes in [axis(), axis(), axis()], sizes in [1..3usize, 1..3, 1..3], mode in padding_mode(), kind in 0..4usize,
            n in 1..3usize,
        ) {
            layer: layer::<3, T>(axes, sizes, mode, kind),
            input: [n, sizes[0] * sizes[1], room(axes[0]), room(axes[1]), room(axes[2])],
            wrong: [n, sizes[0] * sizes[1] + 1, 9, 9, 9],
            wrong: [n, sizes[0] * sizes[1], 9, 9],
            large: [4, sizes[0] * sizes[1], 16, 16, 16],
        }
    }

    /// x = 1 2 3 under W = (1 10) at dilation 2, padded by two zeros before: 0 0 1 2 3 gives y = (10, 20, 1 + 30).
    /// For g = (1, 2, 4): ∂W = (4·1, 1·1 + 2·2 + 4·3), ∂x = (10 + 4, 20, 40).
    #[test]
    fn causal_by_hand() {
        let layer = Conv1d::new(1, 1, 2).dilation(2).padding(Padding::Causal).bias(false);
        let mut layer = layer.init(0).unwrap();
        layer.weight.value_mut().unwrap().copy_from_slice(&[1., 10.]);
        let row = |v: [f64; 3]| Tensor::from_vec([1, 1, 3], v.to_vec()).unwrap();
        let (x, dy) = (row([1., 2., 3.]), row([1., 2., 4.]));
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), ConvCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y, row([10., 20., 31.]));
        let mut grads = Grads::new(&layer);
        layer
            .backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!((dx, grads.values()), (row([14., 20., 40.]), &[4., 17.][..]));
        let images = Conv2d::<f32>::new(1, 1, 2).padding(Padding::Causal).init(0).unwrap_err().to_string();
        assert!(images.contains("causal padding of one axis, got 2 axes"), "{images}");
    }

    /// A volume of depth 3 with one pixel a slice, 1 2 3, under W = (1 10) along the depth: y = (21, 32). For g = (1, 2):
    /// ∂W = (1 + 4, 2 + 6), ∂x = (1, 10 + 2, 20).
    #[test]
    fn a_volume_by_hand() {
        let mut layer = Conv3d::new(1, 1, [2, 1, 1]).bias(false).init(0).unwrap();
        layer.weight.value_mut().unwrap().copy_from_slice(&[1., 10.]);
        let column = |v: &[f64]| Tensor::from_vec([1, 1, v.len(), 1, 1], v.to_vec()).unwrap();
        let (x, dy) = (column(&[1., 2., 3.]), column(&[1., 2.]));
        let (mut y, mut dx, mut cache) = (Tensor::default(), Tensor::default(), ConvCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y, column(&[21., 32.]));
        let mut grads = Grads::new(&layer);
        layer
            .backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!((dx, grads.values()), (column(&[1., 12., 20.]), &[5., 8.][..]));
    }

    fn image(rows: &[[f64; 3]]) -> Tensor<f64> {
        Tensor::from_vec([1, 1, rows.len(), 3], rows.as_flattened().to_vec()).unwrap()
    }

    fn with_weight(layer: Conv2d<f64>, weight: &[f64]) -> Conv2d<f64> {
        let mut layer = layer.init(0).unwrap();
        layer.weight.value_mut().unwrap().copy_from_slice(weight);
        layer
    }

    /// x = (1 2 3; 4 5 6), W = (1 10; 100 1000), b = ½: y = (1 + 20 + 400 + 5000 + ½, 2 + 30 + 500 + 6000 + ½).
    /// For g = (1, 2): ∂W = (1·1 + 2·2, 1·2 + 2·3; 1·4 + 2·5, 1·5 + 2·6) = (5 8; 14 17), ∂b = 3,
    /// ∂x = (1·1, 1·10 + 2·1, 2·10; 1·100, 1·1000 + 2·100, 2·1000).
    #[test]
    pub fn by_hand() {
        let mut layer = with_weight(Conv2d::new(1, 1, 2), &[1., 10., 100., 1000.]);
        layer.bias.as_mut().unwrap().value_mut().unwrap()[0] = 0.5;
        let x = image(&[[1., 2., 3.], [4., 5., 6.]]);
        let (mut y, mut cache) = (Tensor::default(), ConvCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!((&y.shape()[..], y.data()), (&[1, 1, 1, 2][..], &[5421.5, 6532.5][..]));
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let dy = Tensor::from_vec([1, 1, 1, 2], vec![1., 2.]).unwrap();
        layer
            .backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!(dx, image(&[[1., 12., 20.], [100., 1200., 2000.]]));
        assert_eq!(grads.values(), [5., 8., 14., 17., 3.]);
    }

    /// One row 1 2 3, padded by one pixel on the left and two on the right, under a window (1 10): each output is
    /// x[i] + 10 x[i + 1] of the padded row.
    #[test]
    fn paddings_by_hand() {
        for (mode, extended) in [
            (PaddingMode::Zeros, [0., 1., 2., 3., 0., 0.]),
            (PaddingMode::Reflect, [2., 1., 2., 3., 2., 1.]),
            (PaddingMode::Replicate, [1., 1., 2., 3., 3., 3.]),
            (PaddingMode::Circular, [3., 1., 2., 3., 1., 2.]),
        ] {
            let layer = Conv2d::new(1, 1, [1, 2]).padding([[0, 0], [1, 2]]).padding_mode(mode).bias(false);
            let layer = with_weight(layer, &[1., 10.]);
            let (x, mut y, mut cache) = (image(&[[1., 2., 3.]]), Tensor::default(), ConvCache::default());
            layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
            let expected: Vec<f64> = extended.windows(2).map(|w| w[0] + 10. * w[1]).collect();
            assert_eq!(y.data(), expected, "{mode:?}");
        }
    }

    #[test]
    fn same_keeps_the_size_and_valid_does_not() {
        let shape = |layer: Conv2d<f32>| layer.output_shape(&[2, 4, 7, 9]).map(|s| [s[1], s[2], s[3]]);
        let layer = || Conv2d::new(4, 6, [3, 4]).dilation([1, 2]);
        assert_eq!(shape(layer().padding(Padding::Same)).unwrap(), [6, 7, 9]);
        assert_eq!(shape(layer().padding(Padding::Valid)).unwrap(), [6, 5, 3]);
        assert_eq!(shape(layer().padding((1, 3)).stride(2).groups(2)).unwrap(), [6, 4, 5]);
        assert_eq!(Conv2d::<f32>::new(4, 6, 3).groups(2).bias(false).parameter_count(), 6 * 2 * 9);
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        let text = |layer: Conv2d<f32>| layer.init(0).unwrap_err().to_string();
        assert_eq!(
            text(Conv2d::new(4, 6, 3).groups(4)),
            "Conv2d: expected groups that divide 4 channels in and 6 out, got 4"
        );
        assert_eq!(
            text(Conv2d::new(4, 6, 3).stride([1, 2]).padding(Padding::Same)),
            "Conv2d: expected stride 1 with padding \"same\", got stride [1, 2]"
        );
        for layer in [
            Conv2d::<f32>::new(0, 6, 3),
            Conv2d::new(4, 0, 3),
            Conv2d::new(4, 6, [3, 0]),
            Conv2d::new(4, 6, 3).stride(0),
            Conv2d::new(4, 6, 3).dilation(0),
            Conv2d::new(4, 6, 3).dilation(usize::MAX),
            Conv2d::new(4, 6, 3).padding(usize::MAX),
            Conv2d::new(4, 6, 3).groups(0),
        ] {
            assert!(layer.init(0).is_err());
        }
    }

    #[test]
    fn wrong_images_say_what_was_expected() {
        let layer = Conv2d::<f32>::new(3, 6, 5);
        let text = |layer: &Conv2d<f32>, shape: &[usize]| layer.output_shape(shape).unwrap_err().to_string();
        assert_eq!(
            text(&layer, &[2, 4, 8, 8]),
            "Conv2d: expected input (N, 3, H, W) with at least one element per channel, got [2, 4, 8, 8]"
        );
        assert!(text(&layer, &[2, 3, 8, 4]).contains("holds a window of [5, 5]"));
        assert!(layer.output_shape(&[3, 8, 8]).is_err() && layer.output_shape(&[1, 3, 0, 8]).is_err());
        let reflect = layer.padding(4).padding_mode(PaddingMode::Reflect);
        assert!(text(&reflect, &[1, 3, 4, 8]).contains("got padding 4 of 4 elements"));
        assert_eq!(*reflect.output_shape(&[0, 3, 5, 8]).unwrap(), [0, 6, 9, 12]);
    }
}
