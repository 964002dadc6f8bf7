//! Initialisers.

use crate::{Error, Result, Rng, Scalar, Tensor};

/// How a parameter is filled. The fans of a shape `(out, in, kernel…)` are `in·Πkernel` and `out·Πkernel`.
///
/// ```
/// use chainrule_tensor::{Init, Rng, Tensor};
/// let mut w = Tensor::<f32>::zeros([64, 32]);
/// Init::kaiming_normal().fill(&mut w, &mut Rng::new(1));
/// assert!(w.data().iter().any(|&v| v != 0.0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// Every element this value.
    Constant(f64),
    /// Uniform in [low, high).
    Uniform {
        /// The lower bound.
        low: f64,
        /// The upper bound.
        high: f64,
    },
    /// Normal.
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        std: f64,
    },
    /// Normal, drawn again beyond two standard deviations.
    TruncatedNormal {
        /// The mean.
        mean: f64,
        /// The standard deviation before it is cut.
        std: f64,
    },
    /// Uniform with variance gain² / fan.
    ScaledUniform {
        /// What the variance is divided by.
        fan: Fan,
        /// The gain.
        gain: f64,
    },
    /// Normal with variance gain² / fan.
    ScaledNormal {
        /// What the variance is divided by.
        fan: Fan,
        /// The gain.
        gain: f64,
    },
    /// Rows (or columns, whichever are fewer) orthonormal, times the gain. Saxe, McClelland and Ganguli 2014.
    Orthogonal {
        /// The gain.
        gain: f64,
    },
}

/// What the variance of a scaled initialiser is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fan {
    /// The number of inputs of one output.
    In,
    /// The number of outputs that one input reaches.
    Out,
    /// The mean of both.
    Average,
}

impl Init {
    /// Zeros.
    pub const ZEROS: Self = Self::Constant(0.0);
    /// Ones.
    pub const ONES: Self = Self::Constant(1.0);

    /// Glorot and Bengio 2010, uniform: ±√(6 / (fan_in + fan_out)).
    pub fn xavier_uniform() -> Self {
        Self::ScaledUniform { fan: Fan::Average, gain: 1.0 }
    }
    /// Glorot and Bengio 2010, normal: variance 2 / (fan_in + fan_out).
    pub fn xavier_normal() -> Self {
        Self::ScaledNormal { fan: Fan::Average, gain: 1.0 }
    }
    /// He, Zhang, Ren and Sun 2015, uniform, for ReLU: ±√(6 / fan_in).
    pub fn kaiming_uniform() -> Self {
        Self::ScaledUniform { fan: Fan::In, gain: std::f64::consts::SQRT_2 }
    }
    /// He, Zhang, Ren and Sun 2015, normal, for ReLU: variance 2 / fan_in.
    pub fn kaiming_normal() -> Self {
        Self::ScaledNormal { fan: Fan::In, gain: std::f64::consts::SQRT_2 }
    }
    /// LeCun, Bottou, Orr and Müller 1998, uniform: ±√(3 / fan_in).
    pub fn lecun_uniform() -> Self {
        Self::ScaledUniform { fan: Fan::In, gain: 1.0 }
    }
    /// LeCun, Bottou, Orr and Müller 1998, normal: variance 1 / fan_in.
    pub fn lecun_normal() -> Self {
        Self::ScaledNormal { fan: Fan::In, gain: 1.0 }
    }
    /// Uniform in ±1/√fan_in, what PyTorch's linear and convolution layers start from.
    pub fn torch_default(fan_in: usize) -> Self {
        let bound = if fan_in == 0 { 0.0 } else { 1.0 / (fan_in as f64).sqrt() };
        Self::Uniform { low: -bound, high: bound }
    }
    /// Orthogonal with gain 1.
    pub fn orthogonal() -> Self {
        Self::Orthogonal { gain: 1.0 }
    }

    /// Whether every value that it can give is finite in a scalar type.
    ///
    /// ```
    /// use chainrule_tensor::Init;
    /// assert!(Init::Constant(1e300).check::<f64>().is_ok() && Init::Constant(1e300).check::<f32>().is_err());
    /// assert!(Init::Normal { mean: 0.0, std: -1.0 }.check::<f32>().is_err());
    /// ```
    ///
    /// # Errors
    /// A number that is not finite or too large, a standard deviation below 0, or an upper bound below the lower.
    pub fn check<T: Scalar>(&self) -> Result<()> {
        let finite = |v: f64| T::from_f64(v).is_finite();
        let fits = match *self {
            Self::Constant(v) | Self::Orthogonal { gain: v } => finite(v),
            Self::Uniform { low, high } => finite(low) && finite(high) && low <= high && finite(high - low),
            Self::Normal { mean, std } | Self::TruncatedNormal { mean, std } => {
                std >= 0.0 && finite(mean - FARTHEST * std) && finite(mean + FARTHEST * std)
            }
            Self::ScaledUniform { gain, .. } | Self::ScaledNormal { gain, .. } => finite(FARTHEST * gain),
        };
        if fits {
            return Ok(());
        }
        Err(Error::value(format!(
            "expected an initialiser whose values are finite in {}, its spread at least 0, got {self:?}",
            T::NAME
        )))
    }

