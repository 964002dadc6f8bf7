//! Vocabularies in the JSON of the `tokenizers` library, which comes from strangers.
//!
//! ```json
//! {"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
//!  "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
//!  "post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
//!  "model":{"type":"BPE","unk_token":null,"vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}}
//! ```
//!
//! Whatever would change the ids of a text and is not supported is an error, so that a file that is read gives the ids that
//! `tokenizers` gives.

use super::{
    Bpe, Bytes, Chars, MOST_TOKENS, Tokenizer, Words,
    special::{Added, Special},
    vocabulary::Vocabulary,
};
use chainrule_core::{Error, Result, text::quote};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write},
    fs::File,
    io::Read,
    path::Path,
};

/// The longest file, in bytes: twice the largest vocabularies in use.
const LONGEST_FILE: usize = 64 << 20;

/// The most values outside of vocabulary and merges: special tokens take eight each.
const MOST_VALUES: usize = 1 << 18;

/// ASCII punctuation, as [`Words`] splits it off.
const PUNCTUATION: &str = r##"[!-/:-@\[-`{-~]"##;

/// Reads any tokenizer file that one of [`Bpe`], [`Bytes`], [`Chars`] and [`Words`] reads.
///
/// ```
/// use chainrule_text::{Chars, Tokenizer, load};
/// # let path = std::env::temp_dir().join(format!("chainrule-text-{}.json", std::process::id()));
/// Chars::fit("hello")?.save(&path)?;
/// let tokenizer = load(&path)?;
/// assert_eq!(tokenizer.encode("hole")?, [1, 3, 2, 0]);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), chainrule_core::Error>(())
/// ```
///
/// # Errors
/// The file cannot be read, is damaged, or asks for what is not supported; the error says what.
pub fn load(path: impl AsRef<Path>) -> Result<Box<dyn Tokenizer>> {
    from_json(&read(path.as_ref())?)
}

/// Reads the contents of such a file.
///
/// # Errors
/// As [`load`].
pub fn from_json(json: &str) -> Result<Box<dyn Tokenizer>> {
    let contents = parse(json)?;
    Ok(match contents.kind() {
        Kind::Words => Box::new(Words::from_contents(contents)?),
        Kind::Chars => Box::new(Chars::from_contents(contents)?),
        // What is no more than bytes has their ids.
        Kind::ByteLevelBpe if contents.merges.is_empty() => match Bytes::from_contents(contents)? {
            Some(bytes) => Box::new(bytes),
            None => Box::new(Bpe::from_contents(parse(json)?)?),
        },
        Kind::ByteLevelBpe => Box::new(Bpe::from_contents(contents)?),
    })
}

/// What a file holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Contents {
    /// The model's type is BPE; else WordLevel.
    pub(super) bpe: bool,
    pub(super) byte_level: bool,
    /// Byte-level: words as in GPT-2.
    pub(super) words: bool,
    pub(super) prefix_space: bool,
    /// WordLevel: punctuation is split off.
    pub(super) punctuation: bool,
    pub(super) lowercase: bool,
    pub(super) unknown: Option<String>,
    pub(super) fuse_unknown: bool,
    pub(super) ignore_merges: bool,
    pub(super) vocab: Vec<(String, u32)>,
    pub(super) merges: Vec<(String, String)>,
    pub(super) added: Vec<Added>,
}

/// Which tokenizer a file is of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    ByteLevelBpe,
    Chars,
    Words,
}

impl Contents {
    /// Those of a vocabulary.
    pub(super) fn of(vocabulary: &Vocabulary, special: &Special) -> Self {
        let vocab = vocabulary.tokens().iter().cloned().zip(0..).collect();
        Self { vocab, added: special.added().to_vec(), ..Self::default() }
    }

    pub(super) fn kind(&self) -> Kind {
        match (self.bpe, self.byte_level) {
            (true, true) => Kind::ByteLevelBpe,
            (true, false) => Kind::Chars,
            (false, _) => Kind::Words,
        }
    }

