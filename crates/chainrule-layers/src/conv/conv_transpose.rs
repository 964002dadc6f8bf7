//! The transposed convolution: the input gradient of a convolution as a layer. Over one axis, with the input of length n:
//!
//! ```text
//! y[n, k, a] = b[k] + Σ over c and all i, r with a = i·stride + r·dilation − padding of W[c, k, r] · x[n, c, i]
//! ```
//!
//! Given G = ∂E/∂y, which is 0 outside of y:
//!
//! ```text
//! ∂E/∂x[n, c, i] = Σ over k, r of W[c, k, r] · G[n, k, i·stride + r·dilation − padding]
//! ∂E/∂W[c, k, r] = Σ over n, i of x[n, c, i] · G[n, k, i·stride + r·dilation − padding]        ∂E/∂b[k] = Σ over n, a of G[n, k, a]
//! ```
//!
//! Keeps nothing but scratch space. Derivation: docs/layers/conv/conv_transpose.md.

use super::filters;
use crate::{
    Sizes,
    rank::{axes_of, check_shape, check_sizes, join, split},
};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Init, Layer, Param, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{
    compiled,
    kernels::{
        layers::conv::{
            Filters, Geometry, Workspace, conv, conv_input_gradient, conv_weight_gradient, workspace_bytes,
        },
        layers::pad::{pad, pad_gradient},
        reduce::add_planes_to,
    },
    par,
};

/// y = Wᵀ ⋆ x + b over R axes: every element of x adds a multiple of every filter to y, where a convolution would have read it.
/// Zeiler, Krishnan, Taylor and Fergus, 2010.
///
/// # Shapes
/// x (N, in, H, W), y (N, out, H′, W′) with H′ = (H − 1)·stride − 2·padding + dilation·(kernel − 1) + 1 + output padding; `weight`
/// (in, out/groups, kernel height, kernel width), `bias` (out). Both start uniform in ±1/√(out/groups · kernel elements), as
/// PyTorch's do.
///
/// # Errors
/// Groups that do not divide the channels, sizes of 0, an output padding that is not below the stride or the dilation: when built.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::ConvTranspose2d;
/// let layer = ConvTranspose2d::new(16, 3, 4).stride(2).padding(1).init(1)?;
/// let y = layer.infer(&Tensor::<f32>::zeros([8, 16, 16, 16]))?;
/// assert_eq!(y.shape()[..], [8, 3, 32, 32]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ConvTranspose<const R: usize, T = f32> {
    inputs: usize,
    outputs: usize,
    kernel: [usize; R],
    stride: [usize; R],
    padding: [usize; R],
    output_padding: [usize; R],
    dilation: [usize; R],
    groups: usize,
    /// Initialisers other than the default.
    weight_init: Option<Init>,
    bias_init: Option<Init>,
    weight: Param<T>,
    bias: Option<Param<T>>,
}

/// The transposed convolution of sequences.
pub type ConvTranspose1d<T = f32> = ConvTranspose<1, T>;
/// The transposed convolution of images.
pub type ConvTranspose2d<T = f32> = ConvTranspose<2, T>;
/// The transposed convolution of volumes.
pub type ConvTranspose3d<T = f32> = ConvTranspose<3, T>;

/// Scratch space; forward leaves nothing in it that backward needs.
#[derive(Debug)]
pub struct ConvTransposeCache<const R: usize, T: Scalar> {
    work: Workspace<T>,
    /// Where the output padding is a stride or more: x with zeros behind it, and its gradient.
    grown: Tensor<T>,
    dgrown: Tensor<T>,
    /// 0, 1, …: the place of each element of x there, along each axis.
    places: [Vec<usize>; R],
}

impl<const R: usize, T: Scalar> Default for ConvTransposeCache<R, T> {
    fn default() -> Self {
        Self {
            work: Workspace::default(),
            grown: Tensor::default(),
            dgrown: Tensor::default(),
            places: [const { Vec::new() }; R],
        }
    }
}

