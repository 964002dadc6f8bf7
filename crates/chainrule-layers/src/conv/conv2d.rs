//! The convolution of images (strictly a cross-correlation, as everywhere in this field).
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
//! Keeps nothing but scratch. Derivation: docs/layers/conv/conv2d.md.

use super::{Padding, PaddingMode};
use crate::Pair;
use chainrule_core::{
    Call, Context, Error, Grads, Layer, Param, Params, ParamsMut, Result, Scalar, Shape, Tensor,
};
use chainrule_tensor::kernels::{
    conv::{Filters, Geometry, Workspace, conv2d, conv2d_input_gradient, conv2d_weight_gradient},
    pad::{pad, pad_gradient},
    reduce::add_planes_to,
};

/// y = W ⋆ x + b: every filter looks at every window of the image. LeCun, Bottou, Bengio and Haffner, 1998.
///
/// # Shapes
/// x (N, in, H, W), y (N, out, H′, W′) with H′ = ⌊(H + top + bottom − dilation·(kernel − 1) − 1)/stride⌋ + 1; `weight`
/// (out, in/groups, kernel height, kernel width), `bias` (out). Both start uniform in ±1/√fan-in, as PyTorch's do.
///
/// # Errors
/// Groups that do not divide the channels, sizes of 0, "same" padding with a stride: when built.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Conv2d;
/// let layer = Conv2d::new(3, 16, 3).stride(2).padding(1).init(1)?;
/// let y = layer.infer(&Tensor::<f32>::zeros([8, 3, 32, 32]))?;
/// assert_eq!(y.shape()[..], [8, 16, 16, 16]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Conv2d<T = f32> {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: Pair,
    pub(super) stride: Pair,
    pub(super) padding: Padding,
    pub(super) padding_mode: PaddingMode,
    pub(super) dilation: Pair,
    pub(super) groups: usize,
    pub(super) weight: Param<T>,
    pub(super) bias: Option<Param<T>>,
}

/// Scratch; forward leaves nothing in it that backward needs.
#[derive(Debug, Default)]
pub struct Conv2dCache<T: Scalar> {
    work: Workspace<T>,
    /// With a border that is not zeros: the extended image, (N, in, H + top + bottom, W + left + right), its gradient, and
    /// the pixels that its rows and columns copy.
    padded: Tensor<T>,
    dpadded: Tensor<T>,
    rows: Vec<usize>,
    cols: Vec<usize>,
}

impl<T: Scalar> Conv2d<T> {
    /// Whether the border is made before the convolution, and not by it.
    fn extends(&self, sides: [[usize; 2]; 2]) -> bool {
        self.padding_mode != PaddingMode::Zeros && sides != [[0; 2]; 2]
    }

    /// Pixels that a window spans.
    fn reach(&self) -> [usize; 2] {
        [self.dilation.h * (self.kernel.h - 1) + 1, self.dilation.w * (self.kernel.w - 1) + 1]
    }

    /// The convolution of images (N, in, H, W) that are extended already if `extended`.
    fn geometry(&self, input: &[usize], padding: [[usize; 2]; 2]) -> Geometry {
        Geometry {
            images: input[0],
            channels: self.inputs,
            filters: self.outputs,
            groups: self.groups,
            input: [input[2], input[3]],
            kernel: [self.kernel.h, self.kernel.w],
            stride: [self.stride.h, self.stride.w],
            dilation: [self.dilation.h, self.dilation.w],
            padding,
        }
    }

    /// The geometry and the image that the kernels see: x, or x with its border.
    fn extended<'a>(
        &self,
        x: &'a Tensor<T>,
        padded: &'a mut Tensor<T>,
        rows: &mut Vec<usize>,
        cols: &mut Vec<usize>,
    ) -> (Geometry, &'a [T]) {
        let (shape, sides) = (*x.shape(), self.padding.sides(self.reach()));
        if !self.extends(sides) {
            return (self.geometry(&shape, sides), x.data());
        }
        self.padding_mode.places(shape[2], sides[0], rows);
        self.padding_mode.places(shape[3], sides[1], cols);
        let larger = shape.with(2, rows.len()).with(3, cols.len());
        pad(x.data(), padded.reset(larger), [shape[2], shape[3]], rows, cols);
        (self.geometry(&larger, [[0; 2]; 2]), padded.data())
    }
}

