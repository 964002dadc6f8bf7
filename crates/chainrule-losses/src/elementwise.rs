//! What the losses of single elements share: shapes, reductions, and the loops.

use chainrule_core::{Args, Error, Example, Reduction, Result, Scalar, Shape, Spec, Target, Tensor};
use chainrule_tensor::kernels::{
    elementwise::{map2, update},
    layers::loss::{map_sum2, sum2},
};

/// The loss e of one element, and its slopes. Its methods stand inside vectorised loops: they are inlined.
pub trait Element<T: Scalar>: Copy + Sync {
    /// e(y, t)
    fn e(self, y: T, t: T) -> T;
    /// ∂e/∂y
    fn dy(self, y: T, t: T) -> T;
    /// ∂e/∂t
    fn dt(self, y: T, t: T) -> T;
}

/// An [`Element`] with the name and the reduction of its loss: the methods of `Loss`.
#[derive(Clone, Copy)]
pub struct Elementwise<E> {
    pub kind: &'static str,
    pub element: E,
    pub reduction: Reduction,
    /// The mean divides by the number of samples and not of elements.
    pub batch_mean: bool,
}

impl<E> Elementwise<E> {
    pub fn new(kind: &'static str, element: E, reduction: Reduction) -> Self {
        Self { kind, element, reduction, batch_mean: false }
    }

    /// What is averaged over.
    fn count<T: Scalar>(&self, y: &Tensor<T>) -> usize {
        if self.batch_mean { y.shape().first().copied().unwrap_or(1) } else { y.len() }
    }

    pub fn output_shape<T: Scalar>(self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        values(self.kind, y, target)?;
        reduced(self.reduction, y)
    }

    /// loss = reduction of e(yᵢ, tᵢ)
    pub fn forward<T: Scalar>(self, y: &Tensor<T>, target: Target<'_, T>, loss: &mut Tensor<T>) -> Result<()>
    where
        E: Element<T>,
    {
        let (t, element) = (values(self.kind, y.shape(), target)?, self.element);
        if self.reduction == Reduction::None {
            map2(y.data(), t.data(), loss.reset(*y.shape()), move |(y, t)| element.e(y, t));
            return Ok(());
        }
        let sum = sum2(y.data(), t.data(), move |y, t| element.e(y, t));
        loss.reset([])[0] = T::from_f64(sum * share(self.reduction, self.count(y)));
        Ok(())
    }

    /// dy = ∂/∂loss · ∂e/∂y, dt = ∂/∂loss · ∂e/∂t
    pub fn backward<T: Scalar>(
        self,
        y: &Tensor<T>,
        target: Target<'_, T>,
        dloss: &Tensor<T>,
        dy: Option<&mut Tensor<T>>,
        dt: Option<&mut Tensor<T>>,
    ) -> Result<()>
    where
        E: Element<T>,
    {
        let (t, element) = (values(self.kind, y.shape(), target)?, self.element);
        check_dloss(dloss, reduced(self.reduction, y.shape())?)?;
        if let Some(dy) = dy {
            self.slope(y, t, dloss, dy, move |y, t| element.dy(y, t));
        }
        if let Some(dt) = dt {
            self.slope(y, t, dloss, dt, move |y, t| element.dt(y, t));
        }
        Ok(())
    }

    /// d = ∂/∂loss · slope(yᵢ, tᵢ)
    fn slope<T: Scalar>(
        self,
        y: &Tensor<T>,
        t: &Tensor<T>,
        dloss: &Tensor<T>,
        d: &mut Tensor<T>,
        slope: impl Fn(T, T) -> T + Sync,
    ) {
        let d = d.reset(*y.shape());
        if self.reduction == Reduction::None {
            map2(y.data(), t.data(), d, |(y, t)| slope(y, t));
            update(d, dloss.data(), |d, g| d * g);
        } else {
            let g = T::from_f64(dloss.data()[0].to_f64() * share(self.reduction, self.count(y)));
            map2(y.data(), t.data(), d, |(y, t)| g * slope(y, t));
        }
    }

    /// The loss and its gradient in one pass, without a tensor for the loss.
    pub fn value_and_gradient<T: Scalar>(
        self,
        y: &Tensor<T>,
        target: Target<'_, T>,
        dy: &mut Tensor<T>,
    ) -> Result<T>
    where
        E: Element<T>,
    {
        let (t, element) = (values(self.kind, y.shape(), target)?, self.element);
        let share = share_of_one(self.reduction, self.count(y))?;
        let g = T::from_f64(share);
        let (e, slope) = (move |y, t| element.e(y, t), move |y, t| g * element.dy(y, t));
        Ok(T::from_f64(share * map_sum2(y.data(), t.data(), dy.reset(*y.shape()), e, slope)))
    }
}

/// The values of the target, which must have the prediction's shape.
pub fn values<'t, T: Scalar>(kind: &str, y: &[usize], target: Target<'t, T>) -> Result<&'t Tensor<T>> {
    let t = target.values()?;
    if t.shape()[..] != *y {
        return Err(Error::shape(format!(
            "{kind}: expected a target of the prediction's shape {y:?}, got {}",
            t.shape()
        )));
    }
    Ok(t)
}