    /// The vocabulary with the added tokens, which move out.
    pub(super) fn vocabulary(&mut self, kind: &str) -> Result<(Vocabulary, Special)> {
        let (mut vocab, added) = (std::mem::take(&mut self.vocab), std::mem::take(&mut self.added));
        let ids: HashMap<&str, u32> = vocab.iter().map(|(token, id)| (token.as_str(), *id)).collect();
        let mut more = Vec::new();
        for token in &added {
            match ids.get(token.content.as_str()) {
                Some(&id) if id != token.id => {
                    return Err(Error::format(format!(
                        "{kind}: expected one id of {}, got {id} and {}",
                        quote(&token.content),
                        token.id
                    )));
                }
                Some(_) => {}
                None => more.push((token.content.clone(), token.id)),
            }
        }
        vocab.extend(more);
        let vocabulary =
            Vocabulary::of_ids(kind, vocab.into_iter().map(|(token, id)| (id, token)).collect())?;
        Ok((vocabulary, Special::new(kind, added)?))
    }
}

/// A file's text, if it is not too long.
pub(super) fn read(path: &Path) -> Result<String> {
    let doing = || format!("read {}", path.display());
    let file = File::open(path).map_err(|e| Error::io(e, doing()))?;
    let mut bytes = Vec::new();
    file.take(LONGEST_FILE as u64 + 1).read_to_end(&mut bytes).map_err(|e| Error::io(e, doing()))?;
    String::from_utf8(bytes).map_err(|_| Error::format("tokenizer: expected UTF-8, got other bytes"))
}

