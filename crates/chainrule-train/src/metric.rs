//! What is measured beside the loss, batch by batch.

use chainrule_core::{Error, Result, Scalar, Target, Tensor};
use chainrule_tensor::kernels::reduce::argmax;

/// A number measured over the batches of an epoch.
///
/// ```
/// use chainrule_core::{Result, Target, Tensor};
/// use chainrule_train::Metric;
///
/// /// The largest deviation.
/// #[derive(Default)]
/// struct Worst(f64);
///
/// impl Metric<f32> for Worst {
///     fn name(&self) -> &str {
///         "worst"
///     }
///     fn reset(&mut self) {
///         self.0 = 0.0;
///     }
///     fn add(&mut self, y: &Tensor, target: Target<'_, f32>) -> Result<()> {
///         let pairs = y.data().iter().zip(target.values()?.data());
///         self.0 = pairs.map(|(y, t)| f64::from((y - t).abs())).fold(self.0, f64::max);
///         Ok(())
///     }
///     fn value(&self) -> f64 {
///         self.0
///     }
///     fn higher_is_better(&self) -> bool {
///         false
///     }
/// }
/// ```
pub trait Metric<T: Scalar>: Send {
    /// Its name in histories and progress lines.
    fn name(&self) -> &str;

    /// Forgets all batches.
    fn reset(&mut self);

    /// Takes the predictions of a batch in.
    ///
    /// # Errors
    /// Predictions and targets are not of the kind or the shape that it measures.
    fn add(&mut self, y: &Tensor<T>, target: Target<'_, T>) -> Result<()>;

    /// The value over all batches since the reset.
    fn value(&self) -> f64;

    /// Whether a larger value is the better one; early stopping asks.
    fn higher_is_better(&self) -> bool {
        true
    }
}

/// Calls `f(predicted, true)` with the classes of a batch.
///
/// # Shapes
/// `y` (N, C) or (N, C, …) with the classes on axis 1, as in cross-entropy; `labels` N × ….
///
/// # Errors
/// Another number of labels.
pub(crate) fn for_each_class<T: Scalar>(
    y: &Tensor<T>,
    labels: &[usize],
    mut f: impl FnMut(usize, usize),
) -> Result<()> {
    let &[n, classes, ref inner @ ..] = &y.shape()[..] else {
        return Err(Error::shape(format!("expected predictions (N, classes, ..), got {}", y.shape())));
    };
    let inner: usize = inner.iter().product();
    if classes == 0 || labels.len() != n * inner {
        return Err(Error::shape(format!(
            "expected {} labels for predictions {}, got {}",
            n * inner,
            y.shape(),
            labels.len()
        )));
    }
    if inner == 1 {
        y.data().chunks_exact(classes).zip(labels).for_each(|(row, &label)| f(argmax(row), label));
        return Ok(());
    }
    for (i, &label) in labels.iter().enumerate() {
        let start = i / inner * classes * inner + i % inner;
        let at = |c: usize| y.data()[start + c * inner];
        let best = (1..classes).fold(0, |best, c| if at(c) > at(best) { c } else { best });
        f(best, label);
    }
    Ok(())
}

/// The share of samples whose largest output is their class, named `accuracy`; a label that is no class (ignored by the loss) does not count.
#[derive(Clone, Debug, Default)]
pub struct Accuracy {
    right: usize,
    all: usize,
}

impl Accuracy {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<T: Scalar> Metric<T> for Accuracy {
    fn name(&self) -> &str {
        "accuracy"
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn add(&mut self, y: &Tensor<T>, target: Target<'_, T>) -> Result<()> {
        let Target::Classes(labels) = target else {
            return Err(Error::value("accuracy: expected classes as the target, got numbers"));
        };
        let classes = y.shape().get(1).copied().unwrap_or(0);
        for_each_class(y, labels, |predicted, label| {
            self.right += usize::from(predicted == label);
            self.all += usize::from(label < classes);
        })
    }

    fn value(&self) -> f64 {
        self.right as f64 / self.all.max(1) as f64
    }
}

/// The share of numbers that lie on their target's side of a threshold: for 0 or 1 predicted by one output.
#[derive(Clone, Debug)]
pub struct BinaryAccuracy {
    threshold: f64,
    counts: Accuracy,
}

impl BinaryAccuracy {
    /// Outputs above `threshold` mean 1: 0 for logits, 0.5 for probabilities. Targets above 0.5 mean 1.
    pub fn new(threshold: f64) -> Self {
        Self { threshold, counts: Accuracy::default() }
    }
}

impl<T: Scalar> Metric<T> for BinaryAccuracy {
    fn name(&self) -> &str {
        "accuracy"
    }

    fn reset(&mut self) {
        self.counts = Accuracy::default();
    }

    fn add(&mut self, y: &Tensor<T>, target: Target<'_, T>) -> Result<()> {
        for (y, t) in pairs("binary accuracy", y, target)? {
            self.counts.right += usize::from((y > self.threshold) == (t > 0.5));
            self.counts.all += 1;
        }
        Ok(())
    }