impl<T: Scalar> Layer<T> for Conv2d<T> {
    type Cache = Conv2dCache<T>;

    fn check(&self) -> Result<()> {
        let Self { inputs, outputs, kernel, stride, dilation, groups, .. } = self;
        if *inputs == 0 || *outputs == 0 {
            return Err(Error::value(format!(
                "Conv2d: expected at least one channel in and one out, got {inputs} and {outputs}"
            )));
        }
        for (what, pair) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
            if pair.h == 0 || pair.w == 0 {
                return Err(Error::value(format!("Conv2d: expected a {what} of at least 1, got {pair}")));
            }
        }
        let sides = if let Padding::Sides(sides) = self.padding { sides } else { [[0; 2]; 2] };
        let sizes = [kernel.h, kernel.w, stride.h, stride.w, dilation.h, dilation.w];
        if let Some(size) = sizes.into_iter().chain(sides.into_iter().flatten()).find(|&s| s >= 1 << 31) {
            return Err(Error::value(format!("Conv2d: expected sizes below 2³¹, got {size}")));
        }
        if *groups == 0 || inputs % groups != 0 || outputs % groups != 0 {
            return Err(Error::value(format!(
                "Conv2d: expected groups that divide {inputs} channels in and {outputs} out, got {groups}"
            )));
        }
        if self.padding == Padding::Same && *stride != Pair::from(1) {
            return Err(Error::value(format!(
                "Conv2d: expected stride 1 with padding \"same\", got stride {stride}"
            )));
        }
        Shape::new(&[*outputs, inputs / groups, kernel.h, kernel.w]).map(drop)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        Shape::new(input)?; // sizes that can be added
        let [n, h, w] = match *input {
            [n, c, h, w] if c == self.inputs && h > 0 && w > 0 => [n, h, w],
            _ => {
                return Err(Error::shape(format!(
                    "Conv2d: expected input (N, {}, H, W) with pixels, got {input:?}",
                    self.inputs
                )));
            }
        };
        let sides = self.padding.sides(self.reach());
        if self.extends(sides) {
            self.padding_mode.check("Conv2d", h, sides[0])?;
            self.padding_mode.check("Conv2d", w, sides[1])?;
            let [top, left] = sides.map(|side| side.iter().sum::<usize>());
            Shape::new(&[n, self.inputs, h + top, w + left])?;
        }
        match self.geometry(input, sides).output() {
            [0, _] | [_, 0] => Err(Error::shape(format!(
                "Conv2d: expected images that hold a window of {} at dilation {}, got input {input:?}",
                self.kernel, self.dilation
            ))),
            [oh, ow] => Shape::new(&[n, self.outputs, oh, ow]),
        }
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut Self::Cache,
        cx: &mut Context,
    ) -> Result<()> {
        let y = y.reset(self.output_shape(x.shape())?);
        let Conv2dCache { work, padded, rows, cols, .. } = cache;
        let (geometry, x) = self.extended(x, padded, rows, cols);
        let bias = self.bias.as_ref().map(Param::value).transpose()?; // (K)
        let w = self.weight.value()?;
        // In training the weight is another one in every pass.
        let filters = if cx.recording() { Filters::new(w) } else { Filters::stamped(w, self.weight.stamp()) };
        conv2d(&geometry, x, filters, bias, y, work); // y = W ⋆ x + b
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
        if self.output_shape(&shape)? != *call.dy.shape() {
            return Err(Error::shape("Conv2d: expected ∂E/∂y of y's shape, got another"));
        }
        let Conv2dCache { work, padded, dpadded, rows, cols } = cache;
        let (geometry, x) = self.extended(call.x, padded, rows, cols);
        if let Some(dw) = grads.of(&self.weight) {
            conv2d_weight_gradient(&geometry, x, dy, dw, work); // dW += dy ⋆ x
        }
        if let Some(db) = self.bias.as_ref().and_then(|bias| grads.of(bias)) {
            let plane = call.dy.shape()[2] * call.dy.shape()[3];
            add_planes_to(dy, plane, db); // db += Σ over n, i, j of dy
        }
        let Some(dx) = dx else { return Ok(()) };
        let (dx, w) = (dx.reset(shape), self.weight.value()?);
        if geometry.input == [shape[2], shape[3]] {
            conv2d_input_gradient(&geometry, w, dy, dx, work); // dx = Wᵀ ⋆ dy
        } else {
            let larger = shape.with(2, geometry.input[0]).with(3, geometry.input[1]);
            conv2d_input_gradient(&geometry, w, dy, dpadded.reset(larger), work);
            pad_gradient(dpadded.data(), dx, [shape[2], shape[3]], rows, cols); // each copy gives back
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
        self.output_shape(input)
            .map_or(0, |_| self.geometry(input, self.padding.sides(self.reach())).multiply_adds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_core::Parameters;
    use chainrule_gradcheck::laws;

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
            // Room for a window, and for a mirrored border.
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
    fn by_hand() {
        let mut layer = with_weight(Conv2d::new(1, 1, 2), &[1., 10., 100., 1000.]);
        layer.bias.as_mut().unwrap().value_mut().unwrap()[0] = 0.5;
        let x = image(&[[1., 2., 3.], [4., 5., 6.]]);
        let (mut y, mut cache) = (Tensor::default(), Conv2dCache::default());
        layer.forward(&x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
        assert_eq!((&y.shape()[..], y.data()), (&[1, 1, 1, 2][..], &[5421.5, 6532.5][..]));
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let dy = Tensor::from_vec([1, 1, 1, 2], vec![1., 2.]).unwrap();
        layer.backward(Call { x: &x, y: &y, dy: &dy }, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!(dx, image(&[[1., 12., 20.], [100., 1200., 2000.]]));
        assert_eq!(grads.values(), [5., 8., 14., 17., 3.]);
    }

    /// One row 1 2 3, extended by one pixel on the left and two on the right, under a window (1 10): each output is
    /// x[i] + 10 x[i + 1] of the extended row.
    #[test]
    fn borders_by_hand() {
        for (mode, extended) in [
            (PaddingMode::Zeros, [0., 1., 2., 3., 0., 0.]),
            (PaddingMode::Reflect, [2., 1., 2., 3., 2., 1.]),
            (PaddingMode::Replicate, [1., 1., 2., 3., 3., 3.]),
            (PaddingMode::Circular, [3., 1., 2., 3., 1., 2.]),
        ] {
            let layer = Conv2d::new(1, 1, [1, 2]).padding([[0, 0], [1, 2]]).padding_mode(mode).bias(false);
            let layer = with_weight(layer, &[1., 10.]);
            let (x, mut y, mut cache) = (image(&[[1., 2., 3.]]), Tensor::default(), Conv2dCache::default());
            layer.forward(&x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
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
            "Conv2d: expected stride 1 with padding \"same\", got stride (1, 2)"
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
            "Conv2d: expected input (N, 3, H, W) with pixels, got [2, 4, 8, 8]"
        );
        assert!(text(&layer, &[2, 3, 8, 4]).contains("hold a window of (5, 5)"));
        assert!(layer.output_shape(&[3, 8, 8]).is_err() && layer.output_shape(&[1, 3, 0, 8]).is_err());
        let reflect = layer.padding(4).padding_mode(PaddingMode::Reflect);
        assert!(text(&reflect, &[1, 3, 4, 8]).contains("got padding 4 on 4 pixels"));
        assert_eq!(*reflect.output_shape(&[0, 3, 5, 8]).unwrap(), [0, 6, 9, 12]);
    }
}
