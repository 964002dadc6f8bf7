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

pub(crate) mod adabelief;
pub(crate) mod adadelta;
pub(crate) mod adafactor;
pub(crate) mod adagrad;
pub(crate) mod adam;
pub(crate) mod adamax;
pub(crate) mod adamw;
pub(crate) mod adan;
pub(crate) mod ademamix;
pub(crate) mod asgd;
mod average;
mod check;
mod clip;
mod constraint;
mod driver;
mod group;
pub(crate) mod lamb;
pub(crate) mod lars;
pub(crate) mod lbfgs;
pub(crate) mod lion;
pub(crate) mod lookahead;
pub(crate) mod muon;
pub(crate) mod nadam;
pub(crate) mod novograd;
pub(crate) mod optax_adafactor;
pub(crate) mod radam;
mod registry;
pub(crate) mod rmsprop;
pub(crate) mod rprop;
mod rule;
pub(crate) mod sam;
pub mod schedule;
mod schedule_free;
pub(crate) mod schedule_free_adamw;
pub(crate) mod schedule_free_sgd;
pub(crate) mod sgd;
#[cfg(test)]
mod testing;
mod wolfe;
mod wrapper;
pub(crate) mod yogi;

pub use adabelief::{AdaBelief, AdaBeliefRule};
pub use adadelta::{Adadelta, AdadeltaRule};
pub use adafactor::{Adafactor, AdafactorRule};
pub use adagrad::{Adagrad, AdagradRule};
pub use adam::{Adam, AdamRule};
pub use adamax::{Adamax, AdamaxRule};
pub use adamw::AdamW;
pub use adan::{Adan, AdanRule};
pub use ademamix::{AdEMAMix, AdEMAMixRule};
pub use asgd::{Asgd, AsgdRule};
pub use average::Average;
pub use chainrule_core as core;
pub use clip::{add_noise, centralize, clip_adaptive, clip_each_norm, clip_norm, clip_value};
pub use constraint::Constraint;
pub use driver::Driver;
pub use group::Group;
pub use lamb::{Lamb, LambRule};
pub use lars::{Lars, LarsRule};
pub use lbfgs::Lbfgs;
pub use lion::{Lion, LionRule};
pub use lookahead::Lookahead;
pub use muon::{Muon, MuonRule};
pub use nadam::{NAdam, NAdamRule};
pub use novograd::{NovoGrad, NovoGradRule};
pub use optax_adafactor::{OptaxAdafactor, OptaxAdafactorRule};
pub use radam::{RAdam, RAdamRule};
pub use registry::registry;
pub use rmsprop::{RmsProp, RmsPropRule};
pub use rprop::{Rprop, RpropRule};
pub use rule::{Rule, Settings, StateTensor, Terms, Update};
pub use sam::Sam;
pub use schedule_free_adamw::{ScheduleFreeAdamW, ScheduleFreeAdamWRule};
pub use schedule_free_sgd::{ScheduleFreeSgd, ScheduleFreeSgdRule};
pub use sgd::{Sgd, SgdRule};
pub use yogi::{Yogi, YogiRule};

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
