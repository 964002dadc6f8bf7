//! What the losses of single elements share: shapes, reductions, and the loops.

use chainrule_core::{Error, Reduction, Result, Scalar, Shape, Target, Tensor};
use chainrule_tensor::kernels::{
    elementwise::{map2, update},
    loss::{map_sum2, sum2},
};

/// The target's numbers, which must have the prediction's shape.
pub fn values<'t, T: Scalar>(name: &str, y: &[usize], target: Target<'t, T>) -> Result<&'t Tensor<T>> {
    let t = target.values()?;
    if t.shape()[..] != *y {
        return Err(Error::shape(format!(
            "{name}: expected a target of the prediction's shape {y:?}, got {}",
            t.shape()
        )));
    }
    Ok(t)
}

/// The shape of the loss.
pub fn reduced(reduction: Reduction, shape: &[usize]) -> Result<Shape> {
    if reduction == Reduction::None { Shape::new(shape) } else { Ok(Shape::default()) }
}

/// What each element counts in the reduced loss. The mean of nothing is NaN.
pub fn share<T: Scalar>(reduction: Reduction, n: usize) -> T {
    if reduction == Reduction::Mean { T::ONE / T::from_usize(n) } else { T::ONE }
}

/// loss = reduction of e(yᵢ, tᵢ).
pub fn forward<T: Scalar>(
    reduction: Reduction,
    y: &Tensor<T>,
    t: &Tensor<T>,
    loss: &mut Tensor<T>,
    e: impl Fn(T, T) -> T + Sync,
) {
    if reduction == Reduction::None {
        map2(y.data(), t.data(), loss.reset(*y.shape()), |(y, t)| e(y, t));
    } else {
        let sum = sum2(y.data(), t.data(), e);
        loss.reset([])[0] = match reduction {
            Reduction::Mean => sum / T::from_usize(y.len()),
            _ => sum,
        };
    }
}

/// d = ∂/∂loss · slope(yᵢ, tᵢ), for the prediction or for the target.
///
/// # Errors
/// `dloss` has another shape than the loss.
pub fn backward<T: Scalar>(
    reduction: Reduction,
    y: &Tensor<T>,
    t: &Tensor<T>,
    dloss: &Tensor<T>,
    d: &mut Tensor<T>,
    slope: impl Fn(T, T) -> T + Sync,
) -> Result<()> {
    check_dloss(dloss, reduced(reduction, y.shape())?)?;
    let d = d.reset(*y.shape());
    if reduction == Reduction::None {
        map2(y.data(), t.data(), d, |(y, t)| slope(y, t));
        update(d, dloss.data(), |d, g| d * g);
    } else {
        let g = dloss.data()[0] * share(reduction, y.len());
        map2(y.data(), t.data(), d, |(y, t)| g * slope(y, t));
    }
    Ok(())
}

/// The loss and its gradient, without a tensor for the loss.
pub fn value_and_gradient<T: Scalar>(
    reduction: Reduction,
    y: &Tensor<T>,
    t: &Tensor<T>,
    dy: &mut Tensor<T>,
    e: impl Fn(T, T) -> T + Sync,
    slope: impl Fn(T, T) -> T + Sync,
) -> Result<T> {
    let share: T = one_number(reduction, y.len())?;
    let dy = dy.reset(*y.shape());
    Ok(share * map_sum2(y.data(), t.data(), dy, e, |y, t| share * slope(y, t)))
}

/// The share of an element in a loss that is one number.
pub fn one_number<T: Scalar>(reduction: Reduction, n: usize) -> Result<T> {
    if reduction == Reduction::None {
        return Err(Error::value("expected a loss reduced to one number (mean or sum), got reduction none"));
    }
    Ok(share(reduction, n))
}

/// ∂/∂loss must have the loss's shape.
pub fn check_dloss<T: Scalar>(dloss: &Tensor<T>, loss: Shape) -> Result<()> {
    if *dloss.shape() != loss {
        return Err(Error::shape(format!(
            "expected a gradient of the loss's shape {loss}, got {}",
            dloss.shape()
        )));
    }
    Ok(())
}

