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
//! Keeps μ and ρ, one pair a row; recomputes x̂. Derivation: docs/layers/norm/layer_norm.md.

use chainrule_core::{
    Call, Context, Error, Grads, Init, Layer, Param, Params, ParamsMut, Result, Scalar, Shape, Tensor,
};
use chainrule_tensor::kernels::norm::{layer_norm, layer_norm_gradient};

/// y = (x − μ)/√(σ² + ε) γ + β, with the mean and the biased variance over the last axes. Ba, Kiros and Hinton, 2016.
///
/// # Shapes
/// x and y (…, D…) for a normalised shape D…; `weight`, `bias` (D…).
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::LayerNorm;
/// let layer = LayerNorm::new(4).init(1)?;
/// let y = layer.infer(&Tensor::from([[0.0f32, 2.0, 0.0, 2.0]]))?;
/// assert!((y.data()[0] + 1.0).abs() < 1e-4 && (y.data()[1] - 1.0).abs() < 1e-4);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm<T = f32> {
    shape: Shape,
    eps: f64,
    weight: Option<Param<T>>,
    bias: Option<Param<T>>,
}

/// What forward keeps for backward.
#[derive(Debug, Default)]
pub struct LayerNormCache<T> {
    recorded: bool,
    /// μ and ρ, one a row.
    mean: Vec<T>,
    rstd: Vec<T>,
    /// Scratch: pieces' shares of ∂γ and ∂β. The first 2 D numbers are their sums.
    shares: Vec<T>,
}

impl<T: Scalar> LayerNorm<T> {
    /// A normalisation over the last axes, which have this shape (`256`, `[8, 8]`), with γ and β.
    pub fn new(shape: impl Into<Shape>) -> Self {
        Self { shape: shape.into(), eps: 1e-5, weight: None, bias: None }.elementwise_affine(true)
    }

    /// The number added to the variance, 1e-5 by default.
    #[must_use]
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// With or without γ and β.
    #[must_use]
    pub fn elementwise_affine(self, affine: bool) -> Self {
        let weight = affine.then(|| Param::new("weight", self.shape, Init::ONES));
        Self { weight, ..self }.bias(affine)
    }

    /// With or without β; there is none without γ.
    #[must_use]
    pub fn bias(self, bias: bool) -> Self {
        let bias = bias && self.weight.is_some();
        Self { bias: bias.then(|| Param::new("bias", self.shape, Init::ZEROS)), ..self }
    }
}

impl<T: Scalar> Layer<T> for LayerNorm<T> {
    type Cache = LayerNormCache<T>;

    fn check(&self) -> Result<()> {
        if self.shape.is_empty() || self.shape.contains(&0) {
            let shape = self.shape;
            return Err(Error::value(format!("LayerNorm: expected a shape without empty axes, got {shape}")));
        }
        if !(self.eps >= 0.0 && self.eps.is_finite()) {
            return Err(Error::value(format!("LayerNorm: expected eps ≥ 0, got {}", self.eps)));
        }
        Ok(())
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        if !input.ends_with(&self.shape) {
            let shape = self.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            return Err(Error::shape(format!("LayerNorm: expected input (.., {shape}), got {input:?}")));
        }
        Shape::new(input)
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut Self::Cache,
        cx: &mut Context,
    ) -> Result<()> {
        let y = y.reset(self.output_shape(x.shape())?);
        let (d, eps) = (self.shape.volume(), T::from_f64(self.eps));
        let weight = self.weight.as_ref().map(Param::value).transpose()?; // (D)
        let bias = self.bias.as_ref().map(Param::value).transpose()?; // (D)
        cache.recorded = cx.recording();
        [&mut cache.mean, &mut cache.rstd].into_iter().for_each(|v| v.resize(x.len() / d, T::ZERO));
        layer_norm(x.data(), y, d, eps, (weight, bias), [&mut cache.mean, &mut cache.rstd]); // y = x̂ ⊙ γ + β
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if !cache.recorded {
            return Err(Error::not_recorded("LayerNorm: expected the cache of a recorded forward"));
        }
        let d = self.shape.volume();
        let weight = self.weight.as_ref().map(Param::value).transpose()?;
        let dx = dx.map(|dx| dx.reset(*call.x.shape())); // dx = ρ (h − mean(h) − x̂ ⊙ mean(h ⊙ x̂))
        let (rows, shares) = ((&cache.mean[..], &cache.rstd[..]), &mut cache.shares);
        layer_norm_gradient((call.x.data(), call.dy.data()), d, rows, weight, shares, dx);
        for (param, sums) in [&self.weight, &self.bias].into_iter().zip(shares.chunks_exact(d)) {
            if let Some(grad) = param.as_ref().and_then(|p| grads.of(p)) {
                grad.iter_mut().zip(sums).for_each(|(g, &s)| *g += s); // dγ += Σ dy ⊙ x̂, dβ += Σ dy
            }
        }
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.weight.iter().chain(&self.bias).for_each(|p| out.add(p));
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.weight.iter_mut().chain(&mut self.bias).for_each(|p| out.add(p));
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        input.iter().map(|&n| n as u64).product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_core::Parameters;
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
    fn by_hand() {
        let mut layer = LayerNorm::<f64>::new(2).eps(3.0);
        layer.weight.as_mut().unwrap().set(Tensor::from([4., 2.])).unwrap();
        layer.bias.as_mut().unwrap().set(Tensor::from([10., 20.])).unwrap();
        let x = Tensor::from([[1., 3.], [1., 3.]]);
        let (mut y, mut cache) = (Tensor::default(), LayerNormCache::default());
        layer.forward(&x, &mut y, &mut cache, &mut Context::train(0)).unwrap();
        assert_eq!(y, Tensor::from([[8., 21.], [8., 21.]]));
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let dy = Tensor::from([[1., 2.], [1., 0.]]);
        layer.backward(Call { x: &x, y: &y, dy: &dy }, &mut cache, &mut grads, Some(&mut dx)).unwrap();
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
