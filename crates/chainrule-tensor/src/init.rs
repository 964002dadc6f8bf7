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
    /// Normal, drawn again outside [low, high]: PyTorch's `trunc_normal_`. The variance is that of what is left.
    TruncatedWithin {
        /// The mean before it is cut.
        mean: f64,
        /// The standard deviation before it is cut.
        std: f64,
        /// The lower bound.
        low: f64,
        /// The upper bound.
        high: f64,
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
    /// Normal, cut at two standard deviations, with variance gain² / fan after the cut.
    ScaledTruncatedNormal {
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
    /// 1 on the diagonal of the matrix (first axis, all others), else 0.
    Identity,
    /// A convolution that copies channel i of each group to output i of it: 1 at the centre of the kernel, else 0. Of a matrix
    /// the same as `Identity` for one group.
    Dirac {
        /// The groups, from 1, each of as many outputs.
        groups: usize,
    },
    /// Normal, but in each column of the matrix (first axis, all others) this share of the elements, rounded up, is 0.
    /// Martens 2010.
    Sparse {
        /// The share of zeros.
        sparsity: f64,
        /// The standard deviation of the others.
        std: f64,
    },
    /// For a convolution before a pixel shuffle by a factor r over two axes: normal with variance gain² / fan in, the same for the r²
    /// outputs that become the pixels of one, so that nearest-neighbour upsampling is where training starts. Aitken and others 2017.
    Icnr {
        /// The factor r of the pixel shuffle, from 1.
        factor: usize,
        /// The gain.
        gain: f64,
    },
}

/// What follows a layer, for the gain of its weights: PyTorch's `calculate_gain`.
///
/// ```
/// use chainrule_tensor::{Fan, Init, Nonlinearity};
/// assert_eq!(Nonlinearity::Tanh.gain(), 5.0 / 3.0);
/// let init = Init::ScaledNormal { fan: Fan::Out, gain: Nonlinearity::LeakyRelu(0.2).gain() };
/// assert_eq!(init, Init::kaiming(Fan::Out, Nonlinearity::LeakyRelu(0.2)).normal());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Nonlinearity {
    /// None, or a convolution.
    Linear,
    /// The logistic function.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// max(0, x)
    Relu,
    /// max(a x, x)
    LeakyRelu(f64),
    /// SELU
    Selu,
}

impl Nonlinearity {
    /// 1; ⁵⁄₃ for tanh; √2 for ReLU; √(2/(1 + a²)) for a leaky one; ¾ for SELU.
    pub fn gain(self) -> f64 {
        match self {
            Self::Linear | Self::Sigmoid => 1.0,
            Self::Tanh => 5.0 / 3.0,
            Self::Relu => std::f64::consts::SQRT_2,
            Self::LeakyRelu(slope) => (2.0 / (1.0 + slope * slope)).sqrt(),
            Self::Selu => 0.75,
        }
    }
}

/// A variance of gain² / fan, before it is said how it is drawn. Made by [`Init::kaiming`], [`Init::xavier`] and
/// [`Init::variance_scaling`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaled {
    fan: Fan,
    gain: f64,
}

impl Scaled {
    /// Uniform.
    pub fn uniform(self) -> Init {
        Init::ScaledUniform { fan: self.fan, gain: self.gain }
    }

    /// Normal.
    pub fn normal(self) -> Init {
        Init::ScaledNormal { fan: self.fan, gain: self.gain }
    }

