//! Among all keys of a batch, each query is to find its own (van den Oord and others, 2018).
//!
//! ```text
//! â = a/‖a‖    b̂ = b/‖b‖    Sᵢⱼ = âᵢ·b̂ⱼ/τ    P = softmax of the rows of S
//! eᵢ = −ln Pᵢᵢ        G = ∂E/∂S = diag(g) (P − 1)
//! symmetric: half of this and half of the same with rows and columns exchanged
//! ∂E/∂âᵢ = Σⱼ Gᵢⱼ b̂ⱼ/τ        ∂E/∂a = (∂E/∂â − â (â·∂E/∂â))/‖a‖
//! ```
//!
//! Derivation: docs/losses/info_nce.md.

use crate::{
    elementwise::{positive, reduction},
    several::{Outputs, Several, dot, forward_to_several, same_shape},
};
use chainrule_core::{
    Args, Error, Example, Facts, FromSpec, Objective, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use chainrule_tensor::compiled;

/// −ln of the softmax over all keys of a batch at the own key of each query, of cosines over a temperature.
///
/// # Shapes
/// Queries and keys (N, D): the i-th query belongs to the i-th key. No target. The loss has no axes, or (N) (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Objective, Tensor};
/// use chainrule_losses::InfoNce;
/// let (a, b) = (Tensor::from([[1.0f32, 0.0], [0.0, 1.0]]), Tensor::from([[2.0, 0.0], [0.0, 3.0]]));
/// let mut e = Tensor::default();
/// InfoNce::new().temperature(1.0).evaluate(&[&a, &b], &[], &mut e)?;
/// assert!((e.data()[0] - (1.0 + (-1f32).exp()).ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InfoNce<T = f32> {
    temperature: f64,
    symmetric: bool,
    scalar: std::marker::PhantomData<T>,
    reduction: Reduction,
}

impl<T: Scalar> InfoNce<T> {
    /// The mean over all queries, at a temperature of 0.1.
    pub fn new() -> Self {
        Self {
            temperature: 0.1,
            symmetric: false,
            scalar: std::marker::PhantomData,
            reduction: Reduction::Mean,
        }
    }

    /// The temperature τ, above 0; 0.1 by default.
    #[must_use]
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// Whether keys look for their queries too, as pictures and captions do; the loss is the mean of both.
    #[must_use]
    pub fn symmetric(mut self, symmetric: bool) -> Self {
        self.symmetric = symmetric;
        self
    }

    fn check(&self) -> Result<()> {
        positive::<T>("InfoNce", "temperature", self.temperature)
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for InfoNce<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Queries of a batch: their similarities are 8 GiB.
const MOST: usize = 1 << 15;

/// What a squared length is added to, so that a zero vector has a direction: none.
const EPSILON: f64 = 1e-12;

/// max and ln Σ exp(S − max) over the elements that `at` gives.
fn log_sum_exp(s: &[f64], n: usize, at: impl Fn(usize) -> usize) -> [f64; 2] {
    let max = (0..n).map(|j| s[at(j)]).fold(f64::NEG_INFINITY, |m, v| if v > m { v } else { m });
    [max, (0..n).map(|j| (s[at(j)] - max).exp()).sum::<f64>().ln()]
}

compiled! {
    fn pass[T](of: &InfoNce<T>, width: usize, ys: [&[T]; 2], out: Outputs<'_, '_, T>) {
        let (mut out, width) = (out, width.max(1));
        let n = ys[0].len() / width;
        let lengths = ys.map(|y| -> Vec<f64> {
            y.chunks_exact(width).map(|row| (dot(row, row) + EPSILON).sqrt()).collect()
        });
        let row = |which: usize, i: usize| &ys[which][i * width..][..width];
        // S
        let scale = 1.0 / of.temperature;
        let mut s = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                s[i * n + j] = dot(row(0, i), row(1, j)) / lengths[0][i] / lengths[1][j] * scale;
            }
        }
        let norms = |columns: bool| -> Vec<[f64; 2]> {
            (0..n).map(|i| log_sum_exp(&s, n, |j| if columns { j * n + i } else { i * n + j })).collect()
        };
        let (of_rows, of_columns) = (norms(false), if of.symmetric { norms(true) } else { Vec::new() });
        let half = if of.symmetric { 0.5 } else { 1.0 };
        let minus_log = |[max, log_sum]: [f64; 2], v: f64| (max - v) + log_sum;
        if let Some(loss) = &mut out.loss {
            for i in 0..n {
                let own = s[i * n + i];
                let keys = of_columns.get(i).map_or(0.0, |&norm| minus_log(norm, own));
                loss(i, half * (minus_log(of_rows[i], own) + keys));
            }
        }
        if out.dys.is_empty() {
            return;
        }
        // G takes the place of S.
        for i in 0..n {
            for j in 0..n {
                let (v, one) = (s[i * n + j], if i == j { 1.0 } else { 0.0 });
                let by_rows = (out.g)(i) * ((-minus_log(of_rows[i], v)).exp() - one);
                let by_columns = of_columns.get(j).map_or(0.0, |&norm| {
                    (out.g)(j) * ((-minus_log(norm, v)).exp() - one)
                });
                s[i * n + j] = half * (by_rows + by_columns); // G = P − 1
            }
        }
        let mut d_hat = vec![0.0; width];
        for which in 0..2 {
            let Some(dy) = out.dy(which) else { continue };
            for (i, dy) in dy.chunks_exact_mut(width).enumerate() {
                d_hat.fill(0.0);
                for j in 0..n {
                    let g = if which == 0 { s[i * n + j] } else { s[j * n + i] };
                    let g = g * scale / lengths[1 - which][j];
                    d_hat.iter_mut().zip(row(1 - which, j)).for_each(|(d, v)| *d += g * v.to_f64()); // dâ += G b̂/τ
                }
                let length = lengths[which][i];
                let own = row(which, i);
                let along = d_hat.iter().zip(own).map(|(d, v)| d * v.to_f64()).sum::<f64>() / (length * length);
                for ((dy, d), v) in dy.iter_mut().zip(&d_hat).zip(own) {
                    *dy = T::from_f64((d - along * v.to_f64()) / length); // da = (dâ − â (â·dâ))/‖a‖
                }
            }
        }
    }
}

