//! Characters.

use super::{
    Tokenizer,
    file::{self, Contents, Kind},
    no_token,
    special::{Part, Special},
    vocabulary::Vocabulary,
};
use chainrule_core::{Error, Result, text::quote};
use std::{borrow::Cow, collections::BTreeSet, path::Path};

/// One token for each character of a text: special tokens first, then the unknown one, then characters by code point.
///
/// # Errors
/// Encoding fails at a character that the text did not have, unless there is an unknown token.
///
/// # Examples
/// ```
/// use chainrule_text::{Chars, Tokenizer};
/// let chars = Chars::fit("hello")?; // e h l o
/// assert_eq!(chars.encode("hole")?, [1, 3, 2, 0]);
/// assert!(chars.encode("help").is_err());
/// let chars = Chars::fit("hello")?.unknown("<unk>")?.special(["<pad>"])?;
/// assert_eq!(chars.encode("help<pad>")?, [3, 2, 4, 1, 0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Chars {
    vocabulary: Vocabulary,
    special: Special,
    unknown: Option<u32>,
}

impl Chars {
    /// The characters of a text.
    ///
    /// # Errors
    /// The text is empty.
    pub fn fit(text: &str) -> Result<Self> {
        Self::new(&[], None, text.chars().collect::<BTreeSet<char>>().into_iter().map(String::from))
    }

    fn new(special: &[String], unknown: Option<String>, chars: impl Iterator<Item = String>) -> Result<Self> {
        let tokens = special.iter().cloned().chain(unknown.clone()).chain(chars);
        let vocabulary = Vocabulary::new("Chars", tokens)?;
        let unknown = unknown.and_then(|token| vocabulary.id(&token));
        Ok(Self { special: Special::from("Chars", 0, special)?, vocabulary, unknown })
    }

    /// With one more set of special tokens, such as `<pad>`, after those that there are.
    ///
    /// # Errors
    /// A token is empty, too long or there already.
    pub fn special(self, tokens: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let mut special = self.marks();
        special.extend(tokens.into_iter().map(Into::into));
        Self::new(&special, self.unknown_token(), self.characters())
    }

    /// With a token for all characters that the text did not have.
    ///
    /// # Errors
    /// The token is there already.
    pub fn unknown(self, token: impl Into<String>) -> Result<Self> {
        Self::new(&self.marks(), Some(token.into()), self.characters())
    }

    fn marks(&self) -> Vec<String> {
        self.special.added().iter().map(|token| token.content.clone()).collect()
    }

    fn unknown_token(&self) -> Option<String> {
        self.unknown.and_then(|id| self.vocabulary.token(id)).map(str::to_owned)
    }

    fn characters(&self) -> impl Iterator<Item = String> {
        let skip = |id: u32| self.special.get(id).is_some() || self.unknown == Some(id);
        let all = self.vocabulary.tokens().iter().zip(0..);
        all.filter(move |&(_, id)| !skip(id)).map(|(token, _)| token.clone())
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
    /// As [`Chars::load`].
    pub fn from_json(json: &str) -> Result<Self> {
        Self::from_contents(file::parse(json)?)
    }

    pub(super) fn from_contents(mut contents: Contents) -> Result<Self> {
        if contents.kind() != Kind::Chars {
            return Err(Error::format(
                "Chars: expected a model of type BPE without merges and pre-tokenizer, got another",
            ));
        }
        let (vocabulary, special) = contents.vocabulary("Chars")?;
        let unknown = match &contents.unknown {
            None => None,
            Some(token) => Some(vocabulary.id(token).ok_or_else(|| {
                Error::format(format!("Chars: expected the unknown token {} in the vocabulary", quote(token)))
            })?),
        };
        let chars = Self { vocabulary, special, unknown };
        if let Some(token) = chars.characters().find(|token| token.chars().count() != 1) {
            return Err(Error::format(format!(
                "Chars: expected tokens of one character, got {}",
                quote(&token)
            )));
        }
        Ok(chars)
    }
}

impl Tokenizer for Chars {
    fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len());
        for part in self.special.parts(text) {
            let text = match part {
                Part::Token(id) => {
                    ids.push(id);
                    continue;
                }
                Part::Text(text) => text,
            };
            for c in text.chars() {
                let id = self.vocabulary.id(c.encode_utf8(&mut [0; 4])).or(self.unknown);
                ids.push(id.ok_or_else(|| {
                    let c = c.escape_debug();
                    Error::value(format!(
                        "Chars: the character `{c}` has no token, and there is no unknown one"
                    ))
                })?);
            }
        }
        Ok(ids)
    }

    fn token(&self, id: u32) -> Option<Cow<'_, str>> {
        self.vocabulary.token(id).map(Cow::Borrowed)
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.vocabulary.id(token)
    }

    fn is_special(&self, id: u32) -> bool {
        self.special.get(id).is_some_and(|token| token.special)
    }

    fn decode_token(&self, id: u32, _: bool, out: &mut Vec<u8>) -> Result<()> {
        let token = self.vocabulary.token(id).ok_or_else(|| no_token("Chars", id, self.vocab_size()))?;
        out.extend_from_slice(token.as_bytes());
        Ok(())
    }

    fn to_json(&self) -> Result<String> {
        file::write(&Contents {
            bpe: true,
            unknown: self.unknown_token(),
            ..Contents::of(&self.vocabulary, &self.special)
        })
    }
}
