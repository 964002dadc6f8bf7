//! The contract of [chainrule](https://docs.rs/chainrule), and nothing else: what a layer, a loss and an optimizer are.
//!
//! Given ∂E/∂Y a layer returns ∂E/∂X and adds its share to ∂E/∂θ. That is all the chain rule needs. A layer of one's own
//! is one `impl`:
//!
//! ```
//! use chainrule_core::{Call, Context, Grads, Layer, Module, Param, Parameters, Params, ParamsMut, Result};
//! use chainrule_tensor::{Init, Scalar, Shape, Tensor};
//!
//! /// y = s x, with one learned factor s.
//! #[derive(Clone)]
//! struct Gain<T>(Param<T>);
//!
//! impl<T: Scalar> Layer for Gain<T> {
//!     type T = T;
//!     type Cache = ();
//!     fn output_shape(&self, input: &[usize]) -> Result<Shape> {
//!         Shape::new(input)
//!     }
//!     fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
//!         let s = self.0.value()?[0];
//!         y.reset(*x.shape()).iter_mut().zip(x.data()).for_each(|(y, &x)| *y = s * x);
//!         Ok(())
//!     }
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
//!     fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
//!         out.add(&self.0);
//!     }
//!     fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
//!         out.add(&mut self.0);
//!     }
//! }
//!
//! let gain = Gain(Param::new("gain", [1], Init::Constant(3.0))).init(0)?;
//! assert_eq!(gain.infer(&Tensor::from([1.0f32, 2.0]))?.data(), [3.0, 6.0]);
//! # Ok::<(), chainrule_core::Error>(())
//! ```

mod boxed;
mod context;
mod grads;
mod layer;
mod loss;
mod memory;
mod module;
mod optimizer;
mod param;
mod parameters;
mod parts;
mod pass;
mod probe;
mod registry;
mod session;
mod spec;
mod summary;
mod target;
mod watch;

pub use boxed::{AnyState, BoxModule};
pub use chainrule_tensor::{
    self as tensor, Error, Fan, Init, Kind, Result, Rng, Scalar, Shape, Tensor, text,
};
pub use context::{Context, Mode, Noise};
pub use grads::Grads;
pub use layer::{Call, InPlace, Layer};
pub use loss::{Loss, Objective, Reduction};
pub use memory::{Memory, StreamState};
pub use module::{InputShapes, Inputs, Module, ModuleCall};
pub use optimizer::{
    Closure, Evaluation, Optimizer, OptimizerState, Schedule, StateValue, StateVisitor, unknown_setting,
};
pub use param::{Learning, Param, ParamId, Params, ParamsMut, Path, freezes};
pub use parameters::Parameters;
pub use parts::Parts;
pub use pass::Pass;
pub use probe::{Captured, Probe};
pub use registry::{Args, Entry, Example, Facts, FromSpec, FromValue, Registry};
pub use session::Session;
pub use spec::{Spec, Value};
pub use summary::{Row, Summary};
pub use target::{Classes, Sequences, Target, TargetList, Targets};
pub use watch::{Event, Observer, Seen, unwatch, watch};

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
