//! Instance normalisation. Each channel of each image is normalised over all positions, L values.
//!
//! ```text
//! y = x̂ γ + β,   x̂ = (x − μ) ρ,   ρ = 1/√(σ² + ε),   μ = mean(x),   σ² = mean((x − μ)²)
//! running_mean ← (1 − α) running_mean + α meanₙ(μ)        running_var ← (1 − α) running_var + α meanₙ(σ²) L/(L − 1)
//! ```
//!
//! Given g = ∂E/∂y, with means over the positions and sums over images and positions:
//!
//! ```text
//! ∂E/∂γ = Σ g x̂        ∂E/∂β = Σ g        ∂E/∂x = γ ρ (g − mean(g) − x̂ mean(g x̂))
//! ```
//!
//! In inference with running statistics μ and σ² are constants, and ∂E/∂x = γ ρ g. Keeps μ, σ² and ρ of each channel of each image;
//! recomputes x̂. Derivation: docs/layers/norm/instance_norm.md.

use super::{affine::Affine, group_norm::over_images};
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Init, Layer, Param, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::norm::{
    self, Channels, Mean, batch_norm, batch_norm_gradient, normalize_channels,
};

/// y = (x − μ)/√(σ² + ε) γ + β, each channel of each image over R axes: by default without γ and β and without running statistics.
/// Ulyanov, Vedaldi and Lempitsky, 2016.
///
/// # Shapes
/// x and y (N, C, …) with R more axes; `weight`, `bias`, `running_mean`, `running_var` (C); `num_batches_tracked` (), which stays 0.
///
/// # Errors
/// Forward with the statistics of an image that has a single value per channel.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::InstanceNorm2d;
/// let layer = InstanceNorm2d::new(16).affine(true).init(1)?;
/// assert_eq!(layer.infer(&Tensor::<f32>::zeros([8, 16, 28, 28]))?.shape()[..], [8, 16, 28, 28]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct InstanceNorm<const R: usize, T = f32> {
    affine: Affine<T>,
    eps: f64,
    momentum: Option<f64>,
    running: Option<[Param<T>; 3]>,
}

/// What forward keeps for backward and for `absorb`.
#[derive(Debug, Default)]
pub struct InstanceNormCache<T> {
    /// The shape of x, and whether μ and σ² are functions of it, if the pass was recorded.
    recorded: Option<(Shape, bool)>,
    /// μ, σ² and ρ, (N, C) each.
    mean: Vec<Mean<T>>,
    var: Vec<T>,
    rstd: Vec<T>,
    /// Scratch space: Σ dy x̂ and Σ dy, (N, C) each.
    sums: [Vec<T>; 2],
}

impl<const R: usize, T: Scalar> InstanceNorm<R, T> {
    const NAME: &'static str = ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"][R - 1];

    /// A normalisation of `channels` channels.
    pub fn new(channels: usize) -> Self {
        let affine = Affine::new(channels.into(), false, true);
        Self { affine, eps: 1e-5, momentum: Some(0.1), running: None }
    }

    /// The summand of the variance, 1e-5 by default.
    #[must_use]
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// The weight α of the newest batch in the running statistics, 0.1 by default; with `None` they stay as they are.
    #[must_use]
    pub fn momentum(self, momentum: impl Into<Option<f64>>) -> Self {
        Self { momentum: momentum.into(), ..self }
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

    /// With or without running statistics; without them, inference uses those of each image.
    #[must_use]
    pub fn track_running_stats(self, track: bool) -> Self {
        let channels = *self.affine.shape();
        let running = track.then(|| {
            [
                Param::buffer("running_mean", channels, Init::ZEROS),
                Param::buffer("running_var", channels, Init::ONES),
                Param::counter("num_batches_tracked"),
            ]
        });
        Self { running, ..self }
    }

    fn channels(&self) -> usize {
        self.affine.shape()[0]
    }
}

/// The channels of all images.
fn sizes(shape: &[usize]) -> Channels {
    Channels { n: 1, c: shape[0] * shape[1], l: shape[2..].iter().product() }
}

impl<const R: usize, T: Scalar> Layer for InstanceNorm<R, T> {
    type T = T;
    type Cache = InstanceNormCache<T>;

