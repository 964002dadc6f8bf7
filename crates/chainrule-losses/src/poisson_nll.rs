//! The negative log-likelihood of counts t under a Poisson distribution.
//!
//! ```text
//! y = ln of the rate:   e = eʸ − t y             ∂e/∂y = eʸ − t           ∂e/∂t = −y
//! y = the rate:         e = y − t ln(y + ε)      ∂e/∂y = 1 − t/(y + ε)    ∂e/∂t = −ln(y + ε)
//! full, where t > 1:    e += t ln t − t + ½ ln(2π t)                      ∂e/∂t += ln t + 1/(2t)
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/poisson_nll.md.

use crate::elementwise::{
    Element, Elementwise, examples, forward_to_elementwise, not_negative, reduction, times,
};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use std::marker::PhantomData;

/// eʸ − t y for y = ln of the rate, or y − t ln(y + ε) for the rate itself.
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::PoissonNll;
/// let (y, t) = (Tensor::from([0.0f32, 0.0]), Tensor::from([1.0, 3.0]));
/// assert_eq!(PoissonNll::new().value(&y, &t)?.data(), [1.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoissonNll<T = f32> {
    log_input: bool,
    full: bool,
    eps: f64,
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> PoissonNll<T> {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self { log_input: true, full: false, eps: 1e-8, reduction: Reduction::Mean, scalar: PhantomData }
    }

    /// Whether the prediction is the logarithm of the rate, as it is by default.
    #[must_use]
    pub fn log_input(mut self, log_input: bool) -> Self {
        self.log_input = log_input;
        self
    }

    /// Whether Stirling's approximation of ln t! is added, where t > 1.
    #[must_use]
    pub fn full(mut self, full: bool) -> Self {
        self.full = full;
        self
    }

    /// What is added to a rate before its logarithm is taken.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    fn elementwise(&self) -> Result<Elementwise<Counts<T>>> {
        self.check()?;
        Ok(Elementwise::new(
            "PoissonNll",
            Counts { log_input: self.log_input, full: self.full, eps: T::from_f64(self.eps) },
            self.reduction,
        ))
    }
}

impl<T: Scalar> Default for PoissonNll<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A rate or its logarithm against a count.
#[derive(Clone, Copy)]
struct Counts<T> {
    log_input: bool,
    full: bool,
    eps: T,
}

impl<T: Scalar> Element<T> for Counts<T> {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        let e = if self.log_input {
            y.v_exp::<false>() - times(t, y)
        } else {
            y - times(t, (y + self.eps).v_ln::<false>())
        };
        if self.full && t > T::ONE {
            let half = T::from_f64(0.5);
            e + (t * t.v_ln::<false>() - t) + half * (T::from_f64(std::f64::consts::TAU) * t).v_ln::<false>()
        } else {
            e
        }
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        if self.log_input { y.v_exp::<false>() - t } else { T::ONE - t / (y + self.eps) }
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        let dt = if self.log_input { -y } else { -(y + self.eps).v_ln::<false>() };
        if self.full && t > T::ONE { dt + t.v_ln::<false>() + T::from_f64(0.5) / t } else { dt }
    }
}

impl<T: Scalar> Loss for PoissonNll<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        not_negative::<T>("PoissonNll", "eps", self.eps)
    }

    forward_to_elementwise!(Counts<T>);

    fn spec(&self) -> Spec {
        Spec::new("PoissonNll")
            .with("log_input", self.log_input)
            .with("full", self.full)
            .with("eps", self.eps)
            .with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for PoissonNll<T> {
    const FACTS: Facts = Facts::new("PoissonNll")
        .family("loss")
        .formula("eʸ − t y, or y − t ln(y + ε)")
        .page("losses/poisson_nll.md")
        .torch("PoissonNLLLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new()
            .log_input(args.or("log_input", true)?)
            .full(args.or("full", false)?)
            .eps(args.or("eps", 1e-8)?)
            .reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let rates = Self::new().log_input(false).full(true).eps(1e-6);
        let mut all = examples(|reduction| Self::new().reduction(reduction).spec());
        all.push(Example::new(rates.spec(), [[3, 2]]).within(0.1, 4.0));
        all
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4), full in any::<bool>()) {
            loss: |reduction| PoissonNll::<T>::new().full(full).reduction(reduction),
            prediction: shape.clone(),
            target: TargetKind::Of { shape, values: Values::Uniform(0.0..6.0) },
        }
        obeys_the_laws_with_rates(shape in collection::vec(1..5usize, 0..4), full in any::<bool>(), eps in 1e-8..0.1) {
            loss: |reduction| PoissonNll::<T>::new().log_input(false).full(full).eps(eps).reduction(reduction),
            prediction: shape.clone(),
            target: TargetKind::Of { shape, values: Values::Uniform(0.0..6.0) },
            values: Values::Uniform(0.2..4.0),
        }
    }

    /// y = (0, ln 2), t = (1, 3): e = 1 − 0 and 2 − 3 ln 2; ∂y = (1 − 1, 2 − 3)/2, ∂t = −y/2.
    #[test]
    pub fn by_hand() {
        let l2 = 2f64.ln();
        let want = [[0.0, -0.5], [0.0, -0.5 * l2]];
        compare(&PoissonNll::new(), [[0.0, l2], [1.0, 3.0]], (3.0 - 3.0 * l2) / 2.0, want);
    }

    /// y = 2, t = 4, ε = 0: e = 2 − 4 ln 2 + 4 ln 4 − 4 + ½ ln 8π; ∂y = 1 − 2, ∂t = −ln 2 + ln 4 + ⅛.
    #[test]
    fn rates_by_hand() {
        let l2 = 2f64.ln();
        let loss = PoissonNll::new().log_input(false).full(true).eps(0.0);
        let e = 4.0 * l2 - 2.0 + 0.5 * (4.0 * std::f64::consts::TAU).ln();
        compare(&loss, [[2.0], [4.0]], e, [[-1.0], [l2 + 0.125]]);
    }

    #[test]
    fn far_predictions_have_their_limits() {
        let y = Tensor::from([1e4f32, -1e4, f32::NEG_INFINITY, f32::INFINITY]);
        let t = Tensor::from([1.0f32, 2.0, 0.0, 0.0]);
        let each = PoissonNll::new().reduction(Reduction::None).value(&y, &t).unwrap();
        assert_eq!(each.data(), [f32::INFINITY, 2e4, 0.0, f32::INFINITY]);
        assert!(PoissonNll::<f32>::new().eps(-1.0).check().is_err());
        assert!(PoissonNll::<f32>::new().eps(f64::NAN).check().is_err());
    }
}
