//! Gradients along the way from a baseline (Sundararajan, Taly and Yan, *Axiomatic attribution for deep networks*, 2017).
//!
//! ```text
//! aᵢ = (xᵢ − x⁰ᵢ) ∫₀¹ ∂s/∂xᵢ (x⁰ + α (x − x⁰)) dα        Σᵢ aᵢ = s(x) − s(x⁰)
//! ```
//!
//! The second equation, completeness, is the fundamental theorem of calculus along the way. The integral is a mean over the middles of n equal steps,
//! α = (k + ½)/n: exact where ∂s/∂x is linear in α, so for a linear model with any n.

use super::{Attribution, Channels, Score, passes::Passes};
use crate::finite;
use chainrule_core::{Error, Inputs, Module, Result, Scalar, Tensor};
use chainrule_tensor::{compiled, kernels::reduce};

/// The gradient along the way from a baseline to x, times x − x⁰. All inputs that have a derivative are explained; the others stay as
/// they are along the way.
///
/// ```
/// use chainrule_core::{Parameters, Tensor};
/// use chainrule_layers::{Linear, Sequential, Tanh};
/// use chainrule_train::attribution::IntegratedGradients;
/// let model = Sequential::new().add(Linear::new(4, 8)).add(Tanh::new()).add(Linear::new(8, 3)).init(1)?;
/// let x = Tensor::from([[0.1, 0.5, -1.0, 2.0]]);
/// let a = IntegratedGradients::new().steps(100).baseline(0.5).attribute(&model, &x, 2)?;
/// let complete = a.completeness()[0]; // Σ a beside s(x) − s(x⁰)
/// assert!(complete.gap() < 0.01 && (a.values()?.sum() as f64 - complete.difference).abs() < 1e-3);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntegratedGradients {
    steps: usize,
    baseline: f64,
}

/// The most steps, each of which is a pass.
const MOST: usize = 1 << 20;

/// The sum of a sample's attributions beside what it should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Completeness {
    /// Σ a, over all inputs.
    pub sum: f64,
    /// s(x) − s(x⁰).
    pub difference: f64,
}

impl Completeness {
    /// How far the sum is from the difference, as a share of the difference: 0.01 is 1 %. Infinite of a difference of 0 alone.
    pub fn gap(&self) -> f64 {
        match (self.sum - self.difference).abs() {
            0.0 => 0.0,
            gap => gap / self.difference.abs(),
        }
    }
}

impl Default for IntegratedGradients {
    fn default() -> Self {
        Self { steps: 64, baseline: 0.0 }
    }
}