    /// Normal, cut at two standard deviations; the variance is that after the cut.
    pub fn truncated_normal(self) -> Init {
        Init::ScaledTruncatedNormal { fan: self.fan, gain: self.gain }
    }
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
    /// Glorot and Bengio 2010: variance 2 gain² / (fan_in + fan_out).
    pub fn xavier(gain: f64) -> Scaled {
        Scaled { fan: Fan::Average, gain }
    }
    /// He, Zhang, Ren and Sun 2015, for what follows the layer: variance gain² / fan.
    pub fn kaiming(fan: Fan, nonlinearity: Nonlinearity) -> Scaled {
        Scaled { fan, gain: nonlinearity.gain() }
    }
    /// Variance scale / fan, as Keras has it; a scale below 0 is an error of [`Init::check`].
    pub fn variance_scaling(scale: f64, fan: Fan) -> Scaled {
        Scaled { fan, gain: scale.sqrt() }
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
            // A value is drawn until it lies within the bounds: they must leave a share that is worth the wait.
            Self::TruncatedWithin { mean, std, low, high } => {
                let (below, above) = ((low - mean) / std, (high - mean) / std);
                std > 0.0
                    && finite(mean)
                    && finite(std)
                    && finite(low)
                    && finite(high)
                    && finite(high - low)
                    && below < above
                    && below < 8.0
                    && above > -8.0
            }
            Self::ScaledUniform { gain, .. }
            | Self::ScaledNormal { gain, .. }
            | Self::ScaledTruncatedNormal { gain, .. } => finite(FARTHEST * gain),
            Self::Identity => true,
            Self::Dirac { groups } => groups > 0,
            Self::Sparse { sparsity, std } => {
                (0.0..=1.0).contains(&sparsity) && std >= 0.0 && finite(FARTHEST * std)
            }
            Self::Icnr { factor, gain } => {
                factor > 0 && factor.checked_mul(factor).is_some() && finite(FARTHEST * gain)
            }
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
            Self::TruncatedWithin { mean, std, low, high } => {
                let (below, above) = ((low - mean) / std, (high - mean) / std);
                let [low, high] = [low, high].map(T::from_f64);
                draw(out, || mean + std * rng.truncated_normal(below, above));
                out.data_mut().iter_mut().for_each(|v| *v = v.max(low).min(high)); // but for rounding
            }
            Self::ScaledTruncatedNormal { fan, gain } => {
                let std = scale(fan, gain) / CUT;
                draw(out, || std * rng.truncated_normal(-2.0, 2.0));
            }
            Self::Orthogonal { gain } => orthogonal(out, gain, rng),
            Self::Identity => dirac(out, 1, false),
            Self::Dirac { groups } => dirac(out, groups.max(1), true),
            Self::Sparse { sparsity, std } => sparse(out, sparsity, std, rng),
            Self::Icnr { factor, gain } => {
                let std = scale(Fan::In, gain);
                let outputs = out.shape().first().copied().unwrap_or(1);
                let (length, repeats) = (out.len().checked_div(outputs).unwrap_or(0).max(1), factor * factor);
                for group in out.data_mut().chunks_mut(length.saturating_mul(repeats)) {
                    let (first, others) = group.split_at_mut(length.min(group.len()));
                    first.iter_mut().for_each(|v| *v = T::from_f64(std * rng.normal()));
                    others.chunks_mut(length).for_each(|other| other.copy_from_slice(&first[..other.len()]));
                }
            }
        }
    }
}

/// More standard deviations than a normal value from 64 random bits can be away from its mean.
const FARTHEST: f64 = 16.0;

/// The standard deviation of a standard normal value that is cut at ±2.
const CUT: f64 = 0.879_625_661_034_239_8;

/// 1 where an output of a group meets the input of its number, at the centre of the kernel or, of the matrix (first axis, all
/// others), on the diagonal; else 0.
fn dirac<T: Scalar>(out: &mut Tensor<T>, groups: usize, kernel: bool) {
    let shape = *out.shape();
    let outputs = shape.first().copied().unwrap_or(1);
    let row = out.len().checked_div(outputs).unwrap_or(0);
    let (inputs, volume, centre) = match &shape[..] {
        [_, inputs, axes @ ..] if kernel => {
            let centre = axes.iter().fold(0, |at, &n| at * n + n / 2);
            (*inputs, axes.iter().product::<usize>(), centre)
        }
        _ => (row, 1, 0),
    };
    out.fill(T::ZERO);
    if row == 0 {
        return;
    }
    let of_group = outputs / groups;
    for (i, row) in out.data_mut().chunks_exact_mut(row).enumerate().take(of_group * groups) {
        if i % of_group < inputs {
            row[i % of_group * volume + centre] = T::ONE;
        }
    }
}

