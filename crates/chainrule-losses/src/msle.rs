//! The mean squared error of logarithms.
//!
//! ```text
//! l = ln(1 + y) − ln(1 + t)        e = l²
//! ∂e/∂y = 2 l/(1 + y),   ∂e/∂t = −2 l/(1 + t)
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/msle.md.

use crate::elementwise::{Element, Elementwise, examples, forward_to_elementwise, reduction};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use std::marker::PhantomData;

/// (ln(1 + y) − ln(1 + t))², for values above −1: relative errors of counts and prices.
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::Msle;
/// let (y, t) = (Tensor::from([1.0f32]), Tensor::from([0.0]));
/// assert!((Msle::new().value(&y, &t)?.data()[0] - 2f32.ln().powi(2)).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Msle<T = f32> {
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Msle<T> {
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

    fn elementwise(&self) -> Result<Elementwise<Logarithms>> {
        Ok(Elementwise::new("Msle", Logarithms, self.reduction))
    }
}

impl<T: Scalar> Default for Msle<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// l²
#[derive(Clone, Copy)]
struct Logarithms;

/// l = ln(1 + (y − t)/(1 + t)): the difference of near values is exact.
#[inline(always)]
fn ratio<T: Scalar>(y: T, t: T) -> T {
    ((y - t) / (T::ONE + t)).v_ln_1p::<false>()
}

impl<T: Scalar> Element<T> for Logarithms {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        let l = ratio(y, t);
        l * l
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        let l = ratio(y, t);
        (l + l) / (T::ONE + y)
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        let l = ratio(y, t);
        -(l + l) / (T::ONE + t)
    }
}

impl<T: Scalar> Loss for Msle<T> {
    type T = T;

    forward_to_elementwise!(Logarithms);

    fn spec(&self) -> Spec {
        Spec::new("Msle").with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for Msle<T> {
    const FACTS: Facts =
        Facts::new("Msle").family("loss").formula("(ln(1 + y) − ln(1 + t))²").page("losses/msle.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let mut all = examples(|reduction| Self::new().reduction(reduction).spec());
        all.iter_mut().for_each(|example| example.range = Some([0.0, 4.0]));
        all
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4)) {
            loss: |reduction| Msle::<T>::new().reduction(reduction),
            prediction: shape.clone(),
            target: TargetKind::Of { shape, values: Values::Uniform(-0.5..4.0) },
            values: Values::Uniform(-0.5..4.0),
        }
    }

    /// y = (1, 3), t = (0, 3): l = (ln 2, 0), e = ln²2/2; ∂y = (2 ln 2/2, 0)/2, ∂t = (−2 ln 2, 0)/2.
    #[test]
    pub fn by_hand() {
        let l2 = 2f64.ln();
        compare(&Msle::new(), [[1.0, 3.0], [0.0, 3.0]], 0.5 * l2 * l2, [[0.5 * l2, 0.0], [-l2, 0.0]]);
    }

    #[test]
    fn values_far_from_0_and_near_to_one_another_and_the_end_of_the_domain() {
        let (y, t) = (Tensor::from([1e6f32 + 1.0, 1e30, -1.0]), Tensor::from([1e6, 1e30, 0.0]));
        let each = Msle::new().reduction(Reduction::None).value(&y, &t).unwrap();
        assert!((each.data()[0] / 1e-12 - 1.0).abs() < 1e-4);
        assert_eq!(each.data()[1..], [0.0, f32::INFINITY]);
    }
}
