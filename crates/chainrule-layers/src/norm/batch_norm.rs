//! Batch normalisation: what `BatchNorm1d` and `BatchNorm2d` share. Each channel c is normalised over the batch and over
//! all places, m values in all.
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
//! In inference μ and σ² are the running ones, constants, and ∂E/∂x = γ ρ g. Keeps μ, σ² and ρ, three numbers a channel;
//! recomputes x̂. Derivation: docs/layers/norm/batch_norm.md.

use chainrule_core::{
    Call, Context, Error, Grads, Init, Param, Params, ParamsMut, Result, Scalar, Shape, Tensor,
};
use chainrule_tensor::kernels::norm::{
    Affine, Channels, batch_norm, batch_norm_gradient, normalize_channels,
};

/// What the layers hold.
#[derive(Clone, Debug)]
pub(super) struct BatchNorm<T> {
    pub(super) name: &'static str,
    pub(super) channels: usize,
    pub(super) eps: f64,
    pub(super) momentum: Option<f64>,
    pub(super) weight: Option<Param<T>>,
    pub(super) bias: Option<Param<T>>,
    pub(super) running: Option<Running<T>>,
}

/// What inference normalises by.
#[derive(Clone, Debug)]
pub(super) struct Running<T> {
    pub(super) mean: Param<T>,
    pub(super) var: Param<T>,
    pub(super) batches: Param<T>,
}

/// What forward keeps for backward and for `absorb`.
#[derive(Debug, Default)]
pub struct BatchNormCache<T> {
    recorded: Recorded,
    /// μ, σ² and ρ, (C) each.
    mean: Vec<T>,
    var: Vec<T>,
    rstd: Vec<T>,
    /// Scratch: Σ dy x̂ and Σ dy, (C) each.
    dw: Vec<T>,
    db: Vec<T>,
    /// m, the values that a channel's statistics are made of.
    count: usize,
}

/// Which pass the cache is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Recorded {
    #[default]
    Nothing,
    /// μ and σ² are functions of x.
    Batch,
    /// μ and σ² are constants.
    Running,
}

impl<T: Scalar> Running<T> {
    fn new(channels: usize) -> Self {
        Self {
            mean: Param::buffer("running_mean", [channels], Init::ZEROS),
            var: Param::buffer("running_var", [channels], Init::ONES),
            batches: Param::counter("num_batches_tracked"),
        }
    }
}

impl<T: Scalar> BatchNorm<T> {
    pub(super) fn new(name: &'static str, channels: usize) -> Self {
        let this = Self {
            name,
            channels,
            eps: 1e-5,
            momentum: Some(0.1),
            weight: None,
            bias: None,
            running: Some(Running::new(channels)),
        };
        this.affine(true)
    }

    pub(super) fn affine(self, affine: bool) -> Self {
        let weight = affine.then(|| Param::new("weight", [self.channels], Init::ONES));
        Self { weight, ..self }.bias(affine)
    }

    pub(super) fn bias(self, bias: bool) -> Self {
        let bias = bias && self.weight.is_some();
        Self { bias: bias.then(|| Param::new("bias", [self.channels], Init::ZEROS)), ..self }
    }

    pub(super) fn track_running_stats(self, track: bool) -> Self {
        Self { running: track.then(|| Running::new(self.channels)), ..self }
    }

    pub(super) fn check(&self) -> Result<()> {
        let Self { name, channels, eps, momentum, .. } = self;
        if *channels == 0 {
            return Err(Error::value(format!("{name}: expected at least one channel, got 0")));
        }
        if !(*eps >= 0.0 && eps.is_finite()) {
            return Err(Error::value(format!("{name}: expected eps ≥ 0, got {eps}")));
        }
        match momentum {
            Some(m) if !(0.0..=1.0).contains(m) => {
                Err(Error::value(format!("{name}: expected momentum in [0, 1], got {m}")))
            }
            _ => Ok(()),
        }
    }

