//! Byte-pair encoding of bytes.
//!
//! A text is cut into words, each a sequence of bytes; of all pairs of neighbours in a word, the one that was learned first is
//! merged into one token, until there is none. Training learns as the next pair the one that stands in the text most often.

use super::{
    Tokenizer,
    file::{self, Contents, Kind},
    merge::{Merger, Merges},
    no_token,
    special::{Part, Special},
    split,
    vocabulary::Vocabulary,
};
use chainrule_core::{Error, Result, text::quote};
use std::{borrow::Cow, collections::HashMap, path::Path};

/// The longest token, in bytes of the file.
pub(super) const LONGEST_TOKEN: usize = 1 << 16;

/// Byte-pair encoding (Sennrich, Haddow and Birch, 2016) of bytes, as in GPT-2 (Radford and others, 2019): every text has tokens.
///
/// [`BpeTrainer`](crate::BpeTrainer) learns one from text, [`Bpe::load`] reads the `tokenizer.json` of a model.
///
/// # Errors
/// Encoding fails if a byte has no token and there is no unknown one, which a trained vocabulary cannot meet.
///
/// # Examples
/// ```
/// use chainrule_text::{BpeTrainer, Tokenizer};
/// let bpe = BpeTrainer::new(260).special(["<|endoftext|>"]).train(["low lower lowest"])?;
/// let ids = bpe.encode("lower<|endoftext|>")?;
/// assert_eq!(ids.iter().map(|&id| bpe.token(id).unwrap()).collect::<Vec<_>>(), ["low", "e", "r", "<|endoftext|>"]);
/// assert_eq!(bpe.decode(&ids)?, "lower<|endoftext|>");
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bpe {
    pub(super) vocabulary: Vocabulary,
    pub(super) special: Special,
    /// The pairs in the order in which they were learned.
    pub(super) pairs: Vec<(u32, u32)>,
    merges: Merges,
    /// The token of each byte.
    bytes: Vec<Option<u32>>,
    pub(super) settings: Settings,
}

/// What a file may choose.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Settings {
    /// Words as in GPT-2; else a text is one word.
    pub(super) words: bool,
    /// A space before a text that does not begin with one.
    pub(super) prefix_space: bool,
    pub(super) unknown: Option<u32>,
    /// Unknown bytes beside each other are one token.
    pub(super) fuse_unknown: bool,
    /// A word that is a token is not merged.
    pub(super) ignore_merges: bool,
}

impl Bpe {
    /// Reads a file in the format of the `tokenizers` library: a model of type BPE with the pre-tokenizer ByteLevel.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or asks for what is not supported; the error says what.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_json(&file::read(path.as_ref())?)
    }

    /// Reads the contents of such a file.
    ///
    /// # Errors
    /// As [`Bpe::load`].
    pub fn from_json(json: &str) -> Result<Self> {
        Self::from_contents(file::parse(json)?)
    }

    pub(super) fn from_contents(mut contents: Contents) -> Result<Self> {
        if contents.kind() != Kind::ByteLevelBpe {
            return Err(Error::format(
                "Bpe: expected a model of type BPE with the pre-tokenizer ByteLevel, got another",
            ));
        }
        let mut settings = Settings {
            words: contents.words,
            prefix_space: contents.prefix_space,
            fuse_unknown: contents.fuse_unknown,
            ignore_merges: contents.ignore_merges,
            unknown: None,
        };
        let (vocabulary, special) = contents.vocabulary("Bpe")?;
        if let Some(token) = &contents.unknown {
            let id = vocabulary.id(token);
            settings.unknown = Some(id.ok_or_else(|| missing("the unknown token", token))?);
        }
        let mut pairs = Vec::with_capacity(contents.merges.len());
        let mut joined = String::new();
        let mut merged = Vec::with_capacity(contents.merges.len());
        for (a, b) in &contents.merges {
            joined.clear();
            joined.extend([a.as_str(), b]);
            let id = |token: &str| vocabulary.id(token).ok_or_else(|| missing("the merged token", token));
            pairs.push((id(a)?, id(b)?));
            merged.push(id(&joined)?);
        }
        Self::new(vocabulary, special, pairs, merged, settings)
    }

    /// `merged[i]` is the token of `pairs[i]`.
    pub(super) fn new(
        vocabulary: Vocabulary,
        special: Special,
        pairs: Vec<(u32, u32)>,
        merged: Vec<u32>,
        settings: Settings,
    ) -> Result<Self> {
        if let Some(token) = vocabulary.tokens().iter().find(|token| token.len() > LONGEST_TOKEN) {
            return Err(Error::format(format!(
                "Bpe: expected tokens of at most {LONGEST_TOKEN} bytes, got {} of {}",
                quote(token),
                token.len()
            )));
        }
        let mut merges = Merges::with_capacity(pairs.len());
        for ((&pair, merged), rank) in pairs.iter().zip(merged).zip(0..) {
            if merges.insert(pair, (rank, merged)).is_some() {
                let name = |id| quote(vocabulary.token(id).unwrap_or_default());
                let (a, b) = (name(pair.0), name(pair.1));
                return Err(Error::format(format!("Bpe: expected each merge once, got {a} {b} twice")));
            }
        }
        let bytes = (0..=255).map(|byte| vocabulary.id(char_of(byte).encode_utf8(&mut [0; 4]))).collect();
        Ok(Self { vocabulary, special, pairs, merges, bytes, settings })
    }

    /// The ids of a text in which nothing is a special token: text of strangers that must not end a document.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        Encoder::new(self).text(text, &mut ids)?;
        Ok(ids)
    }

    /// The number of merges.
    pub fn merges(&self) -> usize {
        self.pairs.len()
    }
}

