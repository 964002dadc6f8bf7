//! How little two regions overlap (Dice, 1945), for segmentation.
//!
//! ```text
//! A = Σ y t    S = Σ y + Σ t + s        e = 1 − (2 A + s)/S
//! ∂e/∂yᵢ = ((2 A + s)/S − 2 tᵢ)/S       ∂e/∂tᵢ = ((2 A + s)/S − 2 yᵢ)/S
//! ```
//!
//! Tversky's index with α = β = ½. Derivation: docs/losses/dice.md.

use crate::{
    elementwise::{not_negative, reduction},
    overlap::{Overlap, pass},
    rowwise::{Outputs, Rowwise, forward_to_rowwise},
};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};

/// 1 − (2 Σ y t + s)/(Σ y + Σ t + s), the sums over each region.
///
/// # Shapes
/// Prediction (probabilities) and target have one shape: (N, C, d₁, …) with a region for each sample and class, (N, D) with
/// one for each sample, or (D) with one. The loss has no axes, or (N, C), (N) or none (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::Dice;
/// let (y, t) = (Tensor::from([[1.0f32, 1.0, 0.0]]), Tensor::from([[1.0, 0.0, 0.0]]));
/// let loss = Dice::new().smooth(0.0).value(&y, &t)?;
/// assert!((loss.data()[0] - 1.0 / 3.0).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dice<T = f32> {
    smooth: f64,
    scalar: std::marker::PhantomData<T>,
    reduction: Reduction,
}

impl<T: Scalar> Dice<T> {
    /// The mean over all regions.
    pub fn new() -> Self {
        Self { smooth: 1.0, scalar: std::marker::PhantomData, reduction: Reduction::Mean }
    }

    /// What is added to numerator and denominator, from 0; 1 by default.
    #[must_use]
    pub fn smooth(mut self, smooth: f64) -> Self {
        self.smooth = smooth;
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for Dice<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Dice<T> {
    fn overlap(&self) -> Overlap {
        Overlap { kind: "Dice", alpha: 0.5, beta: 0.5, smooth: 0.5 * self.smooth }
    }
}

impl<T: Scalar> Rowwise<T> for Dice<T> {
    fn singles(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        self.check()?;
        self.overlap().regions(y, target)
    }

    fn pass(&self, y: &Tensor<T>, target: Target<'_, T>, out: Outputs<'_, T>) {
        if let (Target::Values(t), Ok(regions)) = (target, self.overlap().regions(y.shape(), target)) {
            pass(self.overlap(), regions.volume(), y.data(), t.data(), out);
        }
    }
}

impl<T: Scalar> Loss for Dice<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        not_negative::<T>("Dice", "smooth", self.smooth)
    }

    forward_to_rowwise!();

    fn spec(&self) -> Spec {
        Spec::new("Dice").with("smooth", self.smooth).with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for Dice<T> {
    const FACTS: Facts =
        Facts::new("Dice").family("loss").formula("1 − (2 Σ y t + s)/(Σ y + Σ t + s)").page("losses/dice.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().smooth(args.or("smooth", 1.0)?).reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let plain = || Dice::<f64>::new();
        vec![
            Example::new(plain().smooth(0.5).spec(), [[2, 3, 4]]).within(0.0, 1.0),
            Example::new(plain().reduction(Reduction::Sum).spec(), [[5]]).within(0.0, 1.0),
            Example::bench(plain().spec(), [[8, 4, 32, 32]]).within(0.0, 1.0),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 1..5), smooth in prop_oneof![Just(0.0), 0.1..2.0]) {
            loss: |reduction| Dice::<T>::new().smooth(smooth).reduction(reduction),
            prediction: shape.clone(),
            target: TargetKind::Of { shape, values: Values::Uniform(0.1..1.0) },
            values: Values::Uniform(0.1..1.0),
            wrong: [],
        }
    }

    /// y = (½, ½), t = (1, 0), s = 1: A = ½, S = 3, e = 1 − 2/3; ∂y = (2/3 − 2, 2/3)/3, ∂t = (2/3 − 1)/3 twice.
    #[test]
    pub fn by_hand() {
        let ninth = 1.0 / 9.0;
        let want = [[-4.0 * ninth, 2.0 * ninth], [-ninth, -ninth]];
        compare(&Dice::new(), [[0.5, 0.5], [1.0, 0.0]], 3.0 * ninth, want);
    }

    #[test]
    fn empty_regions_and_wrong_settings() {
        let (y, mut dy) = (Tensor::<f32>::zeros([2, 3]), Tensor::default());
        let e = Dice::new().smooth(0.0).gradient(&y, &y, &mut dy).unwrap();
        assert!(e == 0.0 && dy.data() == [0.0; 6]);
        let each = Dice::new()
            .reduction(Reduction::None)
            .value(&Tensor::zeros([2, 3, 4]), &Tensor::<f32>::zeros([2, 3, 4]));
        assert_eq!(each.unwrap().shape()[..], [2, 3]);
        for smooth in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(Dice::<f32>::new().smooth(smooth).check().is_err());
        }
    }
}