/// Normal values, and ⌈sparsity · rows⌉ zeros in each column.
fn sparse<T: Scalar>(out: &mut Tensor<T>, sparsity: f64, std: f64, rng: &mut Rng) {
    let rows = out.shape().first().copied().unwrap_or(1);
    let columns = out.len().checked_div(rows).unwrap_or(0);
    let zeros = (sparsity * rows as f64).ceil() as usize;
    draw(out, || std * rng.normal());
    let mut order: Vec<usize> = (0..rows).collect();
    for column in 0..columns {
        rng.shuffle(&mut order);
        order.iter().take(zeros).for_each(|row| out.data_mut()[row * columns + column] = T::ZERO);
    }
}

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

    /// Means and variances of many draws lie within five standard errors of what they should be, and values within bounds.
    #[test]
    fn every_distribution_has_its_mean_and_variance() {
        let uniform = |bound: f64| (0.0, bound / 3f64.sqrt(), bound, 1.8);
        let normal = |std: f64| (0.0, std, f64::INFINITY, 3.0);
        let cut = |std: f64| (0.0, std, 2.0 * std / CUT, 2.37);
        let relu = Nonlinearity::LeakyRelu(0.2);
        // fan in 270, fan out 360
        let rows: [(Init, (f64, f64, f64, f64)); 14] = [
            (Init::Uniform { low: -0.5, high: 0.5 }, uniform(0.5)),
            (Init::Normal { mean: 0.0, std: 0.3 }, normal(0.3)),
            (Init::TruncatedNormal { mean: 0.0, std: 0.3 }, (0.0, 0.3 * CUT, 0.6, 2.37)),
            // Cut at the mean: half a normal.
            (
                Init::TruncatedWithin { mean: 0.0, std: 1.0, low: 0.0, high: 7.9 },
                ((2.0 / std::f64::consts::PI).sqrt(), (1.0 - 2.0 / std::f64::consts::PI).sqrt(), 7.9, 3.87),
            ),
            (Init::xavier(2.0).uniform(), uniform(2.0 * (6.0f64 / 630.0).sqrt())),
            (Init::xavier(2.0).normal(), normal(2.0 * (2.0f64 / 630.0).sqrt())),
            (Init::kaiming(Fan::In, relu).uniform(), uniform(relu.gain() * (3.0f64 / 270.0).sqrt())),
            (Init::kaiming(Fan::Out, relu).normal(), normal(relu.gain() / 360f64.sqrt())),
            (Init::lecun_normal(), normal(1.0 / 270f64.sqrt())),
            (Init::variance_scaling(2.0, Fan::Average).uniform(), uniform((6.0f64 / 315.0).sqrt())),
            (Init::variance_scaling(2.0, Fan::In).truncated_normal(), cut((2.0f64 / 270.0).sqrt())),
            (Init::variance_scaling(1.0, Fan::Out).normal(), normal(1.0 / 360f64.sqrt())),
            (Init::torch_default(270), uniform(1.0 / 270f64.sqrt())),
            // Entries of a random orthogonal matrix of 40 rows and 270 columns.
            (Init::orthogonal(), (0.0, 1.0 / 270f64.sqrt(), 1.0, 3.0)),
        ];
        for (init, (mean, std, bound, kurtosis)) in rows {
            assert!(init.check::<f32>().is_ok(), "{init:?}");
            let mut t = Tensor::<f64>::zeros([40, 30, 3, 3]);
            init.fill(&mut t, &mut Rng::new(7));
            let n = t.len() as f64;
            let got = t.data().iter().sum::<f64>() / n;
            let variance = t.data().iter().map(|v| (v - got) * (v - got)).sum::<f64>() / n;
            assert!((got - mean).abs() < 5.0 * std / n.sqrt(), "{init:?}: mean {got} for {mean}");
            let error = 5.0 * std * std * ((kurtosis - 1.0) / n).sqrt();
            assert!((variance - std * std).abs() < error, "{init:?}: variance {variance} for {}", std * std);
            assert!(t.data().iter().all(|v| v.abs() <= bound), "{init:?}");
        }
    }

    #[test]
    fn gains_are_those_of_pytorch() {
        use Nonlinearity::{LeakyRelu, Linear, Relu, Selu, Sigmoid, Tanh};
        assert_eq!([Linear, Sigmoid, Selu].map(Nonlinearity::gain), [1.0, 1.0, 0.75]);
        assert_eq!([Tanh, Relu].map(Nonlinearity::gain), [5.0 / 3.0, std::f64::consts::SQRT_2]);
        assert_eq!(LeakyRelu(0.01).gain(), 1.4141428569978354);
        assert!((LeakyRelu(5f64.sqrt()).gain() - 0.5773502691896257).abs() < 1e-15);
    }

    #[test]
    fn identity_and_dirac_copy_their_input() {
        let filled = |init: Init, shape: &[usize]| {
            let mut t = Tensor::<f64>::full(crate::Shape::new(shape).unwrap(), 9.0);
            init.fill(&mut t, &mut Rng::new(1));
            t.data().to_vec()
        };
        assert_eq!(filled(Init::Identity, &[2, 3]), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        // Two groups of two outputs and two inputs, kernels of 3: the centre is 1.
        let w = filled(Init::Dirac { groups: 2 }, &[4, 2, 3]);
        let ones: Vec<usize> = (0..w.len()).filter(|&i| w[i] != 0.0).collect();
        assert_eq!(ones, [1, 6 + 4, 12 + 1, 18 + 4]);
        // An even kernel's centre is beyond its middle, and outputs beyond the inputs are 0.
        assert_eq!(
            filled(Init::Dirac { groups: 1 }, &[2, 1, 2, 2]),
            [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
        );
        for shape in [&[][..], &[0], &[0, 3], &[3, 0, 2]] {
            filled(Init::Dirac { groups: 2 }, shape);
            filled(Init::Identity, shape);
            filled(Init::Sparse { sparsity: 0.5, std: 1.0 }, shape);
            filled(Init::Icnr { factor: 2, gain: 1.0 }, shape);
        }
        assert_eq!(filled(Init::Dirac { groups: 5 }, &[2, 2]), [0.0; 4]);
    }

    #[test]
    fn sparse_columns_have_their_share_of_zeros() {
        let mut t = Tensor::<f64>::zeros([10, 2000]);
        Init::Sparse { sparsity: 0.25, std: 2.0 }.fill(&mut t, &mut Rng::new(3));
        for column in 0..2000 {
            assert_eq!((0..10).filter(|&row| t.row(row)[column] == 0.0).count(), 3);
        }
        // 14,000 of them are normal: the standard error of the variance is σ² √(2/n).
        let variance = t.data().iter().map(|v| v * v).sum::<f64>() / 14_000.0;
        assert!((variance / 4.0 - 1.0).abs() < 5.0 * (2.0f64 / 14_000.0).sqrt(), "{variance}");
    }

    #[test]
    fn icnr_repeats_each_kernel_for_the_pixels_of_one() {
        let mut t = Tensor::<f64>::zeros([400, 30, 3, 3]);
        Init::Icnr { factor: 2, gain: 2f64.sqrt() }.fill(&mut t, &mut Rng::new(3));
        let kernels: Vec<&[f64]> = t.data().chunks(270).collect();
        for (i, kernel) in kernels.iter().enumerate() {
            assert_eq!(*kernel, kernels[i / 4 * 4]);
        }
        assert_ne!(kernels[0], kernels[4]);
        let variance = t.data().iter().map(|v| v * v).sum::<f64>() / t.len() as f64;
        assert!((variance * 135.0 - 1.0).abs() < 5.0 * (2.0f64 / 27_000.0).sqrt(), "{variance}");
    }

    #[test]
    fn initialisers_that_make_no_sense_are_refused() {
        for wrong in [
            Init::TruncatedWithin { mean: 0.0, std: 0.0, low: -1.0, high: 1.0 },
            Init::TruncatedWithin { mean: 0.0, std: 1.0, low: 1.0, high: 1.0 },
            Init::TruncatedWithin { mean: 0.0, std: 1.0, low: 20.0, high: 30.0 },
            Init::TruncatedWithin { mean: 0.0, std: 1.0, low: f64::NAN, high: 1.0 },
            Init::variance_scaling(-1.0, Fan::In).truncated_normal(),
            Init::Dirac { groups: 0 },
            Init::Sparse { sparsity: 1.5, std: 1.0 },
            Init::Sparse { sparsity: 0.5, std: -1.0 },
            Init::Icnr { factor: 0, gain: 1.0 },
            Init::Icnr { factor: usize::MAX, gain: 1.0 },
        ] {
            assert!(wrong.check::<f32>().is_err(), "{wrong:?}");
        }
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
