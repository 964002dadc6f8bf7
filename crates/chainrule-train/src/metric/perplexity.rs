//! The perplexity of a model of tokens.

use super::{Classes, Head, Metric, rows_of};
use chainrule_core::{Error, Result, Scalar, Target, Tensor};
use chainrule_tensor::compiled;

/// exp of the mean of −ln p of the next token, named `perplexity`: among how many tokens the model chooses as if at random.
///
/// # Examples
/// ```
/// use chainrule_core::{Classes, Tensor};
/// use chainrule_train::{Metric, Perplexity};
/// let mut perplexity = Perplexity::new();
/// let logits = Tensor::<f32>::zeros([2, 3, 65]); // (N, T, V): all tokens alike
/// perplexity.add(&logits, Classes::new(&[7; 6], [2, 3])?.into())?;
/// assert!((Metric::<f32>::value(&perplexity) - 65.0).abs() < 1e-3);
/// assert_eq!(Perplexity::of_loss(0.0), 1.0);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Perplexity {
    head: Head,
    nats: Nats,
}

impl Default for Perplexity {
    fn default() -> Self {
        Self::of(0)
    }
}

impl Perplexity {
    /// Of the first output.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of an output, against the target of the same index.
    pub fn of(output: usize) -> Self {
        Self { head: Head::new("perplexity", output), nats: Nats::default() }
    }

    /// Of a cross-entropy, the mean over tokens.
    pub fn of_loss(loss: f64) -> f64 {
        loss.exp()
    }

    /// Whether the classes stand on the last axis, as in [`Accuracy::classes_last`](crate::Accuracy::classes_last).
    #[must_use]
    pub fn classes_last(mut self, last: bool) -> Self {
        self.nats.last = last;
        self
    }

    /// With another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.head.name = name.into();
        self
    }
}

impl<T: Scalar> Metric<T> for Perplexity {
    fn name(&self) -> &str {
        &self.head.name
    }

    fn output(&self) -> usize {
        self.head.output
    }

    fn reset(&mut self) {
        self.nats.reset();
    }

    fn add(&mut self, y: &Tensor<T>, target: Target<'_, T>) -> Result<()> {
        self.nats.add("perplexity", y, target, |_| Ok(1))
    }

    fn sums(&self) -> Vec<f64> {
        self.nats.sums()
    }

    fn set_sums(&mut self, sums: &[f64]) {
        self.nats.set_sums(sums);
    }

    fn value(&self) -> f64 {
        Self::of_loss(self.nats.mean())
    }

    fn higher_is_better(&self) -> bool {
        false
    }
}

/// Σ −ln p of the labels, and what it is divided by.
#[derive(Clone, Debug, Default)]
pub(super) struct Nats {
    /// Whether the classes stand on the last axis.
    pub(super) last: bool,
    sum: f64,
    weight: usize,
}

impl Nats {
    pub(super) fn reset(&mut self) {
        (self.sum, self.weight) = (0.0, 0);
    }

    pub(super) fn sums(&self) -> Vec<f64> {
        vec![self.sum, self.weight as f64]
    }

    pub(super) fn set_sums(&mut self, sums: &[f64]) {
        if let [sum, weight] = *sums {
            (self.sum, self.weight) = (sum, weight as usize);
        }
    }

    /// Takes the labels of a batch in, each with its weight; ignored ones are not asked for theirs.
    pub(super) fn add<T: Scalar>(
        &mut self,
        what: &str,
        y: &Tensor<T>,
        target: Target<'_, T>,
        weight: impl Fn(usize) -> Result<usize>,
    ) -> Result<()> {
        let labels = target.classes()?;
        let (count, classes, inner) = rows_of(y, labels.shape(), self.last)?;
        if labels.len() != count {
            return Err(Error::shape(format!(
                "{what}: expected {count} labels for predictions {}, got {}",
                y.shape(),
                labels.len()
            )));
        }
        let (mut sum, mut all) = (0.0, 0);
        for (row, &label) in labels.iter().enumerate().filter(|(_, label)| **label != Classes::IGNORED) {
            if label >= classes {
                return Err(Error::index(format!(
                    "{what}: expected classes below {classes}, got {label} at position {row}"
                )));
            }
            let first = row / inner * classes * inner + row % inner;
            sum += minus_log_p(&y.data()[first..], inner, classes, label);
            all += weight(label)?;
        }
        self.sum += sum;
        self.weight += all;
        Ok(())
    }

    pub(super) fn mean(&self) -> f64 {
        self.sum / self.weight.max(1) as f64
    }
}

compiled! {
    /// ln Σ exp(y − max) − (y − max) of the label, of classes that are `stride` apart.
    fn minus_log_p[T](y: &[T], stride: usize, classes: usize, label: usize) -> f64 {
        let each = || y.iter().step_by(stride).take(classes).map(|y| y.to_f64());
        let max = each().fold(f64::NEG_INFINITY, |max, y| if y > max { y } else { max });
        let sum: f64 = each().map(|y| (y - max).exp()).sum();
        sum.ln() - (y[label * stride].to_f64() - max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // p of the labels: 1/2, 1/4, ignored: the mean of ln 2 and ln 4 is 1.5 ln 2, and exp of it 2^1.5.
        let y = Tensor::from([[0.0f64, 0.0], [3f64.ln(), 0.0], [9.0, 0.0]]);
        let mut perplexity = Perplexity::new();
        perplexity.add(&y, (&[1, 1, Classes::IGNORED]).into()).unwrap();
        assert!((Metric::<f64>::value(&perplexity) - 2f64.powf(1.5)).abs() < 1e-12);
        // The same on axis 1 of (1, 2, 3) and on the last of (1, 3, 2); far from 0, and one that is impossible.
        let planes = Tensor::from([[[1e4, 1e4 + 3f64.ln(), 9.0], [1e4, 1e4, 0.0]]]);
        let lines = Tensor::from_vec([1, 3, 2], y.data().to_vec()).unwrap();
        let labels = [1, 1, Classes::IGNORED];
        for y in [planes, lines] {
            let mut perplexity = Perplexity::new();
            perplexity.add(&y, Classes::new(&labels, [1, 3]).unwrap().into()).unwrap();
            assert!((Metric::<f64>::value(&perplexity) - 2f64.powf(1.5)).abs() < 1e-9);
        }
        perplexity.add(&Tensor::from([[0.0, f64::NEG_INFINITY]]), (&[1]).into()).unwrap();
        assert_eq!(Metric::<f64>::value(&perplexity), f64::INFINITY);
        Metric::<f64>::reset(&mut perplexity);
        assert_eq!(Metric::<f64>::value(&perplexity), 1.0);
    }

    #[test]
    fn wrong_labels_are_errors() {
        let y = Tensor::from([[0.0f32, 0.0]]);
        let mut perplexity = Perplexity::new();
        let text = perplexity.add(&y, (&[2]).into()).unwrap_err().to_string();
        assert_eq!(text, "perplexity: expected classes below 2, got 2 at position 0");
        assert!(perplexity.add(&y, (&[0, 1]).into()).is_err() && perplexity.add(&y, (&y).into()).is_err());
    }
}
