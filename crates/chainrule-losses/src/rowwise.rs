//! What the losses of rows, or of anything larger than an element, share: the methods of `Loss` made of one pass.

use crate::elementwise::{check_dloss, not_reduced};
use chainrule_core::{Reduction, Result, Scalar, Shape, Target, Tensor};

/// What a pass over single losses hands out.
pub struct Outputs<'a, T> {
    /// Takes each single loss, by its number.
    pub loss: Option<&'a mut dyn FnMut(usize, f64)>,
    /// ∂E/∂ of a single loss.
    pub g: &'a dyn Fn(usize) -> T,
    /// ∂E/∂y and ∂E/∂t, of the prediction's size, where requested.
    pub dy: Option<&'a mut [T]>,
    pub dt: Option<&'a mut [T]>,
}

/// A loss as one pass over its single losses.
pub trait Rowwise<T: Scalar> {
    /// Checks the settings, the shapes and the classes, and returns the shape of the single losses.
    fn singles(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape>;

    /// Whether the values are those that the loss is defined for.
    fn check_values(&self, _y: &Tensor<T>) -> Result<()> {
        Ok(())
    }

    /// Whether the target has a gradient.
    fn check_dt(&self, target: Target<'_, T>) -> Result<()> {
        target.values().map(drop)
    }

    /// What the mean of `count` single losses divides by.
    fn divisor(&self, count: usize, _target: Target<'_, T>) -> f64 {
        count as f64
    }

    /// The sum of the single losses, and `share` times their slopes, where one loop for both is quicker than the pass.
    fn fused(&self, _y: &Tensor<T>, _target: Target<'_, T>, _dy: &mut [T], _share: T) -> Option<f64> {
        None
    }

    /// The pass, over what has been checked.
    fn pass(&self, y: &Tensor<T>, target: Target<'_, T>, out: Outputs<'_, T>);
}

/// What the sum of single losses is divided by.
fn divided_by<T: Scalar>(of: &impl Rowwise<T>, by: Reduction, count: usize, target: Target<'_, T>) -> f64 {
    if by == Reduction::Mean { of.divisor(count, target) } else { 1.0 }
}

pub fn output_shape<T: Scalar>(
    of: &impl Rowwise<T>,
    by: Reduction,
    y: &[usize],
    target: Target<'_, T>,
) -> Result<Shape> {
    let singles = of.singles(y, target)?;
    Ok(if by == Reduction::None { singles } else { Shape::default() })
}

/// loss = reduction of the single losses
pub fn forward<T: Scalar>(
    of: &impl Rowwise<T>,
    by: Reduction,
    y: &Tensor<T>,
    target: Target<'_, T>,
    loss: &mut Tensor<T>,
) -> Result<()> {
    let singles = of.singles(y.shape(), target)?;
    of.check_values(y)?;
    let pass = |loss: &mut dyn FnMut(usize, f64)| {
        of.pass(y, target, Outputs { loss: Some(loss), g: &|_| T::ONE, dy: None, dt: None });
    };
    if by == Reduction::None {
        let out = loss.reset(singles);
        if y.is_empty() {
            out.fill(T::ZERO); // rows without an element are not walked
        }
        pass(&mut |i, e| out[i] = T::from_f64(e));
    } else {
        let mut sum = 0.0;
        pass(&mut |_, e| sum += e);
        loss.reset([])[0] = T::from_f64(sum / divided_by(of, by, singles.volume(), target));
    }
    Ok(())
}

/// dy = ∂/∂loss · ∂e/∂y, dt = ∂/∂loss · ∂e/∂t
pub fn backward<T: Scalar>(
    of: &impl Rowwise<T>,
    by: Reduction,
    (y, target): (&Tensor<T>, Target<'_, T>),
    dloss: &Tensor<T>,
    [dy, dt]: [Option<&mut Tensor<T>>; 2],
) -> Result<()> {
    let singles = of.singles(y.shape(), target)?;
    of.check_values(y)?;
    check_dloss(dloss, if by == Reduction::None { singles } else { Shape::default() })?;
    if dt.is_some() {
        of.check_dt(target)?;
    }
    let divisor = divided_by(of, by, singles.volume(), target);
    let at = |i: usize| if by == Reduction::None { i } else { 0 };
    let g = |i: usize| T::from_f64(dloss.data()[at(i)].to_f64() / divisor);
    let [dy, dt] = [dy, dt].map(|d| d.map(|d| d.reset(*y.shape())));
    of.pass(y, target, Outputs { loss: None, g: &g, dy, dt });
    Ok(())
}

/// The loss and ∂E/∂y in one pass.
pub fn value_and_gradient<T: Scalar>(
    of: &impl Rowwise<T>,
    by: Reduction,
    y: &Tensor<T>,
    target: Target<'_, T>,
    dy: &mut Tensor<T>,
) -> Result<T> {
    let singles = of.singles(y.shape(), target)?;
    of.check_values(y)?;
    if by == Reduction::None {
        return Err(not_reduced());
    }
    let (mut sum, divisor) = (0.0, divided_by(of, by, singles.volume(), target));
    let share = T::from_f64(1.0 / divisor);
    let dy = dy.reset(*y.shape());
    if let Some(sum) = of.fused(y, target, dy, share) {
        return Ok(T::from_f64(sum / divisor));
    }
    of.pass(y, target, Outputs { loss: Some(&mut |_, e| sum += e), g: &|_| share, dy: Some(dy), dt: None });
    Ok(T::from_f64(sum / divisor))
}

/// Hands the methods of `Loss` to those of this module.
macro_rules! forward_to_rowwise {
    () => {
        fn reduction(&self) -> Reduction {
            self.reduction
        }

        fn output_shape(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
            crate::rowwise::output_shape(self, self.reduction, y, target)
        }

        fn forward(&self, y: &Tensor<T>, target: Target<'_, T>, loss: &mut Tensor<T>) -> Result<()> {
            crate::rowwise::forward(self, self.reduction, y, target, loss)
        }

        fn backward(
            &self,
            y: &Tensor<T>,
            target: Target<'_, T>,
            dloss: &Tensor<T>,
            dy: Option<&mut Tensor<T>>,
            dt: Option<&mut Tensor<T>>,
        ) -> Result<()> {
            crate::rowwise::backward(self, self.reduction, (y, target), dloss, [dy, dt])
        }

        fn value_and_gradient(&self, y: &Tensor<T>, target: Target<'_, T>, dy: &mut Tensor<T>) -> Result<T> {
            crate::rowwise::value_and_gradient(self, self.reduction, y, target, dy)
        }
    };
}
pub(crate) use forward_to_rowwise;
