//! The contract for authors: one input, one output, a typed cache.

use crate::{Context, Error, Grads, Learning, Memory, Mode, Params, ParamsMut, Parts, Result, Spec, Summary};
use chainrule_tensor::{Scalar, Shape, Tensor};

/// A function y = f(x; θ) with its hand-derived backward pass.
///
/// Laws, tested for every layer:
/// - y and dx are **overwritten**, parameter gradients are **added to**;
/// - backward may use the cache as scratch, but must give the same result when called again;
/// - a layer never changes during a pass: what a call must remember is in the cache, which belongs to the caller. So
///   threads share a layer, and a layer may be used twice in one network;
/// - under [`Context::infer`] nothing is recorded and nothing is random.
///
/// The first axis is the batch. Every layer is a [`crate::Module`], the contract of several inputs and outputs, which
/// containers, optimizers, files and the checker take: use a layer through its methods, `infer`, `init`, `summary`.
pub trait Layer: Send + Sync {
    /// The element type, `f32` or `f64`.
    type T: Scalar;

    /// What forward keeps for backward besides x and y, scratch space, and the state under [`Context::stream`]. Most
    /// layers need nothing: `()`.
    type Cache: Default + Send + 'static;

    /// Whether the hyper-parameters make sense together. Containers call it when they are built, `init` calls it first,
    /// and [`Layer::output_shape`] of a layer that can be wrong calls it before it computes.
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
    /// A wrong shape, or a parameter that is not initialised.
    fn forward(
        &self,
        x: &Tensor<Self::T>,
        y: &mut Tensor<Self::T>,
        cache: &mut Self::Cache,
        cx: Context,
    ) -> Result<()>;

    /// Given ∂E/∂y, overwrites `dx` with ∂E/∂x if requested, and adds ∂E/∂θ to `grads`. [`Call::new`] has checked the
    /// shapes of x, y and ∂E/∂y.
    ///
    /// # Errors
    /// The cache does not belong to a recorded forward of this layer.
    fn backward(
        &self,
        call: Call<'_, Self::T>,
        cache: &mut Self::Cache,
        grads: &mut Grads<Self::T>,
        dx: Option<&mut Tensor<Self::T>>,
    ) -> Result<()>;

    /// Whether y has a derivative with respect to x. Ids, masks and lengths have none: ∂E/∂x is never requested.
    fn differentiable(&self) -> bool {
        true
    }

    /// Whether backward reads [`Call::y`]. Where it does not, a container may let the next layer overwrite it.
    fn reads_output(&self) -> bool {
        true
    }

    /// This layer as one that works where x and y share memory, if it is one.
    fn in_place(&self) -> Option<&dyn InPlace<Self::T>> {
        None
    }

    /// Lists every parameter and buffer, in a fixed order.
    fn params<'a>(&'a self, _out: &mut Params<'_, 'a, Self::T>) {}

    /// Lists every parameter and buffer, to be changed, in the order of [`Layer::params`].
    fn params_mut<'a>(&'a mut self, _out: &mut ParamsMut<'_, 'a, Self::T>) {}

    /// What there is to learn. A container answers by what it knows of its children, without a walk over parameters.
    fn learning(&self) -> Learning {
        let mut learning = Learning::Nothing;
        self.params(&mut Params::new(&mut |_, p| learning = learning.max(p.learning())));
        learning
    }

    /// Lends the modules that it holds in boxes, as [`crate::Module::lend`].
    fn parts(&mut self, _out: &mut Parts<'_, Self::T>) {}

    /// Sets the mode of the part at a path, as [`crate::Module::set_mode`]; a layer without parts has none to set.
    ///
    /// # Errors
    /// There is no such part.
    fn switch(&mut self, path: &str, mode: Mode) -> Result<()> {
        no_parts(path, mode, || self.spec())
    }

    /// How many containers stand inside each other here: 0 of a layer, 1 of a container of layers.
    fn depth(&self) -> usize {
        0
    }

    /// Folds the batch statistics of a training pass into the layer, after the step.
    fn absorb(&mut self, _cache: &Self::Cache) {}

    /// Lists what a stream remembers in the cache, from which it is saved, restored and reordered: see [`Memory`]. A layer with
    /// memory over time implements it, and so does a container, for its children; all others remember nothing. The law of
    /// streaming finds a layer that keeps something and does not list it.
    ///
    /// # Errors
    /// Those of the walk.
    fn memory(&self, _cache: &mut Self::Cache, _out: &mut Memory<'_, Self::T>) -> Result<()> {
        Ok(())
    }

    /// Multiply-adds of one forward pass, for the summary.
    fn multiply_adds(&self, _input: &[usize]) -> u64 {
        0
    }

    /// Bytes that the cache holds after a training pass of an input of this shape, with or without ∂E/∂x, for the summary.
    fn cache_bytes(&self, _input: &[usize], _dx: bool) -> usize {
        0
    }

    /// What this layer is: its kind and attributes, from which a [`crate::Registry`] builds it again. Without one of its
    /// own a layer prints as its type's name and cannot be written to a model file.
    fn spec(&self) -> Spec {
        Spec::opaque::<Self>()
    }

    /// Adds this layer to a summary: one row, and the bytes of its cache; a container adds its children instead, and what it
    /// holds for them.
    ///
    /// # Errors
    /// As [`Layer::output_shape`].
    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        let output = self.output_shape(input)?;
        out.row::<Self::T>(self.spec().kind(), output, self.multiply_adds(input), &mut |p| self.params(p));
        let bytes = self.cache_bytes(input, out.requests(0));
        out.hold_in_training(bytes);
        out.hold_in_inference(bytes);
        Ok(output)
    }
}

