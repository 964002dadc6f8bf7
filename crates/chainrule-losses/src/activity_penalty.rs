//! A penalty of activations: a regulariser of what a layer puts out.
//!
//! ```text
//! e = λ₁ |y| + λ₂ y²        ∂e/∂y = λ₁ sign(y) + 2 λ₂ y
//! ```
//!
//! Derivation: docs/losses/activity_penalty.md.

use crate::{
    elementwise::{not_negative, reduction, sign, times},
    several::{Outputs, Several, forward_to_several},
};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Objective, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use chainrule_tensor::compiled;

/// λ₁ |y| + λ₂ y² of a prediction, without a target: keeps activations small (λ₂) or few (λ₁).
///
/// # Shapes
/// A prediction of any shape, and no target. The loss has no axes (mean, sum), or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Objective, Tensor};
/// use chainrule_losses::ActivityPenalty;
/// let (y, mut e) = (Tensor::from([1.0f32, -2.0]), Tensor::default());
/// ActivityPenalty::new().l1(1.0).l2(0.5).evaluate(&[&y], &[], &mut e)?;
/// assert_eq!(e.data(), [(1.5 + 4.0) / 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivityPenalty<T = f32> {
    l1: f64,
    l2: f64,
    scalar: std::marker::PhantomData<T>,
    reduction: Reduction,
}

impl<T: Scalar> ActivityPenalty<T> {
    /// The mean over all elements, of weights 0.
    pub fn new() -> Self {
        Self { l1: 0.0, l2: 0.0, scalar: std::marker::PhantomData, reduction: Reduction::Mean }
    }

    /// The weight λ₁ of absolute values, from 0; 0 by default.
    #[must_use]
    pub fn l1(mut self, l1: f64) -> Self {
        self.l1 = l1;
        self
    }

    /// The weight λ₂ of squares, from 0; 0 by default.
    #[must_use]
    pub fn l2(mut self, l2: f64) -> Self {
        self.l2 = l2;
        self
    }

    fn check(&self) -> Result<()> {
        not_negative::<T>("ActivityPenalty", "l1", self.l1)?;
        not_negative::<T>("ActivityPenalty", "l2", self.l2)
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for ActivityPenalty<T> {
    fn default() -> Self {
        Self::new()
    }
}

compiled! {
    fn pass[T](weights: [T; 2], y: &[T], out: Outputs<'_, '_, T>) {
        let (mut out, [l1, l2]) = (out, weights);
        if let Some(loss) = &mut out.loss {
            for (i, &y) in y.iter().enumerate() {
                loss(i, (times(l1, y.abs()) + times(l2, y * y)).to_f64());
            }
        }
        let g = out.g;
        if let Some(dy) = out.dy(0) {
            for (i, (dy, &y)) in dy.iter_mut().zip(y).enumerate() {
                *dy = T::from_f64(g(i)) * (l1 * sign(y) + times(l2, y + y)); // dy = λ₁ sign(y) + 2 λ₂ y
            }
        }
    }
}

impl<T: Scalar> Several<T> for ActivityPenalty<T> {
    const KIND: &'static str = "ActivityPenalty";
    const COUNTS: [usize; 2] = [1, 0];

    fn singles(&self, ys: &[&Tensor<T>], _: &[Target<'_, T>]) -> Result<Shape> {
        self.check()?;
        Ok(*ys[0].shape())
    }

    fn pass(&self, ys: &[&Tensor<T>], _: &[Target<'_, T>], out: Outputs<'_, '_, T>) {
        pass([self.l1, self.l2].map(T::from_f64), ys[0].data(), out);
    }
}

impl<T: Scalar> Objective for ActivityPenalty<T> {
    forward_to_several!();

    fn to_spec(&self) -> Spec {
        Spec::new("ActivityPenalty").with("l1", self.l1).with("l2", self.l2).with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for ActivityPenalty<T> {
    const FACTS: Facts = Facts::new("ActivityPenalty")
        .family("loss")
        .formula("λ₁ |y| + λ₂ y²")
        .page("losses/activity_penalty.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().l1(args.or("l1", 0.0)?).l2(args.or("l2", 0.0)?).reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let spec = |reduction| ActivityPenalty::<f64>::new().l1(0.5).l2(0.25).reduction(reduction).to_spec();
        vec![
            Example::new(spec(Reduction::Mean), [[3, 2]]).targets([]),
            Example::new(spec(Reduction::Sum), [[5]]).targets([]),
            Example::bench(spec(Reduction::Mean), [[4096, 10]]).targets([]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::several::tests::{Given, agrees, compare};
    use chainrule_gradcheck::objective_laws;

    objective_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4), l1 in 0.0..2.0, l2 in 0.0..2.0, by in 0..3usize) {
            objective: ActivityPenalty::<T>::new().l1(l1).l2(l2).reduction([Reduction::Mean, Reduction::Sum, Reduction::None][by]),
            predictions: [shape],
            targets: [],
        }
    }

    /// λ₁ = 1, λ₂ = ½, y = (1, −2, 0): e = 1½ + 4 + 0, mean 11/6; ∂y = (1 + 1, −1 − 2, 0)/3.
    #[test]
    pub fn by_hand() {
        let y = Tensor::from([1.0, -2.0, 0.0]);
        let (given, build) = (Given { ys: &[&y], t: None }, || ActivityPenalty::new().l1(1.0).l2(0.5));
        compare(&build(), given, 11.0 / 6.0, &[&[2.0 / 3.0, -1.0, 0.0]], &[]);
        agrees(|by| build().reduction(by), given);
    }

    #[test]
    fn far_activations_and_wrong_settings() {
        let (y, mut e) = (Tensor::from([1e30f32, f32::NEG_INFINITY]), Tensor::default());
        ActivityPenalty::new().l1(1.0).reduction(Reduction::None).evaluate(&[&y], &[], &mut e).unwrap();
        assert_eq!(e.data(), [1e30, f32::INFINITY]);
        for wrong in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(ActivityPenalty::<f32>::new().l1(wrong).verify().is_err());
            assert!(ActivityPenalty::<f32>::new().l2(wrong).verify().is_err());
        }
    }
}
