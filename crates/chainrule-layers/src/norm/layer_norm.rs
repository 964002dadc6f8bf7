//! Layer normalisation over the last axes.
//!
//! ```text
//! x̂ = (x − μ) ρ,   ρ = 1/√(σ² + ε),   y = γ ⊙ x̂ + β
//! ```
//!
//! Given g = ∂E/∂y, and h = γ ⊙ g:
//!
//! ```text
//! ∂E/∂γ = Σₙ g ⊙ x̂        ∂E/∂β = Σₙ g        ∂E/∂x = ρ (h − mean(h) − x̂ ⊙ mean(h ⊙ x̂))
//! ```
//!
//! Keeps μ and ρ, one pair per row; recomputes x̂. Derivation: docs/layers/norm/layer_norm.md.

use super::affine::Affine;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Params, ParamsMut, Result, Scalar,
    Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::norm::{Mean, Shares, layer_norm, layer_norm_gradient};

/// y = (x − μ)/√(σ² + ε) γ + β, with the mean and the biased variance over the last axes. Ba, Kiros and Hinton, 2016.
///
/// # Shapes
/// x and y (…, D…) for a normalised shape D…; `weight`, `bias` (D…).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::LayerNorm;
/// let layer = LayerNorm::new(4).init(1)?;
/// let y = layer.infer(&Tensor::from([[0.0f32, 2.0, 0.0, 2.0]]))?;
/// assert!((y.data()[0] + 1.0).abs() < 1e-4 && (y.data()[1] - 1.0).abs() < 1e-4);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct LayerNorm<T = f32> {
    pub(super) affine: Affine<T>,
    pub(super) eps: f64,
}

/// What forward keeps for backward.
#[derive(Debug, Default)]
pub struct LayerNormCache<T> {
    /// The shape of x, if the pass was recorded.
    recorded: Option<Shape>,
    /// μ and ρ, one of each per row.
    mean: Vec<Mean<T>>,
    rstd: Vec<T>,
    /// Scratch space: sums of ∂γ and ∂β.
    shares: Shares<T>,
}

impl<T: Scalar> LayerNorm<T> {
    /// A normalisation over the last axes, which have this shape (`256`, `[8, 8]`), with γ and β.
    pub fn new(shape: impl Into<Shape>) -> Self {
        Self { affine: Affine::new(shape.into(), true, true), eps: 1e-5 }
    }

    /// The summand of the variance, 1e-5 by default.
    #[must_use]
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// With or without γ and β.
    #[must_use]
    pub fn elementwise_affine(self, affine: bool) -> Self {
        Self { affine: self.affine.affine(affine), ..self }
    }

    /// With or without β; there is none without γ.
    #[must_use]
    pub fn bias(self, bias: bool) -> Self {
        Self { affine: self.affine.bias(bias), ..self }
    }
}

impl<T: Scalar> Layer for LayerNorm<T> {
    type T = T;
    type Cache = LayerNormCache<T>;

    fn check(&self) -> Result<()> {
        self.affine.check("LayerNorm", self.eps)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        if !input.ends_with(self.affine.shape()) {
            let shape = self.affine.shape().iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            return Err(Error::shape(format!("LayerNorm: expected input (.., {shape}), got {input:?}")));
        }
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let y = y.reset(self.output_shape(x.shape())?);
        let (d, eps) = (self.affine.shape().volume(), T::from_f64(self.eps));
        let [weight, bias] = self.affine.values()?; // (D)
        cache.recorded = cx.recording().then_some(*x.shape());
        let (rows, LayerNormCache { mean, rstd, .. }) = (x.len() / d, cache);
        mean.resize(rows, Mean::default());
        rstd.resize(rows, T::ZERO);
        layer_norm(x.data(), y, d, eps, (weight, bias), mean, rstd); // y = x̂ ⊙ γ + β
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if cache.recorded != Some(*call.x.shape()) {
            return Err(Error::not_recorded(
                "LayerNorm: expected the cache of a recorded forward of this input",
            ));
        }
        let d = self.affine.shape().volume();
        let [weight, _] = self.affine.values()?;
        let dx = dx.map(|dx| dx.reset(*call.x.shape())); // dx = ρ (h − mean(h) − x̂ ⊙ mean(h ⊙ x̂))
        let (rows, shares) = ((&cache.mean[..], &cache.rstd[..]), &mut cache.shares);
        layer_norm_gradient((call.x.data(), call.dy.data()), d, rows, weight, shares, dx);
        self.affine.accumulate(grads, shares.sums(d)); // dγ += Σ dy ⊙ x̂, dβ += Σ dy
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.affine.params(out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.affine.params_mut(out);
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        input.iter().fold(1, |n, &axis| n.saturating_mul(axis as u64))
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        let volume = input.iter().fold(1usize, |n, &axis| n.saturating_mul(axis));
        let (d, rows) = (self.affine.shape().volume(), volume / self.affine.shape().volume().max(1));
        Shares::<T>::bytes(rows, d).saturating_add(rows.saturating_mul(3 * size_of::<T>()))
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::FACTS.kind)
            .with("normalized_shape", *self.affine.shape())
            .with("eps", self.eps)
            .with("elementwise_affine", self.affine.is_affine())
            .with("bias", self.affine.with_bias())
    }
}