    fn check(&self) -> Result<()> {
        match self.momentum {
            Some(m) if !(0.0..=1.0).contains(&m) => {
                Err(Error::value(format!("{}: expected momentum in [0, 1], got {m}", Self::NAME)))
            }
            _ => self.affine.check(Self::NAME, self.eps),
        }
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        self.check()?;
        if input.len() != R + 2 || input[1] != self.channels() {
            let (c, axes) = (self.channels(), ["L", "H, W", "D, H, W"][R - 1]);
            return Err(Error::shape(format!(
                "{}: expected input (N, {c}, {axes}), got {input:?}",
                Self::NAME
            )));
        }
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let y = y.reset(self.output_shape(x.shape())?);
        let (sizes, eps) = (sizes(x.shape()), T::from_f64(self.eps));
        let [weight, bias] = self.affine.values()?;
        let InstanceNormCache { recorded, mean, var, rstd, .. } = cache;
        *recorded = None;
        let affine = norm::Affine { weight, bias };
        let through = match &self.running {
            Some([running_mean, running_var, _]) if !cx.training() => {
                mean.clear();
                rstd.clear();
                let channels = running_mean.value()?.iter().zip(running_var.value()?);
                mean.extend(channels.clone().map(|(&m, _)| [m, T::ZERO]).cycle().take(sizes.c));
                rstd.extend(channels.map(|(_, &v)| T::ONE / (v + eps).sqrt()).cycle().take(sizes.c));
                normalize_channels(x.data(), y, sizes, (mean, rstd), affine); // y = x̂ γ + β
                false
            }
            _ => {
                if sizes.l == 1 {
                    return Err(Error::shape(format!(
                        "{}: expected more than one value per channel for the statistics of an image, got input {}",
                        Self::NAME,
                        x.shape()
                    )));
                }
                mean.resize(sizes.c, Mean::default());
                [&mut *var, &mut *rstd].into_iter().for_each(|v| v.resize(sizes.c, T::ZERO));
                batch_norm(x.data(), y, sizes, eps, affine, mean, [var, rstd]); // y = x̂ γ + β
                true
            }
        };
        *recorded = cx.recording().then_some((*x.shape(), through));
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let InstanceNormCache { recorded, mean, rstd, sums: [dw, db], .. } = cache;
        let through = match recorded {
            Some((shape, through)) if shape == call.x.shape() => *through,
            _ => {
                let name = Self::NAME;
                return Err(Error::not_recorded(format!(
                    "{name}: expected the cache of a recorded forward of this input"
                )));
            }
        };
        let sizes = sizes(call.x.shape());
        [&mut *dw, &mut *db].into_iter().for_each(|v| v.resize(sizes.c, T::ZERO));
        batch_norm_gradient(
            (call.x.data(), call.dy.data()),
            sizes,
            (mean, rstd),
            self.affine.values()?[0],
            through,
            [&mut *dw, &mut *db],
            dx.map(|dx| dx.reset(*call.x.shape())), // dx = γ ρ (dy − mean(dy) − x̂ mean(dy x̂))
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
        self.running.iter().flatten().for_each(|p| out.add(p));
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.affine.params_mut(out);
        self.running.iter_mut().flatten().for_each(|p| out.add(p));
    }

    /// The running statistics move towards the means of those of the images.
    fn absorb(&mut self, cache: &Self::Cache) {
        let (Some([mean, var, _]), Some((shape, true)), Some(rate)) =
            (&mut self.running, &cache.recorded, self.momentum)
        else {
            return;
        };
        let (Ok(mean), Ok(var)) = (mean.value_mut(), var.value_mut()) else { return };
        let (n, c, l) = (shape[0], shape[1], sizes(shape).l);
        if n == 0 || l == 0 {
            return;
        }
        let unbiased = l as f64 / (l as f64 - 1.0);
        let moved =
            |running: T, sum: f64| T::from_f64((1.0 - rate) * running.to_f64() + rate * sum / n as f64);
        for i in 0..c {
            let means = cache.mean[i..].iter().step_by(c).map(|[m, _]| m.to_f64());
            let vars = cache.var[i..].iter().step_by(c).map(|v| v.to_f64() * unbiased);
            mean[i] = moved(mean[i], means.sum()); // running_mean ← (1 − α) running_mean + α meanₙ(μ)
            var[i] = moved(var[i], vars.sum()); // likewise with σ² L/(L − 1)
        }
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        input.iter().fold(1, |n, &axis| n.saturating_mul(axis as u64))
    }

    fn cache_bytes(&self, input: &[usize], _: bool) -> usize {
        let channels = input.iter().take(2).fold(1usize, |n, &axis| n.saturating_mul(axis));
        channels.saturating_mul(6 * size_of::<T>())
    }

    fn spec(&self) -> Spec {
        Spec::new(Self::NAME)
            .with("num_features", self.channels())
            .with("eps", self.eps)
            .with("momentum", self.momentum)
            .with("affine", self.affine.is_affine())
            .with("track_running_stats", self.running.is_some())
            .with("bias", self.affine.with_bias())
    }
}

/// Aliases and `FromSpec` of each rank.
macro_rules! ranks {
    ($($rank:literal $what:literal: $name:ident, $small:expr, $large:expr;)*) => {$(
        #[doc = concat!("Instance normalisation of ", $what, ".")]
        pub type $name<T = f32> = InstanceNorm<$rank, T>;

        impl<T: Scalar> FromSpec<T> for InstanceNorm<$rank, T> {
            const FACTS: Facts = Facts::new(stringify!($name))
                .family("norm")
                .formula("γ (x − μ)/√(σ² + ε) + β, over each channel of an image")
                .page("layers/norm/instance_norm.md")
                .torch(stringify!($name));

            fn from_spec(args: &Args<'_, T>) -> Result<Self> {
                Ok(Self::new(args.get("num_features")?)
                    .eps(args.or("eps", 1e-5)?)
                    .momentum(args.or("momentum", Some(0.1))?)
                    .affine(args.or("affine", false)?)
                    .track_running_stats(args.or("track_running_stats", false)?)
                    .bias(args.or("bias", true)?))
            }

            fn examples() -> Vec<Example> {
                let tracked = Self::new(3).affine(true).track_running_stats(true);
                vec![
                    Example::new(Self::new(3).spec(), [$small]),
                    Example::new(tracked.spec(), [$small]),
                    Example::new(Self::new(3).eps(1e-3).momentum(None).affine(true).bias(false).spec(), [$small]),
                    Example::bench(Self::new(16).affine(true).spec(), [$large]),
                ]
            }
        }
    )*};
}

ranks! {
    1 "sequences (N, C, L)": InstanceNorm1d, [2, 3, 5], [64, 16, 1024];
    2 "images (N, C, H, W)": InstanceNorm2d, [2, 3, 2, 4], [16, 16, 64, 64];
    3 "volumes (N, C, D, H, W)": InstanceNorm3d, [2, 3, 2, 2, 3], [4, 16, 16, 32, 32];
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::{Module, Parameters};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in 1..4usize, channels in 1..5usize, length in 2..6usize, affine in any::<bool>(),
            bias in any::<bool>(), track in any::<bool>(), eps in 1e-2..0.5f64,
            momentum in prop_oneof![Just(None), (0.0..1.0f64).prop_map(Some)],
        ) {
            layer: InstanceNorm1d::new(channels)
                .eps(eps)
                .momentum(momentum)
                .affine(affine)
                .bias(bias)
                .track_running_stats(track),
            input: [rows, channels, length],
            wrong: [rows, channels + 1, length], wrong: [rows, channels],
        }
        images_obey_the_laws(
            rows in 1..4usize, channels in 1..4usize, h in 1..4usize, w in 2..4usize, affine in any::<bool>(),
            track in any::<bool>(),
        ) {
            layer: InstanceNorm2d::new(channels).eps(0.01).affine(affine).track_running_stats(track),
            input: [rows, channels, h, w],
            wrong: [rows, channels, h],
        }
        volumes_obey_the_laws(rows in 1..3usize, axes in collection::vec(1..4usize, 2), affine in any::<bool>()) {
            layer: InstanceNorm3d::new(2).eps(0.01).affine(affine),
            input: [rows, 2, axes[0], axes[1], 2],
        }
    }

