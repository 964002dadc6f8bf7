//! Neural networks in pure Rust, on the CPU, layer by layer.
//!
//! Every layer is a forward pass and a backward pass derived by hand: given ∂E/∂Y it returns ∂E/∂X and adds to ∂E/∂θ.
//! That is all the chain rule needs, so any composition trains, without an autograd tape.
//!
//! ```
//! use chainrule::prelude::*;
//!
//! let x = Tensor::from([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]);
//! let t = Tensor::from([[0.0], [1.0], [1.0], [0.0]]);
//!
//! let mut model: Sequential =
//!     Sequential::new().add(Linear::new(2, 8)).add(Tanh::new()).add(Linear::new(8, 1)).init(1)?;
//! let (loss, mut optimizer) = (Mse::new(), Adam::new(0.05));
//! let mut grads = Grads::new(&model);
//! let (mut y, mut dy, mut cache) = Default::default();
//!
//! for step in 0..500 {
//!     model.forward(&x, &mut y, &mut cache, &mut Context::train(1).step(step))?;
//!     loss.gradient(&y, &t, &mut dy)?;
//!     grads.zero();
//!     model.backward(Call { x: &x, y: &y, dy: &dy }, &mut cache, &mut grads, None)?;
//!     optimizer.step(&mut model, &grads)?;
//! }
//!
//! let answers = model.infer(&x)?;
//! assert!(answers.data().iter().zip(t.data()).all(|(y, t)| (y - t).abs() < 0.5));
//! # Ok::<(), Error>(())
//! ```
//!
//! The crates behind it can be used one by one; this one re-exports them:
//! [`tensor`], [`core`], [`layers`], [`losses`], [`optim`], [`gradcheck`], [`data`], [`io`], [`train`].

pub use chainrule_core as core;
pub use chainrule_data as data;
pub use chainrule_gradcheck as gradcheck;
pub use chainrule_io as io;
pub use chainrule_layers as layers;
pub use chainrule_losses as losses;
pub use chainrule_optim as optim;
pub use chainrule_tensor as tensor;
pub use chainrule_train as train;

/// What most programs need: `use chainrule::prelude::*;`.
pub mod prelude {
    pub use chainrule_core::{
        Call, Context, Error, Grads, Init, Kind, Layer, Loss, MultiCall, MultiLayer, Optimizer, Param,
        Parameters, Params, ParamsMut, Reduction, Result, Rng, Scalar, Session, Shape, Target, Tensor,
    };
    pub use chainrule_data::*;
    pub use chainrule_layers::*;
    pub use chainrule_losses::*;
    pub use chainrule_optim::*;
    pub use chainrule_train::*;
}

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
