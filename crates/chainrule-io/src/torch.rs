//! What `torch.save` writes: a zip archive since version 1.6, before that pickles and the elements after them.

use crate::{
    fault::{Fault, Outcome},
    file::{Entry, Root},
    pickle::{self, Node, Pickle, Storage, Tensor, Value},
    reader::{self, Place, Reader, Record},
    zip::Member,
};
use chainrule_core::text::quote;
use safetensors::Dtype;
use std::{
    collections::HashMap,
    io::{Read, Seek, SeekFrom},
};

/// What the first of a legacy file's pickles is: 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The version of the legacy format.
const PROTOCOL: i64 = 1001;

/// The newest version of the zip format.
const NEWEST: u64 = 10;

/// Keys under which training scripts keep the weights.
const USUAL: [&str; 5] = ["state_dict", "model_state_dict", "model", "model_state", "net"];

/// The name of the record with the pickle, of which an archive of `torch.save` has one in a folder.
pub(crate) fn pickle_of(members: &[Member]) -> Outcome<Option<usize>> {
    let is = |member: &Member| matches!(member.name.split_once('/'), Some((folder, "data.pkl")) if !folder.is_empty());
    let mut all = members.iter().enumerate().filter(|(_, member)| is(member)).map(|(i, _)| i);
    let first = all.next();
    match all.next() {
        None => Ok(first),
        Some(_) => Err("expected one record `data.pkl` in the archive, got two".into()),
    }
}

/// The tensors of a zip archive whose records are those of the reader.
pub(crate) fn zip(
    reader: &mut Reader<'_>,
    names: &HashMap<Box<str>, u32>,
    pickle: &str,
    length: u64,
) -> Outcome<(Vec<Entry>, Root)> {
    let folder = &pickle[..pickle.len() - "data.pkl".len()];
    let find = |name: &str| names.get(&*format!("{folder}{name}")).copied();
    let mut short = |name: &str| match find(name) {
        None => Ok(None),
        Some(record) if reader.records[record as usize].size > 64 => {
            Err(Fault::from(format!("expected a short record {}, got a long one", quote(name))))
        }
        Some(record) => {
            let bytes = reader.whole(record).map_err(|fault| fault.within(name))?;
            Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
        }
    };
    if let Some(version) = short("version")?
        && !version.parse::<u64>().is_ok_and(|version| version <= NEWEST)
    {
        return Err(format!("expected a version of at most {NEWEST}, got {}", quote(&version)).into());
    }
    // Before version 2.1 there was none: all that is known of was little-endian.
    let big = match short("byteorder")?.as_deref() {
        None | Some("little") => false,
        Some("big") => true,
        Some(other) => {
            return Err(format!("expected byte order `little` or `big`, got {}", quote(other)).into());
        }
    };
    let Some(record) = find("data.pkl") else { return Err("expected a record `data.pkl`, got none".into()) };
    let Record { size, packed, .. } = reader.records[record as usize];
    if size > pickle::LONGEST || size > (1 << 20) + 64 * packed {
        return Err(format!("expected a pickle of at most {} bytes, got {size}", pickle::LONGEST).into());
    }
    let bytes = reader.whole(record).map_err(|fault| fault.within("data.pkl"))?;
    let (pickle, root, read) = Pickle::load(&mut &*bytes, size)?;
    if read != size {
        return Err(format!("expected a pickle of {size} bytes, got {read}").into());
    }
    drop(bytes);
    let mut used = HashMap::new();
    let mut place = |storage: &Storage| {
        let key = pickle.text(storage.key);
        let record = find(&format!("data/{key}"))
            .ok_or_else(|| format!("expected a record of the storage {}, got none", quote(key)))?;
        let expected = storage.count.checked_mul(width(storage.dtype));
        let got = reader.records[record as usize].size;
        if expected != Some(got) {
            let (count, width) = (storage.count, width(storage.dtype));
            return Err(format!(
                "storage {}: expected {count} elements of {width} bytes, got {got} bytes",
                quote(key)
            )
            .into());
        }
        *used.entry(record).or_insert(0u64) += 1;
        Ok(record)
    };
    let listed = list(&pickle, root, (read, length), &mut place)?;
    for (record, views) in used {
        let record = &mut reader.records[record as usize];
        record.big = big;
        // Each view inflates its record from the start.
        if record.deflated && views > 1 && (views - 1).saturating_mul(record.size) > (64 << 20) + 64 * length
        {
            return Err(
                "expected stored records, got a deflated one with many views: store the archive again".into(),
            );
        }
    }
    for entry in listed.0.iter().filter(|entry| entry.place.strides.is_some()) {
        let record = &reader.records[entry.place.record as usize];
        let span = entry
            .place
            .strides
            .as_ref()
            .and_then(|strides| reader::span(strides, &entry.shape, entry.dtype.bitsize() as u64 / 8));
        let bytes = entry.bytes();
        if record.deflated && bytes > 0 && span.is_none_or(|span| reader::sparse(span, bytes)) {
            return Err(
                "expected stored records, got a deflated one with sparse views: store the archive again"
                    .into(),
            );
        }
    }
    Ok(listed)
}

