//! Optimizers, one file each; learning-rate schedules; gradient clipping.
//!
//! ```
//! use chainrule_core::{Context, Grads, Init, Layer, Optimizer, Param, Params, ParamsMut, Parameters};
//! # use chainrule_core::{Call, Result, Shape, Tensor};
//! use chainrule_optim::{Adam, Cosine, Schedule, clip_norm};
//! # #[derive(Clone)] struct Bowl(Param<f64>);
//! # impl Layer<f64> for Bowl {
//! #     type Cache = ();
//! #     fn output_shape(&self, input: &[usize]) -> Result<Shape> { Shape::new(input) }
//! #     fn forward(&self, _: &Tensor<f64>, _: &mut Tensor<f64>, _: &mut (), _: &mut Context) -> Result<()> { Ok(()) }
//! #     fn backward(&self, _: Call<'_, f64>, _: &mut (), _: &mut Grads<f64>, _: Option<&mut Tensor<f64>>) -> Result<()> { Ok(()) }
//! #     fn params<'a>(&'a self, out: &mut Params<'_, 'a, f64>) { out.add(&self.0) }
//! #     fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f64>) { out.add(&mut self.0) }
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

mod adam;
mod adamw;
mod clip;
mod driver;
mod group;
pub mod schedule;
mod sgd;

pub use adam::Adam;
pub use adamw::AdamW;
pub use clip::{clip_norm, clip_value};
pub use group::Group;
pub use schedule::{Constant, Cosine, LinearWarmup, Schedule, Sequence, Step};
pub use sgd::Sgd;

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
