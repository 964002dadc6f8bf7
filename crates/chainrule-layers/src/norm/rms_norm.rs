//! Normalisation by the root of the mean square over the last axes.
//!
//! ```text
//! x̂ = x ρ,   ρ = 1/√(mean(x²) + ε),   y = γ ⊙ x̂
//! ```
//!
//! Given g = ∂E/∂y, and h = γ ⊙ g:
//!
//! ```text
//! ∂E/∂γ = Σₙ g ⊙ x̂        ∂E/∂x = ρ (h − x̂ ⊙ mean(h ⊙ x̂))
//! ```
//!
//! Keeps ρ, one value per row; recomputes x̂. Derivation: docs/layers/norm/rms_norm.md.

use super::affine::Affine;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Params, ParamsMut, Result, Scalar,
    Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::norm::{Mean, Shares, rms_norm, rms_norm_gradient};

/// y = x/√(mean(x²) + ε) γ, with the mean over the last axes. Zhang and Sennrich, 2019.
///
/// # Shapes
/// x and y (…, D…) for a normalised shape D…; `weight` (D…).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::RmsNorm;
/// let layer = RmsNorm::new(2).init(1)?;
/// let y = layer.infer(&Tensor::from([[1.0f32, 7.0]]))?; // √(½ (1 + 49)) = 5
/// assert!((y.data()[0] - 0.2).abs() < 1e-6 && (y.data()[1] - 1.4).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct RmsNorm<T = f32> {
    affine: Affine<T>,
    eps: Option<f64>,
}

/// What forward keeps for backward.
#[derive(Debug, Default)]
pub struct RmsNormCache<T> {
    /// The shape of x, if the pass was recorded.
    recorded: Option<Shape>,
    /// 0 in place of the mean of layer norm, and ρ, one of each per row.
    mean: Vec<Mean<T>>,
    rstd: Vec<T>,
    /// Scratch space: sums of ∂γ.
    shares: Shares<T>,
}

impl<T: Scalar> RmsNorm<T> {
    /// A normalisation over the last axes, which have this shape (`256`, `[8, 8]`), with γ.
    pub fn new(shape: impl Into<Shape>) -> Self {
        Self { affine: Affine::new(shape.into(), true, false), eps: None }
    }

    /// The summand of the mean square; by default, the distance from 1 to the next larger value of the scalar type.
    #[must_use]
    pub fn eps(self, eps: impl Into<Option<f64>>) -> Self {
        Self { eps: eps.into(), ..self }
    }

    fn summand(&self) -> f64 {
        self.eps.unwrap_or(T::EPSILON.to_f64())
    }

    /// With or without γ.
    #[must_use]
    pub fn elementwise_affine(self, affine: bool) -> Self {
        Self { affine: self.affine.affine(affine), ..self }
    }
}

impl<T: Scalar> Layer for RmsNorm<T> {
    type T = T;
    type Cache = RmsNormCache<T>;

    fn check(&self) -> Result<()> {
        self.affine.check("RmsNorm", self.summand())
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        if !input.ends_with(self.affine.shape()) {
            let shape = self.affine.shape().iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            return Err(Error::shape(format!("RmsNorm: expected input (.., {shape}), got {input:?}")));
        }
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let y = y.reset(self.output_shape(x.shape())?);
        let (d, eps) = (self.affine.shape().volume(), T::from_f64(self.summand()));
        let [weight, _] = self.affine.values()?; // (D)
        cache.recorded = cx.recording().then_some(*x.shape());
        let (rows, RmsNormCache { mean, rstd, .. }) = (x.len() / d, cache);
        mean.resize(rows, Mean::default());
        rstd.resize(rows, T::ZERO);
        rms_norm(x.data(), y, d, eps, weight, mean, rstd); // y = x̂ ⊙ γ
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
                "RmsNorm: expected the cache of a recorded forward of this input",
            ));
        }
        let d = self.affine.shape().volume();
        let [weight, _] = self.affine.values()?;
        let dx = dx.map(|dx| dx.reset(*call.x.shape())); // dx = ρ (h − x̂ ⊙ mean(h ⊙ x̂))
        let (rows, shares) = ((&cache.mean[..], &cache.rstd[..]), &mut cache.shares);
        rms_norm_gradient((call.x.data(), call.dy.data()), d, rows, weight, shares, dx);
        self.affine.accumulate(grads, shares.sums(d)); // dγ += Σ dy ⊙ x̂
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
    }
}

