//! The contract of optimizers.

use crate::{Grads, Parameters, Result};
use chainrule_tensor::Scalar;

/// Moves the parameters of a model along their gradients, one step at a time.
///
/// Laws: frozen parameters and buffers do not move; a step with the same state, parameters and gradients gives the same
/// bits; after the first step nothing is allocated.
pub trait Optimizer<T: Scalar>: Send {
    /// Takes one step.
    ///
    /// # Errors
    /// The gradients are of another model, a parameter has no numbers, or a hyper-parameter makes no sense.
    fn step(&mut self, model: &mut dyn Parameters<T>, grads: &Grads<T>) -> Result<()>;

    /// The learning rate.
    fn learning_rate(&self) -> f64;

    /// Sets the learning rate; schedules call this before a step.
    fn set_learning_rate(&mut self, rate: f64);
}
