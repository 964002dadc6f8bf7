//! Data for [chainrule](https://docs.rs/chainrule): samples in memory or streamed, seeded loaders, transforms, scaling,
//! file formats, and three small sets of real data inside the crate, so that a first network trains without a download.
//!
//! ```
//! use chainrule_data::{Loader, digits};
//!
//! let (train, test) = digits::<f32>().split_stratified(0.2, 1)?; // a fifth held out
//! assert_eq!((train.len(), test.len()), (1438, 359));
//! let mut loader = Loader::new(&train, 32)?.shuffle(7);
//! for _epoch in 0..2 {
//!     while let Some(batch) = loader.next_batch()? {
//!         assert_eq!(batch.x().shape()[1..], [1, 8, 8]); // batch.target(): the classes of these samples
//!     }
//! }
//! # Ok::<(), chainrule_data::Error>(())
//! ```
//!
//! A [`Source`] is anything that fills batches: a [`Dataset`], a [`Stream`], or another source with transforms. Everything
//! random takes a seed, and a seed means the same order for ever. A loader reuses one batch: after the first it allocates
//! nothing.
//!
//! Files are not trusted: one that is truncated, claims another size than it has or is of another format gives an error
//! that names the field, never a panic, and memory follows what it holds, not what it claims.
//!
//! # Features
//! `gzip` (default): compressed idx files. `csv`: tables of your own.
//!
//! # The embedded data
//! [`samples::ATTRIBUTION`] holds the text that has to go with them.

mod check;
mod cifar;
#[cfg(feature = "csv")]
mod csv;
mod dataset;
mod features;
#[cfg(feature = "gzip")]
mod gzip;
pub mod idx;
mod loader;
mod mnist;
mod prepare;
pub mod samples;
mod schema;
mod source;
mod split;
mod stream;
mod transform;

pub use chainrule_core as core;
pub use chainrule_core::{Classes, Error, Result, Sequences, Target, Targets};
pub use cifar::{Cifar, cifar10};
#[cfg(feature = "csv")]
pub use csv::{Column, Csv};
pub use dataset::Dataset;
pub use features::{Bytes, Features};
pub use loader::{Batches, Loader};
pub use mnist::{labelled_images, mnist};
pub use prepare::{Scaler, one_hot};
pub use samples::{diabetes, digits, iris};
pub use schema::{Batch, Schema, TargetSchema};
pub use source::{Pick, Source};
pub use stream::{Sample, SampleTarget, Stream};
pub use transform::{Augmented, Mapped};

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