/// The convolution from y to x, of which this layer is the transpose.
#[derive(Clone, Copy)]
struct Transposed<const R: usize> {
    geometry: Geometry<R>,
    /// The lengths of its output: those of x, or larger where an output padding has room for more windows.
    windows: [usize; R],
}

impl<const R: usize, T: Scalar> ConvTranspose<R, T> {
    const NAME: &'static str = ["ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"][R - 1];

    /// A transposed convolution from `inputs` to `outputs` channels with filters of a size (`3`, `[3, 5]`), at stride 1, without
    /// padding, with a bias.
    pub fn new(inputs: usize, outputs: usize, kernel: impl Into<Sizes<R>>) -> Self {
        let Sizes(kernel) = kernel.into();
        let layer = Self {
            inputs,
            outputs,
            kernel,
            stride: [1; R],
            padding: [0; R],
            output_padding: [0; R],
            dilation: [1; R],
            groups: 1,
            weight_init: None,
            bias_init: None,
            weight: Param::new("weight", [], Init::ZEROS),
            bias: None,
        };
        layer.with_parameters(true)
    }

    /// How far apart in y neighbours of x add their filters, 1 by default.
    #[must_use]
    pub fn stride(self, stride: impl Into<Sizes<R>>) -> Self {
        let Sizes(stride) = stride.into();
        Self { stride, ..self }
    }

    /// How much is cut off at both ends of each axis: what the convolution would have padded. 0 by default.
    #[must_use]
    pub fn padding(self, padding: impl Into<Sizes<R>>) -> Self {
        let Sizes(padding) = padding.into();
        Self { padding, ..self }
    }

    /// How many elements y has more at the end of each axis, 0 by default: at a stride inputs of several lengths are convolved to one
    /// of this length.
    #[must_use]
    pub fn output_padding(self, output_padding: impl Into<Sizes<R>>) -> Self {
        let Sizes(output_padding) = output_padding.into();
        Self { output_padding, ..self }
    }

    /// The distance between the taps of a filter, 1 by default.
    #[must_use]
    pub fn dilation(self, dilation: impl Into<Sizes<R>>) -> Self {
        let Sizes(dilation) = dilation.into();
        Self { dilation, ..self }
    }

    /// Groups of channels, each transposed on its own.
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

    /// (in, out/groups, kernel…)
    fn weight_shape(&self) -> Result<Shape> {
        join([self.inputs, self.outputs.checked_div(self.groups).unwrap_or(0)], self.kernel)
    }

    fn default_init(&self) -> Init {
        filters::default_init(self.outputs.checked_div(self.groups).unwrap_or(0), &self.kernel)
    }

    /// The length of y along an axis where x has n elements; `None` if it has none, or too many.
    fn length(&self, axis: usize, n: usize) -> Option<usize> {
        let of = |sizes: [usize; R]| sizes[axis] as i128; // below 2³¹ by `check`
        let span = of(self.dilation) * (of(self.kernel) - 1) + 1;
        let length =
            (n as i128 - 1) * of(self.stride) - 2 * of(self.padding) + span + of(self.output_padding);
        usize::try_from(length).ok().filter(|&length| length > 0)
    }

    /// The convolution from y (N, out, …) to x (N, in, …).
    fn transposed(&self, input: &[usize], output: [usize; R]) -> Transposed<R> {
        // Of the output padding, what is not cut off again lies behind all windows, and has room for more where it is a stride or more.
        let kept = |axis: usize| self.output_padding[axis].saturating_sub(self.padding[axis]);
        let cut = |axis: usize| self.padding[axis].saturating_sub(self.output_padding[axis]);
        let geometry = Geometry {
            images: input[0],
            channels: self.outputs,
            filters: self.inputs,
            groups: self.groups,
            input: output,
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            padding: std::array::from_fn(|axis| [self.padding[axis], cut(axis)]),
        };
        let windows = std::array::from_fn(|axis| input[axis + 2] + kept(axis) / self.stride[axis]);
        Transposed { geometry, windows }
    }
}

