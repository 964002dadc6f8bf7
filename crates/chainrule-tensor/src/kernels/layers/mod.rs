//! Kernels of single layers, losses and optimizers, for chainrule's own crates: not a stable interface.

pub mod attention;
pub mod axis;
pub mod bag;
pub mod channel;
pub mod conv;
pub mod embedding;
pub mod gate;
pub mod limits;
pub mod loss;
pub mod noise;
pub mod norm;
pub mod optim;
pub mod pad;
pub mod permute;
pub mod pool;
pub mod recurrent;
pub mod softmax;
pub mod taps;
pub mod unfold;
mod window;

pub use window::Window;
