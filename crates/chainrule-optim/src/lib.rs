//! Optimizers, one file each; learning-rate schedules; gradient clipping.
//!
//! ```
//! use chainrule_core::{Grads, Init, Optimizer, Param, Parameters, Schedule, parameters};
//! use chainrule_optim::{Adam, clip_norm, schedule::Cosine};
//! # use chainrule_core::{Params, ParamsMut};
//! struct Bowl(Param<f64>);
//! # impl Parameters for Bowl {
//! #     type T = f64;
//! #     fn list<'a>(&'a self, out: &mut Params<'_, 'a, f64>) { out.add(&self.0) }
//! #     fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f64>) { out.add(&mut self.0) }
//! # }
//!
//! // E = ½ w², so ∂E/∂w = w.
//! let mut model = Bowl(Param::new("w", [1], Init::Constant(3.0))).init(0)?;
//! let (mut adam, schedule, mut grads) = (Adam::new(0.1), Cosine::new(100), Grads::new(&model));
//! for step in 0..100 {
//!     let w = model.0.value()?[0];
//!     grads.values_mut()[0] = w;
//!     clip_norm(&mut grads, 1.0)?;
//!     adam.set_learning_rate(0.1 * schedule.factor(step));
//!     adam.step(&mut model, &grads)?;
//! }
//! assert!(model.0.value()?[0].abs() < 0.5);
//! # Ok::<(), chainrule_core::Error>(())
//! ```
//!
//! An optimizer is a [`Rule`] for one tensor, and a [`Driver`] that does the rest. One that looks at all tensors together,
//! or evaluates the loss more than once a step, implements [`chainrule_core::Optimizer`] itself.

pub(crate) mod adam;
pub(crate) mod adamw;
mod check;
mod clip;
mod driver;
mod group;
mod registry;
mod rule;
pub mod schedule;
pub(crate) mod sgd;
#[cfg(test)]
mod testing;

pub use adam::{Adam, AdamRule};
pub use adamw::AdamW;
pub use chainrule_core as core;
pub use clip::{clip_norm, clip_value};
pub use driver::Driver;
pub use group::Group;
pub use registry::registry;
pub use rule::{Rule, Settings, StateTensor, Terms, Update};
pub use sgd::{Sgd, SgdRule};

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