    /// y has x's shape; `axes` says how many axes x may have.
    pub(super) fn output_shape(&self, input: &[usize], axes: &[usize], wanted: &str) -> Result<Shape> {
        self.check()?;
        if !axes.contains(&input.len()) || input[1] != self.channels {
            let (name, c) = (self.name, self.channels);
            return Err(Error::shape(format!(
                "{name}: expected input {}, got {input:?}",
                wanted.replace('C', &c.to_string())
            )));
        }
        Shape::new(input)
    }

    fn affine_values(&self) -> Result<Affine<'_, T>> {
        Ok(Affine {
            weight: self.weight.as_ref().map(Param::value).transpose()?,
            bias: self.bias.as_ref().map(Param::value).transpose()?,
        })
    }

    /// The pass over an x that [`Self::output_shape`] has accepted.
    pub(super) fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut BatchNormCache<T>,
        cx: &mut Context,
    ) -> Result<()> {
        let (sizes, eps) = (sizes(x.shape()), T::from_f64(self.eps));
        cache.recorded = Recorded::Nothing;
        [&mut cache.mean, &mut cache.var, &mut cache.rstd]
            .into_iter()
            .for_each(|v| v.resize(sizes.c, T::ZERO));
        let (affine, y) = (self.affine_values()?, y.reset(*x.shape()));
        let running = match &self.running {
            Some(r) => Some((r.mean.value()?, r.var.value()?)),
            None => None,
        };
        let mut recorded = Recorded::Batch;
        match running {
            Some((mean, var)) if !cx.training() => {
                recorded = Recorded::Running;
                cache.mean.copy_from_slice(mean);
                cache.rstd.iter_mut().zip(var).for_each(|(r, &v)| *r = T::ONE / (v + eps).sqrt());
                normalize_channels(x.data(), y, sizes, (&cache.mean, &cache.rstd), affine);
            }
            _ => {
                if sizes.count() == 1 {
                    return Err(Error::shape(format!(
                        "{}: expected more than one value per channel for the statistics of a batch, got input {}",
                        self.name,
                        x.shape()
                    )));
                }
                let BatchNormCache { mean, var, rstd, .. } = cache;
                batch_norm(x.data(), y, sizes, eps, affine, [mean, var, rstd]); // y = x̂ γ + β
            }
        }
        cache.count = sizes.count();
        if cx.recording() {
            cache.recorded = recorded;
        }
        Ok(())
    }

    pub(super) fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut BatchNormCache<T>,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let BatchNormCache { recorded, mean, rstd, dw, db, .. } = cache;
        if *recorded == Recorded::Nothing {
            return Err(Error::not_recorded(format!(
                "{}: expected the cache of a recorded forward",
                self.name
            )));
        }
        [&mut *dw, &mut *db].into_iter().for_each(|v| v.resize(self.channels, T::ZERO));
        batch_norm_gradient(
            (call.x.data(), call.dy.data()),
            sizes(call.x.shape()),
            (mean, rstd),
            self.affine_values()?.weight,
            *recorded == Recorded::Batch,
            [dw, db],
            dx.map(|dx| dx.reset(*call.x.shape())), // dx = γ ρ (dy − mean(dy) − x̂ mean(dy x̂))
        );
        for (param, sums) in [(&self.weight, &*dw), (&self.bias, &*db)] {
            if let Some(grad) = param.as_ref().and_then(|p| grads.of(p)) {
                grad.iter_mut().zip(sums).for_each(|(g, &s)| *g += s); // dγ += Σ dy x̂, dβ += Σ dy
            }
        }
        Ok(())
    }

    /// The running statistics move towards those of the batch.
    pub(super) fn absorb(&mut self, cache: &BatchNormCache<T>) {
        let Some(running) = &mut self.running else { return };
        let (Ok(mean), Ok(var), Ok(batches)) =
            (running.mean.value_mut(), running.var.value_mut(), running.batches.value_mut())
        else {
            return;
        };
        if cache.recorded != Recorded::Batch {
            return;
        }
        batches[0] += T::ONE;
        if cache.count == 0 {
            return;
        }
        let rate = self.momentum.map_or(T::ONE / batches[0], T::from_f64);
        let unbiased = T::from_f64(cache.count as f64 / (cache.count as f64 - 1.0));
        for (running, &m) in mean.iter_mut().zip(&cache.mean) {
            *running = (T::ONE - rate) * *running + rate * m;
        }
        for (running, &v) in var.iter_mut().zip(&cache.var) {
            *running = (T::ONE - rate) * *running + rate * (v * unbiased);
        }
    }

    pub(super) fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.weight.iter().chain(&self.bias).for_each(|p| out.add(p));
        if let Some(r) = &self.running {
            [&r.mean, &r.var, &r.batches].into_iter().for_each(|p| out.add(p));
        }
    }

    pub(super) fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.weight.iter_mut().chain(&mut self.bias).for_each(|p| out.add(p));
        if let Some(r) = &mut self.running {
            [&mut r.mean, &mut r.var, &mut r.batches].into_iter().for_each(|p| out.add(p));
        }
    }
}

