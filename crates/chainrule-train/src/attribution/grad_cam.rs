//! Where the channels of an activation that a score depends on are active (Selvaraju et al., *Grad-CAM*, 2017).
//!
//! ```text
//! w_k = 1/P Σ_p ∂s/∂A_kp        a_p = max(0, Σ_k w_k A_kp)
//! ```
//!
//! for the channels k and the positions p of an activation A (N, K, P…) inside the model, brought to the size of the input.

use super::{Attribution, Channels, Score, passes::Passes};
use chainrule_core::{Error, Inputs, Module, Probe, Result, Scalar, Shape, Tensor};
use chainrule_tensor::compiled;

/// A map of the activation at a path, each channel weighted by the mean of ∂s/∂A over its positions.
///
/// # Shapes
/// The activation is (N, K, H′, W′), or has another number of axes of positions behind its channels. The map is (N, H, W): the positions are
/// interpolated linearly to the last axes of the first input, and stay as they are where that has fewer.
///
/// ```
/// use chainrule_core::{Parameters, Tensor};
/// use chainrule_layers::{Conv2d, Flatten, Linear, Relu, Sequential};
/// use chainrule_train::attribution::GradCam;
/// let model = Sequential::new().add(Conv2d::new(1, 4, 3).stride(2)).named("features", Relu::new());
/// let mut model = model.add(Flatten::new()).add(Linear::new(36, 10)).init(1)?;
/// let map = GradCam::new("features").attribute(&mut model, &Tensor::full([2, 1, 8, 8], 0.5), 7)?;
/// assert_eq!(map.values()?.shape()[..], [2, 8, 8]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GradCam {
    path: String,
    signed: bool,
    resized: bool,
    channels_last: bool,
}

impl GradCam {
    /// Of the output of the part at a path, `features.3`: that of the last convolution, or of its activation.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), signed: false, resized: true, channels_last: false }
    }

    /// With what takes from the score as well, that is without max(0, ·) (default: without).
    #[must_use]
    pub fn signed(mut self, signed: bool) -> Self {
        self.signed = signed;
        self
    }

    /// Whether the map is brought to the size of the input (default), or stays (N, H′, W′).
    #[must_use]
    pub fn resized(mut self, resized: bool) -> Self {
        self.resized = resized;
        self
    }

    /// Whether the channels are the last axis of the activation (default: the second), as those of tokens (N, T, E).
    #[must_use]
    pub fn channels_last(mut self, channels_last: bool) -> Self {
        self.channels_last = channels_last;
        self
    }

    /// The maps of a batch. The part is watched for this call; the model is afterwards as it was.
    ///
    /// # Errors
    /// There is no such part, or several; its output has no axis of positions, or the score does not depend on it; something is not
    /// finite, or that of the model or the score.
    pub fn attribute<T: Scalar, M: Module<T = T>>(
        &self,
        model: &mut M,
        inputs: impl Inputs<T>,
        score: impl Score<T>,
    ) -> Result<Attribution<T>> {
        let probe = Probe::attach(model, [&self.path])?;
        let made = inputs.with(|xs| self.of(model, &probe, xs, &score));
        probe.detach(model);
        made
    }

    fn of<T: Scalar, M: Module<T = T>>(
        &self,
        model: &M,
        probe: &Probe<T>,
        xs: &[&Tensor<T>],
        score: &impl Score<T>,
    ) -> Result<Attribution<T>> {
        let [path] = probe.paths() else {
            let found = probe.paths().len();
            return Err(Error::value(format!("GradCam: expected the path of one part, got that of {found}")));
        };
        let mut passes = Passes::new(model, xs)?;
        let scores = passes.gradients(xs, score)?;
        let (mut a, mut g) = (probe.activation(path)?, probe.gradient(path)?);
        if self.channels_last {
            (a, g) = (channels_second(&a)?, channels_second(&g)?);
        }
        let (samples, channels, positions) = match a.shape()[..] {
            [n, k, ref positions @ ..] if n == scores.len() && !positions.is_empty() && !a.is_empty() => {
                (n, k, positions)
            }
            _ => {
                return Err(Error::shape(format!(
                    "GradCam: expected an activation ({}, channels, positions..), got {}",
                    scores.len(),
                    a.shape()
                )));
            }
        };
        let plane: usize = positions.iter().product();
        let mut map = vec![T::ZERO; samples * plane];
        weigh(a.data(), g.data(), channels, plane, self.signed, &mut map);

        let mut axes = positions.to_vec();
        let sample = &xs[0].shape()[1..];
        if self.resized && sample.len() >= axes.len() {
            for (i, &size) in sample[sample.len() - axes.len()..].iter().enumerate() {
                let inner: usize = axes[i + 1..].iter().product();
                let outer = map.len() / (axes[i] * inner);
                let mut longer = vec![T::ZERO; outer * size * inner];
                resize(&map, axes[i], size, inner, &mut longer);
                (map, axes[i]) = (longer, size);
            }
        }
        let shape = Shape::new(&[&[samples][..], &axes].concat())?;
        let mut inputs: Vec<Option<Tensor<T>>> = xs.iter().map(|_| None).collect();
        inputs[0] = Some(Tensor::from_vec(shape, map)?);
        Ok(Attribution::new(inputs, &scores, Channels::Sum))
    }
}

