//! Batch normalisation. Each channel c is normalised over the batch and over all positions, m values in all.
//!
//! ```text
//! y = x̂ γ + β,   x̂ = (x − μ) ρ,   ρ = 1/√(σ² + ε),   μ = mean(x),   σ² = mean((x − μ)²)
//! running_mean ← (1 − α) running_mean + α μ        running_var ← (1 − α) running_var + α σ² m/(m − 1)
//! ```
//!
//! Given g = ∂E/∂y, with means and sums over the m values of a channel:
//!
//! ```text
//! ∂E/∂γ = Σ g x̂        ∂E/∂β = Σ g        ∂E/∂x = γ ρ (g − mean(g) − x̂ mean(g x̂))
//! ```
//!
//! In inference μ and σ² are the running ones, constants, and ∂E/∂x = γ ρ g. Keeps μ, σ² and ρ of each channel;
//! recomputes x̂. Derivation: docs/layers/norm/batch_norm.md.

use super::affine::Affine;
use chainrule_core::{
    Args, Call, Context, Error, Example, Facts, FromSpec, Grads, Init, Layer, Param, Params, ParamsMut,
    Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_tensor::kernels::layers::norm::{
    self, Channels, Mean, batch_norm, batch_norm_gradient, normalize_channels,
};

/// y = (x − μ)/√(σ² + ε) γ + β, each channel over the batch and over R axes.
///
/// Training uses the mean and the biased variance of the batch, and `absorb` moves the running mean and the running
/// unbiased variance towards them; inference uses the running ones. Ioffe and Szegedy, 2015.
///
/// # Shapes
/// x and y (N, C, …) with R more axes, or none if R is 1; `weight`, `bias`, `running_mean`, `running_var` (C);
/// `num_batches_tracked` ().
///
/// # Errors
/// Forward in training (and without running statistics always) of a batch with a single value per channel.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Parameters, Tensor};
/// use chainrule_layers::{BatchNorm1d, BatchNorm2d};
/// let layer = BatchNorm1d::new(100).momentum(0.05).init(1)?;
/// assert_eq!(layer.infer(&Tensor::<f32>::zeros([32, 100]))?.shape()[..], [32, 100]);
/// let layer = BatchNorm2d::new(16).init(1)?;
/// assert_eq!(layer.infer(&Tensor::<f32>::zeros([8, 16, 28, 28]))?.shape()[..], [8, 16, 28, 28]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct BatchNorm<const R: usize, T = f32> {
    affine: Affine<T>,
    eps: f64,
    momentum: Option<f64>,
    running: Option<Running<T>>,
}

/// Batch normalisation of rows (N, C) and sequences (N, C, L).
pub type BatchNorm1d<T = f32> = BatchNorm<1, T>;

/// Batch normalisation of images (N, C, H, W).
pub type BatchNorm2d<T = f32> = BatchNorm<2, T>;

/// Batch normalisation of volumes (N, C, D, H, W).
pub type BatchNorm3d<T = f32> = BatchNorm<3, T>;

/// The statistics of inference.
#[derive(Clone, Debug)]
struct Running<T> {
    mean: Param<T>,
    var: Param<T>,
    batches: Param<T>,
}

impl<T: Scalar> Running<T> {
    fn new(channels: Shape) -> Self {
        Self {
            mean: Param::buffer("running_mean", channels, Init::ZEROS),
            var: Param::buffer("running_var", channels, Init::ONES),
            batches: Param::counter("num_batches_tracked"),
        }
    }
}

/// What forward keeps for backward and for `absorb`.
#[derive(Debug, Default)]
pub struct BatchNormCache<T> {
    /// The shape of x, and which statistics were used, if the pass was recorded.
    recorded: Option<(Shape, Statistics)>,
    /// μ, σ² and ρ, (C) each.
    mean: Vec<Mean<T>>,
    var: Vec<T>,
    rstd: Vec<T>,
    /// Scratch space: Σ dy x̂ and Σ dy, (C) each.
    dw: Vec<T>,
    db: Vec<T>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistics {
    /// μ and σ² are functions of x.
    Batch,
    /// μ and σ² are constants.
    Running,
}

impl<const R: usize, T: Scalar> BatchNorm<R, T> {
    const NAME: &'static str = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"][R - 1];

