//! A spec as JSON and back: in a model file it comes from strangers.
//!
//! ```json
//! {"version":1,"model":{"kind":"Linear","attributes":{"in_features":2,"out_features":1,"bias":true},"children":{}}}
//! ```
//!
//! Whole numbers and reals are told apart by a point or an exponent, and come back exactly. Infinities and NaN, which JSON
//! does not have, are `{"float":"inf"}`, `{"float":"-inf"}` and `{"float":"nan"}`. Attributes and children keep their order.

use chainrule_core::{Error, Result, Spec, Value, text::quote};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::{cell::Cell, collections::HashSet, fmt};

/// The version of this format.
const VERSION: u64 = 1;

/// How deep specs and values may be nested. Networks come to ten; the parser stops at 128 brackets, of which one level takes
/// two; building and dropping recurse as deep.
const DEEPEST: usize = 48;

/// How many specs and values there may be. A layer takes about ten, so this is a network of ten thousand layers; each takes
/// about a hundred bytes of memory, 13 MB in all.
const MOST_NODES: usize = 1 << 17;

/// The JSON of a spec.
///
/// # Errors
/// It is opaque, names two attributes or children of one thing alike, or is larger than [`parse`] takes.
pub(crate) fn write(spec: &Spec) -> Result<String> {
    let mut writer = Writer { out: format!("{{\"version\":{VERSION},\"model\":"), nodes: 0 };
    writer.spec(spec, 1)?;
    writer.out.push('}');
    Ok(writer.out)
}

struct Writer {
    out: String,
    nodes: usize,
}

impl Writer {
    fn spec(&mut self, spec: &Spec, depth: usize) -> Result<()> {
        self.enter(depth)?;
        if spec.is_opaque() {
            return Err(Error::value(format!(
                "{} does not say what it is: implement `spec` for it, and `FromSpec` to load it again",
                quote(spec.kind())
            )));
        }
        self.out.push_str("{\"kind\":");
        self.text(spec.kind());
        self.out.push_str(",\"attributes\":{");
        self.entries(spec.kind(), spec.attributes(), |writer, value| writer.value(value, depth + 1))?;
        self.out.push_str("},\"children\":{");
        self.entries(spec.kind(), spec.children(), |writer, child| writer.spec(child, depth + 1))?;
        self.out.push_str("}}");
        Ok(())
    }

    fn entries<V>(
        &mut self,
        kind: &str,
        entries: &[(String, V)],
        mut write: impl FnMut(&mut Self, &V) -> Result<()>,
    ) -> Result<()> {
        let mut names = HashSet::new();
        for (i, (name, value)) in entries.iter().enumerate() {
            if !names.insert(name) {
                return Err(Error::value(format!("{}: {}", quote(kind), twice(name))));
            }
            if i > 0 {
                self.out.push(',');
            }
            self.text(name);
            self.out.push(':');
            write(self, value)?;
        }
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<()> {
        match value {
            Value::Spec(spec) => return self.spec(spec, depth),
            Value::List(values) => {
                self.enter(depth)?;
                self.out.push('[');
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        self.out.push(',');
                    }
                    self.value(value, depth + 1)?;
                }
                self.out.push(']');
                return Ok(());
            }
            _ => self.enter(depth)?,
        }
        match value {
            Value::None => self.out.push_str("null"),
            Value::Bool(v) => self.out.push_str(if *v { "true" } else { "false" }),
            Value::Int(v) => self.out.push_str(&v.to_string()),
            // Rust prints the shortest decimal that is read as the same bits, with a point or an exponent.
            Value::Float(v) if v.is_finite() => self.out.push_str(&format!("{v:?}")),
            Value::Float(v) => self.out.push_str(&format!("{{\"float\":\"{}\"}}", not_finite(*v))),
            Value::Text(v) => self.text(v),
            other => return Err(Error::value(format!("expected a value with a JSON form, got {other}"))),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.out.push_str(&serde_json::Value::from(text).to_string());
    }

