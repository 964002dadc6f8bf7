//! Group normalisation. The channels of each image are normalised in G groups, m values in each.
//!
//! ```text
//! y = x̂ γ + β,   x̂ = (x − μ) ρ,   ρ = 1/√(σ² + ε),   μ = mean(x),   σ² = mean((x − μ)²) over a group
//! ```
//!
//! Given g = ∂E/∂y and h = γ g, with sums over the images and positions of a channel and means over a group:
//!
//! ```text
//! ∂E/∂γ = Σ g x̂        ∂E/∂β = Σ g        ∂E/∂x = ρ (h − mean(h) − x̂ mean(h x̂))
//! ```
//!
//! Keeps μ and ρ of each channel of each image; recomputes x̂. Derivation: docs/layers/norm/group_norm.md.

use super::affine::Affine;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Layer, Params, ParamsMut, Result, Scalar,
    Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::norm::{self, Channels, Mean, group_norm, group_norm_gradient};

/// y = (x − μ)/√(σ² + ε) γ + β, with the mean and the biased variance over a group of channels of one image. Wu and He, 2018.
///
/// # Shapes
/// x and y (N, C, …); `weight`, `bias` (C).
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::GroupNorm;
/// let layer = GroupNorm::new(4, 16).init(1)?;
/// assert_eq!(layer.infer(&Tensor::<f32>::zeros([8, 16, 28, 28]))?.shape()[..], [8, 16, 28, 28]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct GroupNorm<T = f32> {
    groups: usize,
    affine: Affine<T>,
    eps: f64,
}

/// What forward keeps for backward.
#[derive(Debug, Default)]
pub struct GroupNormCache<T> {
    /// The shape of x, if the pass was recorded.
    recorded: Option<Shape>,
    /// μ and ρ, (N, C) each.
    mean: Vec<Mean<T>>,
    rstd: Vec<T>,
    /// Scratch space: Σ dy x̂ and Σ dy, (N, C) each.
    sums: [Vec<T>; 2],
}

impl<T: Scalar> GroupNorm<T> {
    /// A normalisation of `channels` channels in `groups` groups, with γ and β.
    pub fn new(groups: usize, channels: usize) -> Self {
        Self { groups, affine: Affine::new(channels.into(), true, true), eps: 1e-5 }
    }

    /// The summand of the variance, 1e-5 by default.
    #[must_use]
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// With or without γ and β.
    #[must_use]
    pub fn affine(self, affine: bool) -> Self {
        Self { affine: self.affine.affine(affine), ..self }
    }

    /// With or without β; there is none without γ.
    #[must_use]
    pub fn bias(self, bias: bool) -> Self {
        Self { affine: self.affine.bias(bias), ..self }
    }

    fn channels(&self) -> usize {
        self.affine.shape()[0]
    }

    /// x as the channels of all images, and how many are a group.
    fn sizes(&self, shape: &[usize]) -> (Channels, usize) {
        (Channels { n: 1, c: shape[0] * shape[1], l: shape[2..].iter().product() }, shape[1] / self.groups)
    }
}

impl<T: Scalar> Layer for GroupNorm<T> {
    type T = T;
    type Cache = GroupNormCache<T>;

    fn check(&self) -> Result<()> {
        self.affine.check("GroupNorm", self.eps)?;
        if self.groups == 0 || !self.channels().is_multiple_of(self.groups) {
            return Err(Error::value(format!(
                "GroupNorm: expected a number of groups that divides {} channels, got {}",
                self.channels(),
                self.groups
            )));
        }
        Ok(())
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        match *input {
            [_, c, ..] if c == self.channels() => Shape::new(input),
            _ => Err(Error::shape(format!(
                "GroupNorm: expected input (N, {}, ..), got {input:?}",
                self.channels()
            ))),
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let y = y.reset(self.output_shape(x.shape())?);
        let (channels, each) = self.sizes(x.shape());
        let [weight, bias] = self.affine.values()?;
        let GroupNormCache { recorded, mean, rstd, .. } = cache;
        mean.resize(channels.c, Mean::default());
        rstd.resize(channels.c, T::ZERO);
        let affine = norm::Affine { weight, bias };
        group_norm(x.data(), y, channels, each, T::from_f64(self.eps), affine, (mean, rstd)); // y = x̂ γ + β
        *recorded = cx.recording().then_some(*x.shape());
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
                "GroupNorm: expected the cache of a recorded forward of this input",
            ));
        }
        let (channels, each) = self.sizes(call.x.shape());
        let GroupNormCache { mean, rstd, sums: [dw, db], .. } = cache;
        [&mut *dw, &mut *db].into_iter().for_each(|v| v.resize(channels.c, T::ZERO));
        group_norm_gradient(
            (call.x.data(), call.dy.data()),
            channels,
            each,
            (mean, rstd),
            self.affine.values()?[0],
            [&mut *dw, &mut *db],
            dx.map(|dx| dx.reset(*call.x.shape())), // dx = ρ (h − mean(h) − x̂ mean(h x̂))
        );
        let sums = [&mut *dw, &mut *db].map(|sums| over_images(sums, self.channels()));
        self.affine.accumulate(grads, sums); // dγ += Σ dy x̂, dβ += Σ dy
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
        let channels = input.iter().take(2).fold(1usize, |n, &axis| n.saturating_mul(axis));
        channels.saturating_mul(5 * size_of::<T>())
    }

    fn spec(&self) -> Spec {
        Spec::new("GroupNorm")
            .with("num_groups", self.groups)
            .with("num_channels", self.channels())
            .with("eps", self.eps)
            .with("affine", self.affine.is_affine())
            .with("bias", self.affine.with_bias())
    }
}

