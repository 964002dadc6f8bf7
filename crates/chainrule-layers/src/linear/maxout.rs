//! The largest of several affine maps.
//!
//! ```text
//! z = x Wᵀ + b, k pieces for each output,   y_o = maxⱼ z_oj
//! ∂E/∂z_oj = ∂E/∂y_o where z_oj is the maximum, 0 elsewhere
//! ∂E/∂W = ∂E/∂Zᵀ X        ∂E/∂b = Σₙ ∂E/∂z        ∂E/∂X = ∂E/∂Z W
//! ```
//!
//! Keeps z. Derivation: docs/layers/linear/maxout.md.

use super::{Linear, LinearCache};
use crate::rank::check_shape;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Params, ParamsMut, Result, Scalar,
    Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::axis::{max_along, max_along_gradient};

/// The largest of k affine maps for each output: a convex activation that is learned. Goodfellow et al., 2013. Pieces that are
/// all the maximum share ∂E/∂y in equal parts.
///
/// # Shapes
/// x (…, in), y (…, out); `weight` (out k, in), `bias` (out k), as those of [`Linear`], piece j of output o in row o k + j.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::Maxout;
/// let layer = Maxout::new(784, 128, 3).init(1)?;
/// let y = layer.infer(&Tensor::<f32>::zeros([32, 784]))?;
/// assert_eq!(y.shape()[..], [32, 128]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Maxout<T = f32> {
    inputs: usize,
    outputs: usize,
    pieces: usize,
    bias: bool,
    map: Linear<T>,
}

/// What forward keeps for backward.
#[derive(Debug)]
pub struct MaxoutCache<T> {
    /// The shape of x, if the pass was recorded.
    recorded: Option<Shape>,
    map: LinearCache<T>,
    z: Tensor<T>,
    /// Scratch space.
    dz: Tensor<T>,
    shares: Vec<T>,
}

impl<T: Scalar> Default for MaxoutCache<T> {
    fn default() -> Self {
        let none = Tensor::default;
        Self { recorded: None, map: LinearCache::default(), z: none(), dz: none(), shares: Vec::new() }
    }
}

impl<T: Scalar> Maxout<T> {
    /// The largest of `pieces` maps of `inputs` features to `outputs` features, with biases.
    pub fn new(inputs: usize, outputs: usize, pieces: usize) -> Self {
        let map = Linear::new(inputs, outputs.saturating_mul(pieces));
        Self { inputs, outputs, pieces, bias: true, map }
    }

    /// With or without biases.
    #[must_use]
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, map: self.map.bias(bias), ..self }
    }
}

impl<T: Scalar> Layer for Maxout<T> {
    type T = T;
    type Cache = MaxoutCache<T>;

    fn check(&self) -> Result<()> {
        let Self { inputs, outputs, pieces, .. } = *self;
        if inputs == 0 || outputs == 0 || pieces == 0 {
            return Err(Error::value(format!(
                "Maxout: expected at least one input, output and piece, got {inputs}, {outputs} and {pieces}"
            )));
        }
        check_shape("Maxout", Shape::new(&[outputs, pieces, inputs]))
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        match input {
            [.., last] if *last == self.inputs => {
                Shape::new(&Shape::new(input)?.with(input.len() - 1, self.outputs))
            }
            _ => Err(Error::shape(format!("Maxout: expected input (.., {}), got {input:?}", self.inputs))),
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let shape = self.output_shape(x.shape())?;
        cache.recorded = None;
        self.map.forward(x, &mut cache.z, &mut cache.map, cx)?; // z = x Wᵀ + b
        max_along(cache.z.data(), y.reset(shape), self.pieces, 1); // y_o = maxⱼ z_oj
        cache.recorded = cx.recording().then_some(*x.shape());
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let MaxoutCache { recorded, map, z, dz, shares } = cache;
        if *recorded != Some(*call.x.shape()) || z.len() != call.y.len() * self.pieces {
            return Err(Error::not_recorded(
                "Maxout: expected the cache of a recorded forward of this input",
            ));
        }
        shares.resize(call.y.len(), T::ZERO);
        let (y, dz_data) = (call.y.data(), dz.reset(*z.shape()));
        max_along_gradient((z.data(), y), call.dy.data(), dz_data, shares, self.pieces, 1); // dz = dy where z = y
        self.map.backward(Call::new(&self.map, call.x, z, dz)?, map, grads, dx)
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.map.params(out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.map.params_mut(out);
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        self.map.multiply_adds(input)
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        let Ok(shape) = self.output_shape(input) else { return 0 };
        shape.volume().saturating_mul((2 * self.pieces + 1).saturating_mul(size_of::<T>()))
    }

    fn spec(&self) -> Spec {
        Spec::new("Maxout")
            .with("in_features", self.inputs)
            .with("out_features", self.outputs)
            .with("pieces", self.pieces)
            .with("bias", self.bias)
    }
}

impl<T: Scalar> FromSpec<T> for Maxout<T> {
    const FACTS: Facts =
        Facts::new("Maxout").family("linear").formula("maxⱼ (x Wⱼᵀ + bⱼ)").page("layers/linear/maxout.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("in_features")?, args.get("out_features")?, args.get("pieces")?)
            .bias(args.or("bias", true)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(3, 2, 2).spec(), [[4, 3]]),
            Example::new(Self::new(2, 3, 1).bias(false).spec(), [[2, 2, 2]]),
            Example::bench(Self::new(256, 128, 2).spec(), [[256, 256]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::{Module, Parameters};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in collection::vec(1..4usize, 1..3), inputs in 1..5usize, outputs in 1..4usize, pieces in 1..4usize,
            bias in any::<bool>(),
        ) {
            layer: Maxout::new(inputs, outputs, pieces).bias(bias),
            input: [rows.clone(), vec![inputs]].concat(),
            wrong: [rows.clone(), vec![inputs + 1]].concat(), wrong: [],
        }
    }

    /// One output of two pieces, W = (1 0; 0 2), b = (0, 1): x = (3, 0) gives z = (3, 1), y = 3, and x = (0, 3) z = (0, 7), y = 7.
    /// For g = (1, 10): ∂W = (3 0; 0 30), ∂b = (1, 10), ∂x = (1 0; 0 20).
    #[test]
    pub fn by_hand() {
        let mut layer = Maxout::<f64>::new(2, 1, 2);
        let mut values = [Tensor::from([[1., 0.], [0., 2.]]), Tensor::from([0., 1.])].into_iter();
        layer.visit_mut(&mut |_, p| p.set(values.next().unwrap()).unwrap());
        let (x, mut y, mut cache) =
            (Tensor::from([[3., 0.], [0., 3.]]), Tensor::default(), MaxoutCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y, Tensor::from([[3.], [7.]]));
        let (dy, mut dx, mut grads) = (Tensor::from([[1.], [10.]]), Tensor::default(), Grads::new(&layer));
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut cache, &mut grads, Some(&mut dx)).unwrap();
        assert_eq!(
            (grads.values(), dx),
            (&[3., 0., 0., 30., 1., 10.][..], Tensor::from([[1., 0.], [0., 20.]]))
        );
    }

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        for (inputs, outputs, pieces) in
            [(0, 1, 1), (1, 0, 1), (1, 1, 0), (usize::MAX, 2, 2), (1, usize::MAX, 2)]
        {
            assert!(Maxout::<f32>::new(inputs, outputs, pieces).init(0).is_err());
        }
        assert!(Maxout::<f32>::new(2, 2, 2).infer(&Tensor::zeros([1, 3])).is_err());
    }
}
