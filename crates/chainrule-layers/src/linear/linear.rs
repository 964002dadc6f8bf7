//! The affine map of the last axis.
//!
//! ```text
//! Y = X Wᵀ + b
//! ```
//!
//! Given G = ∂E/∂Y:
//!
//! ```text
//! ∂E/∂X = G W        ∂E/∂W = Gᵀ X        ∂E/∂b = Σₙ G
//! ```
//!
//! Keeps nothing for backward. Over sequences, inference keeps the weight as products read it: a row then has the same bits however many
//! steps there are beside it, piece by piece in a stream or all at once. Derivation: docs/layers/linear/linear.md.

use crate::rank::check_shape;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Init, Layer, Param, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Summary, Tensor,
};
use chainrule_tensor::kernels::{
    gemm::{Epilogue, Mat, MatMut, PackedB, matmul, matmul_steady, matmul_with},
    reduce::add_rows_to,
};
use std::fmt;

/// y = x Wᵀ + b over the last axis.
///
/// # Shapes
/// x (…, in), y (…, out); `weight` (out, in), `bias` (out). Both start uniform in ±1/√in, as PyTorch's do.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::Linear;
/// let layer = Linear::new(784, 128).init(1)?;
/// let y = layer.infer(&Tensor::<f32>::zeros([32, 784]))?;
/// assert_eq!(y.shape()[..], [32, 128]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Linear<T = f32> {
    inputs: usize,
    outputs: usize,
    weight: Param<T>,
    bias: Option<Param<T>>,
    /// The initialiser of the bias, whether there is one or not.
    bias_init: Init,
}

impl<T: Scalar> Linear<T> {
    /// A map of `inputs` features to `outputs` features, with a bias.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        let init = Init::torch_default(inputs);
        let weight = Param::new("weight", [outputs, inputs], init);
        Self { inputs, outputs, weight, bias: None, bias_init: init }.bias(true)
    }

    /// With or without a bias.
    #[must_use]
    pub fn bias(self, bias: bool) -> Self {
        let bias = bias.then(|| Param::new("bias", [self.outputs], self.bias_init));
        Self { bias, ..self }
    }

    /// Another initialiser for the weight.
    #[must_use]
    pub fn weight_init(mut self, init: Init) -> Self {
        self.weight.set_initializer(init);
        self
    }

    /// Another initialiser for the bias.
    #[must_use]
    pub fn bias_init(mut self, init: Init) -> Self {
        self.bias_init = init;
        self.bias.iter_mut().for_each(|bias| bias.set_initializer(init));
        self
    }
}

/// The weight as products over sequences read it, in inference.
pub struct LinearCache<T> {
    packed: PackedB<T>,
    /// Of the weight that was packed
    version: [u64; 2],
}

impl<T: Scalar> Default for LinearCache<T> {
    fn default() -> Self {
        Self { packed: PackedB::new(), version: [u64::MAX; 2] }
    }
}

impl<T> fmt::Debug for LinearCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinearCache").field("version", &self.version).finish_non_exhaustive()
    }
}

impl<T: Scalar> LinearCache<T> {
    /// Wᵀ, packed anew where W has changed.
    fn packed(&mut self, weight: &Param<T>, w: Mat<'_, T>) -> &PackedB<T> {
        if self.version != weight.version() {
            self.version = [u64::MAX; 2];
            self.packed.pack(w.t());
            self.version = weight.version();
        }
        &self.packed
    }
}

impl<T: Scalar> Linear<T> {
    /// The shape of y, whose volume may overflow.
    #[inline(always)]
    fn shape_for(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        match input.last() {
            Some(&last) if last == self.inputs => Ok(Shape::new(input)?.with(input.len() - 1, self.outputs)),
            _ => Err(Error::shape(format!("Linear: expected input (.., {}), got {input:?}", self.inputs))),
        }
    }
}

