//! A gradient checker, and the laws that every chainrule layer and loss obeys.
//!
//! [`check()`] and [`check_loss`] compare a backward pass with central differences and name each wrong
//! derivative: `weight[3, 1]: analytic 0.4127, numeric 0.4131`. [`Check`] has the options.
//!
//! ```
//! use chainrule_core::{Call, Context, Grads, Init, Layer, Param, Parameters, Params, ParamsMut, Result, Scalar, Shape, Tensor};
//! use chainrule_gradcheck::check;
//!
//! /// y = s x, with one learned factor s.
//! #[derive(Clone)]
//! struct Gain<T>(Param<T>);
//!
//! impl<T: Scalar> Layer for Gain<T> {
//!     // output_shape, forward, params, params_mut
//! #     type T = T;
//! #     type Cache = ();
//! #     fn output_shape(&self, input: &[usize]) -> Result<Shape> {
//! #         Shape::new(input)
//! #     }
//! #     fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
//! #         let s = self.0.value()?[0];
//! #         y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, &x)| *y = s * x);
//! #         Ok(())
//! #     }
//! #     fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
//! #         out.add(&self.0);
//! #     }
//! #     fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
//! #         out.add(&mut self.0);
//! #     }
//!     fn backward(&self, call: Call<'_, T>, _: &mut (), grads: &mut Grads<T>, dx: Option<&mut Tensor<T>>) -> Result<()> {
//!         let (s, dy) = (self.0.value()?[0], call.dy.data());
//!         if let Some(ds) = grads.of(&self.0) {
//!             ds[0] += dy.iter().zip(call.x.data()).map(|(&dy, &x)| dy * x).sum(); // ds += Σ dy x
//!         }
//!         if let Some(dx) = dx {
//!             dx.reset(*call.x.shape()).iter_mut().zip(dy).for_each(|(dx, &dy)| *dx = s * dy); // dx = s dy
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let gain = Gain(Param::new("gain", [1], Init::Constant(3.0))).init(1)?;
//! let report = check(&gain, &Tensor::from([[0.5, -1.0, 2.0]]))?;
//! assert_eq!(report.checked(), 4); // three of x and one of the gain
//! # Ok::<(), chainrule_core::Error>(())
//! ```
//!
//! A right derivative is not all: buffers are reused, gradients accumulate, threads share work. The
//! macros [`laws!`], [`loss_laws!`] and [`objective_laws!`] turn a few lines into a property test of all of it; see [`laws`](mod@laws).

mod check;
mod differences;
mod evaluate;
pub mod laws;
mod report;

pub use chainrule_core as core;
pub use check::{Check, check, check_loss};
pub use report::{Comparison, Disagreement, Report};

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
