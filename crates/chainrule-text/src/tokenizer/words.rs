//! Words.

use super::{
    Tokenizer,
    file::{self, Contents, Kind},
    no_token,
    special::{Part, Special},
    vocabulary::Vocabulary,
};
use chainrule_core::{Error, Result, text::quote};
use std::{borrow::Cow, cmp::Reverse, collections::HashMap, path::Path};

/// One token for each frequent word; all others are the unknown token. What lies between white space is a word, and each
/// punctuation character of ASCII is one of its own.
///
/// Decoding puts one space between two words: the white space of the text is lost.
///
/// # Examples
/// ```
/// use chainrule_text::{Tokenizer, WordsTrainer};
/// let words = WordsTrainer::new().min_count(2).train(["to be, or not to be"])?; // <unk>, be, to
/// assert_eq!(words.encode("to see,")?, [2, 0, 0]);
/// assert_eq!(words.decode(&[2, 1])?, "to be");
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Words {
    vocabulary: Vocabulary,
    special: Special,
    unknown: u32,
    settings: Settings,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Settings {
    punctuation: bool,
    lowercase: bool,
}

/// Makes the vocabulary of [`Words`]: special tokens first, then the unknown one, then words from the most frequent to the
/// least, in alphabetical order where they are as frequent.
#[derive(Clone, Debug)]
pub struct WordsTrainer {
    min_count: usize,
    max_size: Option<usize>,
    unknown: String,
    special: Vec<String>,
    settings: Settings,
}

impl Default for WordsTrainer {
    fn default() -> Self {
        Self::new()
    }
}

impl WordsTrainer {
    /// Of all words, with the unknown token `<unk>`.
    pub fn new() -> Self {
        Self {
            min_count: 1,
            max_size: None,
            unknown: "<unk>".into(),
            special: Vec::new(),
            settings: Settings { punctuation: true, lowercase: false },
        }
    }

    /// How often a word has to be in the text, 1 by default.
    #[must_use]
    pub fn min_count(self, count: usize) -> Self {
        Self { min_count: count, ..self }
    }

    /// The most tokens, special ones and the unknown one included.
    #[must_use]
    pub fn max_size(self, size: usize) -> Self {
        Self { max_size: Some(size), ..self }
    }

    /// The name of the unknown token.
    #[must_use]
    pub fn unknown(self, token: impl Into<String>) -> Self {
        Self { unknown: token.into(), ..self }
    }

    /// Tokens that stand for themselves, such as `<eos>`.
    #[must_use]
    pub fn special(mut self, tokens: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.special.extend(tokens.into_iter().map(Into::into));
        self
    }

    /// Whether each punctuation character is a word of its own (default).
    #[must_use]
    pub fn punctuation(mut self, punctuation: bool) -> Self {
        self.settings.punctuation = punctuation;
        self
    }

    /// Whether text is brought to lower case first.
    #[must_use]
    pub fn lowercase(mut self, lowercase: bool) -> Self {
        self.settings.lowercase = lowercase;
        self
    }

    /// The words of some texts.
    ///
    /// # Errors
    /// No room for the special tokens, or one of them is empty or there twice.
    pub fn train(&self, texts: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Words> {
        let special = Special::from("WordsTrainer", 0, &self.special)?;
        let mut counts: HashMap<String, usize> = HashMap::new();
        for text in texts {
            for part in special.parts(text.as_ref()) {
                let Part::Text(text) = part else { continue };
                let text = self.settings.normalized(text);
                self.settings.split(&text).for_each(|word| match counts.get_mut(word) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(word.to_owned(), 1)),
                });
            }
        }
        let marks = self.special.len() + 1;
        let room = self.max_size.unwrap_or(super::MOST_TOKENS).checked_sub(marks).ok_or_else(|| {
            Error::value(format!(
                "WordsTrainer: expected a vocabulary of at least {marks} tokens, got {}",
                self.max_size.unwrap_or_default()
            ))
        })?;
        counts.retain(|word, count| *count >= self.min_count && *word != self.unknown);
        let mut words: Vec<(Reverse<usize>, String)> =
            counts.into_iter().map(|(word, count)| (Reverse(count), word)).collect();
        words.sort_unstable();
        words.truncate(room);
        let marks = self.special.iter().chain([&self.unknown]).cloned();
        let tokens = marks.chain(words.into_iter().map(|(_, word)| word));
        Ok(Words {
            vocabulary: Vocabulary::new("WordsTrainer", tokens)?,
            unknown: self.special.len() as u32,
            special,
            settings: self.settings,
        })
    }
}

impl Settings {
    /// Character by character, as the `tokenizers` library does it: a final Σ becomes σ.
    fn normalized(self, text: &str) -> Cow<'_, str> {
        if self.lowercase { text.chars().flat_map(char::to_lowercase).collect() } else { text.into() }
    }

    fn split(self, text: &str) -> impl Iterator<Item = &str> {
        let single = move |c: char| self.punctuation && c.is_ascii_punctuation();
        text.split_whitespace().flat_map(move |word| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let first = rest.chars().next()?;
                let end =
                    if single(first) { first.len_utf8() } else { rest.find(single).unwrap_or(rest.len()) };
                let (word, after) = rest.split_at(end);
                rest = after;
                Some(word)
            })
        })
    }
}

impl Words {
    /// The id of the unknown token.
    pub fn unknown(&self) -> u32 {
        self.unknown
    }

    /// Reads a file that [`Tokenizer::save`] wrote, or another with a model of type WordLevel.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or asks for what is not supported; the error says what.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_json(&file::read(path.as_ref())?)
    }

    /// Reads the contents of such a file.
    ///
    /// # Errors
    /// As [`Words::load`].
    pub fn from_json(json: &str) -> Result<Self> {
        Self::from_contents(file::parse(json)?)
    }

    pub(super) fn from_contents(mut contents: Contents) -> Result<Self> {
        if contents.kind() != Kind::Words {
            return Err(Error::format("Words: expected a model of type WordLevel, got BPE"));
        }
        let (vocabulary, special) = contents.vocabulary("Words")?;
        let name = contents.unknown.unwrap_or_default();
        let unknown = vocabulary.id(&name).ok_or_else(|| {
            Error::format(format!("Words: expected the unknown token {} in the vocabulary", quote(&name)))
        })?;
        let settings = Settings { punctuation: contents.punctuation, lowercase: contents.lowercase };
        Ok(Self { vocabulary, special, unknown, settings })
    }
}

impl Tokenizer for Words {
    fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for part in self.special.parts(text) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => {
                    let text = self.settings.normalized(text);
                    let words = self.settings.split(&text);
                    ids.extend(words.map(|word| self.vocabulary.id(word).unwrap_or(self.unknown)));
                }
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

    fn decode_token(&self, id: u32, first: bool, out: &mut Vec<u8>) -> Result<()> {
        let token = self.vocabulary.token(id).ok_or_else(|| no_token("Words", id, self.vocab_size()))?;
        if !first {
            out.push(b' ');
        }
        out.extend_from_slice(token.as_bytes());
        Ok(())
    }

    fn to_json(&self) -> Result<String> {
        file::write(&Contents {
            punctuation: self.settings.punctuation,
            lowercase: self.settings.lowercase,
            unknown: self.vocabulary.token(self.unknown).map(str::to_owned),
            ..Contents::of(&self.vocabulary, &self.special)
        })
    }
}
