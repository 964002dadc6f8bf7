//! What lies between a forward pass and the optimizer's step.

use crate::{
    Call, Closure, Context, Error, Grads, Inputs, Module, ModuleCall, Objective, Optimizer, Parameters,
    Result, TargetList, module::apply,
};
use chainrule_tensor::{Scalar, Shape, Tensor, kernels::elementwise};
use std::fmt;

/// The outputs, the cache, ∂E/∂y and ∂E/∂θ of a model in training: forward, loss, backward, update.
///
/// After the first step of a size nothing is allocated. Each thread has its own; their gradients are added.
///
/// ```
/// # use chainrule_core::{Call, Context, Grads, Init, Layer, Objective, Optimizer, Param, Parameters, Params, ParamsMut, Pass, Result, Scalar, Shape, Tensor};
/// # fn train<M, L, O>(mut model: M, loss: L, mut optimizer: O, x: &Tensor, t: &Tensor) -> Result<()>
/// # where M: chainrule_core::Module<T = f32>, L: Objective<T = f32>, O: Optimizer<f32> {
/// let mut pass = Pass::new(&model);
/// for step in 0..100 {
///     pass.forward(&model, x, Context::train(1).step(step))?; // y
///     pass.loss(&loss, t)?; // E and ∂E/∂y
///     pass.backward(&model, x)?; // ∂E/∂θ
///     pass.update(&mut model, &mut optimizer)?; // θ
/// }
/// # Ok(())
/// # }
/// ```
pub struct Pass<M: Module> {
    state: M::State,
    /// The shapes of the inputs of the last forward.
    shapes: Vec<Shape>,
    ys: Vec<Tensor<M::T>>,
    /// ∂E/∂yⱼ of the first outputs, those that the loss reads.
    dys: Vec<Tensor<M::T>>,
    grads: Grads<M::T>,
    /// Whether `grads` are those of a step that was taken: the next backward starts from zero.
    spent: bool,
}

impl<M: Module> Pass<M> {
    /// A pass of a model.
    pub fn new(model: &M) -> Self {
        let ys = (0..model.outputs()).map(|_| Tensor::default()).collect();
        Self {
            state: Default::default(),
            shapes: Vec::new(),
            ys,
            dys: Vec::new(),
            grads: Grads::new(model),
            spent: false,
        }
    }

    /// y = f(x; θ), recorded as the context says; returns the first output.
    ///
    /// # Errors
    /// As [`Module::apply`].
    pub fn forward(&mut self, model: &M, inputs: impl Inputs<M::T>, cx: Context) -> Result<&Tensor<M::T>> {
        let Self { state, shapes, ys, .. } = self;
        inputs.with(|xs| {
            shapes.clear();
            shapes.extend(xs.iter().map(|x| *x.shape()));
            apply(model, xs, ys, state, cx)
        })?;
        self.ys.first().ok_or_else(|| Error::value("expected a model with an output, got one without"))
    }

    /// E(y, t) of the outputs, and ∂E/∂y for backward.
    ///
    /// # Errors
    /// As [`Objective::value_and_gradients`].
    pub fn loss(
        &mut self,
        loss: &(impl Objective<T = M::T> + ?Sized),
        targets: impl TargetList<M::T>,
    ) -> Result<M::T> {
        let n = loss.predictions();
        if n > self.ys.len() {
            return Err(Error::shape(format!(
                "loss: expected {n} predictions, got {} outputs",
                self.ys.len()
            )));
        }
        self.dys.resize_with(n, Tensor::default);
        let (ys, dys) = (&self.ys[..n], &mut self.dys[..]);
        targets.with(|targets| ys.with(|ys| loss.value_and_gradients(ys, targets, dys)))
    }

    /// Multiplies ∂E/∂y: the share of this batch in an accumulated step.
    pub fn scale(&mut self, share: M::T) {
        if share != M::T::ONE {
            self.dys.iter_mut().for_each(|dy| elementwise::scale(dy.data_mut(), share));
        }
    }

