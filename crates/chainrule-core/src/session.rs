//! Inference that reuses its memory.

use crate::{Context, Layer, Result};
use chainrule_tensor::{Scalar, Tensor};

/// Runs a shared model again and again; after the first call of a size nothing is allocated. Each thread has its own.
///
/// ```
/// # use chainrule_core::{Layer, Session};
/// # fn classify<M: Layer<f32>>(model: &M, x: &chainrule_tensor::Tensor) -> chainrule_core::Result<usize> {
/// let mut session = Session::new(model);
/// let y = session.run(x)?;
/// # Ok(y.argmax_rows()[0])
/// # }
/// ```
#[derive(Debug)]
pub struct Session<'m, T: Scalar, M: Layer<T>> {
    model: &'m M,
    cache: M::Cache,
    y: Tensor<T>,
}

impl<'m, T: Scalar, M: Layer<T>> Session<'m, T, M> {
    /// A session of a model.
    pub fn new(model: &'m M) -> Self {
        Self { model, cache: M::Cache::default(), y: Tensor::default() }
    }

    /// y = f(x); the output stays until the next call.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    pub fn run(&mut self, x: &Tensor<T>) -> Result<&Tensor<T>> {
        self.model.forward(x, &mut self.y, &mut self.cache, &mut Context::infer())?;
        Ok(&self.y)
    }
}
