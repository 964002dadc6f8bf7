//! The gradient of a score (Simonyan, Vedaldi and Zisserman, *Deep inside convolutional networks*, 2014).
//!
//! ```text
//! a = |∂s/∂x|
//! ```

use super::{Attribution, Channels, Score, passes::Passes};
use chainrule_core::{Inputs, Module, Result, Scalar, Tensor};

/// |∂s/∂x|: how much the score moves for a small step of each element. All inputs that have a derivative are explained.
///
/// ```
/// use chainrule_core::{Init, Parameters, Tensor};
/// use chainrule_layers::Linear;
/// use chainrule_train::attribution::Saliency;
/// let model = Linear::new(2, 1).weight_init(Init::Constant(-3.0)).init(1)?;
/// let map = Saliency::new().attribute(&model, &Tensor::from([[0.5, 7.0]]), 0)?;
/// assert_eq!(map.values()?.data(), [3.0, 3.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saliency {
    signed: bool,
    times_input: bool,
}

impl Saliency {
    /// |∂s/∂x|.
    pub fn new() -> Self {
        Self::default()
    }

    /// ∂s/∂x with its sign (default: its magnitude).
    #[must_use]
    pub fn signed(mut self, signed: bool) -> Self {
        self.signed = signed;
        self
    }

    /// x ∂s/∂x in place of ∂s/∂x (default: not).
    #[must_use]
    pub fn times_input(mut self, times_input: bool) -> Self {
        self.times_input = times_input;
        self
    }

    /// The attributions of a batch.
    ///
    /// # Errors
    /// No input has a derivative, something is not finite, or that of the model or the score.
    pub fn attribute<T: Scalar, M: Module<T = T>>(
        &self,
        model: &M,
        inputs: impl Inputs<T>,
        score: impl Score<T>,
    ) -> Result<Attribution<T>> {
        inputs.with(|xs| self.of(model, xs, &score))
    }

    fn of<T: Scalar, M: Module<T = T>>(
        &self,
        model: &M,
        xs: &[&Tensor<T>],
        score: &impl Score<T>,
    ) -> Result<Attribution<T>> {
        let mut passes = Passes::new(model, xs)?;
        passes.require_derivative()?;
        let scores = passes.gradients(xs, score)?;
        for (a, x) in passes.dxs.iter_mut().zip(xs) {
            if let Some(a) = a {
                finish(a.data_mut(), x.data(), self.times_input, self.signed);
            }
        }
        let channels = if self.signed { Channels::Sum } else { Channels::Largest };
        Ok(Attribution::new(passes.dxs, &scores, channels))
    }
}

chainrule_tensor::compiled! {
    /// a = a, x a, or the magnitude of one of them.
    fn finish[T](a: &mut [T], x: &[T], times_input: bool, signed: bool) {
        for (a, &x) in a.iter_mut().zip(x) {
            let v = if times_input { x * *a } else { *a };
            *a = if signed { v } else { v.abs() };
        }
    }
}