/// The tensors of a legacy file, and its storages as records.
pub(crate) fn legacy(reader: &mut Reader<'_>, length: u64) -> Outcome<(Vec<Entry>, Root)> {
    let stream = reader.files[0].stream()?;
    stream.rewind()?;
    let mut left = length;
    let mut next = |what: &str| -> Outcome<(Pickle, Value)> {
        let loaded = Pickle::load(stream, left).map_err(|fault| fault.within(what));
        let (pickle, value, read) = loaded?;
        left -= read;
        Ok((pickle, value))
    };
    let (pickle, magic) = next("magic number")?;
    if !matches!(pickle.node(magic), Some(Node::Long(bytes)) if **bytes == MAGIC) {
        return Err("expected the magic number of torch.save, got another pickle, which is not read".into());
    }
    match next("protocol")? {
        (_, Value::Int(PROTOCOL)) => {}
        _ => return Err(format!("expected a file of protocol {PROTOCOL}, got another").into()),
    }
    // On what machine it was written; elements are little-endian on any.
    next("system")?;
    let (pickle, root) = next("object")?;
    let (keys, list_of_keys) = next("list of storages")?;
    let mut storages: HashMap<&str, (u64, u64)> = HashMap::new();
    for storage in pickle.storages() {
        let (key, this) = (pickle.text(storage.key), (storage.count, width(storage.dtype)));
        if *storages.entry(key).or_insert(this) != this {
            return Err(format!("storage {}: expected one type and size, got two", quote(key)).into());
        }
    }
    let Some(Node::List(list_of_keys)) = keys.node(list_of_keys) else {
        return Err("expected a list of the keys of storages, got something else".into());
    };
    let mut records: HashMap<&str, u32> = HashMap::new();
    let mut at = length - left;
    let read = at;
    for &key in list_of_keys {
        let Value::Text(key) = key else {
            return Err("expected texts as keys of storages, got something else".into());
        };
        let key = keys.text(key);
        let wrong = |text: String| Fault::from(format!("storage {}: {text}", quote(key)));
        let Some(&(count, width)) = storages.get(key) else {
            return Err(wrong("expected one that the pickle refers to, got another".into()));
        };
        let mut got = [0; 8];
        stream.seek(SeekFrom::Start(at))?;
        stream.read_exact(&mut got)?;
        let got = u64::from_le_bytes(got);
        if got != count {
            return Err(wrong(format!("expected {count} elements, got {got}")));
        }
        at += 8;
        let size = count.checked_mul(width).filter(|&size| size <= length - at);
        let size = size
            .ok_or_else(|| wrong(format!("expected {count} elements, got the end of the file: it is cut")))?;
        if records.insert(key, reader.records.len() as u32).is_some() {
            return Err(wrong("expected it once, got it twice".into()));
        }
        reader.records.push(Record::plain(at, size));
        at += size;
    }
    if at != length {
        return Err(format!(
            "expected the end of the file after its storages, got {} more bytes",
            length - at
        )
        .into());
    }
    list(&pickle, root, (read, length), &mut |storage| {
        let key = pickle.text(storage.key);
        let record = records.get(key).copied();
        record.ok_or_else(|| format!("expected the elements of the storage {}, got none", quote(key)).into())
    })
}