/// The text of a file.
///
/// # Errors
/// It is longer than what [`parse`] takes.
pub(super) fn write(contents: &Contents) -> Result<String> {
    let text = |text: &str| Value::from(text).to_string();
    let option = |value: &Option<String>| value.as_deref().map_or("null".into(), text);
    let list = |items: Vec<String>| items.join(",");
    let added = contents.added.iter().map(|token| {
        format!(
            r#"{{"id":{},"content":{},"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":{}}}"#,
            token.id,
            text(&token.content),
            token.special
        )
    });
    let byte_level = |prefix_space: bool, words: bool| {
        format!(
            r#"{{"type":"ByteLevel","add_prefix_space":{prefix_space},"trim_offsets":true,"use_regex":{words}}}"#
        )
    };
    let (pre_tokenizer, decoder) = match contents.kind() {
        Kind::ByteLevelBpe => (byte_level(contents.prefix_space, contents.words), byte_level(true, true)),
        Kind::Chars => ("null".into(), r#"{"type":"Fuse"}"#.into()),
        Kind::Words => (words(contents.punctuation).to_string(), "null".into()),
    };
    let normalizer = if contents.lowercase { r#"{"type":"Lowercase"}"# } else { "null" };
    let mut out = format!(
        concat!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{}],"normalizer":{},"#,
            r#""pre_tokenizer":{},"post_processor":null,"decoder":{},"model":{{"type":"{}","#
        ),
        list(added.collect()),
        normalizer,
        pre_tokenizer,
        decoder,
        if contents.bpe { "BPE" } else { "WordLevel" }
    );
    let entries = list(contents.vocab.iter().map(|(token, id)| format!("{}:{id}", text(token))).collect());
    let done = if contents.bpe {
        let merges = contents.merges.iter().map(|(a, b)| format!("[{},{}]", text(a), text(b)));
        write!(
            out,
            concat!(
                r#""dropout":null,"unk_token":{},"continuing_subword_prefix":null,"end_of_word_suffix":null,"#,
                r#""fuse_unk":{},"byte_fallback":false,"ignore_merges":{},"vocab":{{{}}},"merges":[{}]}}}}"#
            ),
            option(&contents.unknown),
            contents.fuse_unknown,
            contents.ignore_merges,
            entries,
            list(merges.collect())
        )
    } else {
        write!(out, r#""vocab":{{{entries}}},"unk_token":{}}}}}"#, option(&contents.unknown))
    };
    done.map_err(|e| Error::format(format!("tokenizer: {e}")))?;
    if out.len() > LONGEST_FILE {
        return Err(Error::value(format!(
            "tokenizer: expected at most {LONGEST_FILE} bytes, got {}",
            out.len()
        )));
    }
    Ok(out)
}

/// The pre-tokenizer of [`Words`].
fn words(punctuation: bool) -> Value {
    let white_space = serde_json::json!({"type": "WhitespaceSplit"});
    if !punctuation {
        return white_space;
    }
    let pattern = serde_json::json!({"Regex": PUNCTUATION});
    let split =
        serde_json::json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
    serde_json::json!({"type": "Sequence", "pretokenizers": [white_space, split]})
}

/// What [`write()`] wrote, or the `tokenizers` library.
///
/// # Errors
/// The text is no JSON, of another form or longer than the limits, or asks for what is not supported.
pub(super) fn parse(json: &str) -> Result<Contents> {
    if json.len() > LONGEST_FILE {
        return Err(Error::format(format!(
            "tokenizer: expected at most {LONGEST_FILE} bytes, got {} or more",
            json.len()
        )));
    }
    let mut budget = MOST_VALUES;
    let mut parser = serde_json::Deserializer::from_str(json);
    let parsed = parser.deserialize_map(Outer(&mut budget)).and_then(|parts| parser.end().map(|()| parts));
    parsed.map_err(|e| Error::format(format!("tokenizer: {e}")))?.contents()
}

/// The parts of a file as they stand there.
#[derive(Default)]
struct Parts {
    small: HashMap<String, Value>,
    model: Option<Model>,
}

#[derive(Default)]
struct Model {
    small: HashMap<String, Value>,
    vocab: Option<Vec<(String, u32)>>,
    merges: Option<Vec<(String, String)>>,
}

impl Parts {
    fn contents(self) -> Result<Contents> {
        let Self { mut small, model } = self;
        let mut model = model.ok_or_else(|| Error::format("tokenizer: expected a `model`, got none"))?;
        let mut contents = Contents { bpe: model.is_bpe()?, ..Contents::default() };
        for name in ["truncation", "padding"] {
            refuse(name, small.remove(name), |value| value.is_null())?;
        }
        match small.remove("normalizer").unwrap_or_default() {
            Value::Null => {}
            value => {
                settings("normalizer", &value, "Lowercase", &[])?;
                contents.lowercase = true;
                if contents.bpe {
                    return Err(unsupported("normalizer", &value));
                }
            }
        }
        contents.pre_tokenizer(small.remove("pre_tokenizer").unwrap_or_default())?;
        refuse("post_processor", small.remove("post_processor"), |value| {
            value.is_null() || kind_of(value) == Some("ByteLevel")
        })?;
        let expected = match contents.kind() {
            Kind::ByteLevelBpe => Some("ByteLevel"),
            Kind::Chars => Some("Fuse"),
            Kind::Words => None,
        };
        refuse("decoder", small.remove("decoder"), |value| kind_of(value) == expected)?;
        contents.added = match small.remove("added_tokens").unwrap_or_default() {
            Value::Null => Vec::new(),
            Value::Array(tokens) => tokens.iter().map(added).collect::<Result<_>>()?,
            value => return Err(unsupported("added_tokens", &value)),
        };
        contents.unknown = match model.small.remove("unk_token").unwrap_or_default() {
            Value::Null => None,
            Value::String(token) => Some(token),
            value => return Err(unsupported("unk_token", &value)),
        };
        contents.fuse_unknown = flag("fuse_unk", model.small.remove("fuse_unk"), false)?;
        contents.ignore_merges = flag("ignore_merges", model.small.remove("ignore_merges"), false)?;
        refuse("byte_fallback", model.small.remove("byte_fallback"), |value| {
            value.is_null() || *value == Value::Bool(false)
        })?;
        refuse("dropout", model.small.remove("dropout"), |value| {
            value.is_null() || value.as_f64() == Some(0.0)
        })?;
        for name in ["continuing_subword_prefix", "end_of_word_suffix"] {
            refuse(name, model.small.remove(name), |value| value.is_null() || value == "")?;
        }
        contents.vocab = model
            .vocab
            .ok_or_else(|| Error::format("tokenizer: expected a `vocab` in the model, got none"))?;
        contents.merges = model.merges.unwrap_or_default();
        if contents.kind() != Kind::ByteLevelBpe && !contents.merges.is_empty() {
            return Err(Error::format(
                "tokenizer: expected the pre-tokenizer ByteLevel for a model with merges, got another",
            ));
        }
        Ok(contents)
    }
}

impl Model {
    fn is_bpe(&self) -> Result<bool> {
        match self.small.get("type") {
            // Old files do not say.
            None => Ok(self.merges.is_some()),
            Some(Value::String(name)) if name == "BPE" => Ok(true),
            Some(Value::String(name)) if name == "WordLevel" => Ok(false),
            Some(other) => Err(unsupported("model type", other)),
        }
    }
}

impl Contents {
    fn pre_tokenizer(&mut self, value: Value) -> Result<()> {
        if self.bpe {
            if value.is_null() {
                return Ok(());
            }
            let allowed = ["add_prefix_space", "trim_offsets", "use_regex"];
            let settings = settings("pre_tokenizer", &value, "ByteLevel", &allowed)?;
            let setting = |name: &str| flag(name, settings.get(name).cloned(), true);
            self.byte_level = true;
            (self.prefix_space, self.words) = (setting("add_prefix_space")?, setting("use_regex")?);
            return Ok(());
        }
        self.punctuation = value == words(true);
        if !self.punctuation && value != words(false) {
            return Err(unsupported("pre_tokenizer", &value));
        }
        Ok(())
    }
}

/// An added token.
fn added(value: &Value) -> Result<Added> {
    let wrong = || unsupported("added token", value);
    let token = value.as_object().ok_or_else(wrong)?;
    let id =
        token.get("id").and_then(Value::as_u64).filter(|&id| id < MOST_TOKENS as u64).ok_or_else(wrong)?;
    let content = token.get("content").and_then(Value::as_str).ok_or_else(wrong)?;
    for (name, value) in token {
        match (name.as_str(), value) {
            ("id" | "content", _) | ("normalized" | "special", Value::Bool(_)) => {}
            ("single_word" | "lstrip" | "rstrip", Value::Bool(false)) => {}
            _ => {
                return Err(unsupported(
                    &format!("`{}` of an added token", chainrule_core::text::name(name)),
                    value,
                ));
            }
        }
    }
    Ok(Added {
        id: id as u32,
        content: content.to_owned(),
        special: token.get("special").and_then(Value::as_bool).unwrap_or_default(),
    })
}

fn kind_of(value: &Value) -> Option<&str> {
    value.get("type").and_then(Value::as_str)
}

/// The object of a type, which has no other settings than these.
fn settings<'v>(what: &str, value: &'v Value, kind: &str, names: &[&str]) -> Result<&'v Map<String, Value>> {
    let object = value.as_object().filter(|_| kind_of(value) == Some(kind));
    let object =
        object.filter(|object| object.keys().all(|name| name == "type" || names.contains(&name.as_str())));
    object.ok_or_else(|| unsupported(what, value))
}

