//! A learned factor for each feature.
//!
//! ```text
//! y = γ ⊙ x        ∂E/∂γ = Σ ∂E/∂y ⊙ x        ∂E/∂x = γ ⊙ ∂E/∂y
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/linear/scale.md.

use super::broadcast::{Features, combine};
use chainrule_core::{
    Args, Call, Context, Example, Facts, FromSpec, Grads, Init, Layer, Param, Params, ParamsMut, Result,
    Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::{compiled, kernels::elementwise::map2};

/// y = γ ⊙ x with a learned γ.
///
/// # Shapes
/// x and y (…, D…); `weight` (D…), which starts as 1. Last axes of length 1 in D… stand for any length: `[16, 1, 1]` is one
/// value for each channel of images.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::Scale;
/// let layer = Scale::new(2).init_value(2.0).init(1)?;
/// assert_eq!(layer.infer(&Tensor::from([[1.0f32, 3.0]]))?.data(), [2.0, 6.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Scale<T = f32> {
    weight: Param<T>,
    features: Features,
}

/// Scratch space: the gradients of the features.
#[derive(Debug, Default)]
pub struct ScaleCache<T> {
    sums: Vec<T>,
    parts: Vec<T>,
}

impl<T: Scalar> Scale<T> {
    /// One factor for each element of the last axes, which have this shape.
    pub fn new(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Self { weight: Param::new("weight", shape, Init::ONES), features: Features(shape) }
    }

    /// γ has the layer's own path, `block.gamma` and not `block.gamma.weight`, as a parameter that is a field of a PyTorch module.
    #[must_use]
    pub fn bare(self) -> Self {
        let (shape, init) = (self.features.0, self.weight.initializer());
        Self { weight: Param::new("", shape, init), ..self }
    }

    /// Another value to start from, 1 by default.
    #[must_use]
    pub fn init_value(mut self, value: f64) -> Self {
        self.weight.set_initializer(Init::Constant(value));
        self
    }
}

compiled! {
    fn apply[T](x: &[T], values: &[T], y: &mut [T], inner: usize) {
        combine(x, values, y, inner, |x, v| v * x);
    }
}

compiled! {
    fn products[T](x: &[T], dy: &[T], out: &mut [T]) {
        map2(x, dy, out, |(x, dy)| x * dy);
    }
}

impl<T: Scalar> Layer for Scale<T> {
    type T = T;
    type Cache = ScaleCache<T>;

    fn check(&self) -> Result<()> {
        self.features.check("Scale")
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.features.inner("Scale", input)?;
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut Self::Cache, _: Context) -> Result<()> {
        let inner = self.features.inner("Scale", x.shape())?;
        apply(x.data(), self.weight.value()?, y.reset(*x.shape()), inner); // y = γ ⊙ x
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let inner = self.features.inner("Scale", call.x.shape())?;
        if let Some(grad) = grads.of(&self.weight) {
            let ScaleCache { sums, parts } = cache;
            parts.resize(call.x.len(), T::ZERO);
            products(call.x.data(), call.dy.data(), parts);
            self.features.add_sums(parts, inner, sums, grad); // dγ += Σ dy ⊙ x
        }
        if let Some(dx) = dx {
            apply(call.dy.data(), self.weight.value()?, dx.reset(*call.x.shape()), inner); // dx = γ ⊙ dy
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.weight);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.weight);
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        input.iter().fold(1, |n, &axis| n.saturating_mul(axis as u64))
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        self.features.cache_bytes::<T>(input)
    }

    fn spec(&self) -> Spec {
        Spec::new("Scale")
            .with("shape", self.features.0)
            .with_unless(Init::ONES, "init", self.weight.initializer())
            .with_unless(false, "bare", self.weight.name().is_empty())
    }
}

impl<T: Scalar> FromSpec<T> for Scale<T> {
    const FACTS: Facts = Facts::new("Scale").family("linear").formula("γ ⊙ x").page("layers/linear/scale.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let mut layer = Self::new(args.get::<Shape>("shape")?);
        layer.weight.set_initializer(args.or("init", Init::ONES)?);
        Ok(if args.or("bare", false)? { layer.bare() } else { layer })
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(3).spec(), [[4, 3]]),
            Example::new(Self::new([2, 1, 1]).init_value(0.5).spec(), [[3, 2, 2, 3]]),
            Example::new(Self::new(2).bare().spec(), [[1, 2]]),
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
            layer: Scale::new(Shape::new(&[&features[..], &vec![1; rest.len()][..]].concat()).unwrap()),
            input: [rows.clone(), features.clone(), rest.clone()].concat(),
            wrong: [],
        }
    }

    /// γ = (2, 3), x = (1 2; 3 4): y = (2 6; 6 12). For g = (1 10; 2 20): ∂γ = (1 + 6, 20 + 80) = (7, 100), ∂x = (2 30; 4 60).
    #[test]
    pub fn by_hand() {
        let mut layer = Scale::<f64>::new(2);
        layer.weight.set(Tensor::from([2., 3.])).unwrap();
        let x = Tensor::from([[1., 2.], [3., 4.]]);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y, Tensor::from([[2., 6.], [6., 12.]]));
        let (dy, mut dx, mut grads) =
            (Tensor::from([[1., 10.], [2., 20.]]), Tensor::default(), Grads::new(&layer));
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut ScaleCache::default(), &mut grads, Some(&mut dx)).unwrap();
        assert_eq!((grads.values(), dx), (&[7., 100.][..], Tensor::from([[2., 30.], [4., 60.]])));
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let text = Scale::<f32>::new([2, 1]).output_shape(&[4, 3, 5]).unwrap_err().to_string();
        assert_eq!(text, "Scale: expected input (.., 2, *), got [4, 3, 5]");
        assert!(Scale::<f32>::new([2, 1]).output_shape(&[2]).is_err());
        for shape in [Shape::from([]), Shape::from([0]), Shape::from([usize::MAX, 3])] {
            assert!(Scale::<f32>::new(shape).init(0).is_err());
        }
    }
}
