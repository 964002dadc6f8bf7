//! What is measured beside the loss, batch by batch.

mod accuracy;
mod binary_accuracy;
mod bits_per_character;
mod mean_absolute_error;
mod panel;
mod perplexity;
mod r_squared;

pub use accuracy::Accuracy;
pub use binary_accuracy::BinaryAccuracy;
pub use bits_per_character::BitsPerCharacter;
pub use mean_absolute_error::MeanAbsoluteError;
pub(crate) use panel::{Mask, Panel};
pub use perplexity::Perplexity;
pub use r_squared::RSquared;

use chainrule_core::{Classes, Error, Result, Scalar, Shape, Target, Tensor};
use chainrule_tensor::kernels::reduce::{argmax, exceeds};

/// A value measured over the batches of an epoch.
///
/// A class that the loss ignores comes as [`Classes::IGNORED`]; it counts in no metric.
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

    /// Which output of the model it reads.
    fn output(&self) -> usize {
        0
    }

    /// Which target it compares the output with.
    fn target(&self) -> usize {
        self.output()
    }

    /// Forgets all batches.
    fn reset(&mut self);

    /// Takes the predictions of a batch in.
    ///
    /// # Errors
    /// Predictions and targets are not of the kind or the shape that it measures.
    fn add(&mut self, y: &Tensor<T>, target: Target<'_, T>) -> Result<()>;

    /// What it has added up since the reset, for a run that goes on in another process in the middle of an epoch. A metric
    /// without them measures the batches after that alone.
    fn sums(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Goes on from [`Metric::sums`].
    fn set_sums(&mut self, _sums: &[f64]) {}

    /// The value over all batches since the reset.
    fn value(&self) -> f64;

    /// Whether a larger value is the better one, for early stopping.
    fn higher_is_better(&self) -> bool {
        true
    }
}

/// Which output a metric reads, and its name: `accuracy` of the first output, `accuracy_1` of the second.
#[derive(Clone, Debug)]
struct Head {
    output: usize,
    name: String,
}

impl Head {
    fn new(name: &str, output: usize) -> Self {
        let name = if output == 0 { name.to_owned() } else { format!("{name}_{output}") };
        Self { output, name }
    }
}

/// (N, C, …) as the number of rows, each of C classes, and the distance between the classes of a row.
fn rows<T: Scalar>(y: &Tensor<T>) -> Result<(usize, usize, usize)> {
    match y.shape()[..] {
        [n, classes, ref inner @ ..] if classes > 0 => {
            let inner: usize = inner.iter().product();
            Ok((n * inner, classes, inner))
        }
        _ => Err(Error::shape(format!("expected predictions (N, classes, ..), got {}", y.shape()))),
    }
}

/// [`rows`] of a prediction whose classes stand on the last axis if `last`, or if the labels fit that axis alone.
fn rows_of<T: Scalar>(y: &Tensor<T>, labels: &Shape, last: bool) -> Result<(usize, usize, usize)> {
    let fits_last = y.shape().split_last().is_some_and(|(_, rows)| labels[..] == *rows);
    let fits_second = match (&y.shape()[..], &labels[..]) {
        ([n, _, inner @ ..], [first, rest @ ..]) => n == first && inner == rest,
        _ => false,
    };
    match y.shape()[..] {
        [ref rest @ .., classes]
            if classes > 0 && !rest.is_empty() && (last || (fits_last && !fits_second)) =>
        {
            Ok((rest.iter().product(), classes, 1))
        }
        _ => rows(y),
    }
}

/// The class of a row's largest element, of NaN if there is one.
fn class_of<T: Scalar>(y: &Tensor<T>, row: usize, classes: usize, inner: usize) -> usize {
    if inner == 1 {
        return argmax(&y.data()[row * classes..][..classes]);
    }
    let start = row / inner * classes * inner + row % inner;
    let at = |c: usize| y.data()[start + c * inner];
    (1..classes).fold(0, |best, c| if exceeds(at(c), at(best)) { c } else { best })
}

/// Calls `f(predicted, true)` with the classes of a batch, ignored ones included.
///
/// # Shapes
/// `y` (N, C) or (N, C, …) with the classes on axis 1, as in cross-entropy, and `labels` (N, …); or (N, …, C) if `last`, or if the
/// labels fit that alone.
///
/// # Errors
/// Another number of labels.
pub(crate) fn for_each_class<T: Scalar>(
    y: &Tensor<T>,
    labels: Classes<'_>,
    last: bool,
    mut f: impl FnMut(usize, usize),
) -> Result<()> {
    let (count, classes, inner) = rows_of(y, labels.shape(), last)?;
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

/// Predictions beside their targets.
fn pairs<'a, T: Scalar>(
    what: &str,
    y: &'a Tensor<T>,
    target: Target<'a, T>,
) -> Result<impl Iterator<Item = (f64, f64)> + 'a> {
    let Target::Values(t) = target else {
        return Err(Error::value(format!("{what}: expected values as the target, got classes")));
    };
    if t.len() != y.len() {
        return Err(Error::shape(format!("{what}: expected a target {}, got {}", y.shape(), t.shape())));
    }
    Ok(y.data().iter().zip(t.data()).map(|(y, t)| (y.to_f64(), t.to_f64())))
}

#[cfg(test)]
fn measured(mut metric: impl Metric<f64>, y: &Tensor<f64>, t: &Tensor<f64>) -> f64 {
    metric.add(y, t.into()).unwrap();
    metric.value()
}
