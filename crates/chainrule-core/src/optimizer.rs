//! The contract of optimizers and of schedules.

use crate::{Grads, Parameters, Result, Spec};
use chainrule_tensor::{Error, Scalar, Tensor, text};
use std::collections::BTreeMap;

/// Moves the parameters of a model along their gradients, one step at a time.
///
/// Laws: frozen parameters and buffers do not move; a step with the same state, parameters and gradients gives the same
/// bits; after the first step nothing is allocated. Most optimizers are a rule for one tensor: `chainrule_optim::Rule`
/// asks for that alone.
pub trait Optimizer<T: Scalar>: Send {
    /// Takes one step.
    ///
    /// # Errors
    /// The gradients are of another model, a parameter is not initialised, or a hyper-parameter makes no sense.
    fn step(&mut self, model: &mut dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()>;

    /// Takes one step of a method that may evaluate the loss at several points, such as L-BFGS; returns the loss of the
    /// first evaluation. An optimizer of one evaluation a step need not implement it.
    ///
    /// # Errors
    /// As [`Optimizer::step`] and [`Closure::evaluate`].
    fn step_with(&mut self, closure: &mut dyn Closure<T>) -> Result<T> {
        let loss = closure.evaluate()?;
        let (model, grads) = closure.parts();
        self.step(model, grads)?;
        Ok(loss)
    }

    /// The learning rate.
    fn learning_rate(&self) -> f64;

    /// Sets the learning rate; schedules call this before a step.
    fn set_learning_rate(&mut self, rate: f64);

    /// The value of a setting that may change while it runs, by its name: `lr`, `weight_decay`, `momentum` (β₁ where there are betas, as
    /// PyTorch's cyclic schedules have it), `beta2`. `None` if there is no such.
    fn setting(&mut self, _name: &str) -> Option<f64> {
        None
    }

    /// Changes a setting that [`Optimizer::setting`] has; what it leads to is checked at the next step.
    ///
    /// # Errors
    /// There is no such setting.
    fn set_setting(&mut self, name: &str, _value: f64) -> Result<()> {
        Err(unknown_setting(name))
    }

    /// Whether the hyper-parameters make sense together.
    ///
    /// # Errors
    /// A value error that says which hyper-parameter is wrong and why.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Forgets the state: the next step is the first.
    fn reset(&mut self) {}

    /// Calls `visit` with the state of every trainable parameter of the model that it steps: the parameter's path, the
    /// state's name (PyTorch's: `exp_avg`, `step`) and its value. State of all parameters together has an empty path.
    ///
    /// # Errors
    /// The state is of another model.
    fn visit_state(&self, _model: &dyn Parameters<T = T>, _visit: &mut StateVisitor<'_, T>) -> Result<()> {
        Ok(())
    }

    /// Replaces the state by one that was saved. The model may be another one than it was saved of, if its paths and shapes
    /// are the same. After an error nothing has changed.
    ///
    /// # Errors
    /// One state error that names everything that is missing, unexpected or mis-shaped.
    fn restore_state(&mut self, _model: &dyn Parameters<T = T>, state: OptimizerState<T>) -> Result<()> {
        match state.iter().next() {
            None => Ok(()),
            Some((path, name, _)) => {
                Err(Error::state(format!("unexpected optimizer state {name} of `{path}`")))
            }
        }
    }

    /// Hands the state over from the parameters of one model to those of another with the same paths and shapes, such as a
    /// clone, which is stepped from now on. After an error nothing has changed.
    ///
    /// # Errors
    /// The models differ in their paths or shapes.
    fn adopt(&mut self, _from: &dyn Parameters<T = T>, _to: &dyn Parameters<T = T>) -> Result<()> {
        Ok(())
    }

    /// What this optimizer is: its kind and settings, from which a [`crate::Registry`] builds it again.
    fn spec(&self) -> Spec {
        Spec::opaque::<Self>()
    }
}

impl<T: Scalar, O: Optimizer<T> + ?Sized> Optimizer<T> for Box<O> {
    fn step(&mut self, model: &mut dyn Parameters<T = T>, grads: &Grads<T>) -> Result<()> {
        (**self).step(model, grads)
    }

    fn step_with(&mut self, closure: &mut dyn Closure<T>) -> Result<T> {
        (**self).step_with(closure)
    }

    fn learning_rate(&self) -> f64 {
        (**self).learning_rate()
    }

    fn set_learning_rate(&mut self, rate: f64) {
        (**self).set_learning_rate(rate);
    }

    fn setting(&mut self, name: &str) -> Option<f64> {
        (**self).setting(name)
    }

    fn set_setting(&mut self, name: &str, value: f64) -> Result<()> {
        (**self).set_setting(name, value)
    }

    fn check(&self) -> Result<()> {
        (**self).check()
    }

    fn reset(&mut self) {
        (**self).reset();
    }

    fn visit_state(&self, model: &dyn Parameters<T = T>, visit: &mut StateVisitor<'_, T>) -> Result<()> {
        (**self).visit_state(model, visit)
    }

    fn restore_state(&mut self, model: &dyn Parameters<T = T>, state: OptimizerState<T>) -> Result<()> {
        (**self).restore_state(model, state)
    }

    fn adopt(&mut self, from: &dyn Parameters<T = T>, to: &dyn Parameters<T = T>) -> Result<()> {
        (**self).adopt(from, to)
    }