fn missing(what: &str, token: &str) -> Error {
    Error::format(format!("Bpe: expected {what} {} in the vocabulary, got none", quote(token)))
}

/// The memory of one call: a word that came before is copied.
struct Encoder<'b> {
    bpe: &'b Bpe,
    merger: Merger,
    symbols: Vec<u32>,
    /// Where the tokens of a word stand in the output.
    seen: HashMap<String, (usize, usize)>,
}

impl<'b> Encoder<'b> {
    fn new(bpe: &'b Bpe) -> Self {
        Self { bpe, merger: Merger::default(), symbols: Vec::new(), seen: HashMap::new() }
    }

    fn text(&mut self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let settings = &self.bpe.settings;
        let text = if settings.prefix_space && !text.is_empty() && !text.starts_with(' ') {
            Cow::Owned(format!(" {text}"))
        } else {
            Cow::Borrowed(text)
        };
        if !settings.words {
            return if text.is_empty() { Ok(()) } else { self.merge(&text, ids) };
        }
        for word in split::words(&text) {
            if let Some(&(start, length)) = self.seen.get(word) {
                ids.extend_from_within(start..start + length);
                continue;
            }
            let start = ids.len();
            self.merge(word, ids)?;
            self.seen.insert(word.to_owned(), (start, ids.len() - start));
        }
        Ok(())
    }

    fn merge(&mut self, word: &str, ids: &mut Vec<u32>) -> Result<()> {
        let Bpe { settings, merges, bytes, .. } = self.bpe;
        if u32::try_from(word.len()).is_err() {
            return Err(Error::value(format!(
                "Bpe: expected words below 4 GiB, got one of {} bytes",
                word.len()
            )));
        }
        if settings.ignore_merges && word.len() <= LONGEST_TOKEN {
            let token: String = word.bytes().map(char_of).collect();
            if let Some(id) = self.bpe.vocabulary.id(&token) {
                ids.push(id);
                return Ok(());
            }
        }
        self.symbols.clear();
        let mut unknown_before = false;
        for byte in word.bytes() {
            let id = bytes[usize::from(byte)];
            let symbol = id.or(settings.unknown).ok_or_else(|| {
                Error::value(format!("Bpe: the byte 0x{byte:02x} has no token, and there is no unknown one"))
            })?;
            if !(id.is_none() && unknown_before && settings.fuse_unknown) {
                self.symbols.push(symbol);
            }
            unknown_before = id.is_none();
        }
        self.merger.merge(&self.symbols, merges, ids);
        Ok(())
    }
}

impl Tokenizer for Bpe {
    fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let (mut encoder, mut ids) = (Encoder::new(self), Vec::new());
        for part in self.special.parts(text) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => encoder.text(text, &mut ids)?,
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
        let token = self.vocabulary.token(id).ok_or_else(|| no_token("Bpe", id, self.vocab_size()))?;
        let start = out.len();
        if self.special.get(id).is_none() {
            for c in token.chars() {
                let Some(byte) = byte_of(c) else {
                    // A token that no text gives.
                    out.truncate(start);
                    break;
                };
                out.push(byte);
            }
        }
        if out.len() == start {
            out.extend_from_slice(token.as_bytes());
        }
        Ok(())
    }

    fn to_json(&self) -> Result<String> {
        let name = |id: u32| self.vocabulary.token(id).unwrap_or_default().to_owned();
        file::write(&Contents {
            bpe: true,
            byte_level: true,
            words: self.settings.words,
            prefix_space: self.settings.prefix_space,
            unknown: self.settings.unknown.map(name),
            fuse_unknown: self.settings.fuse_unknown,
            ignore_merges: self.settings.ignore_merges,
            merges: self.pairs.iter().map(|&(a, b)| (name(a), name(b))).collect(),
            ..Contents::of(&self.vocabulary, &self.special)
        })
    }
}

/// The character that stands for a byte in the file: itself if it prints, else one of those from U+0100 on.
pub(super) fn char_of(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

/// The byte that a character of the file stands for.
pub(super) fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=255 => (CHARS[code as usize] == c).then_some(code as u8),
        code @ 256..=323 => Some(OTHERS[code as usize - 256]),
        _ => None,
    }
}

const fn prints(byte: u8) -> bool {
    matches!(byte, 33..=126 | 161..=172 | 174..=255)
}

/// The bytes that do not print, in order.
const OTHERS: [u8; 68] = {
    let (mut others, mut n, mut byte) = ([0; 68], 0, 0);
    while byte < 256 {
        if !prints(byte as u8) {
            others[n] = byte as u8;
            n += 1;
        }
        byte += 1;
    }
    others
};

const CHARS: [char; 256] = {
    let (mut chars, mut byte, mut n) = (['\0'; 256], 0, 0);
    while byte < 256 {
        chars[byte] = if prints(byte as u8) {
            byte as u8 as char
        } else {
            n += 1;
            match char::from_u32(255 + n) {
                Some(c) => c,
                None => panic!("a code below the surrogates"),
            }
        };
        byte += 1;
    }
    chars
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_characters_are_one_to_one() {
        for byte in 0..=255u8 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        // GPT-2's: a space is Ġ, an end of line Ċ.
        assert_eq!([b'a', b' ', b'\n', 0, 255].map(char_of), ['a', 'Ġ', 'Ċ', 'Ā', 'ÿ']);
        assert_eq!((byte_of('\u{144}'), byte_of(' '), byte_of('\n')), (None, None, None));
    }
}