impl IntegratedGradients {
    /// 64 steps from zeros.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of steps (default 64), each a forward and a backward pass. [`Attribution::completeness`] says whether they suffice.
    #[must_use]
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// The value of every element of the baseline (default 0); see [`IntegratedGradients::attribute_from`] for others.
    #[must_use]
    pub fn baseline(mut self, baseline: f64) -> Self {
        self.baseline = baseline;
        self
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// No step or more than a million, or a baseline that is not finite.
    pub fn check(&self) -> Result<()> {
        if !(1..=MOST).contains(&self.steps) {
            return Err(Error::value(format!(
                "IntegratedGradients: expected 1 to {MOST} steps, got {}",
                self.steps
            )));
        }
        if !self.baseline.is_finite() {
            let got = self.baseline;
            return Err(Error::value(format!("IntegratedGradients: expected a finite baseline, got {got}")));
        }
        Ok(())
    }

    /// The attributions of a batch, from the baseline of the settings.
    ///
    /// # Errors
    /// As [`IntegratedGradients::check`]; no input has a derivative, something is not finite, or that of the model or the score.
    pub fn attribute<T: Scalar, M: Module<T = T>>(
        &self,
        model: &M,
        inputs: impl Inputs<T>,
        score: impl Score<T>,
    ) -> Result<Attribution<T>> {
        self.check()?;
        let value = T::from_f64(self.baseline);
        if !value.is_finite() {
            return Err(Error::value(format!(
                "IntegratedGradients: expected a baseline that {} can hold, got {}",
                T::NAME,
                self.baseline
            )));
        }
        inputs.with(|xs| self.of(model, xs, &score, |_, x| Ok(Tensor::full(*x.shape(), value))))
    }

    /// The attributions of a batch from baselines of the caller's, one for each input: of the input's shape, or of one sample that is meant
    /// for all. That of an input without a derivative is not read.
    ///
    /// # Errors
    /// As [`IntegratedGradients::attribute`], or baselines of another number or shape.
    pub fn attribute_from<T: Scalar, M: Module<T = T>>(
        &self,
        model: &M,
        inputs: impl Inputs<T>,
        baselines: impl Inputs<T>,
        score: impl Score<T>,
    ) -> Result<Attribution<T>> {
        self.check()?;
        inputs.with(|xs| {
            baselines.with(|given| {
                if given.len() != xs.len() {
                    return Err(Error::shape(format!(
                        "IntegratedGradients: expected {} baselines, got {}",
                        xs.len(),
                        given.len()
                    )));
                }
                self.of(model, xs, &score, |i, x| spread(i, given[i], x))
            })
        })
    }

    fn of<T: Scalar, M: Module<T = T>>(
        &self,
        model: &M,
        xs: &[&Tensor<T>],
        score: &impl Score<T>,
        baseline: impl Fn(usize, &Tensor<T>) -> Result<Tensor<T>>,
    ) -> Result<Attribution<T>> {
        let mut passes = Passes::new(model, xs)?;
        passes.require_derivative()?;
        let explained: Vec<bool> = passes.dxs.iter().map(Option::is_some).collect();
        let samples = xs[0].shape()[0]; // a sum of each is told
        if let Some(i) = (0..xs.len()).find(|&i| explained[i] && xs[i].shape().first() != Some(&samples)) {
            let got = xs[i].shape();
            return Err(Error::shape(format!("input {i}: expected {samples} samples, got {got}")));
        }
        let start = |i: usize| if explained[i] { baseline(i, xs[i]) } else { Ok(xs[i].clone()) };
        let starts = (0..xs.len()).map(start).collect::<Result<Vec<Tensor<T>>>>()?;

        let before = passes.scores(&starts.iter().collect::<Vec<_>>(), score)?;
        let after = passes.scores(xs, score)?;
        let mut points = starts.clone();
        let mut sums: Vec<Vec<f64>> = xs.iter().map(|x| vec![0.0; x.len()]).collect();
        for k in 0..self.steps {
            let share = T::from_f64((k as f64 + 0.5) / self.steps as f64);
            for i in (0..xs.len()).filter(|&i| explained[i]) {
                between(starts[i].data(), xs[i].data(), share, points[i].data_mut());
            }
            passes.gradients(&points.iter().collect::<Vec<_>>(), score)?;
            for (sum, dx) in sums.iter_mut().zip(&passes.dxs) {
                if let Some(dx) = dx {
                    add_to(dx.data(), sum);
                }
            }
        }
        let mut inputs = passes.dxs;
        for (i, a) in inputs.iter_mut().enumerate() {
            if let Some(a) = a {
                finish(starts[i].data(), xs[i].data(), &sums[i], self.steps as f64, a.data_mut());
            }
        }
        let complete = |n: usize| Completeness {
            sum: inputs.iter().flatten().map(|a| reduce::sum(a.row(n))).sum(),
            difference: after[n].to_f64() - before[n].to_f64(),
        };
        let completeness = (0..after.len()).map(complete).collect();
        Ok(Attribution { completeness, ..Attribution::new(inputs, &after, Channels::Sum) })
    }
}

/// A baseline as large as x: given so, or as one sample with or without its batch axis.
fn spread<T: Scalar>(input: usize, given: &Tensor<T>, x: &Tensor<T>) -> Result<Tensor<T>> {
    if let Some(error) = finite::sample(format_args!("baseline {input}"), given) {
        return Err(error);
    }
    let (all, one) = (&x.shape()[..], &x.shape()[1..]);
    let own = &given.shape()[..];
    if own == all {
        return Ok(given.clone());
    }
    if own != one && own.split_first() != Some((&1, one)) {
        return Err(Error::shape(format!(
            "baseline {input}: expected the input's shape {}, or that of one sample, got {}",
            x.shape(),
            given.shape()
        )));
    }
    let mut start = x.clone();
    if !given.is_empty() {
        start.data_mut().chunks_exact_mut(given.len()).for_each(|row| row.copy_from_slice(given.data()));
    }
    Ok(start)
}

compiled! {
    /// z = x + share (y − x)
    fn between[T](x: &[T], y: &[T], share: T, z: &mut [T]) {
        for ((z, &x), &y) in z.iter_mut().zip(x).zip(y) {
            *z = x + share * (y - x);
        }
    }
}

compiled! {
    /// sum += g
    fn add_to[T](g: &[T], sum: &mut [f64]) {
        for (sum, &g) in sum.iter_mut().zip(g) {
            *sum += g.to_f64();
        }
    }
}

compiled! {
    /// a = (x − x⁰) (Σ g)/n
    fn finish[T](start: &[T], x: &[T], sum: &[f64], steps: f64, a: &mut [T]) {
        for (((a, &sum), &x), &start) in a.iter_mut().zip(sum).zip(x).zip(start) {
            *a = T::from_f64((x.to_f64() - start.to_f64()) * (sum / steps));
        }
    }
}
