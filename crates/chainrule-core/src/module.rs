//! The general contract: n inputs, m outputs.

use crate::{
    Call, Context, Error, Grads, InPlace, Layer, Learning, Memory, Mode, Parameters, Parts, Result, Spec,
    Summary,
    layer::{no_parts, wrong_shape},
};
use chainrule_tensor::{Scalar, Shape, Tensor};
use std::{array, slice};

/// A function (y₀, y₁, …) = f(x₀, x₁, …; θ) with its hand-derived backward pass, under the laws of [`Layer`].
///
/// Every [`Layer`] is one, with a single input and output. A function of several implements it and [`Parameters`].
/// Containers, optimizers, files, summaries, sessions, the trainer and the checker take any of them.
pub trait Module: Parameters + Send + Sync {
    /// What a pass keeps between forward and backward, and between the pieces of a stream: the cache of a layer.
    type State: Default + Send + 'static;

    /// How many inputs it has.
    fn inputs(&self) -> usize {
        1
    }

    /// How many outputs it has.
    fn outputs(&self) -> usize {
        1
    }

    /// Whether an input has a derivative; see [`Layer::differentiable`].
    fn differentiable_input(&self, _input: usize) -> bool {
        true
    }

    /// The shapes of the outputs for the shapes of the inputs.
    ///
    /// # Errors
    /// Another number of inputs, or a wrong shape.
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>>;

    /// Overwrites `ys` with f(xs): as [`Layer::forward`].
    ///
    /// # Errors
    /// Another number of inputs or outputs, a wrong shape, or a parameter that is not initialised.
    fn apply(
        &self,
        xs: &[&Tensor<Self::T>],
        ys: &mut [Tensor<Self::T>],
        state: &mut Self::State,
        cx: Context,
    ) -> Result<()>;

    /// Given ∂E/∂yⱼ, overwrites each requested `dxs[i]` with ∂E/∂xᵢ and adds ∂E/∂θ to `grads`. An output that was not
    /// used has no ∂E/∂yⱼ, which means zeros.
    ///
    /// # Errors
    /// The state does not belong to a recorded pass, or a wrong shape.
    fn pull(
        &self,
        call: ModuleCall<'_, Self::T>,
        state: &mut Self::State,
        grads: &mut Grads<Self::T>,
        dxs: &mut [Option<&mut Tensor<Self::T>>],
    ) -> Result<()>;

    /// [`Module::apply`] of one input and one output.
    ///
    /// # Errors
    /// As [`Module::apply`].
    fn apply_one(
        &self,
        x: &Tensor<Self::T>,
        y: &mut Tensor<Self::T>,
        state: &mut Self::State,
        cx: Context,
    ) -> Result<()> {
        self.apply(&[x], slice::from_mut(y), state, cx)
    }

    /// [`Module::pull`] of one input and one output.
    ///
    /// # Errors
    /// As [`Module::pull`].
    fn pull_one(
        &self,
        call: Call<'_, Self::T>,
        state: &mut Self::State,
        grads: &mut Grads<Self::T>,
        dx: Option<&mut Tensor<Self::T>>,
    ) -> Result<()> {
        let call = ModuleCall { xs: &[call.x], ys: slice::from_ref(call.y), dys: &[Some(call.dy)] };
        self.pull(call, state, grads, &mut [dx])
    }

    /// As [`Layer::reads_output`], of any output.
    fn reads_outputs(&self) -> bool {
        true
    }

    /// As [`Layer::in_place`].
    fn as_in_place(&self) -> Option<&dyn InPlace<Self::T>> {
        None
    }

    /// As [`Layer::learning`]. A container calls no child of which the gradients lead to nothing trainable and to no
    /// requested ∂E/∂x.
    fn learns(&self) -> Learning {
        let mut learning = Learning::Nothing;
        self.visit(&mut |_, p| learning = learning.max(p.learning()));
        learning
    }

