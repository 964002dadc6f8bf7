//! A distance that is to be small for pairs that belong together and beyond a margin for those that do not.
//!
//! ```text
//! t = 1:    e = y                   ∂e/∂y = 1
//! t = −1:   e = max(0, m − y)       ∂e/∂y = −[m − y ≥ 0]
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/hinge_embedding.md.

use crate::elementwise::{Element, Elementwise, finite, forward_to_elementwise, hinge, reduction};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Targets, Tensor,
};
use std::marker::PhantomData;

/// y for a label of 1, max(0, m − y) for −1; any other label takes both terms.
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::HingeEmbedding;
/// let (y, t) = (Tensor::from([0.5f32, 0.25]), Tensor::from([1.0, -1.0]));
/// assert_eq!(HingeEmbedding::new().value(&y, &t)?.data(), [(0.5 + 0.75) / 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HingeEmbedding<T = f32> {
    margin: f64,
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> HingeEmbedding<T> {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self { margin: 1.0, reduction: Reduction::Mean, scalar: PhantomData }
    }

    /// The margin m; 1 by default.
    #[must_use]
    pub fn margin(mut self, margin: f64) -> Self {
        self.margin = margin;
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    fn elementwise(&self) -> Result<Elementwise<Distance<T>>> {
        self.check()?;
        Ok(Elementwise::new("HingeEmbedding", Distance { margin: T::from_f64(self.margin) }, self.reduction))
    }
}

impl<T: Scalar> Default for HingeEmbedding<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// [t ≠ −1] y + [t ≠ 1] max(0, m − y)
#[derive(Clone, Copy)]
struct Distance<T> {
    margin: T,
}

impl<T: Scalar> Element<T> for Distance<T> {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        let near = if t == -T::ONE { T::ZERO } else { y };
        let far = if t == T::ONE { T::ZERO } else { hinge(self.margin - y) };
        near + far
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        let near = if t == -T::ONE { T::ZERO } else { T::ONE };
        let inside = t != T::ONE && self.margin - y > T::ZERO;
        if inside { near - T::ONE } else { near }
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        let _ = (y, t);
        T::ZERO // constant but for a step at ±1
    }
}

impl<T: Scalar> Loss for HingeEmbedding<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        finite::<T>("HingeEmbedding", "margin", self.margin)
    }

    forward_to_elementwise!(Distance<T>);

    fn spec(&self) -> Spec {
        Spec::new("HingeEmbedding").with("margin", self.margin).with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for HingeEmbedding<T> {
    const FACTS: Facts = Facts::new("HingeEmbedding")
        .family("loss")
        .formula("y for t = 1, max(0, m − y) for t = −1")
        .page("losses/hinge_embedding.md")
        .torch("HingeEmbeddingLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().margin(args.or("margin", 1.0)?).reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let labels = |n: usize, m: usize| {
            [Targets::Values(Tensor::from_fn([n, m], |i| if i % 3 == 0 { -1.0 } else { 1.0 }))]
        };
        let spec = |reduction| Self::new().margin(0.5).reduction(reduction).spec();
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
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4), margin in -1.0..2.0) {
            loss: |reduction| HingeEmbedding::<T>::new().margin(margin).reduction(reduction),
            prediction: shape,
            target: TargetKind::Values,
        }
    }

    /// m = 1, y = (½, ¼, 2), t = (1, −1, −1): e = ½, ¾, 0, sum 1¼; ∂y = (1, −1, 0).
    #[test]
    pub fn by_hand() {
        let loss = HingeEmbedding::new().reduction(Reduction::Sum);
        compare(&loss, [[0.5, 0.25, 2.0], [1.0, -1.0, -1.0]], 1.25, [[1.0, -1.0, 0.0], [0.0; 3]]);
    }

    #[test]
    fn labels_of_either_sign_agree_with_differences() {
        let y = Tensor::from_fn([4, 5], |i| (i as f64 * 0.77).sin());
        let t = Tensor::from_fn([4, 5], |i| if i % 3 == 0 { 1.0 } else { -1.0 });
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            let loss = HingeEmbedding::new().margin(0.3).reduction(reduction);
            let report = chainrule_gradcheck::Check::new().objective(&loss, &y, &t).unwrap();
            assert!(report.passed(), "{report}");
        }
        assert!(HingeEmbedding::<f32>::new().margin(f64::NAN).check().is_err());
        assert!(HingeEmbedding::<f32>::new().margin(1e300).check().is_err());
    }
}
