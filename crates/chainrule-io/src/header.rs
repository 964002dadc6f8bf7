//! The header of a safetensors file, parsed into no more than a small multiple of its length.
//!
//! ```json
//! {"__metadata__":{"format":"pt"},"weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}
//! ```
//!
//! The package's own parser keeps every name several times and every axis of every shape, 25 times the length of the header;
//! of the metadata, which may be anything, one entry is read here.

use chainrule_tensor::text::quote;
use safetensors::Dtype;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The key of a header that is not a tensor.
pub(crate) const METADATA: &str = "__metadata__";

/// The entry of the metadata that holds the architecture.
pub(crate) const ARCHITECTURE: &str = "chainrule.model";

/// How many axes a tensor may have: as many as PyTorch's.
pub(crate) const MOST_AXES: usize = 64;

/// What a header says.
#[derive(Debug, Default)]
pub(crate) struct Header {
    /// By name.
    tensors: Vec<Entry>,
    /// The metadata.
    metadata: Metadata,
    /// How many bytes of values follow.
    pub length: u64,
}

/// One tensor.
#[derive(Debug)]
pub(crate) struct Entry {
    pub name: Box<str>,
    pub dtype: Dtype,
    pub shape: Box<[usize]>,
    /// Where its bytes begin and end, counted from the end of the header.
    pub place: (usize, usize),
}

impl Header {
    /// Parses a header and checks it: each name once, sizes that are those of type and shape, and bytes that follow each
    /// other without gaps.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let parsed = json.deserialize_map(Whole).and_then(|header| json.end().map(|()| header));
        parsed.map_err(|e| format!("header: {e}"))?.checked()
    }

    /// The text of the architecture, taken out.
    pub(crate) fn architecture(&mut self) -> Option<String> {
        self.metadata.architecture.take()
    }

    /// Other names of tensors, each with the name under which the tensor stands: `safetensors.torch.save_model` writes tied
    /// ones once.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = (&str, &Entry)> {
        let find = |name: &str| self.tensors.binary_search_by(|entry| (*entry.name).cmp(name)).ok();
        self.metadata.texts().filter_map(move |(alias, name)| match (find(alias), find(name)) {
            (None, Some(at)) => Some((alias, &self.tensors[at])),
            _ => None,
        })
    }

    /// The tensors, by name.
    pub(crate) fn into_tensors(self) -> Vec<Entry> {
        self.tensors
    }

    fn checked(mut self) -> Result<Self, String> {
        let of = |entry: &Entry, text: String| format!("tensor {}: {text}", quote(&entry.name));
        self.tensors.sort_unstable_by_key(|entry| entry.place);
        let mut end = 0;
        for entry in &self.tensors {
            let (from, to) = entry.place;
            let bits = entry.shape.iter().try_fold(entry.dtype.bitsize(), |n, &axis| n.checked_mul(axis));
            let Some(bits) = bits.filter(|bits| bits.is_multiple_of(8)) else {
                return Err(of(
                    entry,
                    "expected a shape of whole bytes that memory holds, got another".into(),
                ));
            };
            if from != end || to.checked_sub(from) != Some(bits / 8) {
                let text = format!("expected {} bytes from {end} on, got {from} to {to}", bits / 8);
                return Err(of(entry, text));
            }
            end = to;
        }
        self.length = end as u64;
        self.tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        match self.tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(of(&pair[0], "expected each name once, got it twice".into())),
            None => Ok(self),
        }
    }
}

/// The outermost object.
struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut header, mut metadata) = (Header::default(), false);
        while let Some(name) = map.next_key::<Box<str>>()? {
            if &*name != METADATA {
                header.tensors.push(map.next_value_seed(Named(name))?);
            } else if std::mem::replace(&mut metadata, true) {
                return Err(de::Error::custom(twice(METADATA)));
            } else {
                header.metadata = map.next_value_seed(Metadata::default())?;
            }
        }
        Ok(header)
    }
}

fn twice(name: &str) -> String {
    format!("expected each name once, got {} twice", quote(name))
}

/// A tensor of this name.
struct Named(Box<str>);

