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

/// (N, C, …) as a number of lines, each of C classes, and how far apart the classes of a line are.
fn lines<T: Scalar>(y: &Tensor<T>) -> Result<(usize, usize, usize)> {
    match y.shape()[..] {
        [n, classes, ref inner @ ..] if classes > 0 => {
            let inner: usize = inner.iter().product();
            Ok((n * inner, classes, inner))
        }
        _ => Err(Error::shape(format!("expected predictions (N, classes, ..), got {}", y.shape()))),
    }
}

/// The class with the largest number of a line.
fn class_of<T: Scalar>(y: &Tensor<T>, line: usize, classes: usize, inner: usize) -> usize {
    if inner == 1 {
        return argmax(&y.data()[line * classes..][..classes]);
    }
    let start = line / inner * classes * inner + line % inner;
    let at = |c: usize| y.data()[start + c * inner];
    (1..classes).fold(0, |best, c| if at(c) > at(best) { c } else { best })
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
    let (count, classes, inner) = lines(y)?;
    if labels.len() != count {
        return Err(Error::shape(format!(
            "expected {count} labels for predictions {}, got {}",
            y.shape(),
            labels.len()
        )));
    }
    labels.iter().enumerate().for_each(|(i, &label)| f(class_of(y, i, classes, inner), label));
    Ok(())
}

/// The share of samples whose largest output is their class, named `accuracy`; a label that is no class (ignored by the loss) does not count.
/// If the target is made of probabilities, their largest is the class.
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
        let (count, classes, inner) = lines(y)?;
        match target {
            Target::Classes(labels) => for_each_class(y, labels, |predicted, label| {
                self.right += usize::from(predicted == label);
                self.all += usize::from(label < classes);
            }),
            Target::Values(t) if t.shape() == y.shape() => {
                let right = |&i: &usize| class_of(y, i, classes, inner) == class_of(t, i, classes, inner);
                self.right += (0..count).filter(right).count();
                self.all += count;
                Ok(())
            }
            Target::Values(t) => {
                Err(Error::shape(format!("accuracy: expected a target {}, got {}", y.shape(), t.shape())))
            }
        }
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
        Metric::<f64>::reset(&mut accuracy);
        accuracy.add(&rows, (&Tensor::from([[0.2, 0.8], [0.9, 0.1], [0.3, 0.7]])).into()).unwrap();
        assert_eq!(Metric::<f64>::value(&accuracy), 2.0 / 3.0);
        assert!(accuracy.add(&rows, (&planes).into()).is_err());
        assert!(accuracy.add(&Tensor::from([1.0]), (&[0]).into()).is_err());
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
