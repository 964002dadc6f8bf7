//! What in an input an output depends on: a value for each element of each sample, of any model.
//!
//! With the score s of a sample, a number made of the model's outputs ([`Score`]), and the sample x:
//!
//! | method | attribution | passes |
//! |---|---|---|
//! | [`Saliency`] | \|∂s/∂x\| | 1 |
//! | [`IntegratedGradients`] | (x − x⁰) ∫₀¹ ∂s/∂x (x⁰ + α (x − x⁰)) dα | one for each step |
//! | [`Occlusion`] | s(x) − s(x with a window filled) | one for each window, forward alone |
//! | [`GradCam`] | max(0, Σ w A), A an activation and w the mean of ∂s/∂A over a channel | 1 |
//!
//! The function explained is that of inference: no noise, running statistics. A batch is explained at once, each sample for itself. The guide is
//! docs/attribution.md.
//!
//! ```
//! use chainrule_core::{Module, Parameters, Tensor};
//! use chainrule_layers::{Linear, Sequential, Tanh};
//! use chainrule_train::attribution::{IntegratedGradients, Saliency};
//!
//! let model = Sequential::new().add(Linear::new(4, 8)).add(Tanh::new()).add(Linear::new(8, 3)).init(1)?;
//! let x = Tensor::from([[0.1, 0.5, -1.0, 2.0], [1.0, 0.0, 0.3, -0.7]]);
//! let of_class_2 = Saliency::new().attribute(&model, &x, 2)?;
//! assert_eq!(of_class_2.values()?.shape(), x.shape());
//!
//! let predicted = model.infer(&x)?.argmax_rows();
//! let of_predicted = IntegratedGradients::new().attribute(&model, &x, &predicted)?;
//! assert!(of_predicted.largest_gap() < 0.01);
//! # Ok::<(), chainrule_core::Error>(())
//! ```

mod grad_cam;
mod integrated_gradients;
mod occlusion;
mod passes;
mod saliency;
mod score;

pub use grad_cam::GradCam;
pub use integrated_gradients::{Completeness, IntegratedGradients};
pub use occlusion::Occlusion;
pub use saliency::Saliency;
pub use score::Score;

use crate::pictures::{Sheet, Svg};
use chainrule_core::{Error, Result, Scalar, Tensor};

/// What a method says of a batch.
#[derive(Clone, Debug)]
pub struct Attribution<T = f32> {
    /// One for each input of the model, of its shape (the map of Grad-CAM, without channels, at the first); `None` of an input that was not explained.
    inputs: Vec<Option<Tensor<T>>>,
    scores: Vec<f64>,
    completeness: Vec<Completeness>,
    channels: Channels,
}

/// How the channels of an image become one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channels {
    /// Their sum.
    Sum,
    /// That of the largest magnitude.
    Largest,
}

impl<T: Scalar> Attribution<T> {
    fn new(inputs: Vec<Option<Tensor<T>>>, scores: &[T], channels: Channels) -> Self {
        let scores = scores.iter().map(|s| s.to_f64()).collect();
        Self { inputs, scores, completeness: Vec::new(), channels }
    }

    /// The attributions of the first input that was explained: of a model of one input, of its x. Of [`GradCam`] the map, (N, H, W).
    ///
    /// # Errors
    /// There is none, which no method gives.
    pub fn values(&self) -> Result<&Tensor<T>> {
        self.inputs
            .iter()
            .flatten()
            .next()
            .ok_or_else(|| Error::value("expected an explained input, got none"))
    }

    /// The attributions of an input, of its shape; `None` if there is no such input, if it has no derivative (ids, masks), or if the method was told to
    /// explain another.
    pub fn input(&self, input: usize) -> Option<&Tensor<T>> {
        self.inputs.get(input)?.as_ref()
    }

    /// The score of each sample, that which is explained.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// How far the attributions of each sample sum to the difference of scores: of [`IntegratedGradients`]; empty of other methods.
    pub fn completeness(&self) -> &[Completeness] {
        &self.completeness
    }

    /// The largest [`Completeness::gap`] of the batch; 0 of methods that promise no sum.
    pub fn largest_gap(&self) -> f64 {
        self.completeness
            .iter()
            .map(Completeness::gap)
            .fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
    }