impl<T: Scalar> FromSpec<T> for LayerNorm<T> {
    const FACTS: Facts = Facts::new("LayerNorm")
        .family("norm")
        .formula("γ (x − μ)/√(σ² + ε) + β, over the last axes")
        .page("layers/norm/layer_norm.md")
        .torch("LayerNorm");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get::<Shape>("normalized_shape")?)
            .eps(args.or("eps", 1e-5)?)
            .elementwise_affine(args.or("elementwise_affine", true)?)
            .bias(args.or("bias", true)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(5).spec(), [[4, 5]]),
            Example::new(Self::new([2, 3]).eps(1e-3).bias(false).spec(), [[3, 2, 3]]),
            Example::new(Self::new(4).elementwise_affine(false).spec(), [[2, 3, 4]]),
            Example::bench(Self::new(256).spec(), [[4096, 256]]),
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
            rows in collection::vec(1..4usize, 1..3), axes in collection::vec(1..5usize, 1..3),
            affine in any::<bool>(), bias in any::<bool>(), eps in prop_oneof![Just(1e-5), 1e-3..0.5f64],
        ) {
            layer: LayerNorm::new(Shape::new(&axes).unwrap()).eps(eps).elementwise_affine(affine).bias(bias),
            input: [rows.clone(), axes.clone()].concat(),
            wrong: [rows.clone(), axes[..axes.len() - 1].to_vec(), vec![axes[axes.len() - 1] + 1]].concat(),
            wrong: [],
        }
    }

    /// x = (1, 3), ε = 3, γ = (4, 2), β = (10, 20): μ = 2, σ² = 1, ρ = ½, x̂ = (−½, ½), y = (8, 21).
    /// For g = (1, 2): ∂γ = (−½, 1), ∂β = (1, 2), h = (4, 4), mean(h) = 4, mean(h x̂) = 0, ∂x = ½ (4 − 4, 4 − 4) = 0;
    /// for g = (1, 0): h = (4, 0), mean(h) = 2, mean(h x̂) = −1, ∂x = ½ (4 − 2 − ½, 0 − 2 + ½) = (¾, −¾).
    #[test]
    pub fn by_hand() {
        let mut layer = LayerNorm::<f64>::new(2).eps(3.0);
        layer.affine.weight.as_mut().unwrap().set(Tensor::from([4., 2.])).unwrap();
        layer.affine.bias.as_mut().unwrap().set(Tensor::from([10., 20.])).unwrap();
        let x = Tensor::from([[1., 3.], [1., 3.]]);
        let (mut y, mut cache) = (Tensor::default(), LayerNormCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y, Tensor::from([[8., 21.], [8., 21.]]));
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let dy = Tensor::from([[1., 2.], [1., 0.]]);
        layer
            .backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!(dx, Tensor::from([[0., 0.], [0.75, -0.75]]));
        assert_eq!(grads.values(), [-1., 1., 2., 2.]);
    }

    #[test]
    fn wrong_sizes_say_what_was_expected() {
        let layer = LayerNorm::<f32>::new([4, 5]);
        assert_eq!(*layer.output_shape(&[2, 4, 5]).unwrap(), [2, 4, 5]);
        let text = layer.output_shape(&[2, 5, 4]).unwrap_err().to_string();
        assert_eq!(text, "LayerNorm: expected input (.., 4, 5), got [2, 5, 4]");
        assert!(layer.output_shape(&[5]).is_err());
        assert!(LayerNorm::<f32>::new([]).init(0).is_err() && LayerNorm::<f32>::new(0).init(0).is_err());
        assert!(LayerNorm::<f32>::new(3).eps(f64::NAN).init(0).is_err());
    }

    #[test]
    fn the_affine_part_is_optional() {
        assert_eq!(LayerNorm::<f32>::new(3).parameter_count(), 6);
        assert_eq!(LayerNorm::<f32>::new(3).bias(false).parameter_count(), 3);
        assert_eq!(LayerNorm::<f32>::new(3).elementwise_affine(false).bias(true).parameter_count(), 0);
        assert_eq!(LayerNorm::new(3).init(0).unwrap().infer(&Tensor::<f32>::zeros([0, 3])).unwrap().len(), 0);
    }
}