impl<const R: usize> Transposed<R> {
    /// x as the convolution's output: with zeros where it has more elements.
    fn grown<'a, T: Scalar>(
        &self,
        x: &'a Tensor<T>,
        grown: &'a mut Tensor<T>,
        places: &mut [Vec<usize>; R],
    ) -> Result<&'a [T]> {
        let axes = axes_of(x.shape());
        if self.windows == axes {
            return Ok(x.data());
        }
        for (places, n) in places.iter_mut().zip(axes) {
            places.clear();
            places.extend(0..n);
        }
        let shape = join([x.shape()[0], x.shape()[1]], self.windows)?;
        let places = places.each_ref().map(Vec::as_slice);
        pad_gradient(x.data(), grown.reset(shape), self.windows, places);
        Ok(grown.data())
    }
}

compiled! {
    /// y[n, k] += b[k] for every plane of y.
    fn add_to_planes[T](b: &[T], plane: usize, y: &mut [T]) {
        let per = (1usize << 14).div_ceil(plane.max(1));
        par::for_chunks(y, per * plane, |piece, y| {
            for (i, y) in (piece * per..).zip(y.chunks_mut(plane)) {
                let b = b[i % b.len()];
                y.iter_mut().for_each(|y| *y += b);
            }
        });
    }
}

impl<const R: usize, T: Scalar> Layer for ConvTranspose<R, T> {
    type T = T;
    type Cache = ConvTransposeCache<R, T>;