    /// Lends the modules that it holds in boxes, in order, so that they can be watched by path ([`crate::watch`]): a container
    /// calls [`Parts::part`] for each child. A module without boxes has none to lend.
    fn lend(&mut self, _out: &mut Parts<'_, Self::T>) {}

    /// Sets the mode of the part at a path, `encoder.0`; an empty path is all parts. Under [`Mode::Inference`] a part
    /// computes the inference function while the rest trains: batch norm uses its running statistics and leaves them as they
    /// are, dropout is off. It is a setting of the run: a clone has it, a file does not.
    ///
    /// # Errors
    /// There is no such part.
    fn set_mode(&mut self, path: &str, mode: Mode) -> Result<()> {
        no_parts(path, mode, || self.to_spec())
    }

    /// As [`Layer::depth`]. Containers refuse to be nested deeper than the stack of a thread allows.
    fn nesting(&self) -> usize {
        0
    }

    /// As [`Layer::absorb`].
    fn fold(&mut self, _state: &Self::State) {}

    /// As [`Layer::memory`].
    ///
    /// # Errors
    /// Those of the walk.
    fn remember(&self, _state: &mut Self::State, _out: &mut Memory<'_, Self::T>) -> Result<()> {
        Ok(())
    }

    /// Multiply-adds of one forward pass.
    fn cost(&self, _inputs: &[Shape]) -> u64 {
        0
    }

    /// As [`Layer::spec`].
    fn to_spec(&self) -> Spec {
        Spec::opaque::<Self>()
    }

    /// Adds this module to a summary, as [`Layer::describe`].
    ///
    /// # Errors
    /// As [`Module::output_shapes`].
    fn summarize(&self, inputs: &[Shape], out: &mut Summary) -> Result<Vec<Shape>> {
        let outputs = self.output_shapes(inputs)?;
        out.rows_of(self.to_spec().kind(), &outputs, self.cost(inputs), &mut |p| self.list(p));
        Ok(outputs)
    }

    /// y = f(x) as a new tensor, of a module with one output. A [`crate::Session`] does this without allocating.
    ///
    /// # Errors
    /// As [`Module::apply`], and if there are several outputs.
    fn infer(&self, inputs: impl Inputs<Self::T>) -> Result<Tensor<Self::T>>
    where
        Self: Sized,
    {
        let mut ys = self.infer_all(inputs)?;
        match ys.len() {
            1 => Ok(ys.swap_remove(0)),
            n => Err(Error::value(format!("expected a model of one output, got {n}: use `infer_all`"))),
        }
    }

    /// All outputs as new tensors.
    ///
    /// # Errors
    /// As [`Module::apply`].
    fn infer_all(&self, inputs: impl Inputs<Self::T>) -> Result<Vec<Tensor<Self::T>>>
    where
        Self: Sized,
    {
        let mut ys: Vec<_> = (0..self.outputs()).map(|_| Tensor::default()).collect();
        inputs.with(|xs| self.apply(xs, &mut ys, &mut Self::State::default(), Context::infer()))?;
        Ok(ys)
    }

    /// A table of the layers for shapes of the inputs: paths, output shapes, parameters, multiply-adds, memory.
    ///
    /// # Errors
    /// As [`Module::output_shapes`].
    fn summary(&self, inputs: impl InputShapes) -> Result<Summary> {
        let shapes = inputs.shapes()?;
        let mut summary = Summary::new(&shapes);
        let outputs = self.summarize(&shapes, &mut summary)?;
        // y, and ∂E/∂y of training.
        for bytes in outputs.iter().map(|y| y.volume().saturating_mul(size_of::<Self::T>())) {
            summary.hold_in_training(bytes.saturating_mul(2));
            summary.hold_in_inference(bytes);
        }
        Ok(summary)
    }
}

impl<L: Layer> Module for L {
    type State = L::Cache;

    fn differentiable_input(&self, _: usize) -> bool {
        self.differentiable()
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        Ok(vec![self.output_shape(only(inputs)?)?])
    }

    fn apply(
        &self,
        xs: &[&Tensor<L::T>],
        ys: &mut [Tensor<L::T>],
        cache: &mut L::Cache,
        cx: Context,
    ) -> Result<()> {
        let [y] = ys else { return Err(one_output(ys.len())) };
        self.forward(only(xs)?, y, cache, cx)
    }

    fn pull(
        &self,
        call: ModuleCall<'_, L::T>,
        cache: &mut L::Cache,
        grads: &mut Grads<L::T>,
        dxs: &mut [Option<&mut Tensor<L::T>>],
    ) -> Result<()> {
        let [dx] = dxs else { return Err(wrong_number("∂E/∂x", 1, dxs.len())) };
        let (x, dx) = (only(call.xs)?, dx.as_deref_mut());
        match (call.ys, call.dys) {
            ([y], [Some(dy)]) => self.backward(Call::new(self, x, y, dy)?, cache, grads, dx),
            ([_], [None]) => {
                dx.into_iter().for_each(|dx| dx.reset(*x.shape()).fill(L::T::ZERO)); // dx = 0
                Ok(())
            }
            (ys, _) => Err(one_output(ys.len())),
        }
    }

