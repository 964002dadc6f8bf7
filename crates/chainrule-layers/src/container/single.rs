//! One input as several: a graph of one input is a layer, and a layer is a node of a graph.

use super::graph::{Graph, GraphCache, MAX_INPUTS};
use chainrule_core::{
    AnyCache, BoxLayer, Call, Context, Error, Grads, Layer, MultiCall, MultiLayer, Params, ParamsMut, Result,
    Scalar, Shape, Summary, Tensor,
};
use std::array;

/// A graph of one input.
impl<T: Scalar> Layer<T> for Graph<T> {
    type Cache = GraphCache<T>;

    fn check(&self) -> Result<()> {
        MultiLayer::check(self)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        MultiLayer::output_shape(self, &[input])
    }

    fn forward(
        &self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cache: &mut GraphCache<T>,
        cx: &mut Context,
    ) -> Result<()> {
        MultiLayer::forward(self, &[x], y, cache, cx)
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        cache: &mut GraphCache<T>,
        grads: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let call = MultiCall { xs: &[call.x], y: call.y, dy: call.dy };
        MultiLayer::backward(self, call, cache, grads, &mut [dx])
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        MultiLayer::params(self, out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        MultiLayer::params_mut(self, out);
    }

    fn absorb(&mut self, cache: &GraphCache<T>) {
        MultiLayer::absorb(self, cache);
    }

    fn multiply_adds(&self, input: &[usize]) -> u64 {
        MultiLayer::multiply_adds(self, &[input])
    }

    fn describe(&self, input: &[usize], out: &mut Summary) -> Result<Shape> {
        MultiLayer::describe(self, &[input], out)
    }
}

/// A layer of one input as a layer of several.
#[derive(Clone)]
pub(super) struct Single<T: Scalar>(pub(super) BoxLayer<T>);

impl<T: Scalar> MultiLayer<T> for Single<T> {
    type Cache = AnyCache;

    fn check(&self) -> Result<()> {
        self.0.check()
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        self.0.output_shape(inputs[0])
    }

    fn forward(
        &self,
        xs: &[&Tensor<T>],
        y: &mut Tensor<T>,
        cache: &mut AnyCache,
        cx: &mut Context,
    ) -> Result<()> {
        self.0.forward(xs[0], y, cache, cx)
    }

    fn backward(
        &self,
        call: MultiCall<'_, T>,
        cache: &mut AnyCache,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let call = Call { x: call.xs[0], y: call.y, dy: call.dy };
        self.0.backward(call, cache, grads, dxs[0].as_deref_mut())
    }

    fn reads_output(&self) -> bool {
        self.0.reads_output()
    }

    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.0.params(out);
    }

    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.0.params_mut(out);
    }

    fn absorb(&mut self, cache: &AnyCache) {
        self.0.absorb(cache);
    }

    fn multiply_adds(&self, inputs: &[&[usize]]) -> u64 {
        self.0.multiply_adds(inputs[0])
    }

    fn describe(&self, inputs: &[&[usize]], out: &mut Summary) -> Result<Shape> {
        self.0.describe(inputs[0], out)
    }
}

/// Calls `f` with the shapes of up to eight tensors, without allocating.
pub(super) fn with_shapes<T: Scalar, R>(
    xs: &[&Tensor<T>],
    f: impl FnOnce(&[&[usize]]) -> Result<R>,
) -> Result<R> {
    if xs.len() > MAX_INPUTS {
        return Err(Error::shape(format!("expected at most {MAX_INPUTS} inputs, got {}", xs.len())));
    }
    let shapes: [&[usize]; MAX_INPUTS] = array::from_fn(|i| xs.get(i).map_or(&[][..], |x| &x.shape()[..]));
    f(&shapes[..xs.len()])
}
