//! Composition: modules made of modules, and what joins and splits tensors between them.

mod along;
mod children;
mod graph_builder;
mod graph_diagram;
mod graph_plan;
mod graph_spec;
mod lsuv;
pub(crate) mod sequence;

crate::registry::family! {
    add => Add;
    chunk => Chunk;
    concat => Concat;
    graph => Graph;
    mat_mul => MatMul;
    mul => Mul;
    parallel => Parallel;
    recompute => Recompute;
    reparametrize => Reparametrize;
    residual => Residual;
    sequential => Sequential;
    split => Split;
    stack => Stack;
    sub => Sub;
    time_distributed => TimeDistributed;
}

pub(crate) use children::bounded;
pub use graph_builder::{Node, Nodes};

use chainrule_core::{Context, Error, ModuleCall, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::reduce::all_finite;

/// The most inputs or outputs of one module: a spec from a file may name any number.
const MOST: usize = 1 << 16;

/// Under [`Context::check_finite`], an error if a child's output is infinite or NaN.
#[inline]
fn check_output<T: Scalar>(y: &Tensor<T>, cx: Context) -> Result<()> {
    if cx.checks_finite() && !all_finite(y.data()) {
        let at = y.data().iter().position(|v| !v.is_finite()).unwrap_or(0);
        return Err(Error::value(format!(
            "expected a finite output, got {} at position {at} of an output of shape {}",
            y.data()[at],
            y.shape()
        )));
    }
    Ok(())
}

/// An error unless a module has from 1 to [`MOST`] of something.
fn count(kind: &str, what: &str, n: usize) -> Result<()> {
    if (1..=MOST).contains(&n) {
        return Ok(());
    }
    Err(Error::value(format!("{kind}: expected 1 to {MOST} {what}, got {n}")))
}

/// The one shape of a module of one output.
fn only(shapes: Vec<Shape>) -> Result<Shape> {
    match shapes[..] {
        [shape] => Ok(shape),
        _ => Err(Error::shape(format!("expected one output, got {}", shapes.len()))),
    }
}

/// Bytes of a tensor.
fn bytes<T>(shape: &Shape) -> usize {
    shape.volume().saturating_mul(size_of::<T>())
}

#[cold]
fn not_recorded(kind: &str) -> Error {
    Error::not_recorded(format!(
        "{kind}: backward without a recorded forward of this input by this layer in this cache"
    ))
}

/// An error unless a module got as many inputs as it has.
pub(crate) fn inputs_expected(kind: &str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::shape(format!("{kind}: expected {expected} inputs, got {got}")))
}

/// The one shape of all inputs of a module.
fn same(kind: &str, mut shapes: impl Iterator<Item = Shape>) -> Result<Shape> {
    let first = shapes
        .next()
        .ok_or_else(|| Error::shape(format!("{kind}: expected at least one input, got none")))?;
    match shapes.find(|shape| *shape != first) {
        None => Ok(first),
        Some(other) => {
            Err(Error::shape(format!("{kind}: expected inputs of one shape, got {first} and {other}")))
        }
    }
}

/// An error unless a backward pass has as many inputs, and as many places for ∂E/∂x, as the module has inputs.
pub(crate) fn pull_expected<T>(
    kind: &str,
    expected: usize,
    call: &ModuleCall<'_, T>,
    dxs: &[Option<&mut Tensor<T>>],
) -> Result<()> {
    inputs_expected(kind, expected, call.xs.len())?;
    if expected == dxs.len() {
        return Ok(());
    }
    Err(Error::shape(format!("{kind}: expected places for {expected} ∂E/∂x, got {}", dxs.len())))
}

/// The output of a module of one.
pub(crate) fn only_output<T>(ys: &mut [Tensor<T>]) -> Result<&mut Tensor<T>> {
    match ys {
        [y] => Ok(y),
        _ => Err(Error::shape(format!("expected one output, got {}", ys.len()))),
    }
}

/// y and, if it was used, ∂E/∂y of a module of one output.
pub(crate) fn only_gradient<'a, T>(
    call: &ModuleCall<'a, T>,
) -> Result<(&'a Tensor<T>, Option<&'a Tensor<T>>)> {
    match (call.ys, call.dys) {
        ([y], [dy]) => Ok((y, *dy)),
        _ => Err(Error::shape(format!("expected one ∂E/∂y, got {}", call.dys.len()))),
    }
}