fn flag(name: &str, value: Option<Value>, default: bool) -> Result<bool> {
    match value.unwrap_or_default() {
        Value::Null => Ok(default),
        Value::Bool(value) => Ok(value),
        other => Err(unsupported(name, &other)),
    }
}

/// An error if a part is there and is not as it has to be.
fn refuse(what: &str, value: Option<Value>, fits: impl FnOnce(&Value) -> bool) -> Result<()> {
    let value = value.unwrap_or_default();
    if fits(&value) { Ok(()) } else { Err(unsupported(what, &value)) }
}

#[cold]
fn unsupported(what: &str, value: &Value) -> Error {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(200) {
        text.truncate(end);
        text.push('…');
    }
    Error::format(format!("tokenizer: {what}: {text} is not supported"))
}

type Parsed<T, E> = std::result::Result<T, E>;

/// The outermost object, with what is left of the number of values.
struct Outer<'b>(&'b mut usize);

impl<'de> Visitor<'de> for Outer<'_> {
    type Value = Parts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a `model`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Parsed<Parts, A::Error> {
        let mut parts = Parts::default();
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            once(&mut names, &name)?;
            match name.as_str() {
                "version" => drop(map.next_value::<IgnoredAny>()?),
                "model" => parts.model = Some(map.next_value_seed(ModelSeed(self.0))?),
                "truncation" | "padding" | "added_tokens" | "normalizer" | "pre_tokenizer"
                | "post_processor" | "decoder" => {
                    drop(parts.small.insert(name, map.next_value_seed(Small(self.0))?))
                }
                _ => return Err(de::Error::custom(format!("unexpected {}", quote(&name)))),
            }
        }
        Ok(parts)
    }
}

