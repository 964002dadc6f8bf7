//! The number that is explained.

use chainrule_core::{Error, Result, Scalar, Tensor};

/// The score of each sample, a function of the model's outputs with its derivative.
///
/// - A class index: that column of the first output (N, C), of every sample; `0` of an output (N) as well.
/// - A class index for each sample, `&[usize]` or `&Vec<usize>`: of the predicted classes, `&model.infer(&x)?.argmax_rows()`.
/// - A function of the outputs that returns sₙ of each sample and writes ∂sₙ/∂yⱼ; see below.
///
/// Outputs are taken as the model gives them: logits where it ends in a linear layer.
///
/// ```
/// use chainrule_core::{Parameters, Result, Tensor};
/// use chainrule_layers::Linear;
/// use chainrule_train::attribution::Saliency;
///
/// /// How much class 1 is ahead of class 0.
/// fn ahead(ys: &[Tensor], dys: &mut [Tensor]) -> Result<Vec<f32>> {
///     let scores = (0..ys[0].shape()[0]).map(|n| {
///         dys[0][[n, 1]] = 1.0;
///         dys[0][[n, 0]] = -1.0;
///         ys[0][[n, 1]] - ys[0][[n, 0]]
///     });
///     Ok(scores.collect())
/// }
/// let model = Linear::new(3, 2).init(1)?;
/// let map = Saliency::new().attribute(&model, &Tensor::zeros([1, 3]), ahead)?;
/// # assert_eq!(map.values()?.shape()[..], [1, 3]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub trait Score<T: Scalar> {
    /// The score of each sample. `dys` are zeros of the shapes of the outputs: ∂sₙ/∂y of every element that a score depends on is written there. A score
    /// depends on its own sample alone.
    ///
    /// # Errors
    /// The outputs are not such that it can be computed of them.
    fn score(&self, ys: &[Tensor<T>], dys: &mut [Tensor<T>]) -> Result<Vec<T>>;
}

impl<T: Scalar, F: Fn(&[Tensor<T>], &mut [Tensor<T>]) -> Result<Vec<T>>> Score<T> for F {
    fn score(&self, ys: &[Tensor<T>], dys: &mut [Tensor<T>]) -> Result<Vec<T>> {
        self(ys, dys)
    }
}

impl<T: Scalar> Score<T> for usize {
    fn score(&self, ys: &[Tensor<T>], dys: &mut [Tensor<T>]) -> Result<Vec<T>> {
        columns(ys, dys, |_| *self)
    }
}

impl<T: Scalar> Score<T> for &[usize] {
    fn score(&self, ys: &[Tensor<T>], dys: &mut [Tensor<T>]) -> Result<Vec<T>> {
        let samples = ys.first().and_then(|y| y.shape().first()).copied().unwrap_or(0);
        if self.len() != samples {
            return Err(Error::shape(format!(
                "score: expected a class for each of {samples} samples, got {}",
                self.len()
            )));
        }
        columns(ys, dys, |n| self[n])
    }
}

impl<T: Scalar> Score<T> for &Vec<usize> {
    fn score(&self, ys: &[Tensor<T>], dys: &mut [Tensor<T>]) -> Result<Vec<T>> {
        self.as_slice().score(ys, dys)
    }
}

impl<T: Scalar, const N: usize> Score<T> for &[usize; N] {
    fn score(&self, ys: &[Tensor<T>], dys: &mut [Tensor<T>]) -> Result<Vec<T>> {
        self.as_slice().score(ys, dys)
    }
}

/// sₙ = yₙ,c(n), ∂sₙ/∂yₙ,c(n) = 1.
fn columns<T: Scalar>(
    ys: &[Tensor<T>],
    dys: &mut [Tensor<T>],
    class: impl Fn(usize) -> usize,
) -> Result<Vec<T>> {
    let (Some(y), Some(dy)) = (ys.first(), dys.first_mut()) else {
        return Err(Error::value("score: expected a model with an output, got one without"));
    };
    let (samples, classes) = match y.shape()[..] {
        [samples] => (samples, 1),
        [samples, classes] => (samples, classes),
        _ => {
            return Err(Error::shape(format!(
                "score: expected an output (samples, classes), got {}: a function of the outputs may read any",
                y.shape()
            )));
        }
    };
    let of = |n| match class(n) {
        c if c < classes => {
            let at = n * classes + c;
            dy.data_mut()[at] = T::ONE;
            Ok(y.data()[at])
        }
        c => Err(Error::value(format!("score: expected a class below {classes}, got {c} of sample {n}"))),
    };
    (0..samples).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_a_column_of_the_first_output() {
        let ys = [Tensor::from([[1.0f64, 2.0, 3.0], [4.0, 5.0, 6.0]]), Tensor::zeros([2, 1])];
        let zeros = || [Tensor::zeros([2, 3]), Tensor::zeros([2, 1])];
        let mut dys = zeros();
        assert_eq!(Score::score(&1, &ys, &mut dys).unwrap(), [2.0, 5.0]);
        assert_eq!(dys[0].data(), [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
        let mut dys = zeros();
        assert_eq!(Score::score(&&[2, 0], &ys, &mut dys).unwrap(), [3.0, 4.0]);
        assert_eq!((dys[0].data(), dys[1].sum()), (&[0.0, 0.0, 1.0, 1.0, 0.0, 0.0][..], 0.0));
        assert_eq!(
            Score::score(&0, &[Tensor::from([7.0, 8.0])], &mut [Tensor::zeros([2])]).unwrap(),
            [7.0, 8.0]
        );
    }

    #[test]
    fn a_class_that_there_is_not_is_an_error() {
        let (ys, mut dys) = ([Tensor::<f64>::zeros([2, 3])], [Tensor::zeros([2, 3])]);
        let text = |result: Result<Vec<f64>>| result.unwrap_err().to_string();
        assert!(text(3.score(&ys, &mut dys)).contains("a class below 3, got 3 of sample 0"));
        assert!(text((&[0, 9]).score(&ys, &mut dys)).contains("got 9 of sample 1"));
        assert!(text((&[0]).score(&ys, &mut dys)).contains("each of 2 samples, got 1"));
        assert!(text(0.score(&[], &mut dys)).contains("without"));
        let (ys, mut dys) = ([Tensor::<f64>::zeros([2, 3, 4])], [Tensor::zeros([2, 3, 4])]);
        assert!(text(0.score(&ys, &mut dys)).contains("a function of the outputs"));
    }
}
