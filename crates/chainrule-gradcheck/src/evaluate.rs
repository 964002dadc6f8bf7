//! One forward and one backward pass of any module.

use chainrule_core::{Context, Grads, Module, ModuleCall, Result, Rng, Scalar, Shape, Tensor};

/// What one forward and one backward give. The dx of an input without a derivative stays empty.
#[derive(Clone, Debug)]
pub(crate) struct Pass<T> {
    pub(crate) ys: Vec<Tensor<T>>,
    pub(crate) dxs: Vec<Tensor<T>>,
    pub(crate) grads: Grads<T>,
}

/// The tensors as references.
pub(crate) fn refs<T>(tensors: &[Tensor<T>]) -> Vec<&Tensor<T>> {
    tensors.iter().collect()
}

/// ∂E/∂y of every output.
pub(crate) fn present<T>(dys: &[Tensor<T>]) -> Vec<Option<&Tensor<T>>> {
    dys.iter().map(Some).collect()
}

/// The shapes of the tensors.
pub(crate) fn shapes<T: Scalar>(tensors: &[Tensor<T>]) -> Vec<Shape> {
    tensors.iter().map(|t| *t.shape()).collect()
}

/// Empty tensors.
pub(crate) fn buffers<T: Scalar>(n: usize) -> Vec<Tensor<T>> {
    vec![Tensor::default(); n]
}

/// One forward into fresh buffers.
pub(crate) fn forward<M: Module>(
    module: &M,
    xs: &[Tensor<M::T>],
    cx: Context,
) -> Result<(Vec<Tensor<M::T>>, M::State)> {
    let (mut ys, mut state) = (buffers(module.outputs()), M::State::default());
    module.apply(&refs(xs), &mut ys, &mut state, cx)?;
    Ok((ys, state))
}

/// The inputs, the outputs and ∂E/∂y of a call.
pub(crate) type Recorded<'a, T> = (&'a [Tensor<T>], &'a [Tensor<T>], &'a [Option<&'a Tensor<T>>]);

/// Adds to `grads` and overwrites those of `dxs` that are requested and have a derivative.
pub(crate) fn backward<M: Module>(
    module: &M,
    (xs, ys, dys): Recorded<'_, M::T>,
    state: &mut M::State,
    grads: &mut Grads<M::T>,
    dxs: &mut [Tensor<M::T>],
    requested: impl Fn(usize) -> bool,
) -> Result<()> {
    let mut dxs: Vec<_> = dxs
        .iter_mut()
        .enumerate()
        .map(|(i, dx)| (requested(i) && module.differentiable_input(i)).then_some(dx))
        .collect();
    module.pull(ModuleCall::new(module, &refs(xs), ys, dys)?, state, grads, &mut dxs)
}

/// Forward and backward with fresh buffers.
pub(crate) fn pass<M: Module>(
    module: &M,
    xs: &[Tensor<M::T>],
    dys: &[Option<&Tensor<M::T>>],
    cx: Context,
) -> Result<Pass<M::T>> {
    let (ys, mut state) = forward(module, xs, cx)?;
    let (mut grads, mut dxs) = (Grads::new(module), buffers(xs.len()));
    backward(module, (xs, &ys, dys), &mut state, &mut grads, &mut dxs, |_| true)?;
    Ok(Pass { ys, dxs, grads })
}

/// Random values of magnitude about 1 and of both signs, none of them near 0: each output counts in E = Σ R ⊙ Y.
pub(crate) fn weights(shape: Shape, rng: &mut Rng) -> Tensor<f64> {
    Tensor::from_fn(shape, |_| {
        let size = 0.5 + rng.uniform();
        if rng.bits() & 1 == 0 { size } else { -size }
    })
}