    fn value(&self) -> f64 {
        Metric::<T>::value(&self.counts)
    }
}

/// The mean of |y − t|, named `mae`.
#[derive(Clone, Debug, Default)]
pub struct MeanAbsoluteError {
    sum: f64,
    all: usize,
}

impl MeanAbsoluteError {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<T: Scalar> Metric<T> for MeanAbsoluteError {
    fn name(&self) -> &str {
        "mae"
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn add(&mut self, y: &Tensor<T>, target: Target<'_, T>) -> Result<()> {
        self.sum += pairs("mean absolute error", y, target)?.map(|(y, t)| (y - t).abs()).sum::<f64>();
        self.all += y.len();
        Ok(())
    }

    fn value(&self) -> f64 {
        self.sum / self.all.max(1) as f64
    }

    fn higher_is_better(&self) -> bool {
        false
    }
}

/// The coefficient of determination, R² = 1 − Σ (y − t)² / Σ (t − t̄)²: 1 is perfect, 0 is what predicting the mean gives. Named `r2`.
///
/// Over all outputs together; 0 when the targets do not vary.
#[derive(Clone, Debug, Default)]
pub struct RSquared {
    /// Σ (y − t)²
    residual: f64,
    /// t̄ so far.
    mean: f64,
    /// Σ (t − t̄)² so far (Welford, 1962).
    spread: f64,
    all: usize,
}

impl RSquared {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<T: Scalar> Metric<T> for RSquared {
    fn name(&self) -> &str {
        "r2"
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn add(&mut self, y: &Tensor<T>, target: Target<'_, T>) -> Result<()> {
        for (y, t) in pairs("R²", y, target)? {
            self.residual += (y - t) * (y - t);
            self.all += 1;
            let off = t - self.mean;
            self.mean += off / self.all as f64;
            self.spread += off * (t - self.mean);
        }
        Ok(())
    }

    fn value(&self) -> f64 {
        if self.spread > 0.0 { 1.0 - self.residual / self.spread } else { 0.0 }
    }
}

/// Predictions beside their targets.
fn pairs<'a, T: Scalar>(
    what: &str,
    y: &'a Tensor<T>,
    target: Target<'a, T>,
) -> Result<impl Iterator<Item = (f64, f64)> + 'a> {
    let Target::Values(t) = target else {
        return Err(Error::value(format!("{what}: expected numbers as the target, got classes")));
    };
    if t.len() != y.len() {
        return Err(Error::shape(format!("{what}: expected a target {}, got {}", y.shape(), t.shape())));
    }
    Ok(y.data().iter().zip(t.data()).map(|(y, t)| (y.to_f64(), t.to_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(mut metric: impl Metric<f64>, y: &Tensor<f64>, t: &Tensor<f64>) -> f64 {
        metric.add(y, t.into()).unwrap();
        metric.value()
    }

    #[test]
    fn accuracy_counts_classes_on_axis_1_and_passes_over_ignored_ones() {
        let mut accuracy = Accuracy::new();
        let rows = Tensor::from([[0.1f64, 0.9], [0.8, 0.2], [0.5, 0.5]]);
        accuracy.add(&rows, (&[1, 1, 0]).into()).unwrap();
        assert_eq!(Metric::<f64>::value(&accuracy), 2.0 / 3.0);
        // (N, C, L) = (1, 2, 3): the columns predict 1, 0, 1.
        let planes = Tensor::from([[[0.0f64, 5.0, 1.0], [1.0, 4.0, 2.0]]]);
        Metric::<f64>::reset(&mut accuracy);
        accuracy.add(&planes, (&[1, usize::MAX, 0]).into()).unwrap();
        assert_eq!(Metric::<f64>::value(&accuracy), 0.5);
        assert!(accuracy.add(&planes, (&[1, 0]).into()).is_err());
        assert!(accuracy.add(&rows, (&rows).into()).is_err());
    }

    #[test]
    fn regression_metrics_agree_with_their_formulas() {
        let (y, t) = (Tensor::from([[1.0, 2.0], [3.0, 5.0]]), Tensor::from([[1.0, 3.0], [3.0, 3.0]]));
        assert_eq!(measured(MeanAbsoluteError::new(), &y, &t), 0.75);
        // t̄ = 2.5: 1 − (1 + 4) / (2.25 + 3 · 0.25)
        assert!((measured(RSquared::new(), &y, &t) - (1.0 - 5.0 / 3.0)).abs() < 1e-15);
        assert_eq!(measured(RSquared::new(), &t, &t), 1.0);
        assert_eq!(
            measured(BinaryAccuracy::new(0.5), &Tensor::from([0.4, 0.6]), &Tensor::from([1.0, 1.0])),
            0.5
        );
        assert!(RSquared::new().add(&y, (&Tensor::from([1.0])).into()).is_err());
    }
}
