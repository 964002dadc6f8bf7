//! A model as a function of its inputs: the score of each sample, and ∂s/∂x.

use super::Score;
use crate::finite;
use chainrule_core::{Context, Error, Grads, Module, ModuleCall, Result, Scalar, Tensor};

/// The memory of passes over one model.
pub(super) struct Passes<'m, M: Module> {
    model: &'m M,
    state: M::State,
    ys: Vec<Tensor<M::T>>,
    dys: Vec<Tensor<M::T>>,
    /// ∂s/∂θ comes with ∂s/∂x and is dropped.
    grads: Grads<M::T>,
    /// ∂s/∂xᵢ of the inputs that have one.
    pub(super) dxs: Vec<Option<Tensor<M::T>>>,
}

impl<'m, T: Scalar, M: Module<T = T>> Passes<'m, M> {
    /// For inputs like these.
    pub(super) fn new(model: &'m M, xs: &[&Tensor<T>]) -> Result<Self> {
        model.validate()?;
        if xs.len() != model.inputs() {
            return Err(Error::shape(format!("expected {} inputs, got {}", model.inputs(), xs.len())));
        }
        let samples = xs.first().and_then(|x| x.shape().first()).copied().unwrap_or(0);
        if samples == 0 {
            return Err(Error::shape("expected inputs of one sample or more, got none"));
        }
        let mut dxs = Vec::new();
        for (i, x) in xs.iter().enumerate() {
            if let Some(error) = finite::sample(format_args!("input {i}"), x) {
                return Err(error);
            }
            dxs.push(model.differentiable_input(i).then(Tensor::default));
        }
        let (ys, dys) = (0..model.outputs()).map(|_| (Tensor::default(), Tensor::default())).unzip();
        Ok(Self { model, state: Default::default(), ys, dys, grads: Grads::new(model), dxs })
    }

    /// Whether s has a derivative with respect to an input.
    pub(super) fn require_derivative(&self) -> Result<()> {
        match self.dxs.iter().any(Option::is_some) {
            true => Ok(()),
            false => Err(Error::value(
                "expected an input with a derivative, got ids or masks alone: explain the part of the model behind its embedding",
            )),
        }
    }

    /// The scores, by inference.
    pub(super) fn scores(&mut self, xs: &[&Tensor<T>], score: &impl Score<T>) -> Result<Vec<T>> {
        self.model.apply(xs, &mut self.ys, &mut self.state, Context::infer())?;
        self.score(xs, score)
    }

    /// The scores, and ∂s/∂x of each sample in `dxs`: scores depend on their own sample alone, so the gradient of their sum is that of
    /// each.
    pub(super) fn gradients(&mut self, xs: &[&Tensor<T>], score: &impl Score<T>) -> Result<Vec<T>> {
        self.model.apply(xs, &mut self.ys, &mut self.state, Context::frozen())?;
        let scores = self.score(xs, score)?;
        self.grads.zero();
        let dys: Vec<_> = self.dys.iter().map(Some).collect();
        let mut requested: Vec<_> = self.dxs.iter_mut().map(Option::as_mut).collect();
        let call = ModuleCall::recorded(xs, &self.ys, &dys)?;
        self.model.pull(call, &mut self.state, &mut self.grads, &mut requested)?;
        self.grads.check()?;
        for (i, dx) in self.dxs.iter().enumerate() {
            if let Some(error) =
                dx.as_ref().and_then(|dx| finite::sample(format_args!("∂s/∂x of input {i}"), dx))
            {
                return Err(error);
            }
        }
        Ok(scores)
    }

    fn score(&mut self, xs: &[&Tensor<T>], score: &impl Score<T>) -> Result<Vec<T>> {
        for (y, dy) in self.ys.iter().zip(&mut self.dys) {
            dy.reset(*y.shape()).fill(T::ZERO);
        }
        let scores = score.score(&self.ys, &mut self.dys)?;
        let samples = xs[0].shape()[0];
        if scores.len() != samples {
            return Err(Error::shape(format!(
                "score: expected one for each of {samples} samples, got {}",
                scores.len()
            )));
        }
        match scores.iter().position(|s| !s.is_finite()) {
            None => Ok(scores),
            Some(n) => {
                Err(Error::value(format!("score: expected a finite one, got {} of sample {n}", scores[n])))
            }
        }
    }
}