fn once<E: de::Error>(names: &mut HashSet<String>, name: &str) -> Parsed<(), E> {
    if names.insert(name.to_owned()) {
        return Ok(());
    }
    Err(E::custom(format!("expected each name once, got {} twice", quote(name))))
}

struct ModelSeed<'b>(&'b mut usize);

impl<'de> DeserializeSeed<'de> for ModelSeed<'_> {
    type Value = Model;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Parsed<Model, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ModelSeed<'_> {
    type Value = Model;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a model")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Parsed<Model, A::Error> {
        let mut model = Model::default();
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            once(&mut names, &name)?;
            match name.as_str() {
                "vocab" => model.vocab = Some(map.next_value_seed(Vocab)?),
                "merges" => model.merges = Some(map.next_value_seed(Merges)?),
                "type"
                | "dropout"
                | "unk_token"
                | "continuing_subword_prefix"
                | "end_of_word_suffix"
                | "fuse_unk"
                | "byte_fallback"
                | "ignore_merges" => {
                    model.small.insert(name, map.next_value_seed(Small(self.0))?);
                    // Of another type nothing else is understood.
                    model.is_bpe().map_err(de::Error::custom)?;
                }
                _ => return Err(de::Error::custom(format!("unexpected {} of the model", quote(&name)))),
            }
        }
        Ok(model)
    }
}

/// Tokens and ids.
struct Vocab;

impl<'de> DeserializeSeed<'de> for Vocab {
    type Value = Vec<(String, u32)>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Parsed<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Vocab {
    type Value = Vec<(String, u32)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tokens and ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Parsed<Self::Value, A::Error> {
        let mut vocab = Vec::new();
        while let Some((token, id)) = map.next_entry::<String, u64>()? {
            if vocab.len() == MOST_TOKENS || id >= MOST_TOKENS as u64 {
                return Err(de::Error::custom(format!(
                    "expected at most {MOST_TOKENS} tokens, got the id {id}"
                )));
            }
            vocab.push((token, id as u32));
        }
        Ok(vocab)
    }
}

/// Pairs of tokens.
struct Merges;

impl<'de> DeserializeSeed<'de> for Merges {
    type Value = Vec<(String, String)>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Parsed<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Merges {
    type Value = Vec<(String, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of merges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Parsed<Self::Value, A::Error> {
        let mut merges = Vec::new();
        while let Some(merge) = seq.next_element_seed(Merge)? {
            if merges.len() == MOST_TOKENS {
                return Err(de::Error::custom(format!("expected at most {MOST_TOKENS} merges, got more")));
            }
            merges.push(merge);
        }
        Ok(merges)
    }
}

/// `"a b"` or `["a","b"]`.
struct Merge;

impl<'de> DeserializeSeed<'de> for Merge {
    type Value = (String, String);

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Parsed<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Merge {
    type Value = (String, String);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a merge, "a b" or ["a","b"]"#)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Parsed<Self::Value, E> {
        match text.split_once(' ') {
            Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(' ') => Ok((a.into(), b.into())),
            _ => Err(E::custom(format!("expected a merge of two tokens, got {}", quote(text)))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Parsed<Self::Value, A::Error> {
        let mut next = || seq.next_element::<String>();
        match (next()?, next()?, next()?) {
            (Some(a), Some(b), None) if !a.is_empty() && !b.is_empty() => Ok((a, b)),
            _ => Err(de::Error::custom("expected a merge of two tokens, got another list")),
        }
    }
}

/// A value among those that are few.
struct Small<'b>(&'b mut usize);

impl<'de> DeserializeSeed<'de> for Small<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Parsed<Value, D::Error> {
        *self.0 = self.0.checked_sub(1).ok_or_else(|| {
            de::Error::custom(format!(
                "expected at most {MOST_VALUES} values beside vocabulary and merges, got more"
            ))
        })?;
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Small<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Parsed<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> Parsed<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Parsed<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Parsed<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Parsed<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Parsed<Value, E> {
        Ok(v.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Parsed<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Small(self.0))? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Parsed<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Small(self.0))?;
            if let Some(name) = values.insert(name.clone(), value).map(|_| name) {
                return Err(de::Error::custom(format!(
                    "expected each name once, got {} twice",
                    quote(&name)
                )));
            }
        }
        Ok(Value::Object(values))
    }
}