impl<T: Scalar> Layer for Linear<T> {
    type T = T;
    type Cache = LinearCache<T>;

    fn check(&self) -> Result<()> {
        if self.inputs == 0 || self.outputs == 0 {
            return Err(Error::value(format!(
                "Linear: expected at least one input and one output, got {} and {}",
                self.inputs, self.outputs
            )));
        }
        // A weight of an impossible shape stands as a scalar.
        if self.weight.shape().len() != 2 {
            return check_shape("Linear", Shape::new(&[self.outputs, self.inputs]));
        }
        Ok(())
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(&self.shape_for(input)?)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        // x and the weight are in memory: y's size cannot overflow.
        let y = y.reset(self.shape_for(x.shape())?);
        let (n, i, o) = (x.len() / self.inputs, self.inputs, self.outputs);
        let w = Mat::new(self.weight.value()?, o, i);
        let bias = Epilogue { row: self.bias.as_ref().map(Param::value).transpose()?, ..Epilogue::default() };
        let (input, y) = (Mat::new(x.data(), n, i), MatMut::new(y, n, o));
        if x.shape().len() > 2 && !cx.training() {
            matmul_steady(T::ONE, input, cache.packed(&self.weight, w), T::ZERO, y, bias); // Y = X Wᵀ + b
        } else {
            matmul_with(T::ONE, input, w.t(), T::ZERO, y, bias); // Y = X Wᵀ + b
        }
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let (n, i, o) = (call.x.len() / self.inputs, self.inputs, self.outputs);
        let dy = Mat::new(call.dy.data(), n, o);
        if let Some(dw) = grads.of(&self.weight) {
            matmul(T::ONE, dy.t(), Mat::new(call.x.data(), n, i), T::ONE, MatMut::new(dw, o, i)); // dW += dYᵀ X
        }
        if let Some(db) = self.bias.as_ref().and_then(|bias| grads.of(bias)) {
            add_rows_to(call.dy.data(), db); // db += Σₙ dY
        }
        if let Some(dx) = dx {
            let dx = dx.reset(*call.x.shape());
            let w = self.weight.value()?;
            matmul(T::ONE, dy, Mat::new(w, o, i), T::ZERO, MatMut::new(dx, n, i)); // dX = dY W
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
        input.iter().fold(self.outputs as u64, |n, &axis| n.saturating_mul(axis as u64))
    }

    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        let output = self.output_shape(input)?;
        out.row(self.spec().kind(), output, self.multiply_adds(input), &mut |p| self.params(p));
        if input.len() > 2 {
            out.hold_in_inference(self.weight.volume().saturating_mul(size_of::<T>()));
        }
        Ok(output)
    }

    fn spec(&self) -> Spec {
        let init = Init::torch_default(self.inputs);
        Spec::new(Self::FACTS.kind)
            .with("in_features", self.inputs)
            .with("out_features", self.outputs)
            .with("bias", self.bias.is_some())
            .with_unless(init, "weight_init", self.weight.initializer())
            .with_unless(init, "bias_init", self.bias_init)
    }
}