    /// Fills a tensor from a stream.
    pub fn fill<T: Scalar>(&self, out: &mut Tensor<T>, rng: &mut Rng) {
        let fans = fans(out.shape());
        let scale = |fan, gain: f64| {
            let n = match fan {
                Fan::In => fans.0,
                Fan::Out => fans.1,
                Fan::Average => 0.5 * (fans.0 + fans.1),
            };
            gain / n.max(1.0).sqrt()
        };
        match *self {
            Self::Constant(v) => out.fill(T::from_f64(v)),
            Self::Uniform { low, high } => draw(out, || low + (high - low) * rng.uniform()),
            Self::Normal { mean, std } => draw(out, || mean + std * rng.normal()),
            Self::TruncatedNormal { mean, std } => draw(out, || mean + std * rng.truncated_normal(-2.0, 2.0)),
            Self::ScaledUniform { fan, gain } => {
                let bound = 3f64.sqrt() * scale(fan, gain);
                draw(out, || bound * (2.0 * rng.uniform() - 1.0));
            }
            Self::ScaledNormal { fan, gain } => {
                let std = scale(fan, gain);
                draw(out, || std * rng.normal());
            }
            Self::Orthogonal { gain } => orthogonal(out, gain, rng),
        }
    }
}

/// More standard deviations than a normal value from 64 random bits can be away from its mean.
const FARTHEST: f64 = 16.0;

fn draw<T: Scalar>(out: &mut Tensor<T>, mut f: impl FnMut() -> f64) {
    out.data_mut().iter_mut().for_each(|v| *v = T::from_f64(f()));
}

/// (fan in, fan out) of a shape (out, in, kernel…).
fn fans(shape: &[usize]) -> (f64, f64) {
    match *shape {
        [] => (1.0, 1.0),
        [n] => (n as f64, n as f64),
        [out, input, ref kernel @ ..] => {
            let k = kernel.iter().product::<usize>();
            ((input * k) as f64, (out * k) as f64)
        }
    }
}

/// Gram–Schmidt, twice for accuracy, on normal vectors along the shorter side.
fn orthogonal<T: Scalar>(out: &mut Tensor<T>, gain: f64, rng: &mut Rng) {
    let rows = out.shape().first().copied().unwrap_or(1);
    let cols = out.len().checked_div(rows).unwrap_or(0);
    let (count, length) = (rows.min(cols), rows.max(cols));
    let mut q: Vec<Vec<f64>> = Vec::with_capacity(count);
    while q.len() < count {
        let mut v: Vec<f64> = (0..length).map(|_| rng.normal()).collect();
        for _ in 0..2 {
            for u in &q {
                let dot: f64 = u.iter().zip(&v).map(|(a, b)| a * b).sum();
                v.iter_mut().zip(u).for_each(|(a, b)| *a -= dot * b);
            }
        }
        let norm = v.iter().map(|a| a * a).sum::<f64>().sqrt();
        if norm > 1e-6 {
            v.iter_mut().for_each(|a| *a /= norm);
            q.push(v);
        }
    }
    for (i, v) in out.data_mut().iter_mut().enumerate() {
        let (r, c) = (i / cols, i % cols);
        *v = T::from_f64(gain * if rows <= cols { q[r][c] } else { q[c][r] });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(init: Init, shape: [usize; 4]) -> (f64, f64) {
        let mut t = Tensor::<f64>::zeros(shape);
        init.fill(&mut t, &mut Rng::new(4));
        let var = t.data().iter().map(|v| v * v).sum::<f64>() / t.len() as f64;
        (var, t.data().iter().fold(0.0, |m, v| v.abs().max(m)))
    }

    #[test]
    fn variances_follow_the_fans() {
        let shape = [40, 30, 3, 3]; // fan in 270, fan out 360
        let close = |init, want: f64| {
            let (var, _) = spread(init, shape);
            assert!((var / want - 1.0).abs() < 0.05, "{init:?}: {var} for {want}");
        };
        close(Init::kaiming_normal(), 2.0 / 270.0);
        close(Init::kaiming_uniform(), 2.0 / 270.0);
        close(Init::xavier_normal(), 2.0 / 630.0);
        close(Init::xavier_uniform(), 2.0 / 630.0);
        close(Init::lecun_normal(), 1.0 / 270.0);
        close(Init::lecun_uniform(), 1.0 / 270.0);
        close(Init::Normal { mean: 0.0, std: 0.02 }, 0.0004);
        assert!(spread(Init::TruncatedNormal { mean: 0.0, std: 0.5 }, shape).1 <= 1.0);
        assert!(spread(Init::torch_default(270), shape).1 <= 1.0 / 270f64.sqrt());
        assert_eq!(spread(Init::Constant(2.0), shape), (4.0, 2.0));
    }

    #[test]
    fn orthogonal_rows_are_orthonormal() {
        for (rows, cols) in [(5, 8), (8, 5), (6, 6)] {
            let mut w = Tensor::<f64>::zeros([rows, cols]);
            Init::Orthogonal { gain: 2.0 }.fill(&mut w, &mut Rng::new(1));
            let w = w.view().into_dimensionality::<ndarray::Ix2>().unwrap().to_owned();
            let gram = if rows <= cols { w.dot(&w.t()) } else { w.t().dot(&w) };
            for ((i, j), v) in gram.indexed_iter() {
                assert!((v - if i == j { 4.0 } else { 0.0 }).abs() < 1e-12);
            }
        }
    }
}
