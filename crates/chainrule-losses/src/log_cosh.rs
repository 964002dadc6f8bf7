//! Squared near the target, absolute far from it, and smooth everywhere.
//!
//! ```text
//! e = ln cosh(y − t)        ∂e/∂y = tanh(y − t),   ∂e/∂t = −∂e/∂y
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/log_cosh.md.

use crate::elementwise::{Element, Elementwise, examples, forward_to_elementwise, reduction};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use std::marker::PhantomData;

/// ln cosh(y − t).
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::LogCosh;
/// let (y, t) = (Tensor::from([2f32.ln()]), Tensor::from([0.0]));
/// assert!((LogCosh::new().value(&y, &t)?.data()[0] - 1.25f32.ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogCosh<T = f32> {
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> LogCosh<T> {
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

    fn elementwise(&self) -> Result<Elementwise<Smooth>> {
        Ok(Elementwise::new("LogCosh", Smooth, self.reduction))
    }
}

impl<T: Scalar> Default for LogCosh<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// ln cosh d
#[derive(Clone, Copy)]
struct Smooth;

impl<T: Scalar> Element<T> for Smooth {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        let d = (y - t).abs();
        let two = T::from_f64(2.0);
        // ln cosh d = d + ln(1 + e^−2d) − ln 2, or, with n = e^−d − 1, ln(1 + n²/(2 (1 + n))): exact near 0.
        let far =
            d + ((two * d).v_exp_neg::<false>().v_ln_1p::<false>() - T::from_f64(std::f64::consts::LN_2));
        let n = d.v_exp_m1_neg::<false>();
        let near = (n * n / (two * (T::ONE + n))).v_ln_1p::<false>();
        if d < T::ONE { near } else { far }
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        (y - t).v_tanh::<false>()
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        (t - y).v_tanh::<false>()
    }
}

impl<T: Scalar> Loss for LogCosh<T> {
    type T = T;

    forward_to_elementwise!(Smooth);

    fn spec(&self) -> Spec {
        Spec::new("LogCosh").with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for LogCosh<T> {
    const FACTS: Facts =
        Facts::new("LogCosh").family("loss").formula("ln cosh(y − t)").page("losses/log_cosh.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        examples(|reduction| Self::new().reduction(reduction).spec())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4)) {
            loss: |reduction| LogCosh::<T>::new().reduction(reduction),
            prediction: shape,
            target: TargetKind::Values,
        }
    }

    /// d = (0, ln 2): cosh d = (1, 5/4), tanh d = (0, 3/5).
    #[test]
    pub fn by_hand() {
        let want = [[0.0, 0.3], [0.0, -0.3]];
        compare(&LogCosh::new(), [[0.0, 2f64.ln()], [0.0, 0.0]], 0.5 * 1.25f64.ln(), want);
    }

    #[test]
    fn far_and_near_differences_have_their_values() {
        let y = Tensor::from([1e4f32, -1e30, f32::INFINITY, 1e-4, 0.999, 1.001]);
        let each = LogCosh::new().reduction(Reduction::None).value(&y, &Tensor::zeros([6])).unwrap();
        assert_eq!(each.data()[..3], [1e4 - 2f32.ln(), 1e30, f32::INFINITY]);
        for (got, y) in each.data().iter().zip(y.data()).skip(3) {
            let want = f64::from(*y).cosh().ln();
            assert!((f64::from(*got) / want - 1.0).abs() < 1e-6, "{got} for {want}");
        }
    }
}
