//! The share of right classes.

use super::{Classes, Head, Metric, class_of, for_each_class, rows_of};
use chainrule_core::{Error, Result, Scalar, Shape, Target, Tensor};

/// The share of samples, or of positions, whose largest output is their class, named `accuracy`. If the target is made of
/// probabilities, their largest is the class.
#[derive(Clone, Debug)]
pub struct Accuracy {
    head: Head,
    last: bool,
    right: usize,
    all: usize,
}

impl Default for Accuracy {
    fn default() -> Self {
        Self::of(0)
    }
}

impl Accuracy {
    /// Of the first output.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of an output, against the target of the same index.
    pub fn of(output: usize) -> Self {
        Self { head: Head::new("accuracy", output), last: false, right: 0, all: 0 }
    }

    /// Whether the classes stand on the last axis, (N, T, C) of a model of sequences, and not on axis 1. It need not be said unless the
    /// labels (N, T) fit both.
    #[must_use]
    pub fn classes_last(self, last: bool) -> Self {
        Self { last, ..self }
    }

    /// With another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.head.name = name.into();
        self
    }
}

impl<T: Scalar> Metric<T> for Accuracy {
    fn name(&self) -> &str {
        &self.head.name
    }

    fn output(&self) -> usize {
        self.head.output
    }

    fn reset(&mut self) {
        (self.right, self.all) = (0, 0);
    }

    fn add(&mut self, y: &Tensor<T>, target: Target<'_, T>) -> Result<()> {
        match target {
            Target::Classes(labels) => for_each_class(y, labels, self.last, |predicted, label| {
                self.right += usize::from(predicted == label);
                self.all += usize::from(label != Classes::IGNORED);
            }),
            Target::Values(t) if t.shape() == y.shape() => {
                let (count, classes, inner) = rows_of(y, &Shape::default(), self.last)?;
                let right = |&i: &usize| class_of(y, i, classes, inner) == class_of(t, i, classes, inner);
                self.right += (0..count).filter(right).count();
                self.all += count;
                Ok(())
            }
            Target::Values(t) => {
                Err(Error::shape(format!("accuracy: expected a target {}, got {}", y.shape(), t.shape())))
            }
            _ => Err(Error::value("accuracy: expected a target of classes or values, got another")),
        }
    }

    fn sums(&self) -> Vec<f64> {
        vec![self.right as f64, self.all as f64]
    }

    fn set_sums(&mut self, sums: &[f64]) {
        if let [right, all] = *sums {
            (self.right, self.all) = (right as usize, all as usize);
        }
    }

    fn value(&self) -> f64 {
        self.right as f64 / self.all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_counts_classes_on_axis_1_and_leaves_ignored_ones_out() {
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
    fn classes_on_the_last_axis_are_told_by_the_labels_or_the_caller() {
        // (N, T, C) = (1, 2, 3)
        let y = Tensor::from([[[0.0f64, 5.0, 1.0], [1.0, 2.0, 4.0]]]);
        let mut accuracy = Accuracy::new();
        let labels = |indices| Classes::new(indices, [1, 2]).unwrap();
        accuracy.add(&y, labels(&[1, 0]).into()).unwrap();
        assert_eq!(Metric::<f64>::value(&accuracy), 0.5);
        // (1, 2, 2): both fit, axis 1 unless told otherwise. Axis 1 predicts 1, 0; the last axis 1, 1.
        let y = Tensor::from([[[0.0f64, 5.0], [1.0, 4.0]]]);
        for (last, value) in [(false, 0.5), (true, 1.0)] {
            let mut accuracy = Accuracy::new().classes_last(last);
            accuracy.add(&y, labels(&[1, 1]).into()).unwrap();
            assert_eq!(Metric::<f64>::value(&accuracy), value);
        }
    }

    #[test]
    fn nan_is_the_largest_wherever_it_stands_on_every_layout() {
        let mut accuracy = Accuracy::new();
        for at in 0..3 {
            let row = [0, 1, 2].map(|c| if c == at { f64::NAN } else { f64::INFINITY });
            accuracy.add(&Tensor::from([row]), (&[at]).into()).unwrap();
            let planes = Tensor::from([row.map(|v| [v, 1.0])]); // (1, 3, 2)
            accuracy.add(&planes, (&[at, 0]).into()).unwrap();
        }
        assert_eq!(Metric::<f64>::value(&accuracy), 1.0);
    }

    #[test]
    fn a_metric_of_another_output_has_another_name() {
        let names = [Accuracy::new(), Accuracy::of(1), Accuracy::of(2).named("digit")];
        assert_eq!(names.map(|m| Metric::<f32>::name(&m).to_owned()), ["accuracy", "accuracy_1", "digit"]);
        assert_eq!(
            (Metric::<f32>::output(&Accuracy::of(2)), Metric::<f32>::target(&Accuracy::of(2))),
            (2, 2)
        );
    }
}