    /// A normalisation of `channels` channels, with γ, β and running statistics.
    pub fn new(channels: usize) -> Self {
        let affine = Affine::new(channels.into(), true, true);
        Self { affine, eps: 1e-5, momentum: Some(0.1), running: None }.track_running_stats(true)
    }

    /// The summand of the variance, 1e-5 by default.
    #[must_use]
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// The weight α of the newest batch in the running statistics, 0.1 by default; `None` for the plain average of all
    /// batches.
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

    /// With or without running statistics; without them, inference uses those of its batch.
    #[must_use]
    pub fn track_running_stats(self, track: bool) -> Self {
        let channels = *self.affine.shape();
        Self { running: track.then(|| Running::new(channels)), ..self }
    }

    fn channels(&self) -> usize {
        self.affine.shape()[0]
    }

    fn from_args(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get("num_features")?)
            .eps(args.or("eps", 1e-5)?)
            .momentum(args.or("momentum", Some(0.1))?)
            .affine(args.or("affine", true)?)
            .track_running_stats(args.or("track_running_stats", true)?)
            .bias(args.or("bias", true)?))
    }

    /// Cases of the options, over inputs of a shape with 3 channels and one with 4.
    fn cases(three: Shape, four: Shape) -> Vec<Example> {
        let average = Self::new(4).eps(1e-3).momentum(None).bias(false);
        vec![
            Example::new(Self::new(3).spec(), [three]),
            Example::new(average.spec(), [four]),
            Example::new(Self::new(3).affine(false).track_running_stats(false).spec(), [three]),
        ]
    }
}

/// (N, C, …) as (N, C, L).
fn sizes(shape: &[usize]) -> Channels {
    Channels { n: shape[0], c: shape[1], l: shape[2..].iter().product() }
}

