//! One step: forward, loss, backward, clip, optimizer, absorb.

use crate::{Trainer, finite};
use chainrule_core::{
    Call, Context, Error, Grads, Layer, Loss, Optimizer, Parameters, Result, Scalar, Target, Tensor,
};
use chainrule_tensor::kernels::elementwise;

impl<T: Scalar, M: Layer<T>, L: Loss<T>, O: Optimizer<T>> Trainer<M, L, O, T> {
    /// Takes one step on a batch and returns its loss, that of the weights before the step. After the first step of a
    /// size nothing is allocated.
    ///
    /// # Errors
    /// Wrong shapes, a class out of range, or something that is not finite, named by sample or by layer; the weights are
    /// then those from before the step.
    pub fn step<'a>(&mut self, x: &Tensor<T>, target: impl Into<Target<'a, T>>) -> Result<T> {
        let target = target.into();
        if let Some(error) = finite::sample("input", x) {
            return Err(error);
        }
        self.renew_grads();
        self.grads.zero();
        let loss = self.pass(x, target, T::ONE)?;
        self.update()?;
        self.model.absorb(&self.cache);
        Ok(loss)
    }

    /// Adds `share` ∂E/∂θ of a batch to the gradients, and returns E.
    pub(crate) fn pass(&mut self, x: &Tensor<T>, target: Target<'_, T>, share: T) -> Result<T> {
        let mut cx = Context::train(self.seed).step(self.passes);
        if self.check_layers {
            cx = cx.check_finite();
        }
        self.model.forward(x, &mut self.y, &mut self.cache, &mut cx)?;
        let loss = self.loss.value_and_gradient(&self.y, target, &mut self.dy)?;
        if !loss.is_finite() {
            return Err(self.not_finite(x, target, cx));
        }
        if share != T::ONE {
            elementwise::scale(self.dy.data_mut(), share);
        }
        let call = Call { x, y: &self.y, dy: &self.dy };
        self.model.backward(call, &mut self.cache, &mut self.grads, None)?;
        self.passes += 1;
        Ok(loss)
    }

    /// Moves the weights along the gradients.
    pub(crate) fn update(&mut self) -> Result<()> {
        if let Some(error) = finite::gradient(&self.model, &self.grads) {
            return Err(error);
        }
        self.clip.apply(&mut self.grads)?;
        if let Some(rate) = &mut self.rate {
            self.optimizer.set_learning_rate(rate(self.steps));
        }
        self.optimizer.step(&mut self.model, &self.grads)?;
        self.steps += 1;
        Ok(())
    }

    /// Why a loss is infinite or NaN: the same pass again, with eyes open.
    #[cold]
    pub(crate) fn not_finite(&mut self, x: &Tensor<T>, target: Target<'_, T>, cx: Context) -> Error {
        let data = || {
            let target = target.values().ok().and_then(|t| finite::sample("target", t));
            finite::sample("input", x).or(target).or_else(|| finite::parameter(&self.model))
        };
        if let Some(error) = data() {
            return error;
        }
        let again = self.model.forward(x, &mut self.y, &mut self.cache, &mut cx.check_finite());
        again.err().or_else(|| finite::sample("the model's output", &self.y)).unwrap_or_else(|| {
            let largest = self.y.data().iter().fold(T::ZERO, |m, v| m.max(v.abs()));
            Error::value(format!(
                "expected a finite loss, got one that is infinite or NaN though the model's outputs are finite, up to \
                 {largest:e}: a smaller learning rate may help"
            ))
        })
    }

    /// Makes new gradients if the model is another one than they were made for.
    pub(crate) fn renew_grads(&mut self) {
        if !std::mem::take(&mut self.touched) {
            return;
        }
        let (mut known, mut volume) = (true, 0);
        self.model.visit(&mut |_, param| {
            if !param.is_buffer() {
                known &= self.grads.range(param).is_some_and(|range| range.len() == param.volume());
                volume += param.volume();
            }
        });
        if !known || volume < self.grads.values().len() {
            self.grads = Grads::new(&self.model);
        }
    }
}
