//! Weights and whole models in and out for [chainrule](https://docs.rs/chainrule): safetensors under PyTorch names, and the
//! weights of PyTorch's and NumPy's own files.
//!
//! [`save`] writes every parameter and buffer of a model under its path, `encoder.0.weight`; [`load()`] reads them back, or
//! reads what PyTorch saved: safetensors in one file or several, `.pt` of either form, and `.npz`. Loading is strict: all that is missing, unexpected or of another
//! shape is listed in one error, and the model changes only if everything fits. [`Load`] loads a part, or under other names;
//! [`Save`] saves a part, or in 16 bits; [`TensorFile`] says what is in a file.
//! [`save_model`] adds the architecture, and [`load_model`] needs nothing else. [`stream_to_bytes`] saves what a stream remembers. Files are written atomically.
//!
//! ```
//! # use chainrule_core::*;
//! # #[derive(Clone)]
//! # struct Gain(Param<f32>);
//! # impl Layer for Gain {
//! #     type T = f32;
//! #     type Cache = ();
//! #     fn output_shape(&self, input: &[usize]) -> Result<Shape> { Shape::new(input) }
//! #     fn forward(&self, x: &Tensor, y: &mut Tensor, _: &mut (), _: Context) -> Result<()> { y.copy_from(x); Ok(()) }
//! #     fn backward(&self, _: Call<'_, f32>, _: &mut (), _: &mut Grads<f32>, _: Option<&mut Tensor>) -> Result<()> { Ok(()) }
//! #     fn params<'a>(&'a self, out: &mut Params<'_, 'a, f32>) { out.add(&self.0) }
//! #     fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f32>) { out.add(&mut self.0) }
//! # }
//! # let path = std::env::temp_dir().join(format!("chainrule-io-doc-{}.safetensors", std::process::id()));
//! // A layer with one parameter, `gain`.
//! let model = Gain(Param::new("gain", [2], Init::Constant(0.5))).init(0)?;
//! chainrule_io::save(&model, &path)?;
//!
//! let mut other = Gain(Param::new("gain", [2], Init::ZEROS));
//! chainrule_io::load(&mut other, &path)?;
//! assert_eq!(other.0.value()?, [0.5, 0.5]);
//! # std::fs::remove_file(path).unwrap();
//! # Ok::<(), Error>(())
//! ```

mod archive;
mod atomic;
mod crc;
mod dtype;
mod fault;
mod file;
mod header;
mod index;
mod json;
#[cfg(feature = "keras")]
mod keras;
mod load;
mod model;
mod npy;
mod pickle;
mod reader;
mod report;
mod rule;
mod save;
mod stream;
mod torch;
mod zip;

pub use archive::Archive;
pub use atomic::{check_writable, write_atomically};
pub use chainrule_core as core;
pub use file::{TensorFile, TensorInfo};
pub use load::{Load, from_bytes, load};
pub use model::{load_model, model_from_bytes, model_to_bytes, save_model};
pub use report::{Left, Reason, Report, Taken};
pub use save::{Save, part_to_bytes, save, save_part, to_bytes};
pub use stream::{restore_stream, stream_to_bytes};

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