/// (N, P.., K) as (N, K, P..).
fn channels_second<T: Scalar>(t: &Tensor<T>) -> Result<Tensor<T>> {
    let [n, positions @ .., channels] = &t.shape()[..] else { return Ok(t.clone()) };
    let shape = Shape::new(&[&[*n, *channels], positions].concat())?;
    let mut turned = Tensor::zeros(shape);
    transpose(t.data(), positions.iter().product(), *channels, turned.data_mut());
    Ok(turned)
}

compiled! {
    /// y (N, K, P) of x (N, P, K)
    fn transpose[T](x: &[T], positions: usize, channels: usize, y: &mut [T]) {
        let size = (positions * channels).max(1);
        for (x, y) in x.chunks_exact(size).zip(y.chunks_exact_mut(size)) {
            for p in 0..positions {
                for k in 0..channels {
                    y[k * positions + p] = x[p * channels + k];
                }
            }
        }
    }
}

compiled! {
    /// w_k = 1/P Σ_p g_kp, y_p = Σ_k w_k a_kp of each sample, or 0 if that is negative
    fn weigh[T](a: &[T], g: &[T], channels: usize, plane: usize, signed: bool, y: &mut [T]) {
        let mut sums = vec![0.0f64; plane];
        let size = channels * plane;
        for (n, y) in y.chunks_exact_mut(plane).enumerate() {
            sums.fill(0.0);
            for k in 0..channels {
                let at = n * size + k * plane;
                let (a, g) = (&a[at..at + plane], &g[at..at + plane]);
                let w = chainrule_tensor::kernels::reduce::sum(g) / plane as f64;
                for (sum, &a) in sums.iter_mut().zip(a) {
                    *sum += w * a.to_f64();
                }
            }
            for (y, &sum) in y.iter_mut().zip(&sums) {
                *y = T::from_f64(if signed || sum > 0.0 { sum } else { 0.0 });
            }
        }
    }
}

compiled! {
    /// An axis of n elements, with `inner` behind each, as one of m: the middle of element i of m lies at (i + ½) n/m − ½.
    fn resize[T](x: &[T], n: usize, m: usize, inner: usize, y: &mut [T]) {
        for (x, y) in x.chunks_exact(n * inner).zip(y.chunks_exact_mut((m * inner).max(1))) {
            for (i, y) in y.chunks_exact_mut(inner).enumerate() {
                let at = ((i as f64 + 0.5) * n as f64 / m as f64 - 0.5).clamp(0.0, (n - 1) as f64);
                let low = at as usize;
                let (high, share) = ((low + 1).min(n - 1), at - low as f64);
                for (j, y) in y.iter_mut().enumerate() {
                    let (a, b) = (x[low * inner + j].to_f64(), x[high * inner + j].to_f64());
                    *y = T::from_f64(a + share * (b - a));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_is_interpolated_between_middles() {
        let mut y = [0.0; 4];
        resize(&[0.0f64, 1.0], 2, 4, 1, &mut y);
        assert_eq!(y, [0.0, 0.25, 0.75, 1.0]);
        let mut y = [0.0; 2];
        resize(&[1.0f64, 3.0, 5.0, 7.0], 4, 2, 1, &mut y);
        assert_eq!(y, [2.0, 6.0]);
        let mut y = [0.0; 6];
        resize(&[4.0f32, 5.0], 1, 3, 2, &mut y);
        assert_eq!(y, [4.0, 5.0, 4.0, 5.0, 4.0, 5.0]);
    }
}
