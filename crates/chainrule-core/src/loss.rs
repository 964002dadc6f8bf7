//! The contract of losses: one prediction and one target for authors, several in general.

use crate::{Result, Spec, Target};
use chainrule_tensor::{Error, Scalar, Shape, Tensor};

/// How the losses of single elements become one value.
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

/// A loss E(y, t) of one prediction and one target with its hand-derived gradient.
///
/// Laws: outputs are overwritten; a wrong shape or a class out of range is an error. Every loss is an [`Objective`], the
/// contract of several predictions and targets, which the trainer takes.
pub trait Loss: Send + Sync {
    /// The element type, `f32` or `f64`.
    type T: Scalar;

    /// Whether the hyper-parameters make sense together.
    ///
    /// # Errors
    /// A value error that says which hyper-parameter is wrong and why.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// How the losses of single elements become one value. Accumulation depends on it: the gradients of means are
    /// averaged, those of sums are added.
    fn reduction(&self) -> Reduction {
        Reduction::Mean
    }

    /// What the mean of a batch divides by, up to a constant: the weight of the batch in a mean over batches. The number of
    /// samples, unless the loss has weights of its own or ignores a class; 0 if nothing is left to compare with.
    fn weight_of(&self, target: Target<'_, Self::T>) -> f64 {
        target.samples() as f64
    }

    /// The class index that the loss ignores. Metrics ignore it too.
    fn ignored_class(&self) -> Option<usize> {
        None
    }

    /// The shape of the loss: no axes for a mean or a sum, that of the single losses for [`Reduction::None`].
    ///
    /// # Errors
    /// Prediction and target do not fit together.
    fn output_shape(&self, y: &[usize], target: Target<'_, Self::T>) -> Result<Shape>;

    /// Overwrites `loss` with E(y, t).
    ///
    /// # Errors
    /// As [`Loss::output_shape`], or a class out of range.
    fn forward(
        &self,
        y: &Tensor<Self::T>,
        target: Target<'_, Self::T>,
        loss: &mut Tensor<Self::T>,
    ) -> Result<()>;

    /// Given ∂/∂loss of what comes after, of the loss's shape, overwrites `dy` and, for a target of values, `dt`.
    ///
    /// # Errors
    /// As [`Loss::forward`]; `dt` of a target of classes.
    fn backward(
        &self,
        y: &Tensor<Self::T>,
        target: Target<'_, Self::T>,
        dloss: &Tensor<Self::T>,
        dy: Option<&mut Tensor<Self::T>>,
        dt: Option<&mut Tensor<Self::T>>,
    ) -> Result<()>;

    /// The loss and ∂E/∂y, in one pass over the prediction where the loss can.
    ///
    /// # Errors
    /// As [`Loss::forward`], and when the reduction leaves more than one number.
    fn value_and_gradient(
        &self,
        y: &Tensor<Self::T>,
        target: Target<'_, Self::T>,
        dy: &mut Tensor<Self::T>,
    ) -> Result<Self::T> {
        let shape = self.output_shape(y.shape(), target)?;
        if !shape.is_empty() {
            return Err(not_reduced());
        }
        let mut loss = Tensor::default();
        self.forward(y, target, &mut loss)?;
        self.backward(y, target, &Tensor::from(Self::T::ONE), Some(dy), None)?;
        Ok(loss.data()[0])
    }

    /// What this loss is: its kind and attributes, from which a [`crate::Registry`] builds it again.
    fn spec(&self) -> Spec {
        Spec::opaque::<Self>()
    }

    /// The loss and ∂E/∂y, for a target given as `&tensor`, `&classes` or a [`Target`].
    ///
    /// # Errors
    /// As [`Loss::value_and_gradient`].
    fn gradient<'a>(
        &self,
        y: &Tensor<Self::T>,
        target: impl Into<Target<'a, Self::T>>,
        dy: &mut Tensor<Self::T>,
    ) -> Result<Self::T>
    where
        Self: Sized,
    {
        self.value_and_gradient(y, target.into(), dy)
    }

    /// The loss alone, as a tensor: one element for a mean or a sum.
    ///
    /// # Errors
    /// As [`Loss::forward`].
    fn value<'a>(
        &self,
        y: &Tensor<Self::T>,
        target: impl Into<Target<'a, Self::T>>,
    ) -> Result<Tensor<Self::T>>
    where
        Self: Sized,
    {
        let mut loss = Tensor::default();
        self.forward(y, target.into(), &mut loss)?;
        Ok(loss)
    }
}

/// A loss E(y₀, y₁, …; t₀, t₁, …) of several predictions and targets. Every [`Loss`] is one.
///
/// Its predictions are the first outputs of a model; an output beyond them is not used.
pub trait Objective: Send + Sync {
    /// The element type, `f32` or `f64`.
    type T: Scalar;

    /// As [`Loss::check`].
    ///
    /// # Errors
    /// As [`Loss::check`].
    fn verify(&self) -> Result<()> {
        Ok(())
    }

    /// How many predictions it reads.
    fn predictions(&self) -> usize {
        1
    }

    /// How many targets it reads.
    fn targets(&self) -> usize {
        1
    }

    /// As [`Loss::reduction`].
    fn reduced_by(&self) -> Reduction {
        Reduction::Mean
    }

