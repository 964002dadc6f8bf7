//! Modules of any type behind one. The only place where types are erased.

use crate::{
    Call, Context, Error, Grads, InPlace, Learning, Memory, Mode, Module, ModuleCall, Parameters, Params,
    ParamsMut, Parts, Result, Spec, Summary, watch::Watched,
};
use chainrule_tensor::{Scalar, Shape, Tensor};
use std::{any::Any, fmt, sync::Arc};

/// The state of a [`BoxModule`]: empty until a forward pass fills it with the right type.
#[derive(Default)]
pub struct AnyState {
    state: Option<Box<dyn Any + Send>>,
    /// Tells the calls of a watched module apart.
    call: Option<Arc<()>>,
}

impl AnyState {
    fn for_forward<S: Default + Send + 'static>(&mut self) -> &mut S {
        if !self.state.as_ref().is_some_and(|state| state.is::<S>()) {
            self.state = Some(Box::new(S::default()));
        }
        self.state.as_mut().and_then(|state| state.downcast_mut()).expect("just made")
    }

    fn recorded<S: 'static>(&mut self, module: &(impl Module + ?Sized)) -> Result<&mut S> {
        self.state.as_mut().and_then(|state| state.downcast_mut()).ok_or_else(|| {
            Error::not_recorded(format!(
                "{}: expected the cache that forward filled, got another or an empty one",
                module.to_spec().kind()
            ))
        })
    }

    pub(crate) fn call(&mut self) -> &Arc<()> {
        self.call.get_or_insert_default()
    }
}

impl fmt::Debug for AnyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.state.is_some() { "AnyState(filled)" } else { "AnyState(empty)" })
    }
}

/// [`Module`] without its associated types: what a trait object can hold.
pub(crate) trait AnyModule<T: Scalar>: Send + Sync {
    fn clone_box(&self) -> Box<dyn AnyModule<T>>;
    fn as_any(&self) -> &dyn Any;
    /// This module as one that is watched, if it is.
    fn watched(&mut self) -> Option<&mut Watched<T>> {
        None
    }
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>);
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>);
    fn lend(&mut self, out: &mut Parts<'_, T>);
    fn validate(&self) -> Result<()>;
    fn inputs(&self) -> usize;
    fn outputs(&self) -> usize;
    fn differentiable_input(&self, input: usize) -> bool;
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>>;
    fn apply(&self, xs: &[&Tensor<T>], ys: &mut [Tensor<T>], state: &mut AnyState, cx: Context)
    -> Result<()>;
    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        state: &mut AnyState,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()>;
    fn apply_one(&self, x: &Tensor<T>, y: &mut Tensor<T>, state: &mut AnyState, cx: Context) -> Result<()>;
    fn pull_one(
        &self,
        call: Call<'_, T>,
        state: &mut AnyState,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()>;
    fn reads_outputs(&self) -> bool;
    fn as_in_place(&self) -> Option<&dyn InPlace<T>>;
    fn learns(&self) -> Learning;
    fn set_mode(&mut self, path: &str, mode: Mode) -> Result<()>;
    fn nesting(&self) -> usize;
    fn fold(&mut self, state: &AnyState);
    fn remember(&self, state: &mut AnyState, out: &mut Memory<'_, T>) -> Result<()>;
    fn cost(&self, inputs: &[Shape]) -> u64;
    fn to_spec(&self) -> Spec;
    fn summarize(&self, inputs: &[Shape], out: &mut Summary) -> Result<Vec<Shape>>;
}

impl<T: Scalar, M: Module<T = T> + Clone + 'static> AnyModule<T> for M {
    fn clone_box(&self) -> Box<dyn AnyModule<T>> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        Parameters::list(self, out);
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        Parameters::list_mut(self, out);
    }
    fn lend(&mut self, out: &mut Parts<'_, T>) {
        Module::lend(self, out);
    }
    fn validate(&self) -> Result<()> {
        Parameters::validate(self)
    }
    fn inputs(&self) -> usize {
        Module::inputs(self)
    }
    fn outputs(&self) -> usize {
        Module::outputs(self)
    }
    fn differentiable_input(&self, input: usize) -> bool {
        Module::differentiable_input(self, input)
    }
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        Module::output_shapes(self, inputs)
    }
    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        state: &mut AnyState,
        cx: Context,
    ) -> Result<()> {
        Module::apply(self, xs, ys, state.for_forward(), cx)
    }
    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        state: &mut AnyState,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        Module::pull(self, call, state.recorded(self)?, grads, dxs)?;
        grads.check()
    }
    fn apply_one(&self, x: &Tensor<T>, y: &mut Tensor<T>, state: &mut AnyState, cx: Context) -> Result<()> {
        Module::apply_one(self, x, y, state.for_forward(), cx)
    }
    fn pull_one(
        &self,
        call: Call<'_, T>,
        state: &mut AnyState,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        Module::pull_one(self, call, state.recorded(self)?, grads, dx)?;
        grads.check()
    }
    fn reads_outputs(&self) -> bool {
        Module::reads_outputs(self)
    }
    fn as_in_place(&self) -> Option<&dyn InPlace<T>> {
        Module::as_in_place(self)
    }
    fn learns(&self) -> Learning {
        Module::learns(self)
    }
    fn set_mode(&mut self, path: &str, mode: Mode) -> Result<()> {
        Module::set_mode(self, path, mode)
    }
    fn nesting(&self) -> usize {
        Module::nesting(self)
    }
    fn fold(&mut self, state: &AnyState) {
        if let Some(state) = state.state.as_ref().and_then(|state| state.downcast_ref()) {
            Module::fold(self, state);
        }
    }
    fn remember(&self, state: &mut AnyState, out: &mut Memory<'_, T>) -> Result<()> {
        Module::remember(self, state.for_forward(), out)
    }
    fn cost(&self, inputs: &[Shape]) -> u64 {
        Module::cost(self, inputs)
    }
    fn to_spec(&self) -> Spec {
        Module::to_spec(self)
    }
    fn summarize(&self, inputs: &[Shape], out: &mut Summary) -> Result<Vec<Shape>> {
        Module::summarize(self, inputs, out)
    }
}

