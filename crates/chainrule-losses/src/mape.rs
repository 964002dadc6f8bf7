//! The absolute error as a share of the target.
//!
//! ```text
//! e = |y − t|/s,   s = max(|t|, ε)
//! ∂e/∂y = sign(y − t)/s
//! ∂e/∂t = −sign(y − t)/s − [|t| > ε] sign(t) |y − t|/t²
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/mape.md.

use crate::elementwise::{Element, Elementwise, examples, forward_to_elementwise, positive, reduction, sign};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use std::marker::PhantomData;

/// |y − t|/max(|t|, ε): a share, 0.1 for ten per cent.
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::Mape;
/// let (y, t) = (Tensor::from([110.0f32, 1.5]), Tensor::from([100.0, 2.0]));
/// assert!((Mape::new().value(&y, &t)?.data()[0] - (0.1 + 0.25) / 2.0).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mape<T = f32> {
    eps: f64,
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Mape<T> {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self { eps: 1e-6, reduction: Reduction::Mean, scalar: PhantomData }
    }

    /// The least size ε of a target that is divided by, above 0.
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

    fn elementwise(&self) -> Result<Elementwise<Share<T>>> {
        self.check()?;
        Ok(Elementwise::new("Mape", Share { eps: T::from_f64(self.eps) }, self.reduction))
    }
}

impl<T: Scalar> Default for Mape<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// |y − t|/max(|t|, ε)
#[derive(Clone, Copy)]
struct Share<T> {
    eps: T,
}

impl<T: Scalar> Share<T> {
    #[inline(always)]
    fn size(self, t: T) -> T {
        if t.abs() < self.eps { self.eps } else { t.abs() }
    }
}

impl<T: Scalar> Element<T> for Share<T> {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        (y - t).abs() / self.size(t)
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        sign(y - t) / self.size(t)
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        let size = self.size(t);
        let of_size = if t.abs() > self.eps { sign(t) * ((y - t).abs() / size) } else { T::ZERO };
        -(sign(y - t) + of_size) / size
    }
}

impl<T: Scalar> Loss for Mape<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        positive::<T>("Mape", "eps", self.eps)
    }

    forward_to_elementwise!(Share<T>);

    fn spec(&self) -> Spec {
        Spec::new("Mape").with("eps", self.eps).with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for Mape<T> {
    const FACTS: Facts =
        Facts::new("Mape").family("loss").formula("|y − t|/max(|t|, ε)").page("losses/mape.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().eps(args.or("eps", 1e-6)?).reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        examples(|reduction| Self::new().eps(0.01).reduction(reduction).spec())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4), eps in 0.1..1.5) {
            loss: |reduction| Mape::<T>::new().eps(eps).reduction(reduction),
            prediction: shape,
            target: TargetKind::Values,
        }
    }

    /// y = (3, 1), t = (2, 0), ε = ½: e = (½, 2), mean 1¼; ∂y = (½, 2)/2, ∂t = (−½ − ¼·1, −2)/2.
    #[test]
    pub fn by_hand() {
        let want = [[0.25, 1.0], [-0.375, -1.0]];
        compare(&Mape::new().eps(0.5), [[3.0, 1.0], [2.0, 0.0]], 1.25, want);
    }

    #[test]
    fn far_values_and_wrong_settings() {
        let (y, t) = (Tensor::from([1e30f32, -1e4, 0.0]), Tensor::from([-1e30, 1e4, 0.0]));
        let each = Mape::new().reduction(Reduction::None).value(&y, &t).unwrap();
        assert_eq!(each.data(), [2.0, 2.0, 0.0]);
        for eps in [0.0, -1.0, f64::NAN, 1e300] {
            assert!(Mape::<f32>::new().eps(eps).check().is_err(), "{eps}");
        }
    }
}
