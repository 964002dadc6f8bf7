//! An anchor is to be nearer to a positive than to a negative, by a margin (Balntas and others, 2016).
//!
//! ```text
//! d(u, v) = ‖u − v + ε‖ₚ        d₊ = d(a, p),  d₋ = d(a, n),   with swap: min(d(a, n), d(p, n))
//! e = max(0, m + d₊ − d₋)
//! ∂d/∂u = sign(δ) (|δ|/d)ᵖ⁻¹,   ∂d/∂v = −∂d/∂u,   δ = u − v + ε
//! ```
//!
//! Derivation: docs/losses/triplet_margin.md.

use crate::{
    elementwise::{not_negative, positive, reduction},
    several::{Outputs, Several, forward_to_several, rows, same_shape},
};
use chainrule_core::{
    Args, Error, Example, Facts, FromSpec, Objective, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use chainrule_tensor::compiled;

/// max(0, m + ‖a − p‖ − ‖a − n‖) of an anchor a, a positive p and a negative n.
///
/// # Shapes
/// Three predictions (.., D) of one shape, and no target. The loss has no axes, or those before the last (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Objective, Tensor};
/// use chainrule_losses::TripletMargin;
/// let (a, p, n) = (Tensor::from([[0.0f32, 0.0]]), Tensor::from([[3.0, 4.0]]), Tensor::from([[0.0, 2.0]]));
/// let mut e = Tensor::default();
/// TripletMargin::new().evaluate(&[&a, &p, &n], &[], &mut e)?;
/// assert!((e.data()[0] - 4.0).abs() < 1e-4);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TripletMargin<T = f32> {
    margin: f64,
    p: f64,
    eps: f64,
    swap: bool,
    scalar: std::marker::PhantomData<T>,
    reduction: Reduction,
}

impl<T: Scalar> TripletMargin<T> {
    /// The mean over all triplets, of Euclidean distances and with a margin of 1.
    pub fn new() -> Self {
        Self {
            margin: 1.0,
            p: 2.0,
            eps: 1e-6,
            swap: false,
            scalar: std::marker::PhantomData,
            reduction: Reduction::Mean,
        }
    }

    /// The margin m, above 0; 1 by default.
    #[must_use]
    pub fn margin(mut self, margin: f64) -> Self {
        self.margin = margin;
        self
    }

    /// The norm of distances: above 0, ∞ among them; 2 by default.
    #[must_use]
    pub fn p(mut self, p: f64) -> Self {
        self.p = p;
        self
    }

    /// What is added to each difference; 1e-6 by default.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Whether the negative is compared with the positive too, and the smaller distance counts.
    #[must_use]
    pub fn swap(mut self, swap: bool) -> Self {
        self.swap = swap;
        self
    }