impl<T: Scalar> Several<T> for InfoNce<T> {
    const KIND: &'static str = "InfoNce";
    const COUNTS: [usize; 2] = [2, 0];

    fn singles(&self, ys: &[&Tensor<T>], _: &[Target<'_, T>]) -> Result<Shape> {
        self.check()?;
        let [n, _] = ys[0].shape()[..] else {
            return Err(Error::shape(format!("InfoNce: expected queries (N, D), got {}", ys[0].shape())));
        };
        same_shape(Self::KIND, "keys", ys[1].shape(), ys[0].shape())?;
        if n > MOST {
            return Err(Error::shape(format!("InfoNce: expected at most {MOST} queries, got {n}")));
        }
        Ok(Shape::from([n]))
    }

    fn pass(&self, ys: &[&Tensor<T>], _: &[Target<'_, T>], out: Outputs<'_, '_, T>) {
        pass(self, ys[0].shape()[1], [ys[0].data(), ys[1].data()], out);
    }
}

impl<T: Scalar> Objective for InfoNce<T> {
    forward_to_several!();

    fn to_spec(&self) -> Spec {
        Spec::new("InfoNce")
            .with("temperature", self.temperature)
            .with("symmetric", self.symmetric)
            .with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for InfoNce<T> {
    const FACTS: Facts = Facts::new("InfoNce")
        .family("loss")
        .formula("−ln softmax(cos(yᵢ, kⱼ)/τ) at j = i")
        .page("losses/info_nce.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new()
            .temperature(args.or("temperature", 0.1)?)
            .symmetric(args.or("symmetric", false)?)
            .reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let plain = || InfoNce::<f64>::new();
        vec![
            Example::new(plain().to_spec(), [[5, 3], [5, 3]]).targets([]),
            Example::new(plain().symmetric(true).reduction(Reduction::Sum).to_spec(), [[3, 2], [3, 2]])
                .targets([]),
            Example::bench(plain().to_spec(), [[128, 64], [128, 64]]).targets([]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::several::tests::{Given, agrees, compare};
    use chainrule_gradcheck::objective_laws;

    objective_laws! {
        obeys_the_laws(
            n in 1..5usize, d in 2..6usize, temperature in 0.3..2.0, symmetric in any::<bool>(), by in 0..3usize,
        ) {
            objective: InfoNce::<T>::new().temperature(temperature).symmetric(symmetric)
                .reduction([Reduction::Mean, Reduction::Sum, Reduction::None][by]),
            predictions: [[n, d], [n, d]],
            targets: [],
            large: 1_000,
            wrong_predictions: [[n, d], [n, d + 1]],
            wrong_predictions: [[n + 1, d], [n, d]],
            wrong_predictions: [[d], [d]],
        }
    }

    /// a = b = the unit vectors times 1 and 2, τ = 1: S = (1, 0; 0, 1), Pᵢᵢ = p = e/(e + 1), E = −ln p, G = ½ (p − 1, 1 − p; 1 − p, p − 1).
    /// ∂â₀ = G b̂ = (p − 1, 1 − p)/2, of which the part along â₀ goes: ∂a₀ = (0, (1 − p)/2), ∂b₁ = (½ (1 − p)/2, 0).
    #[test]
    pub fn by_hand() {
        let y = Tensor::from([[1.0, 0.0], [0.0, 2.0]]);
        let e = 1f64.exp();
        let q = 0.5 / (e + 1.0);
        let (given, dy) = (Given { ys: &[&y, &y], t: None }, [0.0, q, 0.5 * q, 0.0]);
        for symmetric in [false, true] {
            let build = |by| InfoNce::new().temperature(1.0).symmetric(symmetric).reduction(by);
            compare(&build(Reduction::Mean), given, (1.0 + 1.0 / e).ln(), &[&dy, &dy], &[]);
            agrees(build, given);
        }
    }

    #[test]
    fn far_and_zero_embeddings_and_wrong_settings() {
        let y = Tensor::from([[1e30f32, 0.0], [0.0, -1e30], [0.0, 0.0]]);
        let mut dys = [Tensor::default(), Tensor::default()];
        let e = InfoNce::new().value_and_gradients(&[&y, &y], &[], &mut dys).unwrap();
        assert!(e.is_finite() && dys.iter().all(|dy| dy.data().iter().all(|v| v.is_finite())));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300] {
            assert!(InfoNce::<f32>::new().temperature(wrong).verify().is_err());
        }
    }
}
