//! Neural-network layers with hand-derived backward passes, one file each: equations, code and proof.
//!
//! ```
//! use chainrule_core::{Module, Parameters, Tensor};
//! use chainrule_layers::{Linear, Sequential};
//!
//! let model = Sequential::new().add(Linear::new(2, 3)).add(Linear::new(3, 1)).init(1)?;
//! assert_eq!(model.infer(&Tensor::from([[0.5, 1.0]]))?.shape()[..], [1, 1]);
//! # Ok::<(), chainrule_core::Error>(())
//! ```

#![warn(missing_debug_implementations)]

pub mod activation;
pub mod attention;
pub mod container;
pub mod conv;
pub mod linear;
pub mod noise;
pub mod norm;
pub mod pool;
mod rank;
pub mod recurrent;
mod registry;
pub mod shape;
pub mod weight;

pub use activation::*;
pub use attention::*;
pub use chainrule_core as core;
pub use container::*;
pub use conv::*;
pub use linear::*;
pub use noise::*;
pub use norm::*;
pub use pool::*;
pub use rank::Sizes;
pub use recurrent::*;
pub use registry::registry;
pub use shape::*;
pub use weight::*;

/// What [`sequence!`] refers to.
#[doc(hidden)]
pub mod __sequence {
    pub use crate::container::sequence::*;
}

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
