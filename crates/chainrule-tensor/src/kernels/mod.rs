//! Kernels: functions over slices and sizes. They know nothing of layers, and they alone may be `unsafe`.
//!
//! A kernel is written once, as plain loops that the compiler can vectorise or over the vectors of an instruction set, is
//! compiled for AVX-512, for AVX2 with FMA and for the portable target, and one instance is picked at run time.

pub(crate) mod dispatch;
pub mod elementwise;
pub mod gemm;
mod isa;
pub(crate) mod lanes;
#[doc(hidden)]
pub mod layers;
pub mod math;
pub mod reduce;
mod transpose;

pub(crate) use dispatch::{kernel, prefetch};
pub use isa::{Isa, best, isa};
