//! Named tensors, counts and texts in one file: what a program goes on from.

use crate::{dtype, file::check_finite, save::ordered, write_atomically};
use chainrule_core::{
    Error, OptimizerState, Parameters, Result, Scalar, Shape, StateValue, Tensor, text::quote,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Display},
    fs,
    path::Path,
    str::FromStr,
};

/// The longest header of an archive.
const LONGEST_HEADER: u64 = 64 << 20;

/// The entry that says which version of the layout a file has.
const VERSION: &str = "chainrule.archive";
const CURRENT: &str = "1";

/// Tensors and counts by name, and texts by key, in one safetensors file: a run of training as
/// `Trainer::resume` in `chainrule-train` reads it, or whatever a program needs to go on.
///
/// Numbers among the texts are written so that they come back with the same bits.
///
/// ```
/// use chainrule_core::Tensor;
/// use chainrule_io::Archive;
/// let mut archive = Archive::<f32>::new();
/// archive.insert("mean", Tensor::from([0.5, 1.5]))?;
/// archive.insert_count("steps", 120)?;
/// archive.set("rate", 1e-3);
/// let mut again = Archive::<f32>::from_bytes(&archive.to_bytes()?)?;
/// assert_eq!(again.take("mean")?, Tensor::from([0.5, 1.5]));
/// assert_eq!((again.take_count("steps")?, again.number::<f64>("rate")?), (120, 1e-3));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Archive<T = f32> {
    values: BTreeMap<String, StateValue<Tensor<T>>>,
    texts: BTreeMap<String, String>,
}

impl<T> Default for Archive<T> {
    fn default() -> Self {
        Self { values: BTreeMap::new(), texts: BTreeMap::new() }
    }
}

impl<T: Scalar> Archive<T> {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor.
    ///
    /// # Errors
    /// The name is taken, or a value is not finite.
    pub fn insert(&mut self, name: impl Into<String>, values: Tensor<T>) -> Result<()> {
        let name = name.into();
        check_finite(values.data()).map_err(|e| Error::value(format!("archive: {}: {e}", quote(&name))))?;
        self.put(name, StateValue::Values(values))
    }

    /// Adds a count.
    ///
    /// # Errors
    /// The name is taken.
    pub fn insert_count(&mut self, name: impl Into<String>, count: u64) -> Result<()> {
        self.put(name.into(), StateValue::Count(count))
    }

    /// Adds what need not be finite.
    pub(crate) fn put(&mut self, name: String, value: StateValue<Tensor<T>>) -> Result<()> {
        if self.values.contains_key(&name) {
            return Err(Error::state(format!(
                "archive: expected each name once, got {} twice",
                quote(&name)
            )));
        }
        self.values.insert(name, value);
        Ok(())
    }

    /// Takes a tensor out.
    ///
    /// # Errors
    /// There is none of that name, or it is a count.
    pub fn take(&mut self, name: &str) -> Result<Tensor<T>> {
        match self.values.remove(name) {
            Some(StateValue::Values(values)) => Ok(values),
            Some(StateValue::Count(_)) => Err(missing("values", name)),
            None => Err(missing("a tensor", name)),
        }
    }