impl<const R: usize, T: Scalar> Layer for BatchNorm<R, T> {
    type T = T;
    type Cache = BatchNormCache<T>;

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
        let axes = input.len() == R + 2 || (R == 1 && input.len() == 2);
        if !axes || input[1] != self.channels() {
            let c = self.channels();
            let expected = match R {
                1 => format!("(N, {c}) or (N, {c}, L)"),
                2 => format!("(N, {c}, H, W)"),
                _ => format!("(N, {c}, D, H, W)"),
            };
            return Err(Error::shape(format!("{}: expected input {expected}, got {input:?}", Self::NAME)));
        }
        Shape::new(input)
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, cache: &mut Self::Cache, cx: Context) -> Result<()> {
        let y = y.reset(self.output_shape(x.shape())?);
        let (sizes, eps) = (sizes(x.shape()), T::from_f64(self.eps));
        let [weight, bias] = self.affine.values()?;
        let affine = norm::Affine { weight, bias };
        let BatchNormCache { recorded, mean, var, rstd, .. } = cache;
        *recorded = None;
        mean.resize(sizes.c, Mean::default());
        [&mut *var, &mut *rstd].into_iter().for_each(|v| v.resize(sizes.c, T::ZERO));
        let statistics = match &self.running {
            Some(running) if !cx.training() => {
                mean.iter_mut().zip(running.mean.value()?).for_each(|(mean, &m)| *mean = [m, T::ZERO]);
                let var = running.var.value()?;
                rstd.iter_mut().zip(var).for_each(|(r, &v)| *r = T::ONE / (v + eps).sqrt());
                normalize_channels(x.data(), y, sizes, (mean, rstd), affine); // y = x̂ γ + β
                Statistics::Running
            }
            _ => {
                if sizes.count() == 1 {
                    return Err(Error::shape(format!(
                        "{}: expected more than one value per channel for the statistics of a batch, got input {}",
                        Self::NAME,
                        x.shape()
                    )));
                }
                batch_norm(x.data(), y, sizes, eps, affine, mean, [var, rstd]); // y = x̂ γ + β
                Statistics::Batch
            }
        };
        *recorded = cx.recording().then_some((*x.shape(), statistics));
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let BatchNormCache { recorded, mean, rstd, dw, db, .. } = cache;
        let statistics = match recorded {
            Some((shape, statistics)) if shape == call.x.shape() => *statistics,
            _ => {
                let name = Self::NAME;
                return Err(Error::not_recorded(format!(
                    "{name}: expected the cache of a recorded forward of this input"
                )));
            }
        };
        [&mut *dw, &mut *db].into_iter().for_each(|v| v.resize(self.channels(), T::ZERO));
        batch_norm_gradient(
            (call.x.data(), call.dy.data()),
            sizes(call.x.shape()),
            (mean, rstd),
            self.affine.values()?[0],
            statistics == Statistics::Batch,
            [dw, db],
            dx.map(|dx| dx.reset(*call.x.shape())), // dx = γ ρ (dy − mean(dy) − x̂ mean(dy x̂))
        );
        self.affine.accumulate(grads, [dw, db]); // dγ += Σ dy x̂, dβ += Σ dy
        Ok(())
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.affine.params(out);
        if let Some(r) = &self.running {
            [&r.mean, &r.var, &r.batches].into_iter().for_each(|p| out.add(p));
        }
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.affine.params_mut(out);
        if let Some(r) = &mut self.running {
            [&mut r.mean, &mut r.var, &mut r.batches].into_iter().for_each(|p| out.add(p));
        }
    }

    /// The running statistics move towards those of the batch.
    fn absorb(&mut self, cache: &Self::Cache) {
        let (Some(running), Some((shape, Statistics::Batch))) = (&mut self.running, &cache.recorded) else {
            return;
        };
        let (Ok(mean), Ok(var), Ok(batches)) =
            (running.mean.value_mut(), running.var.value_mut(), running.batches.value_mut())
        else {
            return;
        };
        batches[0] += T::ONE;
        let count = sizes(shape).count();
        if count == 0 {
            return;
        }
        let rate = self.momentum.map_or(T::ONE / batches[0], T::from_f64);
        let unbiased = T::from_f64(count as f64 / (count as f64 - 1.0));
        for (running, &[m, _]) in mean.iter_mut().zip(&cache.mean) {
            *running = (T::ONE - rate) * *running + rate * m; // running_mean ← (1 − α) running_mean + α μ
        }
        for (running, &v) in var.iter_mut().zip(&cache.var) {
            *running = (T::ONE - rate) * *running + rate * (v * unbiased); // likewise with σ² m/(m − 1)
        }
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        input.iter().fold(1, |n, &axis| n.saturating_mul(axis as u64))
    }

    fn cache_bytes(&self, _: &[usize], _: bool) -> usize {
        6 * self.channels() * size_of::<T>()
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

impl<T: Scalar> FromSpec<T> for BatchNorm<1, T> {
    const FACTS: Facts = Facts::new("BatchNorm1d")
        .family("norm")
        .formula("γ (x − μ)/√(σ² + ε) + β, over the batch")
        .page("layers/norm/batch_norm.md")
        .torch("BatchNorm1d");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Self::from_args(args)
    }

    fn examples() -> Vec<Example> {
        let mut examples = Self::cases([5, 3].into(), [2, 4, 3].into());
        examples.push(Example::bench(Self::new(256).spec(), [[4096, 256]]));
        examples
    }
}

impl<T: Scalar> FromSpec<T> for BatchNorm<2, T> {
    const FACTS: Facts = Facts::new("BatchNorm2d")
        .family("norm")
        .formula("γ (x − μ)/√(σ² + ε) + β, over the batch")
        .page("layers/norm/batch_norm.md")
        .torch("BatchNorm2d");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Self::from_args(args)
    }

    fn examples() -> Vec<Example> {
        let mut examples = Self::cases([2, 3, 4, 2].into(), [3, 4, 1, 3].into());
        examples.push(Example::bench(Self::new(64).spec(), [[16, 64, 32, 32]]));
        examples
    }
}

