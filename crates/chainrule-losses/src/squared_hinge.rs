//! The square of what a score lacks of its margin.
//!
//! ```text
//! z = m − t y        e = max(0, z)²
//! ∂e/∂y = −2 t z [z > 0],   ∂e/∂t = −2 y z [z > 0]
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/squared_hinge.md.

use crate::elementwise::{Element, Elementwise, finite, forward_to_elementwise, hinge, reduction, times};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Targets, Tensor,
};
use std::marker::PhantomData;

/// max(0, m − t y)² for labels t of −1 and 1: the hinge without its corner.
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::SquaredHinge;
/// let (y, t) = (Tensor::from([0.5f32]), Tensor::from([1.0]));
/// assert_eq!(SquaredHinge::new().value(&y, &t)?.data(), [0.25]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SquaredHinge<T = f32> {
    margin: f64,
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> SquaredHinge<T> {
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

    fn elementwise(&self) -> Result<Elementwise<Lack<T>>> {
        self.check()?;
        Ok(Elementwise::new("SquaredHinge", Lack { margin: T::from_f64(self.margin) }, self.reduction))
    }
}

impl<T: Scalar> Default for SquaredHinge<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a score lacks of the margin.
#[derive(Clone, Copy)]
struct Lack<T> {
    margin: T,
}

impl<T: Scalar> Element<T> for Lack<T> {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        let z = hinge(self.margin - t * y);
        z * z
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        let z = hinge(self.margin - t * y);
        -(t * (z + z))
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        let z = hinge(self.margin - t * y);
        -times(z + z, y)
    }
}

impl<T: Scalar> Loss for SquaredHinge<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        finite::<T>("SquaredHinge", "margin", self.margin)
    }

    forward_to_elementwise!(Lack<T>);

    fn spec(&self) -> Spec {
        Spec::new("SquaredHinge").with("margin", self.margin).with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for SquaredHinge<T> {
    const FACTS: Facts =
        Facts::new("SquaredHinge").family("loss").formula("max(0, m − t y)²").page("losses/squared_hinge.md");

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
            loss: |reduction| SquaredHinge::<T>::new().margin(margin).reduction(reduction),
            prediction: shape.clone(),
            target: TargetKind::Of { shape, values: Values::Signs },
        }
    }

    /// m = 1, y = (½, 2, 3), t = (1, 1, −1): z = (½, −1, 4), sum 16¼; ∂y = (−1, 0, 8), ∂t = (−½, 0, −24).
    #[test]
    pub fn by_hand() {
        let loss = SquaredHinge::new().reduction(Reduction::Sum);
        compare(&loss, [[0.5, 2.0, 3.0], [1.0, 1.0, -1.0]], 16.25, [[-1.0, 0.0, 8.0], [-0.5, 0.0, -24.0]]);
    }

    #[test]
    fn far_scores_and_wrong_settings() {
        let (y, t) = (Tensor::from([1e30f32, -2e4, f32::NEG_INFINITY]), Tensor::from([1.0, 1.0, -1.0]));
        let each = SquaredHinge::new().reduction(Reduction::None).value(&y, &t).unwrap();
        assert_eq!(each.data(), [0.0, (2e4f32 + 1.0) * (2e4 + 1.0), 0.0]);
        assert!(SquaredHinge::<f32>::new().margin(f64::NAN).check().is_err());
        assert!(SquaredHinge::<f32>::new().margin(1e300).check().is_err());
    }
}