    /// Takes a count out.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn take_count(&mut self, name: &str) -> Result<u64> {
        match self.values.remove(name) {
            Some(StateValue::Count(count)) => Ok(count),
            _ => Err(missing("a count", name)),
        }
    }

    /// Takes a tensor or a count out, if there is one of that name.
    pub(crate) fn remove(&mut self, name: &str) -> Option<StateValue<Tensor<T>>> {
        self.values.remove(name)
    }

    /// Sets a text.
    pub fn set(&mut self, key: impl Into<String>, text: impl Display) {
        self.texts.insert(key.into(), text.to_string());
    }

    /// A text.
    ///
    /// # Errors
    /// There is none of that key.
    pub fn get(&self, key: &str) -> Result<&str> {
        self.find(key).ok_or_else(|| missing("an entry", key))
    }

    /// A text, if there is one of that key.
    pub fn find(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }

    /// A text as a number, or as anything else that is parsed.
    ///
    /// # Errors
    /// There is none of that key, or it is none.
    pub fn number<N: FromStr>(&self, key: &str) -> Result<N> {
        let text = self.get(key)?;
        text.parse().map_err(|_| {
            Error::format(format!("archive: entry {}: expected a number, got {}", quote(key), quote(text)))
        })
    }

    /// Sets a list of numbers, or of anything else without spaces.
    pub fn set_list<N: Debug>(&mut self, key: impl Into<String>, list: impl IntoIterator<Item = N>) {
        let words: Vec<String> = list.into_iter().map(|n| format!("{n:?}")).collect();
        self.set(key, words.join(" "));
    }

    /// A list.
    ///
    /// # Errors
    /// There is none of that key, or an element is none.
    pub fn list<N: FromStr>(&self, key: &str) -> Result<Vec<N>> {
        let wrong = |word: &str| {
            Error::format(format!("archive: entry {}: expected numbers, got {}", quote(key), quote(word)))
        };
        self.get(key)?.split_whitespace().map(|word| word.parse().map_err(|_| wrong(word))).collect()
    }

    /// Adds all parameters and buffers of a model under a prefix. One that is used twice is added once.
    ///
    /// # Errors
    /// One is not initialised or not finite, or two have the same path.
    pub fn insert_model(&mut self, prefix: &str, model: &(impl Parameters<T = T> + ?Sized)) -> Result<()> {
        let mut seen = BTreeSet::new();
        model.try_visit(&mut |path, p| {
            if !seen.insert(p.id()) {
                return Ok(());
            }
            p.value().map_err(|e| e.in_layer(path.to_string()))?;
            p.tensor().map_or(Ok(()), |values| self.insert(format!("{prefix}{path}"), values.clone()))
        })
    }

    /// Gives a model the values that [`Archive::insert_model`] added. After an error nothing has changed.
    ///
    /// # Errors
    /// A parameter is missing or of another shape.
    pub fn take_model(&mut self, prefix: &str, model: &mut (impl Parameters<T = T> + ?Sized)) -> Result<()> {
        let (mut seen, mut taken) = (BTreeSet::new(), Vec::new());
        model.try_visit(&mut |path, p| {
            if !seen.insert(p.id()) {
                return Ok(());
            }
            let values = self.take(&format!("{prefix}{path}"))?;
            if values.shape() != p.shape() {
                return Err(Error::shape(format!(
                    "archive: expected `{path}` of shape {}, got {}",
                    p.shape(),
                    values.shape()
                )));
            }
            taken.push((p.id(), values));
            Ok(())
        })?;
        let mut taken = taken.into_iter().peekable();
        model.try_visit_mut(&mut |_, p| match taken.next_if(|(id, _)| *id == p.id()) {
            Some((_, values)) => p.set(values),
            None => Ok(()),
        })
    }

    /// Adds the state of an optimizer under a prefix.
    ///
    /// # Errors
    /// A value is not finite.
    pub fn insert_state(&mut self, prefix: &str, state: &OptimizerState<T>) -> Result<()> {
        state.iter().try_for_each(|(path, name, value)| {
            let name = format!("{prefix}{name}/{path}");
            match value {
                StateValue::Values(values) => self.insert(name, values.clone()),
                StateValue::Count(count) => self.insert_count(name, *count),
            }
        })
    }

    /// Takes out the state of an optimizer that [`Archive::insert_state`] added.
    pub fn take_state(&mut self, prefix: &str) -> OptimizerState<T> {
        let mut state = OptimizerState::new();
        for name in self.names(prefix) {
            if let (Some((of, path)), Some(value)) =
                (name[prefix.len()..].split_once('/'), self.values.remove(&name))
            {
                state.insert(path, of, value);
            }
        }
        state
    }

    /// The names of tensors and counts that begin with a prefix, in order.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let from = self.values.range(prefix.to_owned()..);
        from.map(|(name, _)| name).take_while(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// Writes the file, atomically and durably: see [`write_atomically`].
    ///
    /// # Errors
    /// The operating system refuses; the old file is then as it was.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomically(path, &self.to_bytes()?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The operating system refuses, or as [`Archive::from_bytes`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let io = |e| Error::io(e, format!("read {}", path.display()));
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(Error::format(format!("{}: expected a regular file", path.display())));
        }
        Self::from_bytes(&fs::read(path).map_err(io)?)
            .map_err(|e| Error::format(format!("{}: {e}", path.display())))
    }

    /// The contents of the file. They carry a hash of themselves, so that a damaged one is known.
    ///
    /// # Errors
    /// There are more names than a header holds.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let encoded: Vec<(&String, Dtype, Vec<usize>, Vec<u8>)> = self
            .values
            .iter()
            .map(|(name, value)| match value {
                StateValue::Count(count) => (name, Dtype::U64, Vec::new(), count.to_le_bytes().to_vec()),
                StateValue::Values(values) => {
                    let mut bytes = Vec::with_capacity(size_of_val(values.data()));
                    values.data().iter().for_each(|v| v.write_le(&mut bytes));
                    (name, dtype::of::<T>(), values.shape().to_vec(), bytes)
                }
            })
            .collect();
        let views = encoded
            .iter()
            .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(broken)?;
        let ours =
            [(VERSION.to_owned(), CURRENT.to_owned()), (HASH.to_owned(), format!("{:016x}", self.hash()))];
        let texts = self.texts.clone().into_iter().chain(ours).collect();
        ordered(safetensors::serialize(views, Some(texts)).map_err(broken)?)
    }

    /// Reads the contents of a file.
    ///
    /// # Errors
    /// It is no archive, of another version or of another type of values, damaged, or holds values that are not finite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes, true)
    }

    /// [`Archive::from_bytes`], of values that are finite or need not be.
    pub(crate) fn read(bytes: &[u8], finite: bool) -> Result<Self> {
        let n = bytes.first_chunk().map_or(0, |&n| u64::from_le_bytes(n));
        if n > LONGEST_HEADER.min(bytes.len() as u64) {
            return Err(Error::format(format!("archive: a header of {n} bytes is too long")));
        }
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let texts = header.metadata().clone().unwrap_or_default();
        match texts.get(VERSION).map(String::as_str) {
            Some(CURRENT) => {}
            Some(other) => {
                return Err(Error::format(format!(
                    "archive: expected version {CURRENT}, got {}",
                    quote(other)
                )));
            }
            None => return Err(Error::format(format!("archive: expected an entry `{VERSION}`, got none"))),
        }
        let file = SafeTensors::deserialize(bytes).map_err(broken)?;
        let mut archive = Self { texts: texts.into_iter().collect(), ..Self::new() };
        let hash = archive.texts.remove(HASH);
        archive.texts.remove(VERSION);
        for (name, view) in file.iter() {
            let wrong = |text: String| Error::format(format!("archive: {}: {text}", quote(name)));
            if view.dtype() == Dtype::U64 && view.shape().is_empty() {
                let count = view.data().first_chunk().map_or(0, |&b| u64::from_le_bytes(b));
                archive.insert_count(name, count)?;
                continue;
            }
            if view.dtype() != dtype::of::<T>() {
                return Err(wrong(format!("expected values of type {}, got {}", T::NAME, view.dtype())));
            }
            let shape = Shape::new(view.shape()).map_err(|e| wrong(e.to_string()))?;
            let mut values = Vec::with_capacity(shape.volume());
            dtype::decode(view.dtype(), view.data(), &mut values).map_err(wrong)?;
            let values = Tensor::from_vec(shape, values)?;
            match finite {
                true => archive.insert(name, values)?,
                false => archive.put(name.to_owned(), StateValue::Values(values))?,
            }
        }
        match hash {
            Some(hash) if hash == format!("{:016x}", archive.hash()) => Ok(archive),
            _ => Err(Error::format("archive: expected contents that fit their hash: the file is damaged")),
        }
    }

    /// A hash of all names and values (FNV-1a of words; Fowler, Noll and Vo, 1991).
    fn hash(&self) -> u64 {
        fn word(hash: u64, word: u64) -> u64 {
            (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29)
        }
        let text = |hash, text: &str| {
            let hash = text.as_bytes().chunks(8).fold(hash, |hash, bytes| {
                word(hash, bytes.iter().fold(0, |sum, &b| sum << 8 | u64::from(b)))
            });
            word(hash, text.len() as u64)
        };
        let mut hash = 0xcbf2_9ce4_8422_2325;
        for (key, value) in &self.texts {
            hash = text(text(hash, key), value);
        }
        for (name, value) in &self.values {
            hash = text(hash, name);
            hash = match value {
                StateValue::Count(count) => word(hash, *count),
                StateValue::Values(values) => {
                    let hash = values.shape().iter().fold(hash, |hash, &n| word(hash, n as u64));
                    values.data().iter().fold(hash, |hash, v| word(hash, v.to_f64().to_bits()))
                }
            };
        }
        hash
    }
}