/// A module of any type. Containers hold these.
pub struct BoxModule<T: Scalar>(pub(crate) Box<dyn AnyModule<T>>);

impl<T: Scalar> BoxModule<T> {
    /// Boxes a layer or another module.
    pub fn new(module: impl Module<T = T> + Clone + 'static) -> Self {
        Self(Box::new(module))
    }

    /// The module, if it is of this type, however often it was boxed.
    pub fn downcast_ref<M: Module<T = T> + Clone + 'static>(&self) -> Option<&M> {
        let module = self.0.as_any();
        module.downcast_ref().or_else(|| module.downcast_ref::<Self>()?.downcast_ref())
    }
}

impl<T: Scalar> Clone for BoxModule<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone_box())
    }
}

impl<T: Scalar> fmt::Display for BoxModule<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_spec().fmt(f)
    }
}

impl<T: Scalar> fmt::Debug for BoxModule<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: Scalar> Parameters for BoxModule<T> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.0.list(out);
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.0.list_mut(out);
    }

    fn validate(&self) -> Result<()> {
        self.0.validate()
    }
}

impl<T: Scalar> Module for BoxModule<T> {
    type State = AnyState;

    fn inputs(&self) -> usize {
        self.0.inputs()
    }

    fn outputs(&self) -> usize {
        self.0.outputs()
    }

    fn differentiable_input(&self, input: usize) -> bool {
        self.0.differentiable_input(input)
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.0.output_shapes(inputs)
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        state: &mut AnyState,
        cx: Context,
    ) -> Result<()> {
        self.0.apply(xs, ys, state, cx)
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        state: &mut AnyState,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        self.0.pull(call, state, grads, dxs)
    }

    #[inline]
    fn apply_one(&self, x: &Tensor<T>, y: &mut Tensor<T>, state: &mut AnyState, cx: Context) -> Result<()> {
        self.0.apply_one(x, y, state, cx)
    }

    #[inline]
    fn pull_one(
        &self,
        call: Call<'_, T>,
        state: &mut AnyState,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        self.0.pull_one(call, state, grads, dx)
    }

    fn reads_outputs(&self) -> bool {
        self.0.reads_outputs()
    }

    #[inline]
    fn as_in_place(&self) -> Option<&dyn InPlace<T>> {
        self.0.as_in_place()
    }

    fn learns(&self) -> Learning {
        self.0.learns()
    }

    fn lend(&mut self, out: &mut Parts<'_, T>) {
        self.0.lend(out);
    }

    fn set_mode(&mut self, path: &str, mode: Mode) -> Result<()> {
        self.0.set_mode(path, mode)
    }

    fn nesting(&self) -> usize {
        self.0.nesting()
    }

    fn fold(&mut self, state: &AnyState) {
        self.0.fold(state);
    }

    fn remember(&self, state: &mut AnyState, out: &mut Memory<'_, T>) -> Result<()> {
        self.0.remember(state, out)
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        self.0.cost(inputs)
    }

    fn to_spec(&self) -> Spec {
        self.0.to_spec()
    }

    fn summarize(&self, inputs: &[Shape], out: &mut Summary) -> Result<Vec<Shape>> {
        self.0.summarize(inputs, out)
    }
}
