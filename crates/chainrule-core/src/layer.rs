//! The layer contract.

use crate::{Context, Grads, Params, ParamsMut, Result, Summary};
use chainrule_tensor::{Rng, Scalar, Shape, Tensor};

/// A function y = f(x; θ) with its hand-derived backward pass.
///
/// Laws, tested for every layer:
/// - y and dx are **overwritten**, parameter gradients are **added to**;
/// - backward may use the cache as scratch, but must give the same result when called again;
/// - a layer never changes during a pass: what a call must remember is in the cache, which belongs to the caller. So
///   threads share a layer, and a layer may be used twice in one network;
/// - under [`Context::infer`] nothing is remembered and nothing is random.
///
/// The first axis is the batch.
pub trait Layer<T: Scalar>: Send + Sync {
    /// What forward keeps for backward besides x and y, and scratch space. Most layers need nothing: `()`.
    type Cache: Default + Send + 'static;

    /// Whether the hyper-parameters make sense together. Containers ask when they are built, [`Layer::init`] asks first,
    /// and [`Layer::output_shape`] of a layer that can be wrong asks before it computes.
    ///
    /// # Errors
    /// A value error that says which hyper-parameter is wrong and why.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The shape of y for a shape of x, batch axis included. This is the only shape check.
    ///
    /// # Errors
    /// A shape error that says what was expected and what came.
    fn output_shape(&self, input: &[usize]) -> Result<Shape>;

    /// Overwrites y with f(x), and keeps in the cache what backward will need if [`Context::recording`].
    ///
    /// # Errors
    /// A wrong shape, or a parameter without numbers.
    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut Self::Cache,
        cx: &mut Context,
    ) -> Result<()>;

    /// Given ∂E/∂y, overwrites `dx` with ∂E/∂x if anybody wants it, and adds ∂E/∂θ to `grads`.
    ///
    /// # Errors
    /// The cache does not belong to a recorded forward of this layer, or a wrong shape.
    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()>;

    /// Whether backward reads [`Call::y`]. Where it does not, a container may let the next layer overwrite it.
    fn reads_output(&self) -> bool {
        true
    }

    /// This layer as one that works where x and y share memory, if it is one.
    fn in_place(&self) -> Option<&dyn InPlace<T>> {
        None
    }

    /// Shows every parameter and buffer, in a fixed order.
    fn params<'a>(&'a self, _out: &mut Params<'_, 'a, T>) {}

    /// Shows every parameter and buffer, to be changed, in the order of [`Layer::params`].
    fn params_mut<'a>(&'a mut self, _out: &mut ParamsMut<'_, 'a, T>) {}

    /// Folds what a training pass saw (batch statistics) into the layer, after the step.
    fn absorb(&mut self, _cache: &Self::Cache) {}

    /// Multiplications with additions that one forward pass takes, for [`Layer::summary`].
    fn multiply_adds(&self, _input: &[usize]) -> u64 {
        0
    }

    /// Adds this layer to a summary: one row; a container shows its children instead.
    ///
    /// # Errors
    /// As [`Layer::output_shape`].
    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        out.add(self, input)
    }

    /// y = f(x) as a new tensor, without remembering anything. A [`crate::Session`] does this without allocating.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    fn infer(&self, x: &Tensor<T>) -> Result<Tensor<T>> {
        let mut y = Tensor::default();
        self.forward(x, &mut y, &mut Self::Cache::default(), &mut Context::infer())?;
        Ok(y)
    }

    /// Fills every parameter by its initialiser, each from its own stream keyed by (seed, path): adding a layer changes
    /// no other layer's start.
    ///
    /// # Errors
    /// As [`Layer::check`].
    fn init(mut self, seed: u64) -> Result<Self>
    where
        Self: Sized,
    {
        self.check()?;
        self.params_mut(&mut ParamsMut::new(&mut |path, param| param.fill(&mut Rng::keyed(seed, path))));
        Ok(self)
    }

    /// A table of the layers for a shape of x: paths, output shapes, parameters, multiply-adds, memory.
    ///
    /// # Errors
    /// As [`Layer::output_shape`].
    fn summary(&self, input: &[usize]) -> Result<Summary>
    where
        Self: Sized,
    {
        let mut summary = Summary::new(input)?;
        self.describe(input, &mut summary)?;
        Ok(summary)
    }
}

/// A layer without parameters, noise and cache whose derivative follows from y alone. A container that sees that nobody
/// else needs x lets x and y share memory: a pass over half as many numbers.
pub trait InPlace<T: Scalar> {
    /// Overwrites x with f(x): the bits of [`Layer::forward`].
    ///
    /// # Errors
    /// As [`Layer::forward`].
    fn forward_in_place(&self, x: &mut Tensor<T>) -> Result<()>;

    /// Given y and ∂E/∂y, overwrites ∂E/∂y with ∂E/∂x: the bits of [`Layer::backward`].
    fn backward_in_place(&self, y: &Tensor<T>, dy: &mut Tensor<T>);
}

/// The call being differentiated: its input, its output, and ∂E/∂y.
#[derive(Debug)]
pub struct Call<'a, T> {
    /// The input that forward was given.
    pub x: &'a Tensor<T>,
    /// The output that forward gave.
    pub y: &'a Tensor<T>,
    /// ∂E/∂y, of y's shape.
    pub dy: &'a Tensor<T>,
}

impl<T> Clone for Call<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Call<'_, T> {}