impl<'de> DeserializeSeed<'de> for Named {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Entry, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Named {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of `dtype`, `shape` and `data_offsets`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        /// Reads a field that must come once.
        fn once<E: de::Error, V>(field: &mut Option<V>, name: &str, value: V) -> Result<(), E> {
            match field.replace(value) {
                None => Ok(()),
                Some(_) => Err(E::custom(twice(name))),
            }
        }
        let (mut dtype, mut shape, mut place) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match &*key {
                "dtype" => once(&mut dtype, &key, map.next_value()?)?,
                "shape" => once(&mut shape, &key, map.next_value_seed(Axes)?)?,
                "data_offsets" => once(&mut place, &key, map.next_value()?)?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        match (dtype, shape, place) {
            (Some(dtype), Some(shape), Some(place)) => Ok(Entry { name: self.0, dtype, shape, place }),
            _ => Err(de::Error::custom(format!(
                "tensor {}: expected `dtype`, `shape` and `data_offsets`, got fewer",
                quote(&self.0)
            ))),
        }
    }
}

/// A shape.
struct Axes;

impl<'de> DeserializeSeed<'de> for Axes {
    type Value = Box<[usize]>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Axes {
    type Value = Box<[usize]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of sizes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut axes = Vec::new();
        while let Some(axis) = seq.next_element()? {
            if axes.len() == MOST_AXES {
                return Err(de::Error::custom(format!(
                    "expected a shape of at most {MOST_AXES} axes, got more"
                )));
            }
            axes.push(axis);
        }
        Ok(axes.into())
    }
}

/// The metadata: texts.
#[derive(Debug, Default)]
struct Metadata {
    architecture: Option<String>,
    /// Keys and values in turn, one after another, but for those without a value.
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Metadata {
    fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let (pairs, _) = self.ends.as_chunks::<2>();
        let mut begin = 0;
        pairs.iter().map(move |&[middle, end]| {
            let pair = (&self.text[begin..middle as usize], &self.text[middle as usize..end as usize]);
            begin = end as usize;
            pair
        })
    }
}

impl<'de> DeserializeSeed<'de> for Metadata {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let value: String = map.next_value()?;
            if key == ARCHITECTURE {
                if self.architecture.replace(value).is_some() {
                    return Err(de::Error::custom(twice(ARCHITECTURE)));
                }
            } else if !value.is_empty() {
                for text in [key, value] {
                    self.text.push_str(&text);
                    self.ends.push(self.text.len() as u32);
                }
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_in_any_order_of_its_fields() {
        let mut header = Header::parse(
            br#" {"b":{"data_offsets":[8,12],"dtype":"F32","more":[{}],"shape":[]},
            "__metadata__":{"format":"pt","chainrule.model":"m"},"a":{"dtype":"F64","shape":[1,1],"data_offsets":[0,8]}} "#,
        )
        .unwrap();
        assert_eq!((header.architecture().as_deref(), header.length), (Some("m"), 12));
        let names: Vec<_> = header.tensors.iter().map(|e| (&*e.name, &*e.shape, e.place)).collect();
        assert_eq!(names, [("a", &[1, 1][..], (0, 8)), ("b", &[][..], (8, 12))]);
        assert_eq!(Header::parse(b"{}").unwrap().into_tensors().len(), 0);
    }

    #[test]
    fn names_in_the_metadata_are_of_tensors_that_are_there() {
        let header = Header::parse(
            br#"{"__metadata__":{"tied":"a","format":"pt","a":"b","other":"tied"},
            "a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
        )
        .unwrap();
        let aliases: Vec<_> = header.aliases().map(|(alias, entry)| (alias, &*entry.name)).collect();
        assert_eq!(aliases, [("tied", "a")]);
    }

    #[test]
    fn what_does_not_agree_is_an_error() {
        let tensor = |fields: &str| format!(r#"{{"a":{{{fields}}}}}"#);
        let refused = |text: &str| Header::parse(text.as_bytes()).unwrap_err();
        let good = r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#;
        assert!(Header::parse(tensor(good).as_bytes()).is_ok());
        for (from, to, expected) in [
            ("[0,8]", "[0,7]", "expected 8 bytes from 0 on, got 0 to 7"),
            ("[0,8]", "[8,0]", "expected 8 bytes from 0 on, got 8 to 0"),
            ("[0,8]", "[4,12]", "expected 8 bytes from 0 on, got 4 to 12"),
            ("[0,8]", "[0]", "invalid length 1"),
            ("F32", "F4", "expected 1 bytes from 0 on, got 0 to 8"),
            ("[2]", "[9223372036854775807,4]", "that memory holds"),
            ("[2]", "[-2]", "invalid value"),
            ("\"F32\"", "\"X\"", "unknown variant"),
            ("\"shape\"", "\"shapes\"", "expected `dtype`, `shape` and `data_offsets`, got fewer"),
            ("\"shape\"", "\"dtype\":\"F32\",\"shape\"", "got `dtype` twice"),
        ] {
            let text = refused(&tensor(&good.replacen(from, to, 1)));
            assert!(text.contains(expected), "{text}, not {expected}");
        }
        let empty = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
        assert!(refused(&format!(r#"{{"a":{empty},"a":{empty}}}"#)).contains("got it twice"));
        assert!(refused(r#"{"__metadata__":{},"__metadata__":{}}"#).contains("twice"));
        assert!(refused(r#"{"__metadata__":{"a":1}}"#).contains("string"));
        assert!(refused("{} {}").contains("trailing"));
        let axes = "1,".repeat(MOST_AXES);
        assert!(
            refused(&tensor(&format!(r#""dtype":"U8","shape":[{axes}1],"data_offsets":[0,1]"#)))
                .contains("at most 64 axes")
        );
    }
}
