//! Layers that are random in training.

mod dropout;

pub use dropout::{Dropout, DropoutCache};
