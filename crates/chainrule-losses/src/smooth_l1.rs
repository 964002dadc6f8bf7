//! Absolute far from the target, squared near it, with slopes of at most 1 (Girshick, 2015).
//!
//! ```text
//! d = y − t
//! e = ½ d²/β where |d| < β,   |d| − ½ β beyond
//! ∂e/∂y = d/β,                sign d;        ∂e/∂t = −∂e/∂y
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/smooth_l1.md.

use crate::elementwise::{
    Element, Elementwise, examples, forward_to_elementwise, not_negative, reduction, sign,
};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use std::marker::PhantomData;

/// ½ d²/β within β of the target and |d| − ½ β beyond, d = y − t: Huber's loss divided by its δ.
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::SmoothL1;
/// let (y, t) = (Tensor::from([1.0f32, 2.0]), Tensor::from([0.5, 5.0]));
/// assert_eq!(SmoothL1::new().value(&y, &t)?.data(), [(0.125 + 2.5) / 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmoothL1<T = f32> {
    beta: f64,
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> SmoothL1<T> {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self { beta: 1.0, reduction: Reduction::Mean, scalar: PhantomData }
    }

    /// Where the squared part ends; 1 by default. With 0 the loss is |y − t|.
    #[must_use]
    pub fn beta(mut self, beta: f64) -> Self {
        self.beta = beta;
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    fn elementwise(&self) -> Result<Elementwise<Smooth<T>>> {
        self.check()?;
        Ok(Elementwise::new("SmoothL1", Smooth { beta: T::from_f64(self.beta) }, self.reduction))
    }
}

impl<T: Scalar> Default for SmoothL1<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// ½ d²/β within β, |d| − ½ β beyond
#[derive(Clone, Copy)]
struct Smooth<T> {
    beta: T,
}

impl<T: Scalar> Element<T> for Smooth<T> {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        let (d, half) = ((y - t).abs(), T::from_f64(0.5));
        if d < self.beta { half * d * (d / self.beta) } else { d - half * self.beta }
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        let d = y - t;
        if d.abs() < self.beta { d / self.beta } else { sign(d) }
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        self.dy(t, y)
    }
}

impl<T: Scalar> Loss for SmoothL1<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        not_negative::<T>("SmoothL1", "beta", self.beta)
    }

    forward_to_elementwise!(Smooth<T>);

    fn spec(&self) -> Spec {
        Spec::new("SmoothL1").with("beta", self.beta).with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for SmoothL1<T> {
    const FACTS: Facts = Facts::new("SmoothL1")
        .family("loss")
        .formula("½ d²/β within β, |d| − ½ β beyond; d = y − t")
        .page("losses/smooth_l1.md")
        .torch("SmoothL1Loss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().beta(args.or("beta", 1.0)?).reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        examples(|reduction| Self::new().beta(0.5).reduction(reduction).spec())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4), beta in prop_oneof![Just(0.0), 0.2..3.0]) {
            loss: |reduction| SmoothL1::<T>::new().beta(beta).reduction(reduction),
            prediction: shape,
            target: TargetKind::Values,
        }
    }

    /// β = 2, y − t = (1, −3): ½·1/2 = ¼ and 3 − 1 = 2, mean 1⅛; ∂y = (½, −1)/2.
    #[test]
    pub fn by_hand() {
        let loss = SmoothL1::new().beta(2.0);
        compare(&loss, [[1.0, 2.0], [0.0, 5.0]], 1.125, [[0.25, -0.5], [-0.25, 0.5]]);
    }

    #[test]
    fn far_and_tiny_differences_have_their_values() {
        let (y, t) =
            (Tensor::from([1e30f32, -1e4, f32::INFINITY, 1e-30]), Tensor::from([-1e30, 1e4, 0.0, 0.0]));
        let loss = SmoothL1::new().beta(1e-20).reduction(Reduction::None);
        assert_eq!(loss.value(&y, &t).unwrap().data(), [2e30, 2e4, f32::INFINITY, 5e-41]);
        let mut dy = Tensor::default();
        SmoothL1::new().reduction(Reduction::Sum).gradient(&y, &t, &mut dy).unwrap();
        assert_eq!(dy.data(), [1.0, -1.0, 1.0, 1e-30]);
        for beta in [-1.0, f64::NAN, f64::INFINITY, 1e300, 1e-300] {
            assert!(SmoothL1::<f32>::new().beta(beta).check().is_err(), "{beta}");
        }
    }
}