impl<T: Scalar> FromSpec<T> for BatchNorm<3, T> {
    const FACTS: Facts = Facts::new("BatchNorm3d")
        .family("norm")
        .formula("γ (x − μ)/√(σ² + ε) + β, over the batch")
        .page("layers/norm/batch_norm.md")
        .torch("BatchNorm3d");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Self::from_args(args)
    }

    fn examples() -> Vec<Example> {
        let mut examples = Self::cases([2, 3, 2, 3, 2].into(), [3, 4, 1, 2, 3].into());
        examples.push(Example::bench(Self::new(16).spec(), [[4, 16, 16, 32, 32]]));
        examples
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::{Kind, Module, Parameters};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            rows in 2..6usize, channels in 1..5usize, length in 1..5usize, sequence in any::<bool>(),
            affine in any::<bool>(), bias in any::<bool>(), track in any::<bool>(),
            momentum in prop_oneof![Just(None), (0.0..1.0f64).prop_map(Some)],
            eps in prop_oneof![Just(1e-5), 1e-3..0.5f64],
        ) {
            layer: BatchNorm1d::new(channels)
                .eps(eps)
                .momentum(momentum)
                .affine(affine)
                .bias(bias)
                .track_running_stats(track),
            input: if sequence { vec![rows, channels, length] } else { vec![rows, channels] },
            wrong: [rows, channels + 1], wrong: [rows, channels, 2, 2], wrong: [channels],
        }
        images_obey_the_laws(
            rows in 2..6usize, channels in 1..5usize, height in 1..4usize, width in 1..4usize,
            affine in any::<bool>(), bias in any::<bool>(), track in any::<bool>(),
            momentum in prop_oneof![Just(None), (0.0..1.0f64).prop_map(Some)],
            eps in prop_oneof![Just(1e-5), 1e-3..0.5f64],
        ) {
            layer: BatchNorm2d::new(channels)
                .eps(eps)
                .momentum(momentum)
                .affine(affine)
                .bias(bias)
                .track_running_stats(track),
            input: [rows, channels, height, width],
            wrong: [rows, channels + 1, height, width], wrong: [rows, channels, height],
        }
    }

    laws! {
        volumes_obey_the_laws(
            rows in 2..4usize, channels in 1..4usize, axes in collection::vec(1..4usize, 3),
            affine in any::<bool>(), track in any::<bool>(),
        ) {
            layer: BatchNorm3d::new(channels).eps(0.01).affine(affine).track_running_stats(track),
            input: [vec![rows, channels], axes.clone()].concat(),
            wrong: [rows, channels, 2, 2], wrong: [rows, channels + 1, 2, 2, 2],
        }
    }

    fn train(layer: &mut BatchNorm1d<f64>, x: &Tensor<f64>) -> Result<Tensor<f64>> {
        let (mut y, mut cache) = (Tensor::default(), BatchNormCache::default());
        layer.forward(x, &mut y, &mut cache, Context::train(0))?;
        layer.absorb(&cache);
        Ok(y)
    }

    fn running(layer: &BatchNorm1d<f64>) -> [f64; 3] {
        let r = layer.running.as_ref().unwrap();
        [&r.mean, &r.var, &r.batches].map(|p| p.value().unwrap()[0])
    }

    /// x = (1, 3), ε = 3, γ = 4, β = 10: μ = 2, σ² = 1, ρ = 1/√4 = ½, x̂ = (−½, ½), y = (8, 12).
    /// For g = (1, 0): ∂γ = −½, ∂β = 1, mean(g) = ½, mean(g x̂) = −¼,
    /// ∂x = 4·½·(1 − ½ − ½·¼, 0 − ½ + ½·¼) = (¾, −¾).
    /// Running statistics with α = ¼: mean ¾·0 + ¼·2 = ½; var ¾·1 + ¼·(1·2/1) = 1¼.
    #[test]
    pub fn by_hand() {
        let mut layer = BatchNorm1d::<f64>::new(1).eps(3.0).momentum(0.25).init(0).unwrap();
        layer.affine.weight.as_mut().unwrap().set(Tensor::from([4.0])).unwrap();
        layer.affine.bias.as_mut().unwrap().set(Tensor::from([10.0])).unwrap();
        let x = Tensor::from([[1.0], [3.0]]);
        let (mut y, mut cache) = (Tensor::default(), BatchNormCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y, Tensor::from([[8.0], [12.0]]));

        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let dy = Tensor::from([[1.0], [0.0]]);
        layer
            .backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!(dx, Tensor::from([[0.75], [-0.75]]));
        assert_eq!(grads.values(), [-0.5, 1.0]);

        layer.absorb(&cache);
        assert_eq!(running(&layer), [0.5, 1.25, 1.0]);
    }

    #[test]
    fn no_momentum_gives_the_average_of_all_batches() {
        let mut layer = BatchNorm1d::<f64>::new(1).momentum(None).init(0).unwrap();
        for x in [[[1.0], [3.0]], [[5.0], [9.0]], [[0.0], [0.0]]] {
            train(&mut layer, &Tensor::from(x)).unwrap();
        }
        let [mean, var, batches] = running(&layer);
        assert!((mean - 3.0).abs() < 1e-12 && (var - (2.0 + 8.0) / 3.0).abs() < 1e-12 && batches == 3.0);
    }

    #[test]
    fn an_empty_batch_counts_but_teaches_nothing() {
        let mut layer = BatchNorm1d::<f64>::new(5).init(0).unwrap();
        let y = train(&mut layer, &Tensor::zeros([0, 5, 9])).unwrap();
        assert_eq!(y.shape()[..], [0, 5, 9]);
        assert_eq!(running(&layer), [0.0, 1.0, 1.0]);
    }

    #[test]
    fn one_value_per_channel_is_an_error_in_training_alone() {
        let mut layer = BatchNorm1d::<f64>::new(2).init(0).unwrap();
        let text = train(&mut layer, &Tensor::zeros([1, 2])).unwrap_err().to_string();
        assert!(text.contains("more than one value per channel") && text.contains("[1, 2]"), "{text}");
        assert!(layer.infer(&Tensor::zeros([1, 2])).is_ok());
        assert!(train(&mut layer, &Tensor::zeros([1, 2, 2])).is_ok());
        assert!(layer.track_running_stats(false).infer(&Tensor::zeros([1, 2])).is_err());
    }

    #[test]
    fn a_pass_that_is_not_training_leaves_the_running_statistics() {
        let mut layer = BatchNorm1d::<f64>::new(1).init(0).unwrap();
        let (x, mut y, mut cache) = (Tensor::from([[1.0], [3.0]]), Tensor::default(), Default::default());
        for cx in [Context::infer(), Context::frozen()] {
            layer.forward(&x, &mut y, &mut cache, cx).unwrap();
            layer.absorb(&cache);
        }
        assert_eq!(running(&layer), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn backward_wants_a_recorded_forward() {
        let layer = BatchNorm1d::<f64>::new(1).init(0).unwrap();
        let (x, mut y, mut cache) = (Tensor::from([[1.0], [3.0]]), Tensor::default(), Default::default());
        layer.forward(&x, &mut y, &mut cache, Context::infer()).unwrap();
        let call = Call::new(&layer, &x, &y, &y).unwrap();
        let error = layer.backward(call, &mut cache, &mut Grads::new(&layer), None).unwrap_err();
        assert!(matches!(error.kind(), Kind::NotRecorded(_)));
    }

    #[test]
    fn wrong_sizes_say_what_was_expected() {
        let layer = BatchNorm1d::<f32>::new(5);
        let text = layer.output_shape(&[4, 3]).unwrap_err().to_string();
        assert_eq!(text, "BatchNorm1d: expected input (N, 5) or (N, 5, L), got [4, 3]");
        assert!(layer.output_shape(&[5]).is_err() && layer.output_shape(&[1, 5, 2, 2]).is_err());
        assert!(BatchNorm1d::<f32>::new(0).init(0).is_err());
        assert!(BatchNorm1d::<f32>::new(1).eps(-1.0).init(0).is_err());
        assert!(BatchNorm1d::<f32>::new(1).momentum(1.5).init(0).is_err());
    }

    #[test]
    fn names_are_those_of_pytorch() {
        let names = |layer: &BatchNorm1d<f32>| {
            let mut names = Vec::new();
            layer.visit(&mut |path, p| names.push((path.to_string(), p.volume())));
            names.into_iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
        };
        let layer = BatchNorm1d::new(3);
        let all = "weight 3, bias 3, running_mean 3, running_var 3, num_batches_tracked 1";
        assert_eq!(names(&layer), all);
        assert_eq!(layer.parameter_count(), 6);
        assert_eq!(names(&layer.clone().bias(false).track_running_stats(false)), "weight 3");
        assert_eq!(names(&layer.affine(false).bias(true).track_running_stats(false)), "");
    }

    /// Two images of one channel and two pixels, x = (0, 2), (4, 2), ε = 2: μ = 2, σ² = (4 + 0 + 4 + 0)/4 = 2, ρ = ½,
    /// y = x̂ = (−1, 0), (1, 0).
    /// For g = (4, 0), (0, 0): mean(g) = 1, mean(g x̂) = −1, ∂x = ½ (4 − 1 − 1, −1), ½ (−1 + 1, −1) = (1, −½), (0, −½).
    #[test]
    fn images_by_hand() {
        let layer = BatchNorm2d::<f64>::new(1).eps(2.0).init(0).unwrap();
        let x = Tensor::from_vec([2, 1, 1, 2], vec![0., 2., 4., 2.]).unwrap();
        let (mut y, mut cache) = (Tensor::default(), BatchNormCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::train(0)).unwrap();
        assert_eq!(y.data(), [-1., 0., 1., 0.]);
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        let dy = Tensor::from_vec([2, 1, 1, 2], vec![4., 0., 0., 0.]).unwrap();
        layer
            .backward(Call::new(&layer, &x, &y, &dy).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!(dx.data(), [1., -0.5, 0., -0.5]);
        assert_eq!(grads.values(), [-4., 4.]);
    }

    /// A running mean of 0 and variance of 1, ε = 3: y = x/2, and ∂x = g/2.
    #[test]
    fn the_inference_function_has_a_gradient_of_its_own() {
        let layer = BatchNorm2d::<f64>::new(1).eps(3.0).init(0).unwrap();
        let x = Tensor::from_vec([1, 1, 1, 2], vec![2., 8.]).unwrap();
        let (mut y, mut cache) = (Tensor::default(), BatchNormCache::default());
        layer.forward(&x, &mut y, &mut cache, Context::frozen()).unwrap();
        assert_eq!(y.data(), [1., 4.]);
        let (mut grads, mut dx) = (Grads::new(&layer), Tensor::default());
        layer
            .backward(Call::new(&layer, &x, &y, &x).unwrap(), &mut cache, &mut grads, Some(&mut dx))
            .unwrap();
        assert_eq!(dx.data(), [1., 4.]);
    }

    #[test]
    fn wrong_images_say_what_was_expected() {
        let text = BatchNorm2d::<f32>::new(5).output_shape(&[4, 3, 8, 8]).unwrap_err().to_string();
        assert_eq!(text, "BatchNorm2d: expected input (N, 5, H, W), got [4, 3, 8, 8]");
        assert!(BatchNorm2d::<f32>::new(5).output_shape(&[4, 5]).is_err());
    }
}