    #[inline]
    fn apply_one(
        &self,
        x: &Tensor<L::T>,
        y: &mut Tensor<L::T>,
        cache: &mut L::Cache,
        cx: Context,
    ) -> Result<()> {
        self.forward(x, y, cache, cx)
    }

    #[inline]
    fn pull_one(
        &self,
        call: Call<'_, L::T>,
        cache: &mut L::Cache,
        grads: &mut Grads<L::T>,
        dx: Option<&mut Tensor<L::T>>,
    ) -> Result<()> {
        self.backward(call, cache, grads, dx)
    }

    fn reads_outputs(&self) -> bool {
        self.reads_output()
    }

    fn as_in_place(&self) -> Option<&dyn InPlace<L::T>> {
        self.in_place()
    }

    fn learns(&self) -> Learning {
        self.learning()
    }

    fn lend(&mut self, out: &mut Parts<'_, L::T>) {
        self.parts(out);
    }

    fn set_mode(&mut self, path: &str, mode: Mode) -> Result<()> {
        self.switch(path, mode)
    }

    fn nesting(&self) -> usize {
        self.depth()
    }

    fn fold(&mut self, cache: &L::Cache) {
        self.absorb(cache);
    }

    fn remember(&self, cache: &mut L::Cache, out: &mut Memory<'_, L::T>) -> Result<()> {
        self.memory(cache, out)
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        inputs.first().map_or(0, |input| self.multiply_adds(input))
    }

    fn to_spec(&self) -> Spec {
        self.spec()
    }

    fn summarize(&self, inputs: &[Shape], out: &mut Summary) -> Result<Vec<Shape>> {
        Ok(vec![self.describe(only(inputs)?, out)?])
    }
}

/// [`Module::apply`], by [`Module::apply_one`] where that serves.
#[inline]
pub(crate) fn apply<M: Module + ?Sized>(
    model: &M,
    xs: &[&Tensor<M::T>],
    ys: &mut [Tensor<M::T>],
    state: &mut M::State,
    cx: Context,
) -> Result<()> {
    match (xs, ys) {
        ([x], [y]) => model.apply_one(x, y, state, cx),
        (xs, ys) => model.apply(xs, ys, state, cx),
    }
}

fn only<V>(inputs: &[V]) -> Result<&V> {
    match inputs {
        [one] => Ok(one),
        _ => Err(Error::shape(format!("expected one input, got {}", inputs.len()))),
    }
}

#[cold]
fn one_output(n: usize) -> Error {
    Error::shape(format!("expected one output, got {n}"))
}

/// The call of several inputs and outputs that is being differentiated; see [`ModuleCall::new`].
#[derive(Debug)]
#[non_exhaustive]
pub struct ModuleCall<'a, T> {
    /// The inputs that the pass was given.
    pub xs: &'a [&'a Tensor<T>],
    /// The outputs that it gave.
    pub ys: &'a [Tensor<T>],
    /// ∂E/∂yⱼ, each of yⱼ's shape; `None` for an output that was not used.
    pub dys: &'a [Option<&'a Tensor<T>>],
}

impl<'a, T: Scalar> ModuleCall<'a, T> {
    /// A call of `module`: the outputs are as many and of the shapes that the inputs give, and every ∂E/∂yⱼ is of yⱼ's.
    ///
    /// # Errors
    /// Another number of inputs, outputs or gradients, or a wrong shape.
    pub fn new<M: Module<T = T> + ?Sized>(
        module: &M,
        xs: &'a [&'a Tensor<T>],
        ys: &'a [Tensor<T>],
        dys: &'a [Option<&'a Tensor<T>>],
    ) -> Result<Self> {
        let inputs: Vec<Shape> = xs.iter().map(|x| *x.shape()).collect();
        let outputs = module.output_shapes(&inputs)?;
        if outputs.len() != ys.len() {
            return Err(wrong_number("outputs", outputs.len(), ys.len()));
        }
        match outputs.iter().zip(ys).find(|(shape, y)| *shape != y.shape()) {
            Some((shape, y)) => Err(wrong_shape("y", shape, y.shape())),
            None => Self::recorded(xs, ys, dys),
        }
    }

    /// A call whose outputs a container's own forward made from its inputs: every ∂E/∂yⱼ alone is compared with yⱼ.
    ///
    /// # Errors
    /// Another number of ∂E/∂y than of outputs, or a wrong shape.
    pub fn recorded(
        xs: &'a [&'a Tensor<T>],
        ys: &'a [Tensor<T>],
        dys: &'a [Option<&'a Tensor<T>>],
    ) -> Result<Self> {
        if ys.len() != dys.len() {
            return Err(wrong_number("∂E/∂y", ys.len(), dys.len()));
        }
        for (y, dy) in ys.iter().zip(dys) {
            if let Some(dy) = dy.filter(|dy| dy.shape() != y.shape()) {
                return Err(wrong_shape("∂E/∂y", y.shape(), dy.shape()));
            }
        }
        Ok(Self { xs, ys, dys })
    }
}

