//! Gradients: one flat buffer, outside the layers.

use crate::{Param, ParamId, Parameters};
use chainrule_tensor::{Error, Result, Scalar, kernels::elementwise};
use std::ops::Range;

/// ∂E/∂θ of a model in one flat buffer, laid out in the order of its parameters. Clipping, averaging and accumulation are
/// loops over one slice.
#[derive(Clone, Debug)]
pub struct Grads<T> {
    values: Vec<T>,
    /// Sorted by id.
    slots: Vec<(ParamId, Range<usize>)>,
}

impl<T: Scalar> Grads<T> {
    /// Zeros for every parameter of a model, frozen ones included.
    pub fn new(model: &(impl Parameters<T> + ?Sized)) -> Self {
        let (mut slots, mut end) = (Vec::new(), 0);
        model.visit(&mut |_, p| {
            if !p.is_buffer() && !slots.iter().any(|(id, _)| *id == p.id()) {
                slots.push((p.id(), end..end + p.volume()));
                end += p.volume();
            }
        });
        slots.sort_unstable_by_key(|(id, _)| *id);
        Self { values: vec![T::ZERO; end], slots }
    }

    /// Where a parameter's gradient stands in [`Grads::values`]; `None` if it is of another model or a buffer.
    #[inline]
    pub fn range(&self, param: &Param<T>) -> Option<Range<usize>> {
        let at = self.slots.binary_search_by_key(&param.id(), |(id, _)| *id).ok()?;
        Some(self.slots[at].1.clone())
    }

    /// The gradient to add to; `None` when nobody wants it: the parameter is frozen.
    ///
    /// # Panics
    /// If the parameter is trainable and of another model: a gradient would be lost.
    #[inline]
    pub fn of(&mut self, param: &Param<T>) -> Option<&mut [T]> {
        if !param.trainable() {
            return None;
        }
        let range = self.range(param).expect("gradients were made for another model");
        Some(&mut self.values[range])
    }

    /// The gradient of a parameter, to be read.
    pub fn get(&self, param: &Param<T>) -> Option<&[T]> {
        self.range(param).map(|range| &self.values[range])
    }

    /// Sets all to zero.
    pub fn zero(&mut self) {
        elementwise::zero(&mut self.values);
    }

    /// All gradients.
    #[inline]
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// All gradients, to be changed.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// Adds the gradients of another shard of the same model.
    ///
    /// # Errors
    /// They are of a model with another number of parameters.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        if self.values.len() != other.values.len() {
            return Err(Error::shape(format!(
                "expected gradients of {} parameters, got {}",
                self.values.len(),
                other.values.len()
            )));
        }
        elementwise::add_assign(&mut self.values, &other.values);
        Ok(())
    }

    /// Multiplies all by a number.
    pub fn scale(&mut self, by: T) {
        elementwise::scale(&mut self.values, by);
    }
}
