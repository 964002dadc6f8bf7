//! Layers of several inputs.

use crate::{Context, Grads, Params, ParamsMut, Result, Summary};
use chainrule_tensor::{Scalar, Shape, Tensor};

/// A function y = f(x₀, x₁, …; θ): the sibling of [`crate::Layer`], under the same laws.
pub trait MultiLayer<T: Scalar>: Send + Sync {
    /// What forward keeps for backward besides the inputs and y, and scratch space.
    type Cache: Default + Send + 'static;

    /// Whether the hyper-parameters make sense together.
    ///
    /// # Errors
    /// A value error that says which hyper-parameter is wrong and why.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The shape of y for the shapes of the inputs.
    ///
    /// # Errors
    /// A wrong number of inputs or a wrong shape.
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape>;

    /// Overwrites y with f(x₀, x₁, …).
    ///
    /// # Errors
    /// As [`MultiLayer::output_shape`], or a parameter without numbers.
    fn forward(
        &self,
        xs: &[&Tensor<T>],
        y: &mut Tensor<T>,
        cache: &mut Self::Cache,
        cx: &mut Context,
    ) -> Result<()>;

    /// Overwrites each wanted `dxs[i]` with ∂E/∂xᵢ and adds ∂E/∂θ to `grads`.
    ///
    /// # Errors
    /// The cache does not belong to a recorded forward, or a wrong shape.
    fn backward(
        &self,
        call: MultiCall<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()>;

    /// As [`Layer::reads_output`](crate::Layer::reads_output).
    fn reads_output(&self) -> bool {
        true
    }

    /// Shows every parameter and buffer, in a fixed order.
    fn params<'a>(&'a self, _out: &mut Params<'_, 'a, T>) {}

    /// Shows every parameter and buffer, to be changed.
    fn params_mut<'a>(&'a mut self, _out: &mut ParamsMut<'_, 'a, T>) {}

    /// Folds what a training pass saw into the layer, after the step.
    fn absorb(&mut self, _cache: &Self::Cache) {}

    /// Multiplications with additions that one forward pass takes.
    fn multiply_adds(&self, _inputs: &[&[usize]]) -> u64 {
        0
    }

    /// Adds this layer to a summary.
    ///
    /// # Errors
    /// As [`MultiLayer::output_shape`].
    fn describe(&self, inputs: &[&[usize]], out: &mut Summary) -> Result<Shape> {
        out.add_multi(self, inputs)
    }
}

/// The call of several inputs that is being differentiated.
#[derive(Debug)]
pub struct MultiCall<'a, T> {
    /// The inputs that forward was given.
    pub xs: &'a [&'a Tensor<T>],
    /// The output that forward gave.
    pub y: &'a Tensor<T>,
    /// ∂E/∂y, of y's shape.
    pub dy: &'a Tensor<T>,
}

impl<T> Clone for MultiCall<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for MultiCall<'_, T> {}
