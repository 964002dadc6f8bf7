//! Data sets for [chainrule](https://docs.rs/chainrule): samples in memory, seeded loaders, scaling, file formats, and
//! three small sets of real data inside the crate, so that a first network trains without a download.
//!
//! ```
//! use chainrule_data::{Loader, digits};
//!
//! let (train, test) = digits::<f32>().split_stratified(0.2, 1)?; // a fifth held out
//! assert_eq!((train.len(), test.len()), (1438, 359));
//! let mut loader = Loader::new(&train, 32)?.shuffle(7);
//! for epoch in 0..2 {
//!     loader.start_epoch(epoch);
//!     while let Some(batch) = loader.next_batch() {
//!         assert_eq!(batch.x.shape()[1..], [1, 8, 8]); // batch.targets: the classes of these samples
//!     }
//! }
//! # Ok::<(), chainrule_data::Error>(())
//! ```
//!
//! Everything random takes a seed, and a seed means the same order for ever. A loader fills one batch again and again:
//! after its first batch it allocates nothing.
//!
//! Files are read with suspicion: one that is cut, lies about its size or is of another kind gives an error that names
//! the field, never a panic and never memory in proportion to the lie.
//!
//! # Features
//! `gzip` (default): compressed idx files. `csv`: tables of your own.
//!
//! # The embedded data
//! [`samples::ATTRIBUTION`] holds the text that has to go with them.

mod check;
#[cfg(feature = "csv")]
mod csv;
mod dataset;
pub mod idx;
mod loader;
mod mnist;
mod prepare;
pub mod samples;
mod split;
mod targets;

pub use chainrule_tensor::{Error, Result};
#[cfg(feature = "csv")]
pub use csv::{Column, Csv};
pub use dataset::Dataset;
pub use loader::Loader;
pub use mnist::{labelled_images, mnist};
pub use prepare::{Scaler, one_hot};
pub use samples::{diabetes, digits, iris};
pub use targets::{Batch, Targets};

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