    /// Adds ∂E/∂θ to the gradients; the first time after an update, to zeros. The inputs are those of [`Pass::forward`].
    ///
    /// # Errors
    /// As [`Module::pull`], and if the model is another than the pass is of.
    pub fn backward(&mut self, model: &M, inputs: impl Inputs<M::T>) -> Result<()> {
        if std::mem::take(&mut self.spent) {
            self.grads.zero();
        }
        let Self { state, shapes, ys, dys, grads, .. } = self;
        inputs.with(|xs| {
            if xs.len() != shapes.len() || xs.iter().zip(&*shapes).any(|(x, shape)| x.shape() != shape) {
                let got: Vec<_> = xs.iter().map(|x| x.shape()).collect();
                return Err(Error::shape(format!(
                    "backward: expected the inputs of the forward pass, {shapes:?}, got {got:?}"
                )));
            }
            if let ([x], [y], [dy]) = (xs, &ys[..], &dys[..]) {
                model.pull_one(Call::recorded(x, y, dy)?, state, grads, None)?;
                return grads.check();
            }
            // References to few outputs and inputs stand on the stack: a step allocates nothing.
            const FEW: usize = 8;
            let (n, m) = (xs.len(), ys.len());
            if n > FEW || m > FEW {
                let dys: Vec<_> = (0..m).map(|j| dys.get(j)).collect();
                let mut none: Vec<Option<&mut Tensor<M::T>>> = (0..n).map(|_| None).collect();
                model.pull(ModuleCall::recorded(xs, ys, &dys)?, state, grads, &mut none)?;
                return grads.check();
            }
            let dys: [Option<&Tensor<M::T>>; FEW] = std::array::from_fn(|j| dys.get(j));
            let mut none: [Option<&mut Tensor<M::T>>; FEW] = [const { None }; FEW];
            model.pull(ModuleCall::recorded(xs, ys, &dys[..m])?, state, grads, &mut none[..n])?;
            grads.check()
        })
    }

    /// One step of the optimizer along the gradients, and batch statistics folded into the model.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn update(&mut self, model: &mut M, optimizer: &mut (impl Optimizer<M::T> + ?Sized)) -> Result<()> {
        optimizer.step(model, &self.grads)?;
        model.fold(&self.state);
        self.spent = true;
        Ok(())
    }

    /// One step of an optimizer that may evaluate the loss at several points, such as L-BFGS, in place of the four calls
    /// above: `evaluate` runs forward, loss and backward and returns the loss. Returns the loss of the first evaluation.
    ///
    /// # Errors
    /// As [`Optimizer::step_with`].
    pub fn minimize(
        &mut self,
        model: &mut M,
        optimizer: &mut (impl Optimizer<M::T> + ?Sized),
        evaluate: impl FnMut(&mut Self, &M) -> Result<M::T>,
    ) -> Result<M::T> {
        let loss = optimizer.step_with(&mut Evaluated { pass: self, model, evaluate })?;
        model.fold(&self.state);
        self.spent = true;
        Ok(loss)
    }

    /// The outputs of the last forward.
    pub fn outputs(&self) -> &[Tensor<M::T>] {
        &self.ys
    }

    /// ∂E/∂yⱼ of the outputs that the loss read.
    pub fn output_gradients(&self) -> &[Tensor<M::T>] {
        &self.dys
    }

    /// ∂E/∂yⱼ of the outputs that the loss read; to be overwritten where the loss is the caller's own.
    pub fn output_gradients_mut(&mut self) -> &mut Vec<Tensor<M::T>> {
        &mut self.dys
    }

    /// The gradients; after an update those of the step, until the next backward.
    pub fn grads(&self) -> &Grads<M::T> {
        &self.grads
    }

    /// The gradients, to be clipped, averaged or replaced.
    pub fn grads_mut(&mut self) -> &mut Grads<M::T> {
        &mut self.grads
    }

    /// The cache of the last forward, for [`Module::fold`].
    pub fn state(&self) -> &M::State {
        &self.state
    }

    /// Sets the gradients to zero.
    pub fn zero(&mut self) {
        self.spent = false;
        self.grads.zero();
    }
}

/// The closure of [`Pass::minimize`].
struct Evaluated<'p, M: Module, F> {
    pass: &'p mut Pass<M>,
    model: &'p mut M,
    evaluate: F,
}

impl<M: Module, F: FnMut(&mut Pass<M>, &M) -> Result<M::T>> Closure<M::T> for Evaluated<'_, M, F> {
    fn evaluate(&mut self) -> Result<M::T> {
        self.pass.zero();
        (self.evaluate)(self.pass, self.model)
    }

    fn parts(&mut self) -> (&mut dyn Parameters<T = M::T>, &Grads<M::T>) {
        (self.model, &self.pass.grads)
    }
}

impl<M: Module> fmt::Debug for Pass<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("outputs", &self.ys).field("grads", &self.grads).finish_non_exhaustive()
    }
}