    /// As [`Loss::weight_of`]. A loss of several targets goes by the samples of the first.
    fn weight_of_all(&self, targets: &[Target<'_, Self::T>]) -> f64 {
        targets.first().map_or(1.0, |target| target.samples() as f64)
    }

    /// As [`Loss::ignored_class`], of a target by its index.
    fn ignored_class_of(&self, _target: usize) -> Option<usize> {
        None
    }

    /// Overwrites `loss` with E.
    ///
    /// # Errors
    /// Another number of predictions or targets, or as [`Loss::forward`].
    fn evaluate(
        &self,
        ys: &[&Tensor<Self::T>],
        targets: &[Target<'_, Self::T>],
        loss: &mut Tensor<Self::T>,
    ) -> Result<()>;

    /// Given ∂/∂loss of what comes after, of the loss's shape, overwrites each requested `dys[i]`.
    ///
    /// # Errors
    /// As [`Objective::evaluate`].
    fn differentiate(
        &self,
        ys: &[&Tensor<Self::T>],
        targets: &[Target<'_, Self::T>],
        dloss: &Tensor<Self::T>,
        dys: &mut [Option<&mut Tensor<Self::T>>],
    ) -> Result<()>;

    /// Given ∂/∂loss of what comes after, of the loss's shape, overwrites each requested `dts[i]`, ∂E/∂tᵢ of a target of
    /// values. A loss need not have it: nothing in training does.
    ///
    /// # Errors
    /// The loss does not have it, or as [`Objective::evaluate`].
    fn differentiate_targets(
        &self,
        _ys: &[&Tensor<Self::T>],
        _targets: &[Target<'_, Self::T>],
        _dloss: &Tensor<Self::T>,
        _dts: &mut [Option<&mut Tensor<Self::T>>],
    ) -> Result<()> {
        Err(Error::value(format!("expected a loss with ∂E/∂t, got {}", self.to_spec().kind())))
    }

    /// E, and every ∂E/∂yᵢ, in one pass over the predictions where the loss can. `dys` is as long as `ys`.
    ///
    /// # Errors
    /// As [`Objective::evaluate`], and when the reduction leaves more than one element.
    fn value_and_gradients(
        &self,
        ys: &[&Tensor<Self::T>],
        targets: &[Target<'_, Self::T>],
        dys: &mut [Tensor<Self::T>],
    ) -> Result<Self::T> {
        let mut loss = Tensor::default();
        self.evaluate(ys, targets, &mut loss)?;
        if !loss.shape().is_empty() {
            return Err(not_reduced());
        }
        let mut requested: Vec<Option<&mut Tensor<Self::T>>> = dys.iter_mut().map(Some).collect();
        self.differentiate(ys, targets, &Tensor::from(Self::T::ONE), &mut requested)?;
        Ok(loss.data()[0])
    }

    /// As [`Loss::spec`].
    fn to_spec(&self) -> Spec {
        Spec::opaque::<Self>()
    }
}

impl<L: Loss> Objective for L {
    type T = L::T;

    fn verify(&self) -> Result<()> {
        self.check()
    }

    fn reduced_by(&self) -> Reduction {
        self.reduction()
    }

    fn weight_of_all(&self, targets: &[Target<'_, L::T>]) -> f64 {
        match targets {
            [target] => self.weight_of(*target),
            _ => 1.0, // refused by `evaluate`
        }
    }

    fn ignored_class_of(&self, _: usize) -> Option<usize> {
        self.ignored_class()
    }

    fn evaluate(
        &self,
        ys: &[&Tensor<L::T>],
        targets: &[Target<'_, L::T>],
        loss: &mut Tensor<L::T>,
    ) -> Result<()> {
        let (y, target) = one_of_each(ys, targets)?;
        self.forward(y, target, loss)
    }

    fn differentiate(
        &self,
        ys: &[&Tensor<L::T>],
        targets: &[Target<'_, L::T>],
        dloss: &Tensor<L::T>,
        dys: &mut [Option<&mut Tensor<L::T>>],
    ) -> Result<()> {
        let (y, target) = one_of_each(ys, targets)?;
        self.backward(y, target, dloss, dys.first_mut().and_then(Option::as_deref_mut), None)
    }

    fn differentiate_targets(
        &self,
        ys: &[&Tensor<L::T>],
        targets: &[Target<'_, L::T>],
        dloss: &Tensor<L::T>,
        dts: &mut [Option<&mut Tensor<L::T>>],
    ) -> Result<()> {
        let (y, target) = one_of_each(ys, targets)?;
        self.backward(y, target, dloss, None, dts.first_mut().and_then(Option::as_deref_mut))
    }

    fn value_and_gradients(
        &self,
        ys: &[&Tensor<L::T>],
        targets: &[Target<'_, L::T>],
        dys: &mut [Tensor<L::T>],
    ) -> Result<L::T> {
        let (y, target) = one_of_each(ys, targets)?;
        let [dy] = dys else {
            return Err(Error::shape(format!("expected one ∂E/∂y, got {}", dys.len())));
        };
        self.value_and_gradient(y, target, dy)
    }

    fn to_spec(&self) -> Spec {
        self.spec()
    }
}

fn one_of_each<'y, 't, T>(
    ys: &[&'y Tensor<T>],
    targets: &[Target<'t, T>],
) -> Result<(&'y Tensor<T>, Target<'t, T>)> {
    match (ys, targets) {
        ([y], [target]) => Ok((y, *target)),
        _ => Err(Error::shape(format!(
            "expected one prediction and one target, got {} and {}",
            ys.len(),
            targets.len()
        ))),
    }
}

#[cold]
fn not_reduced() -> Error {
    Error::value("expected a loss reduced to one element (mean or sum), got reduction none")
}