    fn spec(&self) -> Spec {
        (**self).spec()
    }
}

/// The error of a setting that an optimizer does not have.
pub fn unknown_setting(name: &str) -> Error {
    Error::value(format!(
        "expected the name of a setting that may change while training runs, got {}",
        text::quote(name)
    ))
}

/// A loss over the parameters of a model, to be evaluated as often as an optimizer needs.
pub trait Closure<T: Scalar> {
    /// E at the present parameters; overwrites the gradients with ∂E/∂θ.
    ///
    /// # Errors
    /// Those of the passes and of the loss.
    fn evaluate(&mut self) -> Result<T>;

    /// The parameters, and the gradients of the last evaluation.
    fn parts(&mut self) -> (&mut dyn Parameters<T = T>, &Grads<T>);
}

/// A [`Closure`] made of a model, its gradients and a function that evaluates the loss and overwrites the gradients.
///
/// ```
/// # use chainrule_core::{Error, Grads, Optimizer, Parameters, Evaluation};
/// # fn f(mut model: impl Parameters<T = f64>, mut optimizer: impl Optimizer<f64>) -> Result<f64, Error> {
/// let mut grads = Grads::new(&model);
/// let mut evaluation = Evaluation::new(&mut model, &mut grads, |_model, grads| {
///     grads.zero();
///     Ok(0.0) // forward, loss and backward
/// });
/// optimizer.step_with(&mut evaluation)
/// # }
/// ```
#[derive(Debug)]
pub struct Evaluation<'m, M: Parameters, F> {
    model: &'m mut M,
    grads: &'m mut Grads<M::T>,
    evaluate: F,
}

impl<'m, M: Parameters, F: FnMut(&M, &mut Grads<M::T>) -> Result<M::T>> Evaluation<'m, M, F> {
    /// A closure over a model and its gradients.
    pub fn new(model: &'m mut M, grads: &'m mut Grads<M::T>, evaluate: F) -> Self {
        Self { model, grads, evaluate }
    }
}

impl<M: Parameters, F: FnMut(&M, &mut Grads<M::T>) -> Result<M::T>> Closure<M::T> for Evaluation<'_, M, F> {
    fn evaluate(&mut self) -> Result<M::T> {
        (self.evaluate)(self.model, self.grads)
    }

    fn parts(&mut self) -> (&mut dyn Parameters<T = M::T>, &Grads<M::T>) {
        (self.model, self.grads)
    }
}

/// A value of an optimizer's state, borrowed (`V = &Tensor<T>`) or owned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StateValue<V> {
    /// Values of any shape, often of the parameter's.
    Values(V),
    /// A count of steps, to be saved as an integer.
    Count(u64),
}

/// What [`Optimizer::visit_state`] calls with a parameter's path, the state's name and its value.
pub type StateVisitor<'v, T> = dyn FnMut(&str, &str, StateValue<&Tensor<T>>) + 'v;

/// The state of an optimizer by the paths of the parameters and by name: `head.weight`, `exp_avg`.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState<T>(BTreeMap<(String, String), StateValue<Tensor<T>>>);

impl<T> Default for OptimizerState<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Scalar> OptimizerState<T> {
    /// No state.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of the state that an optimizer keeps for a model.
    ///
    /// # Errors
    /// As [`Optimizer::visit_state`].
    pub fn of(optimizer: &(impl Optimizer<T> + ?Sized), model: &dyn Parameters<T = T>) -> Result<Self> {
        let mut all = Self::new();
        optimizer.visit_state(model, &mut |path, name, value| {
            let value = match value {
                StateValue::Values(values) => StateValue::Values(values.clone()),
                StateValue::Count(count) => StateValue::Count(count),
            };
            all.insert(path, name, value);
        })?;
        Ok(all)
    }

    /// Adds a value, or replaces the one of the same path and name.
    pub fn insert(
        &mut self,
        path: impl Into<String>,
        name: impl Into<String>,
        value: StateValue<Tensor<T>>,
    ) -> Option<StateValue<Tensor<T>>> {
        self.0.insert((path.into(), name.into()), value)
    }

    /// A value.
    pub fn get(&self, path: &str, name: &str) -> Option<&StateValue<Tensor<T>>> {
        self.0.get(&(path.to_owned(), name.to_owned()))
    }

    /// Takes a value out.
    pub fn remove(&mut self, path: &str, name: &str) -> Option<StateValue<Tensor<T>>> {
        self.0.remove(&(path.to_owned(), name.to_owned()))
    }

    /// The paths, names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &StateValue<Tensor<T>>)> {
        self.0.iter().map(|((path, name), value)| (path.as_str(), name.as_str(), value))
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A factor of the learning rate for every step, in closed form: any step can be asked for, in any order.
pub trait Schedule: Send + Sync {
    /// The factor that holds at a step, counted from 0.
    fn factor(&self, step: u64) -> f64;

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// A value error that says which is wrong and why.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// What this schedule is, from which a [`crate::Registry`] builds it again.
    fn spec(&self) -> Spec {
        Spec::opaque::<Self>()
    }
}

impl<S: Schedule + ?Sized> Schedule for Box<S> {
    fn factor(&self, step: u64) -> f64 {
        (**self).factor(step)
    }

    fn check(&self) -> Result<()> {
        (**self).check()
    }

    fn spec(&self) -> Spec {
        (**self).spec()
    }
}
