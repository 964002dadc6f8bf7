//! The index of weights in several files, `model.safetensors.index.json`:
//!
//! ```json
//! {"metadata":{"total_size":8},"weight_map":{"a.weight":"model-00001-of-00002.safetensors"}}
//! ```

use crate::fault::Outcome;
use chainrule_core::text::quote;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Component, Path},
};

/// Which file each tensor is in.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The files, by name.
    pub shards: Vec<Box<str>>,
    /// By name of the tensor, the number of its file.
    pub tensors: BTreeMap<Box<str>, u32>,
}

pub(crate) fn parse(json: &[u8]) -> Outcome<Index> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let parsed = json.deserialize_map(Whole).and_then(|map| json.end().map(|()| map));
    let tensors = parsed.map_err(|e| format!("index: {e}"))?;
    let mut names: Vec<Box<str>> = tensors.values().cloned().collect();
    names.sort_unstable();
    names.dedup();
    for name in &names {
        // A name in the folder of the index, on any system.
        let mut parts = Path::new(&**name).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        if !plain || name.contains(['/', '\\', ':']) || name.contains(char::is_control) {
            return Err(format!("index: expected files beside the index, got {}", quote(name)).into());
        }
    }
    let number = |shard: &str| names.binary_search_by(|name| (**name).cmp(shard)).unwrap_or(0) as u32;
    let tensors = tensors.into_iter().map(|(name, shard)| (name, number(&shard))).collect();
    Ok(Index { tensors, shards: names })
}

/// The outermost object.
struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = BTreeMap<Box<str>, Box<str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a `weight_map`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tensors = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "weight_map" {
                map.next_value::<IgnoredAny>()?;
            } else if tensors.replace(map.next_value_seed(WeightMap)?).is_some() {
                return Err(de::Error::custom("expected `weight_map` once, got it twice"));
            }
        }
        tensors.ok_or_else(|| de::Error::custom("expected a `weight_map`, got none"))
    }
}

/// Names of tensors and files.
struct WeightMap;

impl<'de> DeserializeSeed<'de> for WeightMap {
    type Value = BTreeMap<Box<str>, Box<str>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WeightMap {
    type Value = BTreeMap<Box<str>, Box<str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of names of tensors and files")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tensors: BTreeMap<Box<str>, Box<str>> = BTreeMap::new();
        while let Some(name) = map.next_key::<Box<str>>()? {
            if tensors.contains_key(&name) {
                let name = quote(&name);
                return Err(de::Error::custom(format!("expected each tensor once, got {name} twice")));
            }
            let shard = map.next_value::<Box<str>>()?;
            tensors.insert(name, shard);
        }
        Ok(tensors)
    }
}
