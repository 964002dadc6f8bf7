//! A learned summand for each feature.
//!
//! ```text
//! y = x + β        ∂E/∂β = Σ ∂E/∂y        ∂E/∂x = ∂E/∂y
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/linear/scale.md.

use super::broadcast::{Features, combine};
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Init, Layer, Param, Params, ParamsMut, Result,
    Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{compiled, kernels::elementwise::copy};

/// y = x + β with a learned β.
///
/// # Shapes
/// x and y (…, D…); `bias` (D…), which starts as 0. Last axes of length 1 in D… stand for any length: `[16, 1, 1]` is one
/// value for each channel of images.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::Bias;
/// let layer = Bias::new(2).init_value(2.0).init(1)?;
/// assert_eq!(layer.infer(&Tensor::from([[1.0f32, 3.0]]))?.data(), [3.0, 5.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Bias<T = f32> {
    bias: Param<T>,
    features: Features,
}

/// Scratch space: the gradients of the features.
#[derive(Debug, Default)]
pub struct BiasCache<T> {
    sums: Vec<T>,
}

impl<T: Scalar> Bias<T> {
    /// One summand for each element of the last axes, which have this shape.
    pub fn new(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Self { bias: Param::new("bias", shape, Init::ZEROS), features: Features(shape) }
    }

    /// Another value to start from, 0 by default.
    #[must_use]
    pub fn init_value(mut self, value: f64) -> Self {
        self.bias.set_initializer(Init::Constant(value));
        self
    }
}

compiled! {
    fn apply[T](x: &[T], values: &[T], y: &mut [T], inner: usize) {
        combine(x, values, y, inner, |x, v| x + v);
    }
}

impl<T: Scalar> Layer for Bias<T> {
    type T = T;
    type Cache = BiasCache<T>;

    fn check(&self) -> Result<()> {
        self.features.check("Bias")
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.features.inner("Bias", input)?;
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut Self::Cache, _: Context) -> Result<()> {
        let inner = self.features.inner("Bias", x.shape())?;
        apply(x.data(), self.bias.value()?, y.reset(*x.shape()), inner); // y = x + β
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let inner = self.features.inner("Bias", call.x.shape())?;
        if let Some(grad) = grads.of(&self.bias) {
            let BiasCache { sums } = cache;
            self.features.add_sums(call.dy.data(), inner, sums, grad); // dβ += Σ dy
        }
        if let Some(dx) = dx {
            copy(call.dy.data(), dx.reset(*call.x.shape())); // dx = dy
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.bias);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.bias);
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        self.features.cache_bytes::<T>(input)
    }

    fn spec(&self) -> Spec {
        Spec::new("Bias").with("shape", self.features.0).with_unless(
            Init::ZEROS,
            "init",
            self.bias.initializer(),
        )
    }
}

impl<T: Scalar> FromSpec<T> for Bias<T> {
    const FACTS: Facts = Facts::new("Bias").family("linear").formula("x + β").page("layers/linear/scale.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let mut layer = Self::new(args.get::<Shape>("shape")?);
        layer.bias.set_initializer(args.or("init", Init::ZEROS)?);
        Ok(layer)
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(3).spec(), [[4, 3]]),
            Example::new(Self::new([2, 1, 1]).init_value(0.5).spec(), [[3, 2, 2, 3]]),
            Example::bench(Self::new([64, 1, 1]).spec(), [[16, 64, 32, 32]]),
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
            rows in collection::vec(1..4usize, 1..3), features in collection::vec(1..4usize, 1..3),
            rest in collection::vec(1..4usize, 0..2),
        ) {
            layer: Bias::new(Shape::new(&[&features[..], &vec![1; rest.len()][..]].concat()).unwrap()),
            input: [rows.clone(), features.clone(), rest.clone()].concat(),
            wrong: [],
        }
    }

    /// β = (2, 3), x = (1 2; 3 4): y = (3 5; 5 7). For g = (1 10; 2 20): ∂β = (3, 30), ∂x = g.
    #[test]
    pub fn by_hand() {
        let mut layer = Bias::<f64>::new(2);
        layer.bias.set(Tensor::from([2., 3.])).unwrap();
        let x = Tensor::from([[1., 2.], [3., 4.]]);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y, Tensor::from([[3., 5.], [5., 7.]]));
        let (dy, mut dx, mut grads) =
            (Tensor::from([[1., 10.], [2., 20.]]), Tensor::default(), Grads::new(&layer));
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut BiasCache::default(), &mut grads, Some(&mut dx)).unwrap();
        assert_eq!((grads.values(), dx), (&[3., 30.][..], dy));
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let text = Bias::<f32>::new([2, 1]).output_shape(&[4, 3, 5]).unwrap_err().to_string();
        assert_eq!(text, "Bias: expected input (.., 2, *), got [4, 3, 5]");
        assert!(Bias::<f32>::new([2, 1]).output_shape(&[2]).is_err());
        for shape in [Shape::from([]), Shape::from([0]), Shape::from([usize::MAX, 3])] {
            assert!(Bias::<f32>::new(shape).init(0).is_err());
        }
    }
}