    fn running(layer: &InstanceNorm1d<f64>) -> [f64; 3] {
        layer.running.as_ref().unwrap().each_ref().map(|p| p.value().unwrap()[0])
    }

    /// One image of one channel, x = (1, 3), ε = 3, γ = 4, β = 10: as batch norm, y = (8, 12), and for g = (1, 0) ∂γ = −½, ∂β = 1,
    /// ∂x = (¾, −¾). Running statistics with α = ¼: mean ½, var ¾ + ¼·2 = 1¼; no batch is counted.
    #[test]
    pub fn by_hand() {
        let layer = InstanceNorm1d::<f64>::new(1).eps(3.0).momentum(0.25).affine(true);
        let mut layer = layer.track_running_stats(true).init(0).unwrap();
        layer.affine.weight.as_mut().unwrap().set(Tensor::from([4.0])).unwrap();
        layer.affine.bias.as_mut().unwrap().set(Tensor::from([10.0])).unwrap();
        let x = Tensor::from_vec([1, 1, 2], vec![1.0, 3.0]).unwrap();
        let (mut y, mut cache) = (Tensor::default(), InstanceNormCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y.data(), [8.0, 12.0]);
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let dy = Tensor::from_vec([1, 1, 2], vec![1.0, 0.0]).unwrap();
        layer
            .backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!(dx.data(), [0.75, -0.75]);
        assert_eq!(grads.values(), [-0.5, 1.0]);
        layer.absorb(&cache);
        assert_eq!(running(&layer), [0.5, 1.25, 0.0]);
    }

    #[test]
    fn one_value_per_channel_is_an_error_unless_running_statistics_are_used() {
        let layer = InstanceNorm1d::<f64>::new(2).init(0).unwrap();
        let text = layer.infer(&Tensor::zeros([3, 2, 1])).unwrap_err().to_string();
        assert!(text.contains("more than one value per channel"), "{text}");
        let tracked = layer.track_running_stats(true).init(0).unwrap();
        assert!(tracked.infer(&Tensor::zeros([3, 2, 1])).is_ok());
    }

    #[test]
    fn wrong_sizes_say_what_was_expected() {
        let text = InstanceNorm2d::<f32>::new(5).output_shape(&[4, 3, 8, 8]).unwrap_err().to_string();
        assert_eq!(text, "InstanceNorm2d: expected input (N, 5, H, W), got [4, 3, 8, 8]");
        assert!(InstanceNorm1d::<f32>::new(0).init(0).is_err());
        assert!(InstanceNorm1d::<f32>::new(1).eps(-1.0).init(0).is_err());
        assert!(InstanceNorm1d::<f32>::new(1).momentum(1.5).init(0).is_err());
    }
}
