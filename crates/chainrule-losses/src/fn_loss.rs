//! A loss made of a function and its derivatives.

use crate::elementwise::{Element, Elementwise};
use chainrule_core::{Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor};
use std::{fmt, marker::PhantomData};

/// The loss e(y, t) of single elements and its derivatives, given as functions.
///
/// The derivatives are written by hand, as those of every loss here, and `check_loss` compares them with differences. A loss
/// like this has no spec of its own: it trains, but a registry cannot build it. How to write one that it can:
/// `docs/write-a-loss.md`.
///
/// # Shapes
/// Prediction and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::FnLoss;
/// // Cauchy's loss ln(1 + d²), d = y − t
/// let slope = |d: f64| 2.0 * d / (1.0 + d * d);
/// let cauchy = FnLoss::new(|y: f64, t: f64| (1.0 + (y - t) * (y - t)).ln(), move |y, t| [slope(y - t), -slope(y - t)]);
/// let (y, t) = (Tensor::from([1.0, 3.0]), Tensor::from([1.0, 2.0]));
/// assert!((cauchy.value(&y, &t)?.data()[0] - 0.5 * 2f64.ln()).abs() < 1e-15);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct FnLoss<E, D, T = f32> {
    e: E,
    slopes: D,
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar, E, D> FnLoss<E, D, T>
where
    E: Fn(T, T) -> T + Send + Sync,
    D: Fn(T, T) -> [T; 2] + Send + Sync,
{
    /// The mean over all elements of e(y, t), whose derivatives are (∂e/∂y, ∂e/∂t).
    pub fn new(e: E, slopes: D) -> Self {
        Self { e, slopes, reduction: Reduction::Mean, scalar: PhantomData }
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    fn elementwise(&self) -> Elementwise<Functions<'_, E, D>> {
        Elementwise::new("FnLoss", Functions { e: &self.e, slopes: &self.slopes }, self.reduction)
    }
}

impl<E, D, T> fmt::Debug for FnLoss<E, D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnLoss").field("reduction", &self.reduction).finish_non_exhaustive()
    }
}

/// The two functions as an element.
struct Functions<'a, E, D> {
    e: &'a E,
    slopes: &'a D,
}

impl<E, D> Clone for Functions<'_, E, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E, D> Copy for Functions<'_, E, D> {}

impl<T: Scalar, E, D> Element<T> for Functions<'_, E, D>
where
    E: Fn(T, T) -> T + Sync,
    D: Fn(T, T) -> [T; 2] + Sync,
{
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        (self.e)(y, t)
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        (self.slopes)(y, t)[0]
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        (self.slopes)(y, t)[1]
    }
}

impl<T: Scalar, E, D> Loss for FnLoss<E, D, T>
where
    E: Fn(T, T) -> T + Send + Sync,
    D: Fn(T, T) -> [T; 2] + Send + Sync,
{
    type T = T;

    fn reduction(&self) -> Reduction {
        self.reduction
    }

    fn output_shape(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        self.elementwise().output_shape(y, target)
    }

    fn forward(&self, y: &Tensor<T>, target: Target<'_, T>, loss: &mut Tensor<T>) -> Result<()> {
        self.elementwise().forward(y, target, loss)
    }

    fn backward(
        &self,
        y: &Tensor<T>,
        target: Target<'_, T>,
        dloss: &Tensor<T>,
        dy: Option<&mut Tensor<T>>,
        dt: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        self.elementwise().backward(y, target, dloss, dy, dt)
    }

    fn value_and_gradient(&self, y: &Tensor<T>, target: Target<'_, T>, dy: &mut Tensor<T>) -> Result<T> {
        self.elementwise().value_and_gradient(y, target, dy)
    }

    fn spec(&self) -> Spec {
        Spec::opaque::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::{Check, loss_laws};

    /// Cauchy's loss.
    fn cauchy<T: Scalar>() -> FnLoss<impl Fn(T, T) -> T + Copy, impl Fn(T, T) -> [T; 2] + Copy, T> {
        let e = |y: T, t: T| ((y - t) * (y - t)).ln_1p();
        FnLoss::new(e, |y, t| {
            let (d, two) = (y - t, T::from_f64(2.0));
            let slope = two * d / (T::ONE + d * d);
            [slope, -slope]
        })
    }

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4)) {
            loss: |reduction| cauchy::<T>().reduction(reduction),
            prediction: shape,
            target: TargetKind::Values,
        }
    }

    /// d = (0, 1): e = (0, ln 2), ∂y = (0, 1)/2.
    #[test]
    fn by_hand() {
        compare(&cauchy(), [[1.0, 3.0], [1.0, 2.0]], 0.5 * 2f64.ln(), [[0.0, 0.5], [0.0, -0.5]]);
        assert!(cauchy::<f32>().spec().is_opaque());
    }

    #[test]
    fn the_checker_finds_a_wrong_derivative() {
        let wrong = FnLoss::new(|y: f64, t: f64| (y - t) * (y - t), |y, t| [y - t, 2.0 * (t - y)]);
        let (y, t) = (Tensor::from([1.0, 3.0]), Tensor::from([0.0, 2.0]));
        let report = Check::new().loss(&wrong, &y, &t).unwrap();
        assert!(!report.passed());
        assert_eq!(report.tensors()[0].to_string(), "y: 2 of 2 wrong, numeric = 2 × analytic");
        assert!(Check::new().loss(&cauchy(), &y, &t).unwrap().passed());
    }
}
