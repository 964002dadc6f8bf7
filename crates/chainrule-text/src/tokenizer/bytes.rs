//! Bytes.

use super::{
    Tokenizer,
    bpe::char_of,
    file::{self, Contents, Kind},
    no_token,
    special::{Part, Special},
    vocabulary::Vocabulary,
};
use chainrule_core::{Error, Result};
use std::{borrow::Cow, path::Path};

/// The bytes of a text's UTF-8 as ids 0 to 255, and special tokens from 256 on. Every text has tokens.
///
/// # Examples
/// ```
/// use chainrule_text::{Bytes, Tokenizer};
/// let bytes = Bytes::new().special(["<s>"])?;
/// assert_eq!(bytes.encode("<s>ab")?, [256, 97, 98]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    special: Special,
}

/// Ids below it are bytes.
const BYTES: u32 = 256;

impl Bytes {
    /// Without special tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more set of special tokens.
    ///
    /// # Errors
    /// A token is empty, too long or there twice.
    pub fn special(self, tokens: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let mut special: Vec<String> = self.special.added().iter().map(|t| t.content.clone()).collect();
        special.extend(tokens.into_iter().map(Into::into));
        let bytes = Self { special: Special::from("Bytes", BYTES as usize, &special)? };
        // A mark that the file would write as a byte is written is refused here.
        bytes.vocabulary().map(|_| bytes)
    }

    /// Reads a file that [`Tokenizer::save`] wrote.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or holds something else.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_json(&file::read(path.as_ref())?)
    }

    /// Reads the contents of such a file.
    ///
    /// # Errors
    /// As [`Bytes::load`].
    pub fn from_json(json: &str) -> Result<Self> {
        let contents = file::parse(json)?;
        Self::from_contents(contents)?.ok_or_else(|| {
            Error::format(
                "Bytes: expected a model of type BPE without merges whose ids are bytes, got another",
            )
        })
    }

    /// `None` of contents that are more than bytes.
    pub(super) fn from_contents(contents: Contents) -> Result<Option<Self>> {
        let mut contents = contents;
        let plain = contents.kind() == Kind::ByteLevelBpe && contents.merges.is_empty();
        if !plain || contents.words || contents.prefix_space || contents.unknown.is_some() {
            return Ok(None);
        }
        let (vocabulary, special) = contents.vocabulary("Bytes")?;
        let bytes = (0..=255u8).all(|byte| {
            vocabulary.token(u32::from(byte)).is_some_and(|token| token.chars().eq([char_of(byte)]))
        });
        let marks = special.added().iter().filter(|token| token.id >= BYTES).count();
        let whole = bytes && marks == special.added().len() && vocabulary.len() == BYTES as usize + marks;
        Ok(whole.then_some(Self { special }))
    }

    fn vocabulary(&self) -> Result<Vocabulary> {
        let marks = self.special.added().iter().map(|token| token.content.clone());
        Vocabulary::new("Bytes", (0..=255).map(|byte| char_of(byte).to_string()).chain(marks))
    }
}

impl Tokenizer for Bytes {
    fn vocab_size(&self) -> usize {
        BYTES as usize + self.special.added().len()
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len());
        for part in self.special.parts(text) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => ids.extend(text.bytes().map(u32::from)),
            }
        }
        Ok(ids)
    }

    fn token(&self, id: u32) -> Option<Cow<'_, str>> {
        match u8::try_from(id) {
            Ok(byte) => Some(Cow::Owned(char_of(byte).to_string())),
            Err(_) => self.special.get(id).map(|token| Cow::Borrowed(token.content.as_str())),
        }
    }

    fn id(&self, token: &str) -> Option<u32> {
        let mut chars = token.chars();
        let byte = chars.next().filter(|_| chars.next().is_none()).and_then(super::bpe::byte_of);
        let mark = || self.special.added().iter().find(|mark| mark.content == token).map(|mark| mark.id);
        byte.map(u32::from).or_else(mark)
    }

    fn is_special(&self, id: u32) -> bool {
        self.special.get(id).is_some_and(|token| token.special)
    }

    fn decode_token(&self, id: u32, _: bool, out: &mut Vec<u8>) -> Result<()> {
        match (u8::try_from(id), self.special.get(id)) {
            (Ok(byte), _) => out.push(byte),
            (_, Some(token)) => out.extend_from_slice(token.content.as_bytes()),
            _ => return Err(no_token("Bytes", id, self.vocab_size())),
        }
        Ok(())
    }

    fn to_json(&self) -> Result<String> {
        let contents = Contents::of(&self.vocabulary()?, &self.special);
        file::write(&Contents { bpe: true, byte_level: true, ..contents })
    }
}
