//! What a score loses when a part of the input is hidden (Zeiler and Fergus, *Visualizing and understanding convolutional networks*, 2014).
//!
//! ```text
//! aᵢ = the mean, over the windows w that hold element i, of s(x) − s(x with w filled)
//! ```

use super::{Attribution, Channels, Score, passes::Passes};
use chainrule_core::{Error, Inputs, Module, Result, Scalar, Tensor};
use chainrule_tensor::compiled;
use std::{iter, ops::Range};

/// Hides one window after another and measures what the score loses; no derivative is needed.
///
/// Windows have a length for each axis of a sample; they go from 0 in strides until the axis is covered, the last one cut where it would
/// hang over. An element in several windows gets the mean of their losses.
///
/// ```
/// use chainrule_core::{Parameters, Tensor};
/// use chainrule_layers::{Conv2d, Flatten, Linear, Relu, Sequential};
/// use chainrule_train::attribution::Occlusion;
/// let model = Sequential::new().add(Conv2d::new(1, 4, 3)).add(Relu::new()).add(Flatten::new()).add(Linear::new(144, 10));
/// let x = Tensor::full([2, 1, 8, 8], 0.5);
/// let map = Occlusion::new([1, 3, 3]).stride([1, 2, 2]).fill(0.0).attribute(&model.init(1)?, &x, 7)?;
/// assert_eq!(map.values()?.shape(), x.shape());
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Occlusion {
    window: Vec<usize>,
    stride: Vec<usize>,
    fill: f64,
    input: usize,
}

impl Occlusion {
    /// Windows of a size: one length for each axis of a sample, `[1, 3, 3]` for an image of one channel, `[1]` for single features. They move
    /// by 1 along each axis, and are filled with 0.
    pub fn new(window: impl Into<Vec<usize>>) -> Self {
        let window = window.into();
        Self { stride: vec![1; window.len()], window, fill: 0.0, input: 0 }
    }

    /// By how much windows move along each axis; at most their length, so that every element is in one.
    #[must_use]
    pub fn stride(mut self, stride: impl Into<Vec<usize>>) -> Self {
        self.stride = stride.into();
        self
    }

    /// What stands in a window (default 0).
    #[must_use]
    pub fn fill(mut self, fill: f64) -> Self {
        self.fill = fill;
        self
    }

