//! The contract of [chainrule](https://docs.rs/chainrule), and nothing else: what a layer, a loss and an optimizer are.
//!
//! Given ∂E/∂Y a layer returns ∂E/∂X and adds its share to ∂E/∂θ. That is all the chain rule needs. A layer of one's own
//! is one `impl`:
//!
//! ```
//! use chainrule_core::{Call, Context, Grads, Layer, Param, Params, ParamsMut, Result};
//! use chainrule_tensor::{Init, Scalar, Shape, Tensor};
//!
//! /// y = s x, with one learned number s.
//! #[derive(Clone)]
//! struct Gain<T>(Param<T>);
//!
//! impl<T: Scalar> Layer<T> for Gain<T> {
//!     type Cache = ();
//!     fn output_shape(&self, input: &[usize]) -> Result<Shape> {
//!         Shape::new(input)
//!     }
//!     fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
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
mod multi;
mod optimizer;
mod param;
mod session;
mod summary;

pub use boxed::{AnyCache, BoxLayer, BoxMulti};
pub use chainrule_tensor::{Error, Init, Kind, Result, Rng, Scalar, Shape, Tensor};
pub use context::Context;
pub use grads::Grads;
pub use layer::{Call, InPlace, Layer};
pub use loss::{Loss, Reduction, Target};
pub use multi::{MultiCall, MultiLayer};
pub use optimizer::Optimizer;
pub use param::{Param, ParamId, Parameters, Params, ParamsMut, Path};
pub use session::Session;
pub use summary::{Row, Summary};

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