/// The shape of the loss.
pub fn reduced(reduction: Reduction, shape: &[usize]) -> Result<Shape> {
    if reduction == Reduction::None { Shape::new(shape) } else { Ok(Shape::default()) }
}

/// The share of an element in the reduced loss. The mean of no element is NaN.
pub fn share(reduction: Reduction, n: usize) -> f64 {
    if reduction == Reduction::Mean { 1.0 / n as f64 } else { 1.0 }
}

/// The share of an element in a loss of one element.
pub fn share_of_one(reduction: Reduction, n: usize) -> Result<f64> {
    if reduction == Reduction::None {
        return Err(not_reduced());
    }
    Ok(share(reduction, n))
}

#[cold]
pub fn not_reduced() -> Error {
    Error::value("expected a loss reduced to one element (mean or sum), got reduction none")
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

/// The reduction of a spec.
pub fn reduction<T: Scalar>(args: &Args<'_, T>) -> Result<Reduction> {
    args.or("reduction", Reduction::Mean)
}

/// Cases of a loss: both reductions that give one element, and a size for the benches.
pub fn examples(spec: impl Fn(Reduction) -> Spec) -> Vec<Example> {
    vec![
        Example::new(spec(Reduction::Mean), [[3, 2]]),
        Example::new(spec(Reduction::Sum), [[5]]),
        Example::bench(spec(Reduction::Mean), [[4096, 10]]),
    ]
}

pub fn positive<T: Scalar>(kind: &str, name: &str, value: f64) -> Result<()> {
    let rounded = T::from_f64(value);
    if rounded > T::ZERO && rounded.is_finite() {
        return Ok(());
    }
    Err(Error::value(format!(
        "{kind}: expected a finite {name} above 0 in {}, got {value}",
        T::NAME.to_lowercase()
    )))
}

/// An error unless a setting is finite in T.
pub fn finite<T: Scalar>(kind: &str, name: &str, value: f64) -> Result<()> {
    if T::from_f64(value).is_finite() {
        return Ok(());
    }
    Err(Error::value(format!("{kind}: expected a finite {name} in {}, got {value}", T::NAME.to_lowercase())))
}

/// An error unless a setting is 0, or finite and above 0, in T.
pub fn not_negative<T: Scalar>(kind: &str, name: &str, value: f64) -> Result<()> {
    if value == 0.0 { Ok(()) } else { positive::<T>(kind, name, value) }
}

/// An error unless all weights are finite.
pub fn finite_weights<'w, T: Scalar>(
    kind: &str,
    name: &str,
    weights: impl IntoIterator<Item = &'w T>,
) -> Result<()> {
    match weights.into_iter().find(|w| !w.is_finite()) {
        Some(w) => Err(Error::value(format!("{kind}: expected a finite {name}, got {w}"))),
        None => Ok(()),
    }
}