/// Sums (N, C) over the images, in the place of the first; zeros of no image.
pub(super) fn over_images<T: Scalar>(sums: &mut Vec<T>, channels: usize) -> &[T] {
    if sums.len() < channels {
        sums.resize(channels, T::ZERO);
    }
    for c in 0..channels {
        let sum: f64 = sums[c..].iter().step_by(channels).map(|v| v.to_f64()).sum();
        sums[c] = T::from_f64(sum);
    }
    &sums[..channels]
}

impl<T: Scalar> FromSpec<T> for GroupNorm<T> {
    const FACTS: Facts = Facts::new("GroupNorm")
        .family("norm")
        .formula("γ (x − μ)/√(σ² + ε) + β, over groups of channels")
        .page("layers/norm/group_norm.md")
        .torch("GroupNorm");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("num_groups")?, args.get("num_channels")?)
            .eps(args.or("eps", 1e-5)?)
            .affine(args.or("affine", true)?)
            .bias(args.or("bias", true)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new(2, 4).spec(), [[3, 4, 2, 3]]),
            Example::new(Self::new(1, 3).eps(1e-3).bias(false).spec(), [[2, 3, 4]]),
            Example::new(Self::new(3, 6).affine(false).spec(), [[4, 6]]),
            Example::bench(Self::new(8, 64).spec(), [[16, 64, 32, 32]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::Parameters;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in 1..4usize, groups in 1..4usize, each in 1..4usize, rest in collection::vec(1..5usize, 0..3),
            affine in any::<bool>(), bias in any::<bool>(), eps in 1e-2..0.5f64,
        ) {
            layer: GroupNorm::new(groups, groups * each).eps(eps).affine(affine).bias(bias),
            input: [vec![rows, groups * each], rest.clone()].concat(),
            wrong: [rows, groups * each + 1], wrong: [rows],
        }
    }

    /// One group of two channels of one value, x = (1, 3), ε = 3, γ = (4, 2), β = (10, 20): that is layer norm, μ = 2, σ² = 1,
    /// ρ = ½, x̂ = (−½, ½), y = (8, 21). For g = (1, 0): ∂γ = (−½, 0), ∂β = (1, 0), h = (4, 0), mean(h) = 2, mean(h x̂) = −1,
    /// ∂x = ½ (4 − 2 − ½, −2 + ½) = (¾, −¾).
    #[test]
    pub fn by_hand() {
        let mut layer = GroupNorm::<f64>::new(1, 2).eps(3.0);
        layer.affine.weight.as_mut().unwrap().set(Tensor::from([4., 2.])).unwrap();
        layer.affine.bias.as_mut().unwrap().set(Tensor::from([10., 20.])).unwrap();
        let x = Tensor::from([[1., 3.]]);
        let (mut y, mut cache) = (Tensor::default(), GroupNormCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y, Tensor::from([[8., 21.]]));
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let dy = Tensor::from([[1., 0.]]);
        layer
            .backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!(dx, Tensor::from([[0.75, -0.75]]));
        assert_eq!(grads.values(), [-0.5, 0., 1., 0.]);
    }

    #[test]
    fn wrong_sizes_say_what_was_expected() {
        let text = GroupNorm::<f32>::new(2, 4).output_shape(&[2, 3]).unwrap_err().to_string();
        assert_eq!(text, "GroupNorm: expected input (N, 4, ..), got [2, 3]");
        for (groups, channels) in [(0, 4), (3, 4), (1, 0), (usize::MAX, 4)] {
            assert!(GroupNorm::<f32>::new(groups, channels).init(0).is_err());
        }
        assert!(GroupNorm::<f32>::new(1, 2).eps(f64::NAN).init(0).is_err());
    }
}
