//! Text to ids and back.

mod bpe;
mod bytes;
mod chars;
mod decoder;
mod file;
mod letters;
mod merge;
mod special;
mod split;
mod train;
mod vocabulary;
mod words;

pub use bpe::Bpe;
pub use bytes::Bytes;
pub use chars::Chars;
pub use decoder::TextDecoder;
pub use file::{from_json, load};
pub use train::BpeTrainer;
pub use words::{Words, WordsTrainer};

use chainrule_core::{Error, Result};
use std::{borrow::Cow, path::Path};

/// The most tokens that a vocabulary may have, 2²¹: every id is exact in an `f32`, which holds integers up to 2²⁴.
pub const MOST_TOKENS: usize = 1 << 21;

/// A map from text to token ids 0, 1, …, `vocab_size() - 1` and back.
///
/// ```
/// use chainrule_text::{Bytes, Tokenizer};
/// let bytes = Bytes::new();
/// let ids = bytes.encode("né")?;
/// assert_eq!(ids, [110, 195, 169]);
/// assert_eq!(bytes.decode(&ids)?, "né");
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub trait Tokenizer: Send + Sync {
    /// The number of tokens.
    fn vocab_size(&self) -> usize;

    /// The ids of a text. The text of a special token gives its id.
    ///
    /// # Errors
    /// A part of the text has no token, and there is none for what is unknown.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;

    /// A token as the vocabulary's file writes it; `None` beyond the vocabulary.
    fn token(&self, id: u32) -> Option<Cow<'_, str>>;

    /// The id of a token as the vocabulary's file writes it.
    fn id(&self, token: &str) -> Option<u32>;

    /// Whether a token is a mark such as `<|endoftext|>`, and no text.
    fn is_special(&self, id: u32) -> bool;

    /// Appends the bytes that a token stands for; `first` of a text, tokens have no space before them.
    ///
    /// # Errors
    /// The id is beyond the vocabulary.
    fn decode_token(&self, id: u32, first: bool, out: &mut Vec<u8>) -> Result<()>;

    /// The vocabulary in the JSON of the `tokenizers` library; [`from_json`] reads it.
    ///
    /// # Errors
    /// It is larger than [`from_json`] reads.
    fn to_json(&self) -> Result<String>;

    /// The text of some ids. Bytes that are no UTF-8 become �.
    ///
    /// # Errors
    /// An id is beyond the vocabulary.
    fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut bytes = Vec::new();
        for (i, &id) in ids.iter().enumerate() {
            self.decode_token(id, i == 0, &mut bytes)?;
        }
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// How many characters each token has within a text, 0 for special tokens: what bits per character are divided by. A character of
    /// several tokens counts for the first of them, so that the lengths of a text's tokens sum to its characters.
    ///
    /// # Errors
    /// Never, of the tokenizers here.
    fn lengths(&self) -> Result<Vec<usize>> {
        let mut bytes = Vec::new();
        let ids = 0..u32::try_from(self.vocab_size()).unwrap_or(u32::MAX);
        ids.map(|id| {
            bytes.clear();
            if !self.is_special(id) {
                self.decode_token(id, false, &mut bytes)?;
            }
            // Bytes 10xxxxxx continue a character.
            Ok(bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count())
        })
        .collect()
    }

    /// Writes [`Tokenizer::to_json`] to a file, atomically; [`load`] reads it.
    ///
    /// # Errors
    /// As [`Tokenizer::to_json`], and if the operating system refuses.
    fn save(&self, path: impl AsRef<Path>) -> Result<()>
    where
        Self: Sized,
    {
        chainrule_io::write_atomically(path, self.to_json()?.as_bytes())
    }
}

macro_rules! forwarded {
    ($($tokenizer:ty),*) => {$(
        impl<K: Tokenizer + ?Sized> Tokenizer for $tokenizer {
            fn vocab_size(&self) -> usize {
                (**self).vocab_size()
            }
            fn encode(&self, text: &str) -> Result<Vec<u32>> {
                (**self).encode(text)
            }
            fn token(&self, id: u32) -> Option<Cow<'_, str>> {
                (**self).token(id)
            }
            fn id(&self, token: &str) -> Option<u32> {
                (**self).id(token)
            }
            fn is_special(&self, id: u32) -> bool {
                (**self).is_special(id)
            }
            fn decode_token(&self, id: u32, first: bool, out: &mut Vec<u8>) -> Result<()> {
                (**self).decode_token(id, first, out)
            }
            fn to_json(&self) -> Result<String> {
                (**self).to_json()
            }
        }
    )*};
}
forwarded!(&K, Box<K>, std::sync::Arc<K>);

/// An id beyond the vocabulary.
#[cold]
fn no_token(kind: &str, id: u32, size: usize) -> Error {
    Error::index(format!("{kind}: expected ids below {size}, got {id}"))
}