impl<T: Scalar> FromSpec<T> for RmsNorm<T> {
    const FACTS: Facts = Facts::new("RmsNorm")
        .family("norm")
        .formula("γ x/√(mean(x²) + ε), over the last axes")
        .page("layers/norm/rms_norm.md")
        .torch("RMSNorm");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get::<Shape>("normalized_shape")?)
            .eps(args.optional::<f64>("eps")?)
            .elementwise_affine(args.or("elementwise_affine", true)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(5).spec(), [[4, 5]]),
            Example::new(Self::new([2, 3]).eps(1e-3).spec(), [[3, 2, 3]]),
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
            // The default of f32 is another than that of f64.
            affine in any::<bool>(), eps in prop_oneof![Just(1e-5), 1e-3..0.5f64],
        ) {
            layer: RmsNorm::new(Shape::new(&axes).unwrap()).eps(eps).elementwise_affine(affine),
            input: [rows.clone(), axes.clone()].concat(),
            wrong: [rows.clone(), axes[..axes.len() - 1].to_vec(), vec![axes[axes.len() - 1] + 1]].concat(),
            wrong: [],
        }
    }

    /// x = (1, 1), ε = 3, γ = (4, 2): mean(x²) = 1, ρ = ½, x̂ = (½, ½), y = (2, 1). For g = (1, 2): ∂γ = (½, 1), h = (4, 4),
    /// mean(h x̂) = 2, ∂x = ½ (4 − 1, 4 − 1) = (1½, 1½).
    #[test]
    pub fn by_hand() {
        let mut layer = RmsNorm::<f64>::new(2).eps(3.0);
        layer.affine.weight.as_mut().unwrap().set(Tensor::from([4., 2.])).unwrap();
        let x = Tensor::from([[1., 1.]]);
        let (mut y, mut cache) = (Tensor::default(), RmsNormCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y, Tensor::from([[2., 1.]]));
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let dy = Tensor::from([[1., 2.]]);
        layer
            .backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!(dx, Tensor::from([[1.5, 1.5]]));
        assert_eq!(grads.values(), [0.5, 1.]);
    }

    #[test]
    fn wrong_sizes_say_what_was_expected() {
        let layer = RmsNorm::<f32>::new([4, 5]);
        assert_eq!(*layer.output_shape(&[2, 4, 5]).unwrap(), [2, 4, 5]);
        let text = layer.output_shape(&[2, 5, 4]).unwrap_err().to_string();
        assert_eq!(text, "RmsNorm: expected input (.., 4, 5), got [2, 5, 4]");
        assert!(RmsNorm::<f32>::new([]).init(0).is_err() && RmsNorm::<f32>::new(0).init(0).is_err());
        for eps in [f64::NAN, -1.0, f64::INFINITY] {
            assert!(RmsNorm::<f32>::new(3).eps(eps).init(0).is_err());
        }
    }

    /// x = ε^½: mean(x²) = ε, ρ = 1/√(2 ε), y = 1/√2.
    #[test]
    fn the_default_summand_is_that_of_the_scalar_type() {
        fn check<T: Scalar>() {
            let x = Tensor::full([1, 1], T::EPSILON.sqrt());
            let y = RmsNorm::<T>::new(1).elementwise_affine(false).infer(&x).unwrap();
            assert!((y.data()[0].to_f64() - 0.5f64.sqrt()).abs() < 1e-6);
        }
        check::<f32>();
        check::<f64>();
    }

    #[test]
    fn the_mean_of_10_million_squares_is_that_of_f64() {
        let x = Tensor::full([1, 10_000_000], 0.1f32);
        let y = RmsNorm::new(10_000_000).elementwise_affine(false).eps(0.0).infer(&x).unwrap();
        assert!(y.data().iter().all(|y| (y - 1.0).abs() < 1e-6));
    }
}