/// A layer without parameters, noise and cache whose derivative follows from y alone. A container that sees that x is
/// not needed elsewhere lets x and y share memory: a pass over half as many elements.
pub trait InPlace<T: Scalar> {
    /// Overwrites x with f(x): the bits of [`Layer::forward`].
    ///
    /// # Errors
    /// As [`Layer::forward`].
    fn forward_in_place(&self, x: &mut Tensor<T>) -> Result<()>;

    /// Given y and ∂E/∂y, overwrites ∂E/∂y with ∂E/∂x: the bits of [`Layer::backward`].
    fn backward_in_place(&self, y: &Tensor<T>, dy: &mut Tensor<T>);
}

/// The call being differentiated: its input, its output, and ∂E/∂y. Its shapes fit together: [`Call::new`] checks them.
#[derive(Debug)]
#[non_exhaustive]
pub struct Call<'a, T> {
    /// The input that forward was given.
    pub x: &'a Tensor<T>,
    /// The output that forward gave.
    pub y: &'a Tensor<T>,
    /// ∂E/∂y, of y's shape.
    pub dy: &'a Tensor<T>,
}

impl<'a, T: Scalar> Call<'a, T> {
    /// A call of `layer`: y is of the shape that x gives, and ∂E/∂y of y's.
    ///
    /// # Errors
    /// One of the three has another shape.
    pub fn new<L: Layer<T = T> + ?Sized>(
        layer: &L,
        x: &'a Tensor<T>,
        y: &'a Tensor<T>,
        dy: &'a Tensor<T>,
    ) -> Result<Self> {
        let shape = layer.output_shape(x.shape())?;
        if shape != *y.shape() {
            return Err(wrong_shape("y", &shape, y.shape()));
        }
        Self::recorded(x, y, dy)
    }

    /// A call whose y a container's own forward made from x: ∂E/∂y alone is compared with y.
    ///
    /// # Errors
    /// ∂E/∂y has another shape than y.
    #[inline]
    pub fn recorded(x: &'a Tensor<T>, y: &'a Tensor<T>, dy: &'a Tensor<T>) -> Result<Self> {
        if y.shape() != dy.shape() {
            return Err(wrong_shape("∂E/∂y", y.shape(), dy.shape()));
        }
        Ok(Self { x, y, dy })
    }
}

/// The mode of a module without parts, which follows the pass already.
pub(crate) fn no_parts(path: &str, mode: Mode, spec: impl FnOnce() -> Spec) -> Result<()> {
    if path.is_empty() && mode == Mode::Training {
        return Ok(());
    }
    let (spec, path) = (spec(), path.escape_debug());
    Err(Error::value(format!(
        "{}: expected the path of a part, got `{path}` where there are none",
        spec.kind()
    )))
}

#[cold]
pub(crate) fn wrong_shape(what: &str, expected: &Shape, got: &Shape) -> Error {
    Error::shape(format!("backward: expected {what} of shape {expected}, got {got}"))
}

impl<T> Clone for Call<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Call<'_, T> {}
