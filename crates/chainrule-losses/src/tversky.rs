//! How little two regions overlap, with weights for the two ways to be wrong (Tversky, 1977; Salehi and others, 2017).
//!
//! ```text
//! A = Σ y t    FP = Σ y (1 − t)    FN = Σ (1 − y) t    D = A + α FP + β FN + s        e = 1 − (A + s)/D
//! ∂e/∂yᵢ = ((A + s)/D ((1 − α − β) tᵢ + α) − tᵢ)/D
//! ∂e/∂tᵢ = ((A + s)/D ((1 − α − β) yᵢ + β) − yᵢ)/D
//! ```
//!
//! Derivation: docs/losses/tversky.md.

use crate::{
    elementwise::{not_negative, reduction},
    overlap::{Overlap, pass},
    rowwise::{Outputs, Rowwise, forward_to_rowwise},
};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};

/// 1 − (A + s)/(A + α FP + β FN + s), A = Σ y t, FP = Σ y (1 − t), FN = Σ (1 − y) t over each region.
///
/// # Shapes
/// Prediction (probabilities) and target have one shape: (N, C, d₁, …) with a region for each sample and class, (N, D) with
/// one for each sample, or (D) with one. The loss has no axes, or (N, C), (N) or none (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::Tversky;
/// let (y, t) = (Tensor::from([[1.0f32, 1.0, 0.0]]), Tensor::from([[1.0, 0.0, 0.0]]));
/// let loss = Tversky::new().smooth(0.0).value(&y, &t)?;
/// assert!((loss.data()[0] - 1.0 / 3.0).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tversky<T = f32> {
    alpha: f64,
    beta: f64,
    smooth: f64,
    scalar: std::marker::PhantomData<T>,
    reduction: Reduction,
}

impl<T: Scalar> Tversky<T> {
    /// The mean over all regions.
    pub fn new() -> Self {
        Self {
            alpha: 0.5,
            beta: 0.5,
            smooth: 1.0,
            scalar: std::marker::PhantomData,
            reduction: Reduction::Mean,
        }
    }

    /// The weight α of what is predicted and not there, from 0; ½ by default.
    #[must_use]
    pub fn alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// The weight β of what is there and not predicted, from 0; ½ by default.
    #[must_use]
    pub fn beta(mut self, beta: f64) -> Self {
        self.beta = beta;
        self
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

impl<T: Scalar> Default for Tversky<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Tversky<T> {
    fn overlap(&self) -> Overlap {
        Overlap { kind: "Tversky", alpha: self.alpha, beta: self.beta, smooth: self.smooth }
    }
}

impl<T: Scalar> Rowwise<T> for Tversky<T> {
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

impl<T: Scalar> Loss for Tversky<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        not_negative::<T>("Tversky", "alpha", self.alpha)?;
        not_negative::<T>("Tversky", "beta", self.beta)?;
        not_negative::<T>("Tversky", "smooth", self.smooth)
    }

    forward_to_rowwise!();

    fn spec(&self) -> Spec {
        Spec::new("Tversky")
            .with("alpha", self.alpha)
            .with("beta", self.beta)
            .with("smooth", self.smooth)
            .with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for Tversky<T> {
    const FACTS: Facts = Facts::new("Tversky")
        .family("loss")
        .formula("1 − (A + s)/(A + α FP + β FN + s), A = Σ y t")
        .page("losses/tversky.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new()
            .alpha(args.or("alpha", 0.5)?)
            .beta(args.or("beta", 0.5)?)
            .smooth(args.or("smooth", 1.0)?)
            .reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let plain = || Tversky::<f64>::new();
        vec![
            Example::new(plain().alpha(0.3).beta(0.7).spec(), [[2, 3, 4]]).within(0.0, 1.0),
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
        obeys_the_laws(shape in collection::vec(1..5usize, 1..5), smooth in 0.1..2.0, alpha in 0.0..1.5, beta in 0.0..1.5) {
            loss: |reduction| Tversky::<T>::new().alpha(alpha).beta(beta).smooth(smooth).reduction(reduction),
            prediction: shape.clone(),
            target: TargetKind::Of { shape, values: Values::Uniform(0.1..1.0) },
            values: Values::Uniform(0.1..1.0),
            wrong: [],
        }
    }

    /// y = (½, ½), t = (1, 0), α = 1, β = ¼, s = 1: A = FP = FN = ½, D = 2⅛ = 17/8, index 1½/D = 12/17 = i.
    /// ∂y = (i (−¼ + 1) − 1, i)/D = (−8/17, 12/17)·8/17, ∂t = (i (−⅛ + ¼) − ½)/D = (−14/34)·8/17 twice.
    #[test]
    pub fn by_hand() {
        let loss = Tversky::new().alpha(1.0).beta(0.25);
        let want = [[-64.0 / 289.0, 96.0 / 289.0], [-56.0 / 289.0; 2]];
        compare(&loss, [[0.5, 0.5], [1.0, 0.0]], 5.0 / 17.0, want);
    }

    #[test]
    fn with_halves_it_is_dice() {
        let (y, t) = (Tensor::from([[0.2, 0.9, 0.4]]), Tensor::from([[0.0, 1.0, 1.0]]));
        let dice: f64 = crate::Dice::new().smooth(2.0).value(&y, &t).unwrap().data()[0];
        assert!((Tversky::new().value(&y, &t).unwrap().data()[0] - dice).abs() < 1e-15);
    }

    #[test]
    fn empty_regions_and_wrong_settings() {
        let (y, mut dy) = (Tensor::<f32>::zeros([2, 3]), Tensor::default());
        let e = Tversky::new().smooth(0.0).gradient(&y, &y, &mut dy).unwrap();
        assert!(e == 0.0 && dy.data() == [0.0; 6]);
        let each = Tversky::new()
            .reduction(Reduction::None)
            .value(&Tensor::zeros([2, 3, 4]), &Tensor::<f32>::zeros([2, 3, 4]));
        assert_eq!(each.unwrap().shape()[..], [2, 3]);
        for wrong in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(Tversky::<f32>::new().alpha(wrong).check().is_err());
            assert!(Tversky::<f32>::new().beta(wrong).check().is_err());
            assert!(Tversky::<f32>::new().smooth(wrong).check().is_err());
        }
    }
}
