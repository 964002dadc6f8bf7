//! Squared near the target, absolute beyond (Huber, 1964).
//!
//! ```text
//! e = ½ (y − t)²              where |y − t| ≤ δ
//!     δ (|y − t| − ½ δ)         beyond
//! ∂e/∂y = y − t, or δ sign(y − t);   ∂e/∂t = −∂e/∂y
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/huber.md.

use crate::elementwise::{Element, Elementwise, examples, forward_to_elementwise, positive, reduction, sign};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use std::marker::PhantomData;

/// ½ (y − t)² within δ of the target and δ (|y − t| − ½ δ) beyond.
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::Huber;
/// let (y, t) = (Tensor::from([1.0f32, 2.0]), Tensor::from([0.0, 5.0]));
/// assert_eq!(Huber::new().value(&y, &t)?.data(), [1.5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Huber<T = f32> {
    delta: f64,
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Huber<T> {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self { delta: 1.0, reduction: Reduction::Mean, scalar: PhantomData }
    }

    /// Where the squared part ends; 1 by default.
    #[must_use]
    pub fn delta(mut self, delta: f64) -> Self {
        self.delta = delta;
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    fn elementwise(&self) -> Result<Elementwise<Clamped<T>>> {
        self.check()?;
        let element = Clamped { delta: T::from_f64(self.delta) };
        Ok(Elementwise::new("Huber", element, self.reduction))
    }
}

impl<T: Scalar> Default for Huber<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// ½ d² within δ, δ (|d| − ½ δ) beyond; d = y − t
#[derive(Clone, Copy)]
struct Clamped<T> {
    delta: T,
}

impl<T: Scalar> Element<T> for Clamped<T> {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        let (d, half) = ((y - t).abs(), T::from_f64(0.5));
        if d > self.delta { self.delta * (d - half * self.delta) } else { half * d * d }
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        if (y - t).abs() > self.delta { self.delta * sign(y - t) } else { y - t }
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        self.dy(t, y)
    }
}

impl<T: Scalar> Loss for Huber<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        positive::<T>("Huber", "delta", self.delta)
    }

    forward_to_elementwise!(Clamped<T>);

    fn spec(&self) -> Spec {
        Spec::new("Huber").with("reduction", self.reduction).with("delta", self.delta)
    }
}

impl<T: Scalar> FromSpec<T> for Huber<T> {
    const FACTS: Facts = Facts::new("Huber")
        .family("loss")
        .formula("½ d² within δ, δ (|d| − ½ δ) beyond; d = y − t")
        .page("losses/huber.md")
        .torch("HuberLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().delta(args.or("delta", 1.0)?).reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        examples(|reduction| Self::new().delta(0.5).reduction(reduction).spec())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4), delta in 0.2..3.0) {
            loss: |reduction| Huber::<T>::new().delta(delta).reduction(reduction),
            prediction: shape,
            target: TargetKind::Values,
        }
    }

    /// δ = 2, y − t = (1, −3): ½ and 2 (3 − 1) = 4, mean 2.25; ∂y = (1, −2)/2.
    #[test]
    pub fn by_hand() {
        let loss = Huber::new().delta(2.0);
        compare(&loss, [[1.0, 2.0], [0.0, 5.0]], 2.25, [[0.5, -1.0], [-0.5, 1.0]]);
    }
}