impl<T: Scalar> FromSpec<T> for Linear<T> {
    const FACTS: Facts = Facts::new("Linear")
        .family("linear")
        .formula("x Wᵀ + b")
        .page("layers/linear/linear.md")
        .torch("Linear");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let layer = Self::new(args.get("in_features")?, args.get("out_features")?);
        let init = layer.bias_init;
        Ok(layer
            .bias(args.or("bias", true)?)
            .weight_init(args.or("weight_init", init)?)
            .bias_init(args.or("bias_init", init)?))
    }

    fn examples() -> Vec<Example> {
        let other = Self::new(2, 5).bias(false).weight_init(Init::kaiming_normal());
        vec![
            Example::new(Self::new(4, 3).spec(), [[5, 4]]),
            Example::new(other.spec(), [[2, 3, 2]]),
            Example::bench(Self::new(784, 128).spec(), [[128, 784]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::{Module, Parameters, Session};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in 1..6usize, inputs in 1..9usize, outputs in 1..9usize, bias in any::<bool>(),
        ) {
            layer: Linear::new(inputs, outputs).bias(bias),
            input: [rows, inputs],
            wrong: [rows, inputs + 1],
            wrong: [],
        }
        obeys_the_laws_over_any_leading_axes(rows in 1..4usize, time in 1..4usize, inputs in 1..5usize) {
            layer: Linear::new(inputs, 3),
            input: [rows, time, inputs],
            sequence: 1,
            large: [4, 50, inputs],
        }
    }

    /// W = (1 2; 3 4; 5 6), b = (10, 20, 30), x = (1, −1):
    /// y = (1−2+10, 3−4+20, 5−6+30) = (9, 19, 29).
    /// For g = (1, 0, 2): ∂x = g W = (1+10, 2+12) = (11, 14); ∂W = gᵀ x = (1 −1; 0 0; 2 −2); ∂b = g.
    #[test]
    pub fn by_hand() {
        let mut layer = Linear::<f64>::new(2, 3);
        layer.weight.set(Tensor::from([[1., 2.], [3., 4.], [5., 6.]])).unwrap();
        layer.bias.as_mut().unwrap().set(Tensor::from([10., 20., 30.])).unwrap();
        let x = Tensor::from([[1., -1.]]);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y, Tensor::from([[9., 19., 29.]]));

        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let dy = Tensor::from([[1., 0., 2.]]);
        layer
            .backward(
                Call::new(&layer, &x, &y, &dy).unwrap(),
                &mut LinearCache::default(),
                &mut grads,
                Some(&mut dx),
            )
            .unwrap();
        assert_eq!(dx, Tensor::from([[11., 14.]]));
        assert_eq!(grads.get(&layer.weight).unwrap(), [1., -1., 0., 0., 2., -2.]);
        assert_eq!(grads.get(layer.bias.as_ref().unwrap()).unwrap(), [1., 0., 2.]);
    }

    #[test]
    fn pieces_of_a_sequence_give_the_bits_of_the_whole_and_a_changed_weight_is_seen() {
        for (n, t, inputs, outputs) in [(1, 64, 128, 65), (3, 7, 2, 1), (2, 20, 900, 40)] {
            let mut layer = Linear::<f32>::new(inputs, outputs).init(1).unwrap();
            let x = Tensor::from_fn([n, t, inputs], |i| (i as f32 * 0.37).sin());
            for _ in 0..2 {
                let (whole, mut session) = (layer.infer(&x).unwrap(), Session::new(&layer));
                for (from, to) in [(0, 1), (1, 3), (3, t)] {
                    let steps = (0..n).flat_map(|row| &x.row(row)[from * inputs..to * inputs]);
                    let piece = Tensor::from_vec([n, to - from, inputs], steps.copied().collect()).unwrap();
                    let y = session.stream(&piece).unwrap();
                    assert!((0..n).all(|row| y.row(row) == &whole.row(row)[from * outputs..to * outputs]));
                }
                layer.weight.value_mut().unwrap().iter_mut().for_each(|w| *w += 0.5);
            }
        }
    }

    #[test]
    fn wrong_sizes_say_what_was_expected() {
        let layer = Linear::<f32>::new(784, 10);
        let text = layer.output_shape(&[32, 100]).unwrap_err().to_string();
        assert_eq!(text, "Linear: expected input (.., 784), got [32, 100]");
        assert!(layer.output_shape(&[]).is_err());
        assert!(Linear::<f32>::new(0, 3).init(1).is_err());
        assert!(
            layer
                .infer(&Tensor::zeros([1, 784]))
                .unwrap_err()
                .to_string()
                .contains("`weight` is not initialised")
        );
        assert_eq!(layer.parameter_count(), 7850);
    }
}
