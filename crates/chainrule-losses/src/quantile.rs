//! The pinball loss, whose minimum is a quantile (Koenker and Bassett, 1978).
//!
//! ```text
//! d = t − y        e = q d where d > 0,   (q − 1) d otherwise
//! ∂e/∂y = −q where d > 0,   1 − q where d < 0;   ∂e/∂t = −∂e/∂y
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/quantile.md.

use crate::elementwise::{Element, Elementwise, examples, forward_to_elementwise, reduction};
use chainrule_core::{
    Args, Error, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use std::marker::PhantomData;

/// q (t − y) where the prediction is too small, (1 − q) (y − t) where it is too large.
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::Quantile;
/// let (y, t) = (Tensor::from([0.0f32, 2.0]), Tensor::from([1.0, 1.0]));
/// assert_eq!(Quantile::new().quantile(0.75).value(&y, &t)?.data(), [(0.75 + 0.25) / 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile<T = f32> {
    quantile: f64,
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Quantile<T> {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self { quantile: 0.5, reduction: Reduction::Mean, scalar: PhantomData }
    }

    /// The quantile q, between 0 and 1; the median by default.
    #[must_use]
    pub fn quantile(mut self, quantile: f64) -> Self {
        self.quantile = quantile;
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    fn elementwise(&self) -> Result<Elementwise<Pinball<T>>> {
        self.check()?;
        Ok(Elementwise::new("Quantile", Pinball { q: T::from_f64(self.quantile) }, self.reduction))
    }
}

impl<T: Scalar> Default for Quantile<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// q d above, (q − 1) d below
#[derive(Clone, Copy)]
struct Pinball<T> {
    q: T,
}

impl<T: Scalar> Element<T> for Pinball<T> {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        let d = t - y;
        d * if d > T::ZERO { self.q } else { self.q - T::ONE }
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        let d = t - y;
        if d > T::ZERO {
            -self.q
        } else if d < T::ZERO {
            T::ONE - self.q
        } else {
            d // 0, and NaN stays NaN
        }
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        -self.dy(y, t)
    }
}

impl<T: Scalar> Loss for Quantile<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        let q = T::from_f64(self.quantile);
        if q > T::ZERO && q < T::ONE {
            return Ok(());
        }
        Err(Error::value(format!("Quantile: expected a quantile between 0 and 1, got {}", self.quantile)))
    }

    forward_to_elementwise!(Pinball<T>);

    fn spec(&self) -> Spec {
        Spec::new("Quantile").with("quantile", self.quantile).with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for Quantile<T> {
    const FACTS: Facts = Facts::new("Quantile")
        .family("loss")
        .formula("q d or (q − 1) d, d = t − y")
        .page("losses/quantile.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().quantile(args.or("quantile", 0.5)?).reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        examples(|reduction| Self::new().quantile(0.9).reduction(reduction).spec())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4), q in 0.05..0.95) {
            loss: |reduction| Quantile::<T>::new().quantile(q).reduction(reduction),
            prediction: shape,
            target: TargetKind::Values,
        }
    }

    /// q = ¾, d = (1, −1): e = (¾, ¼), ∂y = (−¾, ¼)/2.
    #[test]
    pub fn by_hand() {
        let want = [[-0.375, 0.125], [0.375, -0.125]];
        compare(&Quantile::new().quantile(0.75), [[0.0, 2.0], [1.0, 1.0]], 0.5, want);
    }

    #[test]
    fn far_values_and_wrong_settings() {
        let (y, t) = (Tensor::from([1e30f32, f32::NEG_INFINITY]), Tensor::from([-1e30, 0.0]));
        let each = Quantile::new().reduction(Reduction::None).value(&y, &t).unwrap();
        assert_eq!(each.data(), [1e30, f32::INFINITY]);
        for q in [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, 1e-300] {
            assert!(Quantile::<f32>::new().quantile(q).check().is_err(), "{q}");
        }
    }
}