/// The entry that holds the hash.
const HASH: &str = "chainrule.hash";

fn missing(what: &str, name: &str) -> Error {
    Error::state(format!("archive: expected {what} named {}, got none", quote(name)))
}

fn broken(error: safetensors::SafeTensorError) -> Error {
    Error::format(format!("archive: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Archive<f64> {
        let mut archive = Archive::new();
        archive.insert("b", Tensor::from([[0.1, -0.0], [f64::MIN_POSITIVE, 1e300]])).unwrap();
        archive.insert("a", Tensor::zeros([0, 3])).unwrap();
        archive.insert_count("n", u64::MAX).unwrap();
        archive.set("text", "a \"b\"\n\u{1F600}");
        archive.set_list("list", [0.1f64, f64::NEG_INFINITY, 1e-310]);
        archive
    }

    #[test]
    fn everything_comes_back_with_its_bits() {
        let before = archive();
        let mut after = Archive::from_bytes(&before.to_bytes().unwrap()).unwrap();
        assert_eq!(before, after);
        assert_eq!(after.list::<f64>("list").unwrap(), [0.1, f64::NEG_INFINITY, 1e-310]);
        let b = after.take("b").unwrap();
        assert!(b.data()[1].is_sign_negative() && b.data()[2] == f64::MIN_POSITIVE);
        assert_eq!((after.take_count("n").unwrap(), after.names("")), (u64::MAX, vec!["a".to_owned()]));
        assert!(
            after.take("n").is_err() && after.get("none").is_err() && after.number::<u64>("text").is_err()
        );
    }

    /// A file that is cut anywhere, or of which one bit is another, is no archive.
    #[test]
    fn a_damaged_file_is_an_error() {
        let bytes = archive().to_bytes().unwrap();
        for n in 0..bytes.len() {
            assert!(Archive::<f64>::from_bytes(&bytes[..n]).is_err(), "cut at {n}");
            let mut other = bytes.clone();
            other[n] ^= 1 << (n % 8);
            assert!(
                Archive::from_bytes(&other).map_or(true, |read| read == archive()),
                "bit {} of byte {n}",
                n % 8
            );
        }
        assert!(Archive::<f64>::from_bytes(&[bytes, vec![0]].concat()).is_err());
    }

    #[test]
    fn names_that_are_taken_and_values_that_are_not_finite_are_refused() {
        let mut archive = archive();
        assert!(archive.insert("a", Tensor::zeros([1])).is_err());
        assert!(archive.insert("c", Tensor::from([f64::NAN])).is_err());
        assert!(Archive::<f32>::from_bytes(&self::archive().to_bytes().unwrap()).is_err(), "another type");
    }
}
