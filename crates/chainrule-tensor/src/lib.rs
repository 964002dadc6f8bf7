//! Tensors, seeded random numbers, initialisers and CPU kernels for [chainrule](https://docs.rs/chainrule).
//!
//! ```
//! use chainrule_tensor::{Tensor, kernels::gemm::{Mat, MatMut, matmul}};
//!
//! let a = Tensor::from([[1.0f32, 2.0], [3.0, 4.0]]);
//! let x = Tensor::from([[1.0f32], [10.0]]);
//! let mut y = Tensor::zeros([2, 1]);
//! // y = A x
//! matmul(1.0, Mat::new(a.data(), 2, 2), Mat::new(x.data(), 2, 1), 0.0, MatMut::new(y.data_mut(), 2, 1));
//! assert_eq!(y.data(), [21.0, 43.0]);
//! ```

mod disjoint;
mod error;
mod init;
pub mod kernels;
pub mod par;
mod rng;
mod scalar;
mod shape;
mod tensor;
pub mod text;

pub use error::{Error, Kind, Result};
pub use init::{Fan, Init, Nonlinearity, Scaled};
#[doc(hidden)]
pub use kernels::dispatch::Instances;
pub use kernels::{Isa, isa};
pub use ndarray;
pub use rng::{Rng, mix, noise, noise_key};
pub use scalar::Scalar;
pub use shape::{Shape, position};
pub use tensor::Tensor;

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