/// An error unless a weight has the trailing axes of a prediction, so that it is repeated over the leading ones.
pub fn trailing<T: Scalar>(kind: &str, name: &str, weight: &Tensor<T>, y: &[usize]) -> Result<()> {
    let ones = weight.shape().iter().take_while(|&&n| n == 1).count();
    if !y.ends_with(&weight.shape()[ones..]) || weight.is_empty() {
        return Err(Error::shape(format!(
            "{kind}: expected a {name} of the trailing axes of {y:?}, got {}",
            weight.shape()
        )));
    }
    Ok(())
}

/// a b, and 0 where a is 0: what has no weight adds nothing, were it infinite.
#[inline(always)]
pub fn times<T: Scalar>(a: T, b: T) -> T {
    if a == T::ZERO { T::ZERO } else { a * b }
}

/// s(y) = ln(1 + eʸ) = max(y, 0) + ln(1 + e^−|y|)
#[inline(always)]
pub fn softplus<T: Scalar>(y: T) -> T {
    let both = y.abs().v_exp_neg::<false>().v_ln_1p::<false>();
    if y > T::ZERO { both + y } else { both }
}

/// max(z, 0); NaN stays NaN.
#[inline(always)]
pub fn hinge<T: Scalar>(z: T) -> T {
    if z < T::ZERO { T::ZERO } else { z }
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

/// Hands the methods of `Loss` to those of [`Elementwise`] with this [`Element`], which
/// `elementwise(&self) -> Result<Elementwise<_>>` makes of the checked settings.
macro_rules! forward_to_elementwise {
    ($element:ty) => {
        fn reduction(&self) -> Reduction {
            self.reduction
        }

        fn output_shape(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
            self.elementwise()?.output_shape(y, target)
        }

        fn forward(&self, y: &Tensor<T>, target: Target<'_, T>, loss: &mut Tensor<T>) -> Result<()> {
            chainrule_tensor::compiled! {
                fn forward[T](
                    of: Elementwise<$element>,
                    y: &Tensor<T>,
                    target: Target<'_, T>,
                    loss: &mut Tensor<T>,
                ) -> Result<()> {
                    of.forward(y, target, loss)
                }
            }
            forward(self.elementwise()?, y, target, loss)
        }

        fn backward(
            &self,
            y: &Tensor<T>,
            target: Target<'_, T>,
            dloss: &Tensor<T>,
            dy: Option<&mut Tensor<T>>,
            dt: Option<&mut Tensor<T>>,
        ) -> Result<()> {
            chainrule_tensor::compiled! {
                fn backward[T](
                    of: Elementwise<$element>,
                    y: &Tensor<T>,
                    target: Target<'_, T>,
                    dloss: &Tensor<T>,
                    dy: Option<&mut Tensor<T>>,
                    dt: Option<&mut Tensor<T>>,
                ) -> Result<()> {
                    of.backward(y, target, dloss, dy, dt)
                }
            }
            backward(self.elementwise()?, y, target, dloss, dy, dt)
        }

        fn value_and_gradient(&self, y: &Tensor<T>, target: Target<'_, T>, dy: &mut Tensor<T>) -> Result<T> {
            chainrule_tensor::compiled! {
                fn both[T](
                    of: Elementwise<$element>,
                    y: &Tensor<T>,
                    target: Target<'_, T>,
                    dy: &mut Tensor<T>,
                ) -> Result<T> {
                    of.value_and_gradient(y, target, dy)
                }
            }
            both(self.elementwise()?, y, target, dy)
        }
    };
}
pub(crate) use forward_to_elementwise;

#[cfg(test)]
pub mod tests {
    use super::*;
    use chainrule_core::Loss;

    /// Compares the loss, ∂E/∂y and ∂E/∂t with values worked out on paper.
    pub fn compare<const N: usize>(
        loss: &impl Loss<T = f64>,
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
        assert!(crate::Huber::new().delta(1e-60).value(&y, &y).is_err());
        let none = crate::Mae::new().reduction(Reduction::None);
        assert!(none.gradient(&y, &y, &mut Tensor::default()).is_err());
        assert_eq!(none.value(&y, &y).unwrap().shape()[..], [2, 3]);
        let empty = Tensor::<f32>::zeros([0]);
        assert!(crate::Mse::new().value(&empty, &empty).unwrap().data()[0].is_nan());
    }
}