    fn enter(&mut self, depth: usize) -> Result<()> {
        self.nodes += 1;
        within(depth, self.nodes).map_err(Error::value)
    }
}

fn within(depth: usize, nodes: usize) -> std::result::Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("expected a model nested at most {DEEPEST} deep, got more"));
    }
    if nodes > MOST_NODES {
        return Err(format!("expected a model of at most {MOST_NODES} layers and attributes, got more"));
    }
    Ok(())
}

fn twice(name: &str) -> String {
    format!("expected each name once, got {} twice", quote(name))
}

fn not_finite(v: f64) -> &'static str {
    match v {
        f64::INFINITY => "inf",
        f64::NEG_INFINITY => "-inf",
        _ => "nan",
    }
}

/// The spec that [`write`] wrote.
///
/// # Errors
/// The text is no JSON, of another version or form, or larger than the limits.
pub(crate) fn parse(text: &str) -> Result<Spec> {
    let nodes = Cell::new(0);
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = json.deserialize_map(File { nodes: &nodes }).and_then(|spec| json.end().map(|()| spec));
    parsed.map_err(|e| Error::format(format!("architecture: {e}")))
}

/// The outermost object.
struct File<'n> {
    nodes: &'n Cell<usize>,
}

impl<'de> Visitor<'de> for File<'_> {
    type Value = Spec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of `version` and `model`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Spec, A::Error> {
        // The version comes first: of another one nothing else is understood.
        expect_key(&mut map, "version")?;
        let version: u64 = map.next_value()?;
        if version != VERSION {
            return Err(de::Error::custom(format!("expected version {VERSION}, got {version}")));
        }
        expect_key(&mut map, "model")?;
        let spec = map.next_value_seed(SpecSeed { nodes: self.nodes, depth: 1 })?;
        expect_end(&mut map)?;
        Ok(spec)
    }
}

fn expect_key<'de, A: MapAccess<'de>>(map: &mut A, expected: &str) -> std::result::Result<(), A::Error> {
    match map.next_key::<String>()? {
        Some(key) if key == expected => Ok(()),
        Some(key) => Err(de::Error::custom(format!("expected `{expected}`, got {}", quote(&key)))),
        None => Err(de::Error::custom(format!("expected `{expected}`, got the end"))),
    }
}

fn expect_end<'de, A: MapAccess<'de>>(map: &mut A) -> std::result::Result<(), A::Error> {
    match map.next_key::<String>()? {
        None => Ok(()),
        Some(key) => Err(de::Error::custom(format!("unexpected {}", quote(&key)))),
    }
}

/// One spec at a depth.
#[derive(Clone, Copy)]
struct SpecSeed<'n> {
    nodes: &'n Cell<usize>,
    depth: usize,
}

impl SpecSeed<'_> {
    fn enter<E: de::Error>(self) -> std::result::Result<(), E> {
        self.nodes.set(self.nodes.get() + 1);
        within(self.depth, self.nodes.get()).map_err(E::custom)
    }

    /// The rest of a spec whose key `kind` was read.
    fn after_key<'de, A: MapAccess<'de>>(self, map: &mut A) -> std::result::Result<Spec, A::Error> {
        let below = Self { depth: self.depth + 1, ..self };
        let mut spec = Spec::new(map.next_value::<String>()?);
        expect_key(map, "attributes")?;
        for (name, value) in map.next_value_seed(Entries(ValueSeed(below)))? {
            spec = spec.with(name, value);
        }
        expect_key(map, "children")?;
        for (name, child) in map.next_value_seed(Entries(below))? {
            spec = spec.child(name, child);
        }
        expect_end(map)?;
        Ok(spec)
    }
}

impl<'de> DeserializeSeed<'de> for SpecSeed<'_> {
    type Value = Spec;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Spec, D::Error> {
        self.enter()?;
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for SpecSeed<'_> {
    type Value = Spec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of `kind`, `attributes` and `children`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Spec, A::Error> {
        expect_key(&mut map, "kind")?;
        self.after_key(&mut map)
    }
}

