//! Text for [chainrule](https://docs.rs/chainrule): tokenizers, sequences for training, and generation.
//!
//! ```
//! use chainrule_core::{Module, Parameters};
//! use chainrule_data::Loader;
//! use chainrule_layers::{Embedding, Linear, Sequential};
//! use chainrule_text::{Chars, Generator, Tokenizer, Windows};
//!
//! let text = "the cat sat on the mat. ".repeat(20);
//! let chars = Chars::fit(&text)?;
//! let windows = Windows::new(chars.encode(&text)?, 8, chars.vocab_size())?;
//! let mut loader = Loader::<_>::new(windows, 4)?.shuffle(1);
//! assert_eq!(loader.next_batch()?.unwrap().x().shape()[..], [4, 8]);
//!
//! let v = chars.vocab_size();
//! let model = Sequential::new().add(Embedding::<f32>::new(v, 16)).add(Linear::new(16, v)).init(1)?; // not trained
//! let mut generator = Generator::new(&model)?.temperature(0.8).top_k(5).seed(7).max_tokens(20);
//! let written = generator.write(&chars, "the ")?;
//! assert_eq!(written.chars().count(), 20);
//! # Ok::<(), chainrule_core::Error>(())
//! ```
//!
//! - [`Tokenizer`]: text to ids and back, by [`Chars`], [`Bytes`], [`Words`] or byte-pair encoding ([`Bpe`]). All are written to
//!   and read from one format, the JSON of the `tokenizers` library.
//! - [`Windows`], [`Padded`] and [`Packed`]: sources for a [`chainrule_data::Loader`] or a trainer.
//! - [`Generator`] and [`Beam`]: continuations of a prompt, by any model that maps ids (N, T) to logits (N, T, V).
//!
//! Files are not trusted: they give errors, never a panic, and memory and time follow what they hold.
//!
//! The guide is docs/text.md.

mod generate;
mod sequence;
mod tokenizer;

pub use chainrule_core as core;
pub use chainrule_core::{Error, Result};
pub use generate::{Beam, Ended, Generated, Generator, Hypothesis, Sampler, Text, Tokens};
pub use sequence::{Packed, Padded, Windows};
pub use tokenizer::{
    Bpe, BpeTrainer, Bytes, Chars, MOST_TOKENS, TextDecoder, Tokenizer, Words, WordsTrainer, from_json, load,
};

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