/// The bytes of an element.
fn width(dtype: Option<Dtype>) -> u64 {
    dtype.map_or(1, |dtype| dtype.bitsize() as u64 / 8)
}

/// The tensors below a value by dotted path, and which of its items is a model's `state_dict`: with the lengths of pickle and
/// file.
fn list(
    pickle: &Pickle,
    root: Value,
    (read, length): (u64, u64),
    place: &mut dyn FnMut(&Storage) -> Outcome<u32>,
) -> Outcome<(Vec<Entry>, Root)> {
    let has = pickle.with_tensors(root)?;
    let has = |value: Value| matches!(value, Value::Node(id) if has[id as usize]);
    match pickle.node(root) {
        Some(Node::Tensor(_) | Node::Dict(_) | Node::List(_) | Node::Tuple(_)) => {}
        _ => {
            return Err("expected a state_dict or a dict that holds one, got another object: a whole module is not read, \
                        save `model.state_dict()`"
                .into());
        }
    }
    let mut lister = Lister {
        pickle,
        place,
        entries: Vec::new(),
        path: String::new(),
        depth: 0,
        room: (1 << 16) + 16 * read,
        length,
    };
    lister.walk(root, &has)?;
    let root = match pickle.node(root) {
        Some(Node::Dict(pairs)) => root_of(pickle, pairs),
        _ => Root::Whole,
    };
    Ok((lister.entries, root))
}

/// Where the weights are in a dict: here, or in one of its items.
fn root_of(pickle: &Pickle, pairs: &[(Value, Value)]) -> Root {
    let is_tensor = |value: Value| matches!(pickle.node(value), Some(Node::Tensor(_)));
    // A state_dict is flat.
    let flat = |value: Value| match pickle.node(value) {
        Some(Node::Dict(pairs)) => {
            let plain =
                |value| !matches!(pickle.node(value), Some(Node::Dict(_) | Node::List(_) | Node::Tuple(_)));
            pairs.iter().any(|pair| is_tensor(pair.1))
                && pairs.iter().all(|&(key, value)| matches!(key, Value::Text(_)) && plain(value))
        }
        _ => false,
    };
    let found = pairs.iter().filter_map(|&(key, value)| match key {
        Value::Text(key) if flat(value) => Some(pickle.text(key)),
        _ => None,
    });
    let found: Vec<&str> = found.collect();
    let usual: Vec<&str> = found.iter().copied().filter(|name| USUAL.contains(name)).collect();
    let candidates = match usual.is_empty() {
        false => usual,
        // With tensors beside them they are a part of what is here.
        true if pairs.iter().any(|pair| is_tensor(pair.1)) => Vec::new(),
        true => found,
    };
    match candidates[..] {
        [] => Root::Whole,
        [one] => Root::Item(one.into()),
        _ => Root::Several(candidates.into_iter().map(Box::from).collect()),
    }
}

/// Collects tensors.
struct Lister<'p> {
    pickle: &'p Pickle,
    place: &'p mut dyn FnMut(&Storage) -> Outcome<u32>,
    entries: Vec<Entry>,
    path: String,
    depth: usize,
    /// How many bytes of names and entries there may still be.
    room: u64,
    /// Of the file.
    length: u64,
}