#[cold]
fn wrong_number(what: &str, expected: usize, got: usize) -> Error {
    Error::shape(format!("backward: expected {expected} {what}, got {got}"))
}

impl<T> Clone for ModuleCall<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ModuleCall<'_, T> {}

/// The inputs of a module: `&x`, `[&a, &b]`, or a slice or vector of tensors.
pub trait Inputs<T> {
    /// Calls `f` with them.
    fn with<R>(&self, f: impl FnOnce(&[&Tensor<T>]) -> R) -> R;
}

impl<T> Inputs<T> for &Tensor<T> {
    #[inline]
    fn with<R>(&self, f: impl FnOnce(&[&Tensor<T>]) -> R) -> R {
        f(&[self])
    }
}

impl<T, const N: usize> Inputs<T> for [&Tensor<T>; N] {
    fn with<R>(&self, f: impl FnOnce(&[&Tensor<T>]) -> R) -> R {
        f(self)
    }
}

impl<T> Inputs<T> for &[&Tensor<T>] {
    fn with<R>(&self, f: impl FnOnce(&[&Tensor<T>]) -> R) -> R {
        f(self)
    }
}

impl<T> Inputs<T> for &[Tensor<T>] {
    fn with<R>(&self, f: impl FnOnce(&[&Tensor<T>]) -> R) -> R {
        const FEW: usize = 8;
        match self {
            [] => f(&[]),
            [one] => f(&[one]),
            // Few references stand on the stack: a step allocates nothing.
            [first, ..] if self.len() <= FEW => {
                let refs: [&Tensor<T>; FEW] = array::from_fn(|i| self.get(i).unwrap_or(first));
                f(&refs[..self.len()])
            }
            _ => f(&self.iter().collect::<Vec<_>>()),
        }
    }
}

impl<T> Inputs<T> for &Vec<Tensor<T>> {
    fn with<R>(&self, f: impl FnOnce(&[&Tensor<T>]) -> R) -> R {
        self.as_slice().with(f)
    }
}

/// The shapes of a module's inputs: of one, an array, slice or vector of lengths or a [`Shape`], `[32, 784]` or `x.shape()`;
/// of several, a slice, array or vector of [`Shape`]s.
pub trait InputShapes {
    /// The shapes.
    ///
    /// # Errors
    /// A shape that no tensor can have.
    fn shapes(&self) -> Result<Vec<Shape>>;
}

macro_rules! input_shapes {
    ($($(const $n:ident =>)? $t:ty: |$self:ident| $shapes:expr;)*) => {$(
        impl$(<const $n: usize>)? InputShapes for $t {
            fn shapes(&self) -> Result<Vec<Shape>> {
                let $self = self;
                $shapes
            }
        }
    )*};
}

input_shapes! {
    const N => [usize; N]: |axes| Ok(vec![Shape::new(axes)?]);
    const N => &[usize; N]: |axes| Ok(vec![Shape::new(*axes)?]);
    &[usize]: |axes| Ok(vec![Shape::new(axes)?]);
    Vec<usize>: |axes| Ok(vec![Shape::new(axes)?]);
    &Vec<usize>: |axes| Ok(vec![Shape::new(axes)?]);
    Shape: |shape| Ok(vec![*shape]);
    &Shape: |shape| Ok(vec![**shape]);
    &[Shape]: |shapes| Ok(shapes.to_vec());
    const N => [Shape; N]: |shapes| Ok(shapes.to_vec());
    const N => &[Shape; N]: |shapes| Ok(shapes.to_vec());
    &Vec<Shape>: |shapes| Ok(shapes.to_vec());
}