/// (N, C, …) as (N, C, L).
fn sizes(shape: &[usize]) -> Channels {
    Channels { n: shape[0], c: shape[1], l: shape[2..].iter().product() }
}

/// A public layer over [`BatchNorm`]: builders and the contract.
macro_rules! batch_norm_layer {
    ($(#[$doc:meta])* $name:ident, axes: $axes:expr, wanted: $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name<T = f32>(pub(super) BatchNorm<T>);

        impl<T: Scalar> $name<T> {
            /// A normalisation of `channels` channels, with γ, β and running statistics.
            pub fn new(channels: usize) -> Self {
                Self(BatchNorm::new(stringify!($name), channels))
            }

            /// The number added to the variance, 1e-5 by default.
            #[must_use]
            pub fn eps(self, eps: f64) -> Self {
                Self(BatchNorm { eps, ..self.0 })
            }

            /// The share α of the newest batch in the running statistics, 0.1 by default; `None` for the plain average of
            /// all batches.
            #[must_use]
            pub fn momentum(self, momentum: impl Into<Option<f64>>) -> Self {
                Self(BatchNorm { momentum: momentum.into(), ..self.0 })
            }

            /// With or without γ and β.
            #[must_use]
            pub fn affine(self, affine: bool) -> Self {
                Self(self.0.affine(affine))
            }

            /// With or without β; there is none without γ.
            #[must_use]
            pub fn bias(self, bias: bool) -> Self {
                Self(self.0.bias(bias))
            }

            /// With or without running statistics; without them, inference uses those of its batch.
            #[must_use]
            pub fn track_running_stats(self, track: bool) -> Self {
                Self(self.0.track_running_stats(track))
            }
        }

        impl<T: Scalar> Layer<T> for $name<T> {
            type Cache = BatchNormCache<T>;

            fn check(&self) -> Result<()> {
                self.0.check()
            }

            fn output_shape(&self, input: &[usize]) -> Result<Shape> {
                self.0.output_shape(input, &$axes, $wanted)
            }

            fn forward(
                &self,
                x: &Tensor<T>,
                y: &mut Tensor<T>,
                cache: &mut Self::Cache,
                cx: &mut Context,
            ) -> Result<()> {
                self.output_shape(x.shape())?;
                self.0.forward(x, y, cache, cx)
            }

            fn backward(
                &self,
                call: Call<'_, T>,
                cache: &mut Self::Cache,
                grads: &mut Grads<T>,
                dx: Option<&mut Tensor<T>>,
            ) -> Result<()> {
                self.0.backward(call, cache, grads, dx)
            }

            fn reads_output(&self) -> bool {
                false
            }

            fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
                self.0.params(out);
            }

            fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
                self.0.params_mut(out);
            }

            fn absorb(&mut self, cache: &Self::Cache) {
                self.0.absorb(cache);
            }

            fn multiply_adds(&self, input: &[usize]) -> u64 {
                input.iter().map(|&n| n as u64).product()
            }
        }
    };
}
pub(super) use batch_norm_layer;