    fn check(&self) -> Result<()> {
        let (stride, dilation) = (self.stride, self.dilation);
        let channels = [self.inputs, self.outputs, self.groups];
        filters::check(Self::NAME, channels, [self.kernel, stride, dilation])?;
        check_sizes(Self::NAME, "padding", 0, self.padding)?;
        if (0..R).any(|axis| self.output_padding[axis] >= stride[axis].max(dilation[axis])) {
            return Err(Error::value(format!(
                "{}: expected output_padding below the stride {stride:?} or the dilation {dilation:?}, got {:?}",
                Self::NAME,
                self.output_padding
            )));
        }
        check_shape(Self::NAME, self.weight_shape())
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        Shape::new(input)?; // lengths that can be added
        let ([n, _], axes): (_, [usize; R]) = split(Self::NAME, Some(self.inputs), input)?;
        let mut output = [0; R];
        for (axis, length) in output.iter_mut().enumerate() {
            *length = self.length(axis, axes[axis]).ok_or_else(|| {
                Error::shape(format!(
                    "{}: expected an input of which padding {:?} leaves at least one element, got {input:?}",
                    Self::NAME,
                    self.padding
                ))
            })?;
        }
        let shape = join([n, self.outputs], output)?;
        let Transposed { geometry, windows } = self.transposed(input, output);
        join([n, self.inputs], windows)?;
        geometry.check()?;
        Ok(shape)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, _: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        let of = self.transposed(x.shape(), axes_of(&shape));
        let ConvTransposeCache { work, grown, places, .. } = cache;
        let (x, y) = (of.grown(x, grown, places)?, y.reset(shape));
        conv_input_gradient(&of.geometry, self.weight.value()?, x, y, work); // y = Wᵀ ⋆ x
        if let Some(bias) = &self.bias {
            add_to_planes(bias.value()?, shape[2..].iter().product(), y); // y += b
        }
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
        let of = self.transposed(&shape, axes_of(call.dy.shape()));
        let ConvTransposeCache { work, grown, dgrown, places } = cache;
        let x = of.grown(call.x, grown, places)?;
        if let Some(dw) = grads.of(&self.weight) {
            conv_weight_gradient(&of.geometry, dy, x, dw, work); // dW += x ⋆ dy
        }
        if let Some(db) = self.bias.as_ref().and_then(|bias| grads.of(bias)) {
            let plane = call.dy.shape()[2..].iter().product();
            add_planes_to(dy, plane, db); // db += Σ over n, a of dy
        }
        let Some(dx) = dx else { return Ok(()) };
        let (dx, w) = (dx.reset(shape), Filters::new(self.weight.value()?));
        if of.windows == axes_of(&shape) {
            conv(&of.geometry, dy, w, None, dx, work); // dx = W ⋆ dy
        } else {
            let dgrown = dgrown.reset(join([shape[0], shape[1]], of.windows)?);
            conv(&of.geometry, dy, w, None, dgrown, work);
            pad(dgrown, dx, of.windows, places.each_ref().map(Vec::as_slice)); // the elements of x
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
        if self.output_shape(input).is_err() {
            return 0;
        }
        let (pixels, filter) = (input.iter().product::<usize>() / self.inputs, self.weight.volume());
        (pixels as u64).saturating_mul(filter as u64)
    }

    fn cache_bytes(&self, input: &[usize], dx: bool) -> usize {
        let Ok(output) = self.output_shape(input) else { return 0 };
        let of = self.transposed(input, axes_of(&output));
        let mut bytes = 0;
        if of.windows != axes_of(input) {
            let grown = of.windows.iter().fold(size_of::<T>(), |n, &axis| n.saturating_mul(axis));
            let planes = input[0].saturating_mul(input[1]);
            bytes = grown.saturating_mul(planes).saturating_mul(1 + usize::from(dx)); // x grown, and its gradient
        }
        workspace_bytes::<T, R>(&of.geometry, [self.weight.trainable(), true]).saturating_add(bytes)
    }

    fn spec(&self) -> Spec {
        let default = self.default_init();
        Spec::new(Self::NAME)
            .with("in_channels", self.inputs)
            .with("out_channels", self.outputs)
            .with("kernel_size", self.kernel)
            .with("stride", self.stride)
            .with("padding", self.padding)
            .with("output_padding", self.output_padding)
            .with("dilation", self.dilation)
            .with("groups", self.groups)
            .with("bias", self.bias.is_some())
            .with_unless(default, "weight_init", self.weight_init.unwrap_or(default))
            .with_unless(default, "bias_init", self.bias_init.unwrap_or(default))
    }
}

impl<const R: usize, T: Scalar> FromSpec<T> for ConvTranspose<R, T> {
    const FACTS: Facts = Facts::new(Self::NAME)
        .family("conv")
        .formula("Σ Wᵀ ⋆ x + b")
        .page("layers/conv/conv_transpose.md")
        .torch(Self::NAME);

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let kernel: [usize; R] = args.get("kernel_size")?;
        let layer = Self::new(args.get("in_channels")?, args.get("out_channels")?, kernel)
            .stride(args.or("stride", [1; R])?)
            .padding(args.or("padding", [0; R])?)
            .output_padding(args.or("output_padding", [0; R])?)
            .dilation(args.or("dilation", [1; R])?)
            .groups(args.or("groups", 1)?);
        let (weight_init, bias_init) = (args.optional("weight_init")?, args.optional("bias_init")?);
        Ok(Self { weight_init, bias_init, ..layer }.bias(args.or("bias", true)?))
    }