/// The value of an attribute.
#[derive(Clone, Copy)]
struct ValueSeed<'n>(SpecSeed<'n>);

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Value, D::Error> {
        self.0.enter()?;
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value of an attribute")
    }

    fn visit_unit<E: de::Error>(self) -> std::result::Result<Value, E> {
        Ok(Value::None)
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> std::result::Result<Value, E> {
        Ok(Value::Int(v))
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> std::result::Result<Value, E> {
        let out_of_range = || E::custom(format!("expected a whole number of at most {}, got {v}", i64::MAX));
        i64::try_from(v).map(Value::Int).map_err(|_| out_of_range())
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> std::result::Result<Value, E> {
        Ok(Value::Float(v))
    }

    fn visit_str<E: de::Error>(self, v: &str) -> std::result::Result<Value, E> {
        Ok(Value::Text(v.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let mut values = Vec::new();
        let below = Self(SpecSeed { depth: self.0.depth + 1, ..self.0 });
        while let Some(value) = seq.next_element_seed(below)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        match map.next_key::<String>()?.as_deref() {
            Some("kind") => self.0.after_key(&mut map).map(Value::Spec),
            Some("float") => {
                let text: String = map.next_value()?;
                let all = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
                let value = all.into_iter().find(|&v| not_finite(v) == text);
                expect_end(&mut map)?;
                let wrong = || format!("expected `inf`, `-inf` or `nan`, got {}", quote(&text));
                value.map(Value::Float).ok_or_else(|| de::Error::custom(wrong()))
            }
            other => Err(de::Error::custom(format!(
                "expected `kind` or `float`, got {}",
                quote(other.unwrap_or_default())
            ))),
        }
    }
}

/// Names and values in order, each name once.
struct Entries<S>(S);

impl<'de, S: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for Entries<S> {
    type Value = Vec<(String, S::Value)>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for Entries<S> {
    type Value = Vec<(String, S::Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let (mut entries, mut names) = (Vec::new(), HashSet::new());
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(de::Error::custom(twice(&name)));
            }
            entries.push((name, map.next_value_seed(self.0)?));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Spec {
        let values = Value::List(vec![Value::None, Value::Int(i64::MIN), Value::Text("a\"\u{1}é".into())]);
        Spec::new("Outer")
            .with("on", true)
            .with("size", i64::MAX)
            .with("eps", 1e-5)
            .with("one", 1.0)
            .with("large", f64::MAX)
            .with("tiny", f64::from_bits(1))
            .with("zero", -0.0)
            .with("bound", f64::INFINITY)
            .with("floor", f64::NEG_INFINITY)
            .with("values", values)
            .with("init", Spec::new("Constant").with("value", 0.1 + 0.2))
            .child("b", Spec::new("Inner").child("0", Spec::new("Leaf")))
            .child("a", Spec::new("Leaf").with("inf", "inf"))
    }

    fn refused(text: &str) -> String {
        let text = parse(text).unwrap_err().to_string();
        assert!(text.len() < 40_000 && !text.contains(char::is_control), "{text}");
        text
    }

    /// A file around a spec.
    fn file(spec: &str) -> String {
        format!(r#"{{"version":1,"model":{spec}}}"#)
    }

    fn attribute(value: &str) -> String {
        file(&format!(r#"{{"kind":"A","attributes":{{"a":{value}}},"children":{{}}}}"#))
    }

    #[test]
    fn a_spec_comes_back_exactly() {
        let spec = example();
        let again = parse(&write(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
        assert_eq!(again.to_string(), spec.to_string());
        let Some(Value::Float(zero)) = again.get("zero") else { panic!() };
        assert_eq!(zero.to_bits(), (-0.0f64).to_bits());
        let nan = Spec::new("A").with("a", f64::NAN);
        let again = parse(&write(&nan).unwrap()).unwrap();
        assert!(matches!(again.get("a"), Some(Value::Float(v)) if v.is_nan()));
    }

    #[test]
    fn text_cut_anywhere_is_an_error() {
        let text = write(&example()).unwrap();
        for (n, _) in text.char_indices() {
            refused(&text[..n]);
        }
        refused(&format!("{text}x"));
    }

    #[test]
    fn another_form_or_version_is_an_error() {
        let leaf = r#"{"kind":"A","attributes":{},"children":{}}"#;
        assert!(parse(&file(leaf)).is_ok());
        assert!(refused(r#"{"version":2,"weights":[]}"#).contains("expected version 1, got 2"));
        assert!(refused(&format!(r#"{{"model":{leaf},"version":1}}"#)).contains("expected `version`"));
        assert!(
            refused(&format!(r#"{{"version":1,"model":{leaf},"more":1}}"#)).contains("unexpected `more`")
        );
        assert!(refused("[]").contains("expected an object of `version` and `model`"));
        assert!(refused(&file("3")).contains("expected an object of `kind`"));
        assert!(refused(&file(r#"{"kind":"A","children":{}}"#)).contains("expected `attributes`"));
        assert!(refused(&file(r#"{"kind":3,"attributes":{},"children":{}}"#)).contains("string"));
        let twice = r#"{"kind":"A","attributes":{"a":1,"a":2},"children":{}}"#;
        assert!(refused(&file(twice)).contains("got `a` twice"));
        assert!(refused(&attribute(r#"{"float":"1.0"}"#)).contains("expected `inf`, `-inf` or `nan`"));
        assert!(refused(&attribute(r#"{"lambda":1}"#)).contains("expected `kind` or `float`"));
        let spoof = refused(&attribute("{\"\\u001b[2J\":1}"));
        assert!(spoof.contains(r"\u{1b}[2J"), "{spoof}");
    }

    #[test]
    fn numbers_beyond_range_are_errors() {
        assert!(refused(&attribute("9223372036854775808")).contains("at most 9223372036854775807"));
        refused(&attribute("1e999"));
        refused(&attribute("NaN"));
        // Beyond 64 bits JSON has reals: no size is read from one.
        let huge = parse(&attribute("99999999999999999999999")).unwrap();
        assert_eq!(huge.get("a"), Some(&Value::Float(1e23)));
    }

    #[test]
    fn depth_is_bounded_both_ways() {
        let nested = |n: usize| (1..n).fold(Spec::new("A"), |inner, _| Spec::new("A").child("0", inner));
        let deepest = write(&nested(DEEPEST)).unwrap();
        assert_eq!(parse(&deepest).unwrap(), nested(DEEPEST));
        assert!(write(&nested(DEEPEST + 1)).unwrap_err().to_string().contains("nested at most 48"));
        let deeper = deepest.replacen(
            r#""children":{}"#,
            r#""children":{"0":{"kind":"A","attributes":{},"children":{}}}"#,
            1,
        );
        assert!(refused(&deeper).contains("nested at most 48"));
        refused(&file(&r#"{"kind":"A","attributes":{},"children":{"0":"#.repeat(100_000)));
        refused(&attribute(&"[".repeat(100_000)));
        assert!(refused(&attribute(&format!("{}{}", "[".repeat(60), "]".repeat(60)))).contains("nested"));
    }

    #[test]
    fn size_is_bounded_both_ways() {
        let list = |n: usize| Spec::new("A").with("a", vec![0i64; n]);
        assert!(parse(&write(&list(MOST_NODES - 2)).unwrap()).is_ok());
        assert!(write(&list(MOST_NODES - 1)).unwrap_err().to_string().contains("at most 131072"));
        let zeros = "0,".repeat(1 << 20);
        assert!(refused(&attribute(&format!("[{zeros}0]"))).contains("at most 131072"));
    }

    #[test]
    fn an_opaque_spec_is_refused_with_what_to_do() {
        let spec = Spec::new("Sequential").child("0", Spec::opaque::<Vec<u8>>());
        let text = write(&spec).unwrap_err().to_string();
        assert_eq!(
            text,
            "`Vec` does not say what it is: implement `spec` for it, and `FromSpec` to load it again"
        );
    }
}
