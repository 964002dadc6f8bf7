//! Neural-network layers with hand-derived backward passes, one file each: equations, code and proof.
//!
//! ```
//! use chainrule_core::{Layer, Tensor};
//! use chainrule_layers::{Linear, Sequential};
//!
//! let model: Sequential = Sequential::new().add(Linear::new(2, 3)).add(Linear::new(3, 1)).init(1)?;
//! assert_eq!(model.infer(&Tensor::from([[0.5, 1.0]]))?.shape()[..], [1, 1]);
//! # Ok::<(), chainrule_core::Error>(())
//! ```

pub mod activation;
pub mod container;
pub mod conv;
pub mod linear;
pub mod noise;
pub mod norm;
mod pair;
pub mod pool;
pub mod shape;

pub use activation::{
    Activation, Elu, Gelu, Identity, LeakyRelu, LogSoftmax, Relu, Sigmoid, Silu, Softmax, Softplus, Tanh,
};
pub use container::{Add, Concat, Graph, Node, Parallel, Residual, Sequential};
pub use conv::{Conv2d, Padding, PaddingMode};
pub use linear::{Embedding, Linear};
pub use noise::Dropout;
pub use norm::{BatchNorm1d, BatchNorm2d, LayerNorm};
pub use pair::Pair;
pub use pool::{AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d};
pub use shape::Flatten;

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