    fn examples() -> Vec<Example> {
        let sized = |n: usize, c: usize, axis: usize| {
            Shape::new(&[n, c, axis, axis, axis][..R + 2]).unwrap_or_default()
        };
        let strided = Self::new(4, 6, [3; R]).stride(2).padding(1).output_padding(1).groups(2);
        let dilated = Self::new(2, 2, [2; R]).dilation(2).output_padding(1).bias(false);
        let bench = match R {
            1 => Example::bench(Self::new(64, 64, 4).stride(2).padding(1).spec(), [sized(16, 64, 512)]),
            2 => Example::bench(Self::new(64, 64, 4).stride(2).padding(1).spec(), [sized(16, 64, 16)]),
            _ => Example::bench(Self::new(32, 32, 4).stride(2).padding(1).spec(), [sized(2, 32, 8)]),
        };
        vec![
            Example::new(Self::new(2, 3, 3).spec(), [sized(2, 2, 3)]),
            Example::new(strided.spec(), [sized(1, 4, 3)]),
            Example::new(dilated.weight_init(Init::kaiming_normal()).spec(), [sized(2, 2, 2)]),
            bench,
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Parameters;
    use chainrule_gradcheck::laws;
    use proptest::prelude::*;

    /// Elements, kernel, stride, dilation, padding, output padding of an axis, with at least one element in y.
    fn axis() -> impl Strategy<Value = [usize; 6]> {
        [1..5usize, 1..4, 1..4, 1..4, 0..4, 0..3].prop_map(
            |[n, kernel, stride, dilation, padding, output]| {
                let output = output % stride.max(dilation);
                let length = (n - 1) * stride + (kernel - 1) * dilation + 1 + output;
                [n, kernel, stride, dilation, padding.min((length - 1) / 2), output]
            },
        )
    }

    fn layer<const R: usize, T: Scalar>(
        axes: [[usize; 6]; R],
        [groups, inputs, outputs]: [usize; 3],
        bias: bool,
    ) -> ConvTranspose<R, T> {
        ConvTranspose::new(groups * inputs, groups * outputs, axes.map(|axis| axis[1]))
            .stride(axes.map(|axis| axis[2]))
            .dilation(axes.map(|axis| axis[3]))
            .padding(axes.map(|axis| axis[4]))
            .output_padding(axes.map(|axis| axis[5]))
            .groups(groups)
            .bias(bias)
    }

    laws! {
        obeys_the_laws(
            axes in [axis(), axis()], sizes in [1..4usize, 1..4, 1..4], bias in any::<bool>(), n in 1..3usize,
        ) {
            layer: layer::<2, T>(axes, sizes, bias),
            input: [n, sizes[0] * sizes[1], axes[0][0], axes[1][0]],
            wrong: [n, sizes[0] * sizes[1] + 1, 9, 9],
            wrong: [n, sizes[0] * sizes[1], 9],
        }
        sequences_obey_the_laws(a in axis(), sizes in [1..4usize, 1..4, 1..4], bias in any::<bool>(), n in 1..3usize) {
            layer: layer::<1, T>([a], sizes, bias),
            input: [n, sizes[0] * sizes[1], a[0]],
            wrong: [n, sizes[0] * sizes[1], 9, 9],
        }
    }

    laws! {
        #![cases = 24]
        volumes_obey_the_laws(
            axes in [axis(), axis(), axis()], sizes in [1..3usize, 1..3, 1..3], bias in any::<bool>(), n in 1..3usize,
        ) {
            layer: layer::<3, T>(axes, sizes, bias),
            input: [n, sizes[0] * sizes[1], axes[0][0], axes[1][0], axes[2][0]],
            wrong: [n, sizes[0] * sizes[1], 9, 9],
            large: [4, sizes[0] * sizes[1], 12, 12, 12],
        }
    }

    fn row(values: &[f64]) -> Tensor<f64> {
        Tensor::from_vec([1, 1, values.len()], values.to_vec()).unwrap()
    }

    fn pass(
        layer: ConvTranspose1d<f64>,
        weight: &[f64],
        x: &[f64],
        dy: &[f64],
    ) -> (Tensor<f64>, Tensor<f64>, Vec<f64>) {
        let mut layer = layer.init(0).unwrap();
        layer.weight.value_mut().unwrap().copy_from_slice(weight);
        if let Some(bias) = &mut layer.bias {
            bias.value_mut().unwrap().fill(0.5);
        }
        let (x, dy, mut y, mut dx) = (row(x), row(dy), Tensor::default(), Tensor::default());
        let (mut cache, mut grads) = (ConvTransposeCache::default(), Grads::new(&layer));
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        (y, dx, grads.values().to_vec())
    }

    /// x = (1 2) adds W = (1 10 100) two elements apart, b = ½: y = (1, 10, 100 + 2, 20, 200) + ½.
    /// For g = (1, 1, 1, 1, 2): ∂x = (1 + 10 + 100, 1 + 10 + 200), ∂W = (1·1 + 2·1, 1·1 + 2·1, 1·1 + 2·2), ∂b = 6.
    #[test]
    pub fn by_hand() {
        let layer = ConvTranspose1d::new(1, 1, 3).stride(2);
        let (y, dx, grads) = pass(layer, &[1., 10., 100.], &[1., 2.], &[1., 1., 1., 1., 2.]);
        assert_eq!(y, row(&[1.5, 10.5, 102.5, 20.5, 200.5]));
        assert_eq!((dx, &grads[..]), (row(&[111., 211.]), &[3., 3., 5., 6.][..]));
    }

    /// The same with an element cut off at both ends, and one added at the end again: (10, 102, 20, 200). At a dilation of 2 and stride
    /// 1, taps of (1 10) lie two apart, and one element is added that nothing reaches: (1, 2, 10, 20, 0).
    #[test]
    fn output_padding_by_hand() {
        let layer = ConvTranspose1d::new(1, 1, 3).stride(2).padding(1).output_padding(1).bias(false);
        let (y, dx, _) = pass(layer, &[1., 10., 100.], &[1., 2.], &[1., 1., 1., 1.]);
        assert_eq!((y, dx), (row(&[10., 102., 20., 200.]), row(&[110., 111.])));
        let layer = ConvTranspose1d::new(1, 1, 2).dilation(2).output_padding(1).bias(false);
        let (y, dx, grads) = pass(layer, &[1., 10.], &[1., 2.], &[1., 1., 1., 1., 7.]);
        assert_eq!((y, dx, grads), (row(&[1., 2., 10., 20., 0.]), row(&[11., 11.]), vec![3., 3.]));
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        let text = |layer: ConvTranspose2d<f32>| layer.init(0).unwrap_err().to_string();
        assert_eq!(
            text(ConvTranspose2d::new(4, 6, 3).stride([2, 3]).output_padding([1, 3])),
            "ConvTranspose2d: expected output_padding below the stride [2, 3] or the dilation [1, 1], got [1, 3]"
        );
        for layer in [
            ConvTranspose2d::<f32>::new(0, 6, 3),
            ConvTranspose2d::new(4, 0, 3),
            ConvTranspose2d::new(4, 6, [3, 0]),
            ConvTranspose2d::new(4, 6, 3).stride(0),
            ConvTranspose2d::new(4, 6, 3).dilation(usize::MAX),
            ConvTranspose2d::new(4, 6, 3).padding(usize::MAX),
            ConvTranspose2d::new(4, 6, 3).groups(4),
        ] {
            assert!(layer.init(0).is_err());
        }
        let shape = |layer: ConvTranspose2d<f32>, input: &[usize]| layer.output_shape(input);
        let text = shape(ConvTranspose2d::new(4, 6, 3).padding(2), &[1, 4, 2, 3]).unwrap_err().to_string();
        assert!(text.contains("padding [2, 2] leaves at least one element, got [1, 4, 2, 3]"), "{text}");
        assert!(shape(ConvTranspose2d::new(4, 6, 3), &[1, 3, 2, 3]).is_err());
        assert!(shape(ConvTranspose2d::new(4, 6, 3).stride(1 << 30), &[1, 4, 1 << 20, 1 << 20]).is_err());
    }
}