    fn check(&self) -> Result<()> {
        positive::<T>("TripletMargin", "margin", self.margin)?;
        not_negative::<T>("TripletMargin", "eps", self.eps)?;
        if self.p.is_nan() || self.p <= 0.0 {
            return Err(Error::value(format!("TripletMargin: expected a norm p above 0, got {}", self.p)));
        }
        Ok(())
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for TripletMargin<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// ‖u − v + ε‖ₚ and its slopes.
#[derive(Clone, Copy)]
struct Norm {
    p: f64,
    eps: f64,
}

impl Norm {
    /// δ = u − v + ε
    #[inline(always)]
    fn difference<T: Scalar>(self, u: T, v: T) -> f64 {
        (u.to_f64() - v.to_f64()) + self.eps
    }

    #[inline(always)]
    fn of<T: Scalar>(self, u: &[T], v: &[T]) -> f64 {
        let each = u.iter().zip(v).map(|(&u, &v)| self.difference(u, v));
        if self.p == 2.0 {
            each.map(|d| d * d).sum::<f64>().sqrt()
        } else if self.p == 1.0 {
            each.map(f64::abs).sum()
        } else if self.p == f64::INFINITY {
            each.fold(0.0, |m, d| if d.abs() > m || d.is_nan() { d.abs() } else { m })
        } else {
            each.map(|d| d.abs().powf(self.p)).sum::<f64>().powf(1.0 / self.p)
        }
    }

    /// Elements as far as the norm of ∞: they share its slope.
    #[inline(always)]
    fn ties<T: Scalar>(self, u: &[T], v: &[T], norm: f64) -> f64 {
        if self.p != f64::INFINITY {
            return 1.0;
        }
        u.iter().zip(v).filter(|&(&u, &v)| self.difference(u, v).abs() == norm).count() as f64
    }

    /// ∂‖δ‖/∂δᵢ, 0 where δ or δᵢ is.
    #[inline(always)]
    fn slope(self, d: f64, norm: f64, ties: f64) -> f64 {
        if d == 0.0 || norm == 0.0 {
            0.0
        } else if self.p == 2.0 {
            d / norm
        } else if self.p == 1.0 {
            d.signum()
        } else if self.p == f64::INFINITY {
            if d.abs() == norm { d.signum() / ties } else { 0.0 }
        } else {
            d.signum() * (d.abs() / norm).powf(self.p - 1.0)
        }
    }
}

compiled! {
    fn pass[T](of: &TripletMargin<T>, width: usize, ys: [&[T]; 3], out: Outputs<'_, '_, T>) {
        let (mut out, n, norm) = (out, width.max(1), Norm { p: of.p, eps: of.eps });
        for row in 0..ys[0].len() / n {
            let at = row * n..(row + 1) * n;
            let [a, p, q] = ys.map(|y| y.get(at.clone()).unwrap_or_default());
            let (near, far) = (norm.of(a, p), norm.of(a, q));
            let other = if of.swap { norm.of(p, q) } else { f64::INFINITY };
            let z = of.margin + near - if other < far { other } else { far };
            if let Some(loss) = &mut out.loss {
                loss(row, if z < 0.0 { 0.0 } else { z });
            }
            if out.dys.is_empty() {
                continue;
            }
            let g = if z <= 0.0 { 0.0 } else { (out.g)(row) };
            // Of two equal distances each has half of the slope.
            let share = if !of.swap || far < other { 1.0 } else if far == other { 0.5 } else { 0.0 };
            // The pairs (u, v) with ∂e/∂d(u, v)
            let pairs = [(0, 1, g, near), (0, 2, -g * share, far), (1, 2, g * (share - 1.0), other)];
            for (j, dy) in out.dys.iter_mut().enumerate() {
                let Some(dy) = dy.as_deref_mut().and_then(|dy| dy.data_mut().get_mut(at.clone())) else { continue };
                dy.fill(T::ZERO);
                for (u, v, g, length) in pairs {
                    if g == 0.0 || (u != j && v != j) {
                        continue;
                    }
                    let [first, second] = [u, v].map(|k| [a, p, q][k]);
                    let (g, ties) = (if u == j { g } else { -g }, norm.ties(first, second, length));
                    for ((dy, &u), &v) in dy.iter_mut().zip(first).zip(second) {
                        let slope = norm.slope(norm.difference(u, v), length, ties);
                        *dy = T::from_f64(dy.to_f64() + g * slope); // du = ∂d/∂u, dv = −du
                    }
                }
            }
        }
    }
}

impl<T: Scalar> Several<T> for TripletMargin<T> {
    const KIND: &'static str = "TripletMargin";
    const COUNTS: [usize; 2] = [3, 0];

    fn singles(&self, ys: &[&Tensor<T>], _: &[Target<'_, T>]) -> Result<Shape> {
        self.check()?;
        let singles = rows(Self::KIND, ys[0].shape())?;
        for (y, what) in ys[1..].iter().zip(["a positive", "a negative"]) {
            same_shape(Self::KIND, what, y.shape(), ys[0].shape())?;
        }
        Ok(singles)
    }

    fn pass(&self, ys: &[&Tensor<T>], _: &[Target<'_, T>], out: Outputs<'_, '_, T>) {
        let width = ys[0].shape().last().copied().unwrap_or(1);
        pass(self, width, [ys[0].data(), ys[1].data(), ys[2].data()], out);
    }
}

impl<T: Scalar> Objective for TripletMargin<T> {
    forward_to_several!();

    fn to_spec(&self) -> Spec {
        Spec::new("TripletMargin")
            .with("margin", self.margin)
            .with("p", self.p)
            .with("eps", self.eps)
            .with("swap", self.swap)
            .with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for TripletMargin<T> {
    const FACTS: Facts = Facts::new("TripletMargin")
        .family("loss")
        .formula("max(0, m + ‖a − p‖ − ‖a − n‖)")
        .page("losses/triplet_margin.md")
        .torch("TripletMarginLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new()
            .margin(args.or("margin", 1.0)?)
            .p(args.or("p", 2.0)?)
            .eps(args.or("eps", 1e-6)?)
            .swap(args.or("swap", false)?)
            .reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let plain = || TripletMargin::<f64>::new();
        vec![
            Example::new(plain().to_spec(), [[5, 3]; 3]).targets([]),
            Example::new(plain().p(1.0).swap(true).margin(0.5).to_spec(), [[3, 2]; 3]).targets([]),
            Example::bench(plain().to_spec(), [[512, 64]; 3]).targets([]),
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
            n in 1..5usize, d in 1..7usize, margin in 0.1..2.0, swap in any::<bool>(), by in 0..3usize,
            p in prop_oneof![Just(2.0), Just(1.0), Just(f64::INFINITY), 1.2..4.0], eps in prop_oneof![Just(0.0), Just(1e-6)],
        ) {
            objective: TripletMargin::<T>::new().margin(margin).p(p).eps(eps).swap(swap)
                .reduction([Reduction::Mean, Reduction::Sum, Reduction::None][by]),
            predictions: [[n, d]; 3],
            targets: [],
            wrong_predictions: [[n, d], [n, d + 1], [n, d]],
            wrong_predictions: [[n, d], [n, d], [n + 1, d]],
            wrong_predictions: [[]; 3],
        }
    }

    /// ε = 0, a = 0, p = (3, 4), n = (0, 2): d₊ = 5, d₋ = 2, e = 1 + 5 − 2 = 4; with δ = −p and −n
    /// ∂a = (−3/5, −4/5) + (0, 1), ∂p = (3/5, 4/5), ∂n = (0, −1).
    #[test]
    pub fn by_hand() {
        let all = [Tensor::from([0.0, 0.0]), Tensor::from([3.0, 4.0]), Tensor::from([0.0, 2.0])];
        let given = Given { ys: &[&all[0], &all[1], &all[2]], t: None };
        let loss = TripletMargin::new().eps(0.0);
        compare(&loss, given, 4.0, &[&[-0.6, 0.2], &[0.6, 0.8], &[0.0, -1.0]], &[]);
        agrees(|by| TripletMargin::new().reduction(by), given);
    }

    /// a = 0, p = (0, 3), n = (0, 2): with swap d(p, n) = 1 takes the place of 2, e = 1 + 3 − 1 = 3, ∂p = 1 − 1, ∂n = 1.
    #[test]
    fn the_nearer_of_two_counts_with_swap() {
        let all = [Tensor::from([0.0, 0.0]), Tensor::from([0.0, 3.0]), Tensor::from([0.0, 2.0])];
        let given = Given { ys: &[&all[0], &all[1], &all[2]], t: None };
        let loss = TripletMargin::new().eps(0.0).swap(true);
        compare(&loss, given, 3.0, &[&[0.0, -1.0], &[0.0, 0.0], &[0.0, 1.0]], &[]);
    }

    #[test]
    fn far_and_equal_embeddings_and_wrong_settings() {
        let (far, zero) = (Tensor::from([[1e30f32, 1e30]]), Tensor::from([[0.0f32, 0.0]]));
        let mut dys = vec![Tensor::default(); 3];
        let loss = TripletMargin::new().eps(0.0);
        let e = loss.value_and_gradients(&[&zero, &far, &zero], &[], &mut dys).unwrap();
        assert!((e / 1.414_213_6e30 - 1.0).abs() < 1e-6);
        assert!(dys.iter().all(|dy| dy.data().iter().all(|v| v.is_finite())));
        assert_eq!(loss.value_and_gradients(&[&zero, &zero, &zero], &[], &mut dys).unwrap(), 1.0);
        assert!(dys.iter().all(|dy| dy.data() == [0.0, 0.0]));
        for p in [0.0, -1.0, f64::NAN] {
            assert!(TripletMargin::<f32>::new().p(p).verify().is_err());
        }
        assert!(TripletMargin::<f32>::new().margin(0.0).verify().is_err());
        assert!(TripletMargin::<f32>::new().eps(f64::NAN).verify().is_err());
    }
}