    /// Which input is hidden (default 0).
    #[must_use]
    pub fn input(mut self, input: usize) -> Self {
        self.input = input;
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// A window or a stride of 0, another number of strides than of lengths, strides that leave out elements, or a fill that is not finite.
    pub fn check(&self) -> Result<()> {
        let Self { window, stride, fill, .. } = self;
        let wrong = |text: String| Err(Error::value(format!("Occlusion: {text}")));
        if window.contains(&0) {
            return wrong(format!("expected a window of one element or more, got {window:?}"));
        }
        if stride.len() != window.len() {
            return wrong(format!("expected {} strides, got {stride:?}", window.len()));
        }
        if stride.iter().zip(window).any(|(stride, window)| !(1..=*window).contains(stride)) {
            return wrong(format!("expected strides from 1 to the window's {window:?}, got {stride:?}"));
        }
        if !fill.is_finite() {
            return wrong(format!("expected a finite fill, got {fill}"));
        }
        Ok(())
    }

    /// The attributions of a batch.
    ///
    /// # Errors
    /// As [`Occlusion::check`]; a window of other axes than a sample or larger than it, no such input, something is not finite, or that of the model or the
    /// score.
    pub fn attribute<T: Scalar, M: Module<T = T>>(
        &self,
        model: &M,
        inputs: impl Inputs<T>,
        score: impl Score<T>,
    ) -> Result<Attribution<T>> {
        self.check()?;
        let fill = T::from_f64(self.fill);
        if !fill.is_finite() {
            let (name, got) = (T::NAME, self.fill);
            return Err(Error::value(format!("Occlusion: expected a fill that {name} can hold, got {got}")));
        }
        inputs.with(|xs| self.of(model, xs, fill, &score))
    }

    fn of<T: Scalar, M: Module<T = T>>(
        &self,
        model: &M,
        xs: &[&Tensor<T>],
        fill: T,
        score: &impl Score<T>,
    ) -> Result<Attribution<T>> {
        let mut passes = Passes::new(model, xs)?;
        let x = *xs.get(self.input).ok_or_else(|| {
            Error::value(format!("Occlusion: expected an input below {}, got {}", xs.len(), self.input))
        })?;
        let whole = passes.scores(xs, score)?;
        let Some((&samples, sample)) = x.shape().split_first().filter(|(n, _)| **n == whole.len()) else {
            return Err(Error::shape(format!(
                "input {}: expected {} samples, got {}",
                self.input,
                whole.len(),
                x.shape()
            )));
        };
        let places = self.places(sample)?;
        let size: usize = sample.iter().product();
        let (mut hidden, mut losses, mut counts) = (x.clone(), vec![0.0f64; x.len()], vec![0.0f64; size]);
        let mut at = vec![0; places.len()];
        loop {
            let window: Vec<Range<usize>> =
                at.iter().zip(&places).map(|(&i, places)| places[i].clone()).collect();
            let runs = runs(sample, &window);
            for n in 0..samples {
                let row = &mut hidden.data_mut()[n * size..][..size];
                runs.iter().for_each(|run| row[run.clone()].fill(fill));
            }
            let mut seen: Vec<&Tensor<T>> = xs.to_vec();
            seen[self.input] = &hidden;
            let scores = passes.scores(&seen, score)?;
            for n in 0..samples {
                let loss = whole[n].to_f64() - scores[n].to_f64();
                let (row, rest) = (&mut hidden.data_mut()[n * size..][..size], &x.data()[n * size..][..size]);
                for run in &runs {
                    losses[n * size..][run.clone()].iter_mut().for_each(|sum| *sum += loss);
                    row[run.clone()].copy_from_slice(&rest[run.clone()]);
                }
            }
            runs.iter().for_each(|run| counts[run.clone()].iter_mut().for_each(|count| *count += 1.0));
            if !next(&mut at, &places) {
                break;
            }
        }
        mean(&losses, &counts, hidden.data_mut());
        let mut inputs: Vec<Option<Tensor<T>>> = xs.iter().map(|_| None).collect();
        inputs[self.input] = Some(hidden);
        Ok(Attribution::new(inputs, &whole, Channels::Sum))
    }

    /// The windows along each axis of a sample.
    fn places(&self, sample: &[usize]) -> Result<Vec<Vec<Range<usize>>>> {
        if self.window.len() != sample.len() || self.window.iter().zip(sample).any(|(window, n)| window > n) {
            return Err(Error::shape(format!(
                "Occlusion: expected a window within samples of shape {sample:?}, got {:?}",
                self.window
            )));
        }
        let along = |((&window, &stride), &n): ((&usize, &usize), &usize)| {
            (0..=(n - window).div_ceil(stride)).map(|i| i * stride..n.min(i * stride + window)).collect()
        };
        Ok(self.window.iter().zip(&self.stride).zip(sample).map(along).collect())
    }
}

/// The next combination of places, the last axis fastest; false after the last.
fn next(at: &mut [usize], places: &[Vec<Range<usize>>]) -> bool {
    for (i, places) in at.iter_mut().zip(places).rev() {
        *i += 1;
        if *i < places.len() {
            return true;
        }
        *i = 0;
    }
    false
}

/// The contiguous elements of a window, row by row.
fn runs(sample: &[usize], window: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = iter::once(0..1).collect();
    for (&n, range) in sample.iter().zip(window) {
        // Each element of the axes before stands for n of this one.
        runs = match range.len() == n {
            true => runs.into_iter().map(|run| run.start * n..run.end * n).collect(),
            false => runs.into_iter().flatten().map(|i| i * n + range.start..i * n + range.end).collect(),
        };
    }
    runs
}

compiled! {
    /// a = losses/counts, of each sample
    fn mean[T](losses: &[f64], counts: &[f64], a: &mut [T]) {
        if counts.is_empty() {
            return;
        }
        for (a, losses) in a.chunks_exact_mut(counts.len()).zip(losses.chunks_exact(counts.len())) {
            for ((a, &loss), &count) in a.iter_mut().zip(losses).zip(counts) {
                *a = T::from_f64(loss / count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_every_element() {
        let places = |window: usize, stride: usize, n: usize| {
            Occlusion::new([window]).stride([stride]).places(&[n]).unwrap().remove(0)
        };
        assert_eq!(places(3, 2, 8), [0..3, 2..5, 4..7, 6..8]);
        assert_eq!(places(2, 2, 6), [0..2, 2..4, 4..6]);
        assert_eq!((places(4, 1, 4).len(), &places(4, 1, 4)[0]), (1, &(0..4)));
        assert!(Occlusion::new([5]).places(&[4]).is_err() && Occlusion::new([1]).places(&[4, 4]).is_err());
    }

    #[test]
    fn a_window_is_runs_of_elements() {
        assert_eq!(runs(&[2, 3, 4], &[1..2, 0..2, 1..3]), [13..15, 17..19]);
        let one = |sample: &[usize], window: &[Range<usize>]| runs(sample, window).pop();
        assert_eq!(one(&[3, 4], &[1..3, 0..4]), Some(4..12));
        assert_eq!((one(&[3, 4], &[0..3, 0..4]), one(&[], &[])), (Some(0..12), Some(0..1)));
    }
}