/// Implements `Loss` for a function of single elements: `e` is the loss of (y, t), `dy` and `dt` its slopes.
macro_rules! elementwise_loss {
    ($loss:ident, $(numbers: [$($number:ident),*],)? e: |$y:ident, $t:ident| $e:expr, dy: $dy:expr, dt: $dt:expr $(,)?) => {
        impl<T: chainrule_core::Scalar> chainrule_core::Loss<T> for $loss {
            fn check(&self) -> chainrule_core::Result<()> {
                $($(crate::elementwise::positive(stringify!($loss), stringify!($number), self.$number)?;)*)?
                Ok(())
            }

            fn reduction(&self) -> chainrule_core::Reduction {
                self.reduction
            }

            fn output_shape(
                &self,
                y: &[usize],
                target: chainrule_core::Target<'_, T>,
            ) -> chainrule_core::Result<chainrule_core::Shape> {
                chainrule_core::Loss::<T>::check(self)?;
                crate::elementwise::values(stringify!($loss), y, target)?;
                crate::elementwise::reduced(self.reduction, y)
            }

            fn forward(
                &self,
                y: &chainrule_core::Tensor<T>,
                target: chainrule_core::Target<'_, T>,
                loss: &mut chainrule_core::Tensor<T>,
            ) -> chainrule_core::Result<()> {
                chainrule_core::Loss::<T>::check(self)?;
                let t = crate::elementwise::values(stringify!($loss), y.shape(), target)?;
                $($(let $number = T::from_f64(self.$number);)*)?
                crate::elementwise::forward(self.reduction, y, t, loss, |$y: T, $t: T| $e);
                Ok(())
            }

            fn backward(
                &self,
                y: &chainrule_core::Tensor<T>,
                target: chainrule_core::Target<'_, T>,
                dloss: &chainrule_core::Tensor<T>,
                dy: Option<&mut chainrule_core::Tensor<T>>,
                dt: Option<&mut chainrule_core::Tensor<T>>,
            ) -> chainrule_core::Result<()> {
                let t = crate::elementwise::values(stringify!($loss), y.shape(), target)?;
                $($(let $number = T::from_f64(self.$number);)*)?
                if let Some(dy) = dy {
                    crate::elementwise::backward(self.reduction, y, t, dloss, dy, |$y: T, $t: T| $dy)?;
                }
                if let Some(dt) = dt {
                    crate::elementwise::backward(self.reduction, y, t, dloss, dt, |$y: T, $t: T| $dt)?;
                }
                Ok(())
            }

            fn value_and_gradient(
                &self,
                y: &chainrule_core::Tensor<T>,
                target: chainrule_core::Target<'_, T>,
                dy: &mut chainrule_core::Tensor<T>,
            ) -> chainrule_core::Result<T> {
                chainrule_core::Loss::<T>::check(self)?;
                let t = crate::elementwise::values(stringify!($loss), y.shape(), target)?;
                $($(let $number = T::from_f64(self.$number);)*)?
                let (e, slope) = (|$y: T, $t: T| $e, |$y: T, $t: T| $dy);
                crate::elementwise::value_and_gradient(self.reduction, y, t, dy, e, slope)
            }
        }
    };
}
pub(crate) use elementwise_loss;

pub fn positive(loss: &str, name: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::value(format!("{loss}: expected a finite {name} above 0, got {value}")))
}

/// −1, 0 or 1.
#[inline(always)]
pub fn sign<T: Scalar>(v: T) -> T {
    if v > T::ZERO {
        T::ONE
    } else if v < T::ZERO {
        -T::ONE
    } else {
        v // 0, and NaN stays NaN
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use chainrule_core::Loss;

    /// Compares the loss, ∂E/∂y and ∂E/∂t with values worked out on paper.
    pub fn by_hand<const N: usize>(
        loss: &impl Loss<f64>,
        [y, t]: [[f64; N]; 2],
        value: f64,
        [dy, dt]: [[f64; N]; 2],
    ) {
        let (y, t) = (Tensor::from(y), Tensor::from(t));
        let (mut got_dy, mut got_dt, mut again) = (Tensor::default(), Tensor::default(), Tensor::default());
        let got = loss.value(&y, &t).unwrap().data()[0];
        let one = Tensor::from(1.0);
        loss.backward(&y, (&t).into(), &one, Some(&mut got_dy), Some(&mut got_dt)).unwrap();
        let fused = loss.gradient(&y, &t, &mut again).unwrap();
        let all = [got, fused].into_iter().zip([value; 2]);
        let all =
            all.chain(got_dy.data().iter().copied().zip(dy)).chain(got_dt.data().iter().copied().zip(dt));
        for (got, want) in all.chain(again.data().iter().copied().zip(dy)) {
            assert!((got - want).abs() < 1e-13, "{got} for {want}");
        }
    }

    #[test]
    fn shapes_that_differ_and_wrong_targets_are_errors() {
        let (y, t) = (Tensor::<f32>::zeros([2, 3]), Tensor::zeros([2, 4]));
        let text = crate::Mse::new().value(&y, &t).unwrap_err().to_string();
        assert_eq!(text, "Mse: expected a target of the prediction's shape [2, 3], got [2, 4]");
        assert!(crate::Mse::new().value(&y, &[1, 2]).is_err());
        assert!(crate::Huber::new().delta(0.0).value(&y, &y).is_err());
        let none = crate::Mae::new().reduction(Reduction::None);
        assert!(none.gradient(&y, &y, &mut Tensor::default()).is_err());
        assert_eq!(none.value(&y, &y).unwrap().shape()[..], [2, 3]);
        assert!(
            crate::Mse::new().value(&Tensor::<f32>::zeros([0]), &Tensor::zeros([0])).unwrap().data()[0]
                .is_nan()
        );
    }
}
