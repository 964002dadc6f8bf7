//! The logistic loss of labels −1 and 1.
//!
//! ```text
//! e = ln(1 + exp(−t y)) = s(−t y)        s(z) = ln(1 + eᶻ),  s′ = σ
//! ∂e/∂y = −t σ(−t y)        ∂e/∂t = −y σ(−t y)
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/soft_margin.md.

use crate::elementwise::{Element, Elementwise, forward_to_elementwise, reduction, softplus, times};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Targets, Tensor,
};
use std::marker::PhantomData;

/// ln(1 + exp(−t y)) for labels t of −1 and 1: binary cross-entropy in other coordinates.
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::SoftMargin;
/// let (y, t) = (Tensor::from([0.0f32]), Tensor::from([-1.0]));
/// assert!((SoftMargin::new().value(&y, &t)?.data()[0] - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftMargin<T = f32> {
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> SoftMargin<T> {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self { reduction: Reduction::Mean, scalar: PhantomData }
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    fn elementwise(&self) -> Result<Elementwise<Logistic>> {
        Ok(Elementwise::new("SoftMargin", Logistic, self.reduction))
    }
}

impl<T: Scalar> Default for SoftMargin<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// s(−t y)
#[derive(Clone, Copy)]
struct Logistic;

impl<T: Scalar> Element<T> for Logistic {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        softplus(-(t * y))
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        -t * (-(t * y)).v_sigmoid::<false>()
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        -times((-(t * y)).v_sigmoid::<false>(), y)
    }
}

impl<T: Scalar> Loss for SoftMargin<T> {
    type T = T;

    forward_to_elementwise!(Logistic);

    fn spec(&self) -> Spec {
        Spec::new("SoftMargin").with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for SoftMargin<T> {
    const FACTS: Facts = Facts::new("SoftMargin")
        .family("loss")
        .formula("ln(1 + exp(−t y))")
        .page("losses/soft_margin.md")
        .torch("SoftMarginLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let labels = |n: usize, m: usize| {
            [Targets::Values(Tensor::from_fn([n, m], |i| if i % 3 == 0 { -1.0 } else { 1.0 }))]
        };
        let spec = |reduction| Self::new().reduction(reduction).spec();
        vec![
            Example::new(spec(Reduction::Mean), [[3, 2]]).targets(labels(3, 2)),
            Example::new(spec(Reduction::Sum), [[5]]),
            Example::bench(spec(Reduction::Mean), [[4096, 10]]).targets(labels(4096, 10)),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4)) {
            loss: |reduction| SoftMargin::<T>::new().reduction(reduction),
            prediction: shape.clone(),
            target: TargetKind::Of { shape, values: Values::Signs },
        }
        obeys_the_laws_with_any_label(shape in collection::vec(1..5usize, 0..4)) {
            loss: |reduction| SoftMargin::<T>::new().reduction(reduction),
            prediction: shape,
            target: TargetKind::Values,
        }
    }

    /// y = (ln 3, 0), t = (−1, 1): e = ln 4 and ln 2; σ(ln 3) = ¾, σ(0) = ½: ∂y = (¾, −½)/2, ∂t = (−¾ ln 3, 0)/2.
    #[test]
    pub fn by_hand() {
        let l3 = 3f64.ln();
        let want = [[0.375, -0.25], [-0.375 * l3, 0.0]];
        compare(&SoftMargin::new(), [[l3, 0.0], [-1.0, 1.0]], 8f64.ln() / 2.0, want);
    }

    #[test]
    fn far_predictions_have_their_limits() {
        let (inf, one) = (f32::INFINITY, 1.0f32);
        let (y, t) = (Tensor::from([1e4, -1e4, inf, -inf, -1e30]), Tensor::from([one; 5]));
        let loss = SoftMargin::new().reduction(Reduction::None);
        assert_eq!(loss.value(&y, &t).unwrap().data(), [0.0, 1e4, 0.0, inf, 1e30]);
        let (mut dy, mut dt) = (Tensor::default(), Tensor::default());
        loss.backward(&y, (&t).into(), &Tensor::full([5], one), Some(&mut dy), Some(&mut dt)).unwrap();
        assert_eq!(dy.data(), [0.0, -1.0, 0.0, -1.0, -1.0]);
        assert_eq!(dt.data(), [0.0, 1e4, 0.0, inf, 1e30]);
    }
}
