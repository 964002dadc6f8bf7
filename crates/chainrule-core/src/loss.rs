//! The contract of losses.

use crate::Result;
use chainrule_tensor::{Error, Scalar, Shape, Tensor};

/// How the losses of single elements become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean (a weighted loss divides by the sum of the weights).
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// They stay as they are.
    None,
}

/// What a prediction is compared with.
#[derive(Debug)]
pub enum Target<'a, T> {
    /// A class for each row.
    Classes(&'a [usize]),
    /// Numbers: values of a regression, probabilities of classes.
    Values(&'a Tensor<T>),
}

impl<T> Clone for Target<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Target<'_, T> {}

impl<'a, T: Scalar> Target<'a, T> {
    /// The numbers.
    ///
    /// # Errors
    /// The target is made of classes.
    pub fn values(self) -> Result<&'a Tensor<T>> {
        match self {
            Self::Values(t) => Ok(t),
            Self::Classes(_) => Err(Error::value("expected a tensor of numbers as the target, got classes")),
        }
    }
}

impl<'a, T> From<&'a [usize]> for Target<'a, T> {
    fn from(classes: &'a [usize]) -> Self {
        Self::Classes(classes)
    }
}

impl<'a, T> From<&'a Vec<usize>> for Target<'a, T> {
    fn from(classes: &'a Vec<usize>) -> Self {
        Self::Classes(classes)
    }
}

impl<'a, T, const N: usize> From<&'a [usize; N]> for Target<'a, T> {
    fn from(classes: &'a [usize; N]) -> Self {
        Self::Classes(classes)
    }
}

impl<'a, T> From<&'a Tensor<T>> for Target<'a, T> {
    fn from(values: &'a Tensor<T>) -> Self {
        Self::Values(values)
    }
}

/// A loss E(y, t) with its hand-derived gradient.
///
/// Laws: outputs are overwritten; a wrong shape or a class out of range is an error.
pub trait Loss<T: Scalar>: Send + Sync {
    /// Whether the hyper-parameters make sense together.
    ///
    /// # Errors
    /// A value error that says which hyper-parameter is wrong and why.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// How the losses of single elements become one number. Whoever joins batches has to know: the gradients of means are
    /// averaged, those of sums are added.
    fn reduction(&self) -> Reduction {
        Reduction::Mean
    }

    /// The shape of the loss: no axes for a mean or a sum, that of the single losses for [`Reduction::None`].
    ///
    /// # Errors
    /// Prediction and target do not fit together.
    fn output_shape(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape>;

    /// Overwrites `loss` with E(y, t).
    ///
    /// # Errors
    /// As [`Loss::output_shape`], or a class out of range.
    fn forward(&self, y: &Tensor<T>, target: Target<'_, T>, loss: &mut Tensor<T>) -> Result<()>;

    /// Given ∂/∂loss of what comes after, of the loss's shape, overwrites `dy` and, for a target of numbers, `dt`.
    ///
    /// # Errors
    /// As [`Loss::forward`]; `dt` of a target of classes.
    fn backward(
        &self,
        y: &Tensor<T>,
        target: Target<'_, T>,
        dloss: &Tensor<T>,
        dy: Option<&mut Tensor<T>>,
        dt: Option<&mut Tensor<T>>,
    ) -> Result<()>;

    /// The loss and ∂E/∂y, in one pass over the prediction where the loss can.
    ///
    /// # Errors
    /// As [`Loss::forward`], and when the reduction leaves more than one number.
    fn value_and_gradient(&self, y: &Tensor<T>, target: Target<'_, T>, dy: &mut Tensor<T>) -> Result<T> {
        let shape = self.output_shape(y.shape(), target)?;
        if !shape.is_empty() {
            return Err(Error::value(
                "expected a loss reduced to one number (mean or sum), got reduction none",
            ));
        }
        let mut loss = Tensor::default();
        self.forward(y, target, &mut loss)?;
        self.backward(y, target, &Tensor::from(T::ONE), Some(dy), None)?;
        Ok(loss.data()[0])
    }

    /// The loss and ∂E/∂y, for a target given as `&tensor`, `&classes` or a [`Target`].
    ///
    /// # Errors
    /// As [`Loss::value_and_gradient`].
    fn gradient<'a>(&self, y: &Tensor<T>, target: impl Into<Target<'a, T>>, dy: &mut Tensor<T>) -> Result<T>
    where
        Self: Sized,
    {
        self.value_and_gradient(y, target.into(), dy)
    }

    /// The loss alone, as a tensor: one number for a mean or a sum.
    ///
    /// # Errors
    /// As [`Loss::forward`].
    fn value<'a>(&self, y: &Tensor<T>, target: impl Into<Target<'a, T>>) -> Result<Tensor<T>>
    where
        Self: Sized,
    {
        let mut loss = Tensor::default();
        self.forward(y, target.into(), &mut loss)?;
        Ok(loss)
    }
}