    /// One map for each sample of the first explained input.
    ///
    /// # Shapes
    /// Samples (D) give a row, (N, 1, D); samples (H, W), and (C, H, W) over their channels, give (N, H, W). Channels are added; of saliency the largest is taken.
    ///
    /// # Errors
    /// Samples of more axes.
    pub fn maps(&self) -> Result<Tensor<T>> {
        let values = self.values()?;
        let [n, channels, height, width] = planes(values)?;
        let mut maps = Tensor::zeros([n, height, width]);
        over_channels(
            values.data(),
            [channels, height * width],
            self.channels == Channels::Largest,
            maps.data_mut(),
        );
        Ok(maps)
    }

    /// Each sample beside its map: red where an element adds to the score, blue where it takes from it, each map scaled by its
    /// own largest magnitude. `x` is the first input that was explained; several channels are shown as their mean.
    ///
    /// # Errors
    /// Another shape of `x`, or as [`Attribution::maps`].
    pub fn picture(&self, title: impl Into<String>, x: &Tensor<T>) -> Result<Svg> {
        let values = self.values()?;
        let like = x.shape().len() > 1 && x.shape().first() == values.shape().first();
        if !like || x.shape().last() != values.shape().last() {
            return Err(Error::shape(format!(
                "picture: expected the input that is explained by values of shape {}, got {}",
                values.shape(),
                x.shape()
            )));
        }
        let maps = self.maps()?;
        let [n, channels, height, width] = planes(x)?;
        let (mut sheet, mut grey) =
            (Sheet::new(title, [height, width]).columns(8), Tensor::zeros([n, height, width]));
        over_channels(x.data(), [channels, height * width], false, grey.data_mut());
        for i in 0..n {
            sheet.add(grey.row(i), "")?;
            sheet.add_map(
                maps.row(i),
                [maps.shape()[1], maps.shape()[2]],
                format!("s = {:.3}", self.scores[i]),
            )?;
        }
        Ok(sheet.svg())
    }
}

/// Samples, channels, height and width of a batch of images, rows or series.
fn planes<T: Scalar>(t: &Tensor<T>) -> Result<[usize; 4]> {
    Ok(match t.shape()[..] {
        [n] => [n, 1, 1, 1],
        [n, d] => [n, 1, 1, d],
        [n, height, width] => [n, 1, height, width],
        [n, channels, height, width] => [n, channels, height, width],
        _ => {
            return Err(Error::shape(format!(
                "expected samples of shape (D), (H, W) or (C, H, W), got a batch of shape {}",
                t.shape()
            )));
        }
    })
}

chainrule_tensor::compiled! {
    /// yₙ = Σ_c xₙ_c, or that of the largest magnitude.
    fn over_channels[T](x: &[T], sizes: [usize; 2], largest: bool, y: &mut [T]) {
        let [channels, plane] = sizes;
        if y.is_empty() {
            return;
        }
        for (x, y) in x.chunks_exact(channels * plane).zip(y.chunks_exact_mut(plane)) {
            y.fill(T::ZERO);
            for x in x.chunks_exact(plane) {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = match largest {
                        true if x.abs() > y.abs() => x,
                        true => *y,
                        false => *y + x,
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_become_one_map() {
        // two samples of two channels of 1 × 2 pixels
        let values = Tensor::from_vec([2, 2, 1, 2], vec![1.0, -5.0, 2.0, 3.0, 0.0, 0.5, -4.0, 0.25]).unwrap();
        let of = |channels| Attribution::<f64>::new(vec![None, Some(values.clone())], &[0.0, 0.0], channels);
        assert_eq!(of(Channels::Sum).maps().unwrap().data(), [3.0, -2.0, -4.0, 0.75]);
        let largest = of(Channels::Largest);
        assert_eq!(largest.maps().unwrap().data(), [2.0, -5.0, -4.0, 0.5]);
        assert!(largest.input(0).is_none() && largest.input(2).is_none());
        let svg = largest.picture("two", &values).unwrap();
        assert_eq!(svg.as_str().matches("s = 0.000").count(), 2);
        assert!(largest.picture("two", &Tensor::zeros([2, 2, 1, 1])).is_err());
        let deep = Attribution::<f64>::new(vec![Some(Tensor::zeros([1; 5]))], &[0.0], Channels::Sum);
        assert!(deep.maps().unwrap_err().to_string().contains("(C, H, W)"));
    }
}