impl Lister<'_> {
    /// The depth was limited before.
    fn walk(&mut self, value: Value, has: &dyn Fn(Value) -> bool) -> Outcome<()> {
        let pickle = self.pickle;
        match pickle.node(value) {
            Some(Node::Tensor(tensor)) => {
                let entry = self.entry(tensor);
                let path = &self.path;
                self.entries.push(entry.map_err(|fault| fault.within(&format!("tensor {}", quote(path))))?);
            }
            Some(Node::Tuple(items) | Node::List(items)) => {
                self.charge(items.len())?;
                for (i, &item) in items.iter().enumerate().filter(|&(_, &item)| has(item)) {
                    self.below(&i.to_string(), item, has)?;
                }
            }
            Some(Node::Dict(pairs)) => {
                self.charge(pairs.len())?;
                for &(key, value) in pairs.iter().filter(|pair| has(pair.1)) {
                    match key {
                        Value::Text(key) => self.below(pickle.text(key), value, has)?,
                        Value::Int(key) => self.below(&key.to_string(), value, has)?,
                        // Under other keys there is no name.
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn below(&mut self, name: &str, value: Value, has: &dyn Fn(Value) -> bool) -> Outcome<()> {
        let before = self.path.len();
        if self.depth > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        self.charge(self.path.len())?;
        self.depth += 1;
        self.walk(value, has)?;
        self.depth -= 1;
        self.path.truncate(before);
        Ok(())
    }

    /// Shared containers are gone through once for each path: names and work are limited by the length of the pickle.
    fn charge(&mut self, cost: usize) -> Outcome<()> {
        let room = self.room.checked_sub(cost as u64);
        self.room = room.ok_or("expected names that the pickle has room for, got more of them")?;
        Ok(())
    }

    fn entry(&mut self, tensor: &Tensor) -> Outcome<Entry> {
        let shape =
            self.pickle.numbers(tensor.size).map(usize::try_from).collect::<Result<Box<[usize]>, _>>();
        let shape = shape.map_err(|_| "expected a shape that memory holds, got a larger one")?;
        self.charge(self.path.len() + 16 * shape.len() + 64)?;
        let bytes_each = tensor.dtype.bitsize() as u64 / 8;
        let volume = shape.iter().try_fold(bytes_each, |n, &axis| n.checked_mul((axis as u64).max(1)));
        let empty = shape.contains(&0);
        let most = (1 << 20) + 1024 * self.length;
        match volume {
            Some(bytes) if bytes <= if empty { isize::MAX as u64 } else { most } => {}
            _ => {
                return Err(
                    format!("expected at most {most} bytes of a file of {}, got more", self.length).into()
                );
            }
        }
        // The part of the record that the tensor may lie in, in bytes.
        let storage = &tensor.storage;
        let unit = width(storage.dtype);
        let (begin, count) = storage.part.unwrap_or((0, storage.count));
        let bounds = begin.checked_mul(unit).zip(count.checked_mul(unit));
        let (begin, room) = bounds.ok_or("expected a storage that a file holds, got a larger one")?;
        let strides: Box<[u64]> = self.pickle.numbers(tensor.stride).collect();
        let beyond = || {
            let (count, offset) = (storage.count, tensor.offset);
            format!(
                "expected a view within its storage of {count} elements, got {shape:?} with strides {strides:?} from {offset} on"
            )
        };
        let start = tensor.offset.checked_mul(bytes_each).ok_or_else(beyond)?;
        let span = if empty { Some(0) } else { reader::span(&strides, &shape, bytes_each) };
        if span.and_then(|span| start.checked_add(span)).is_none_or(|end| end > room)
            && !(empty && start <= room)
        {
            return Err(beyond().into());
        }
        let record = (self.place)(storage)?;
        // Row-major elements one after another need no strides.
        let mut step = 1;
        let mut packed = true;
        for (&axis, &stride) in shape.iter().zip(&strides).rev().filter(|(axis, _)| **axis != 1) {
            packed &= stride == step;
            step = step.saturating_mul(axis as u64);
        }
        let strides = (!packed && !empty).then_some(strides);
        let start = if empty { 0 } else { begin + start };
        let name = self.path.as_str().into();
        Ok(Entry { name, dtype: tensor.dtype, shape, place: Place { record, start, strides }, alias: false })
    }
}
