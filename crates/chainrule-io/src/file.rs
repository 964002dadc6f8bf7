//! A file of named tensors, whatever its form.

use crate::{
    dtype,
    fault::{Fault, Outcome},
    header::Header,
    index, npy,
    reader::{Place, Reader, Record, Source},
    torch, zip,
};
use chainrule_core::{
    Error, Result, Scalar, Shape, Tensor,
    text::{self, quote},
};
use safetensors::Dtype;
use std::{
    collections::HashMap,
    fmt,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// The longest header. One takes about a hundred bytes a tensor: a longer one is an attack or an accident.
pub(crate) const LONGEST_HEADER: u64 = 16 << 20;

/// A file of named tensors that is read tensor by tensor: what it holds, and the values themselves.
///
/// Its first bytes tell the form: safetensors; the index of weights in several files; what `torch.save` writes, as a zip
/// archive or in the form before; NumPy's `.npz` and `.npy`; with the feature `keras` HDF5. Of pickles nothing is run. [`load`](crate::load()) and
/// [`Load`](crate::Load) read the same forms into a model.
///
/// Names are those in the file: of nested dicts and lists those on the way, `state_dict.fc.weight`; of an `.npz` those of its
/// members without `.npy`; the tensor of an `.npy`, and one that `torch.save` wrote alone, has the empty name.
///
/// No tensor takes more than 1 MiB and 1024 times the length of the file; [`TensorFile::limit`] sets a lower limit. Opening
/// takes memory for names and shapes alone.
///
/// ```
/// # use chainrule_core::*;
/// use chainrule_io::TensorFile;
/// // What `numpy.save` writes for an array of 2 × 2.
/// let mut npy = b"\x93NUMPY\x01\x00\x3b\x00{'descr': '<f2', 'fortran_order': True, 'shape': (2, 2), }\n".to_vec();
/// npy.extend([0x00, 0x3c, 0x00, 0x40, 0x00, 0xbc, 0x00, 0xc0]);
///
/// let mut file = TensorFile::from_bytes(&npy)?;
/// let listed: Vec<_> = file.tensors().map(|t| format!("{:?} {} {:?}", t.name(), t.dtype(), t.shape())).collect();
/// assert_eq!(listed, [r#""" F16 [2, 2]"#]);
/// assert_eq!(file.tensor::<f32>("")?.data(), [1.0, -1.0, 2.0, -2.0]);
/// # Ok::<(), Error>(())
/// ```
pub struct TensorFile<'a> {
    /// For errors.
    name: String,
    reader: Reader<'a>,
    /// By name.
    entries: Vec<Entry>,
    root: Root,
    /// The text of a model's architecture.
    architecture: Option<String>,
}

/// A tensor of a file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub name: Box<str>,
    pub dtype: Dtype,
    pub shape: Box<[usize]>,
    pub place: Place,
    /// Another name of a tensor that stands under its own name too: nobody need know it.
    pub alias: bool,
}

impl Entry {
    /// How many bytes its elements take. It was checked that they can be counted.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product::<u64>() * self.dtype.bitsize() as u64 / 8
    }
}

/// Where in the file a model's weights are.
pub(crate) enum Root {
    Whole,
    /// Below an item.
    Item(Box<str>),
    /// Below one of some items.
    Several(Vec<Box<str>>),
}

/// What a [`TensorFile`] says of a tensor.
#[derive(Clone, Copy)]
pub struct TensorInfo<'f>(&'f Entry);

impl<'f> TensorInfo<'f> {
    /// Its name.
    pub fn name(self) -> &'f str {
        &self.0.name
    }

    /// Its shape.
    pub fn shape(self) -> &'f [usize] {
        &self.0.shape
    }

    /// The type of its elements under safetensors' name: `F32`, `BF16`, `I64`, `BOOL`.
    pub fn dtype(self) -> impl fmt::Display + use<> {
        self.0.dtype
    }

    /// How many bytes they take.
    pub fn bytes(self) -> u64 {
        self.0.bytes()
    }
}

impl fmt::Debug for TensorInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", quote(self.name()), self.0.dtype, self.0.shape)
    }
}

impl fmt::Debug for TensorFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorFile").field("name", &self.name).field("tensors", &self.entries.len()).finish()
    }
}

impl TensorFile<'static> {
    /// Opens a file and reads the names, types and shapes of its tensors.
    ///
    /// # Errors
    /// The operating system's; the file is of no form that is read, cut, or lies about its contents.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::at(path.as_ref(), false)
    }

    fn at(path: &Path, shard: bool) -> Result<Self> {
        // An index may have named it.
        let name = text::message(&path.display().to_string());
        let (file, length) = Source::open(path).map_err(|e| Error::io(e, format!("read {name}")))?;
        let beside = match shard {
            true => Beside::Shard,
            false => Beside::Folder(path.parent().unwrap_or(Path::new(""))),
        };
        Self::new(file, length, name, beside)
    }
}

/// Where the files that an index names are looked for.
#[derive(Clone, Copy)]
enum Beside<'p> {
    Folder(&'p Path),
    /// The bytes have no folder.
    Nowhere,
    /// A file that an index named.
    Shard,
}

impl<'a> TensorFile<'a> {
    /// [`TensorFile::open`] on the contents of a file. Of an index they are not enough.
    ///
    /// # Errors
    /// As [`TensorFile::open`].
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        let (file, length) = Source::bytes(bytes);
        Self::new(file, length, "weights".into(), Beside::Nowhere)
    }

    fn new(file: Source<'a>, length: u64, name: String, beside: Beside<'_>) -> Result<Self> {
        let mut this = Self {
            name,
            reader: Reader::new(file),
            entries: Vec::new(),
            root: Root::Whole,
            architecture: None,
        };
        match this.read(length, beside) {
            Ok(()) => Ok(this),
            Err(Stopped::Fault(fault)) => Err(fault.of_file(&this.name)),
            Err(Stopped::Shard(error)) => Err(error),
        }
    }

    /// Finds out the form and reads what is there.
    fn read(&mut self, length: u64, beside: Beside<'_>) -> std::result::Result<(), Stopped> {
        let mut bytes = [0; 264];
        let n = length.min(bytes.len() as u64) as usize;
        self.reader.files[0].stream()?.read_exact(&mut bytes[..n])?;
        match Form::of(&bytes[..n])? {
            Form::Safetensors(n) => self.safetensors(n, length)?,
            Form::Zip => self.zip(length)?,
            Form::Legacy => (self.entries, self.root) = torch::legacy(&mut self.reader, length)?,
            Form::Npy => self.npy(length)?,
            Form::Hdf5 => self.hdf5(length)?,
            Form::Index => match beside {
                Beside::Folder(folder) => self.index(length, folder)?,
                Beside::Nowhere => {
                    return Err("expected the weights, got the index of several files: give its path".into());
                }
                Beside::Shard => {
                    return Err("expected the weights that an index names, got another index".into());
                }
            },
        }
        self.entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        match self.entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => {
                Err(format!("tensor {}: expected each name once, got it twice", quote(&pair[0].name)).into())
            }
            None => Ok(()),
        }
    }

    /// Of the header only its length is not checked by its parser.
    fn safetensors(&mut self, n: u64, length: u64) -> Outcome<()> {
        let most = LONGEST_HEADER.min(length - 8);
        if n > most {
            return Err(format!("expected a header of at most {most} bytes, got a length of {n}").into());
        }
        let mut bytes = vec![0; n as usize];
        let stream = self.reader.files[0].stream()?;
        stream.seek(SeekFrom::Start(8))?;
        stream.read_exact(&mut bytes)?;
        let mut header = Header::parse(&bytes)?;
        drop(bytes);
        let (expected, got) = (header.length, length - 8 - n);
        if expected != got {
            return Err(format!("expected {expected} bytes of values after the header, got {got}").into());
        }
        self.reader.records.push(Record::plain(8 + n, expected));
        self.architecture = header.architecture();
        let place = |place: (usize, usize)| Place { record: 0, start: place.0 as u64, strides: None };
        let aliases = header.aliases().map(|(alias, entry)| Entry {
            name: alias.into(),
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            place: place(entry.place),
            alias: true,
        });
        let mut aliases: Vec<Entry> = aliases.collect();
        self.entries = header
            .into_tensors()
            .into_iter()
            .map(|entry| Entry {
                name: entry.name,
                dtype: entry.dtype,
                shape: entry.shape,
                place: place(entry.place),
                alias: false,
            })
            .collect();
        self.entries.append(&mut aliases);
        Ok(())
    }

    fn zip(&mut self, length: u64) -> Outcome<()> {
        let members = zip::members(self.reader.files[0].stream()?, length)?;
        if let Some(at) = torch::pickle_of(&members)? {
            let pickle = members[at].name.clone();
            let mut names = HashMap::with_capacity(members.len());
            for (i, member) in members.into_iter().enumerate() {
                names.insert(member.name, i as u32);
                self.reader.records.push(member.record);
            }
            (self.entries, self.root) = torch::zip(&mut self.reader, &names, &pickle, length)?;
            return Ok(());
        }
        let arrays = members.iter().filter(|member| member.name.ends_with(".npy")).count();
        if arrays == 0 && !members.is_empty() {
            return match members.into_iter().find(|member| member.name.ends_with(".weights.h5")) {
                Some(member) => self.keras(member.record, length),
                None => Err("expected a zip archive of torch.save or numpy.savez, got another".into()),
            };
        }
        for member in members {
            // What else there is is no array.
            let Some(name) = member.name.strip_suffix(".npy") else { continue };
            let number = self.reader.records.len() as u32;
            self.reader.records.push(member.record);
            self.array(number, name).map_err(|fault| fault.within(&quote(&member.name)))?;
        }
        Ok(())
    }

    /// An HDF5 file that an archive of Keras holds.
    #[cfg(feature = "keras")]
    fn keras(&mut self, record: Record, length: u64) -> Outcome<()> {
        let size = record.size;
        if size > (1 << 20) + 16 * length {
            return Err(format!("expected weights of an archive of {length} bytes, got {size} bytes").into());
        }
        self.reader.records.push(record);
        let bytes = self.reader.whole(0)?;
        self.reader.records.clear();
        self.reader.files = vec![Source::owned(bytes)];
        self.hdf5(size)
    }

    #[cfg(feature = "keras")]
    fn hdf5(&mut self, length: u64) -> Outcome<()> {
        let stream = self.reader.files[0].stream()?;
        let (entries, records) = crate::keras::tensors(stream, length)?;
        (self.entries, self.reader.records) = (entries, records);
        Ok(())
    }

    #[cfg(not(feature = "keras"))]
    fn keras(&mut self, _: Record, _: u64) -> Outcome<()> {
        Err(KERAS.into())
    }

    #[cfg(not(feature = "keras"))]
    fn hdf5(&mut self, _: u64) -> Outcome<()> {
        Err(KERAS.into())
    }

    fn npy(&mut self, length: u64) -> Outcome<()> {
        self.reader.records.push(Record::plain(0, length));
        self.array(0, "")
    }

    /// An array of NumPy in a record.
    fn array(&mut self, number: u32, name: &str) -> Outcome<()> {
        // Most headers are short, and inflating goes on where it stopped.
        let mut start = self.reader.head(number, 128)?;
        if npy::header(&start).is_err() {
            start = self.reader.head(number, npy::LONGEST_START)?;
        }
        let header = npy::header(&start)?;
        let record = &mut self.reader.records[number as usize];
        let got = record.size - header.start;
        if got != header.length {
            return Err(format!("expected {} bytes after the header, got {got}", header.length).into());
        }
        record.big = header.big;
        let place = Place { record: number, start: header.start, strides: header.strides };
        self.entries.push(Entry {
            name: name.into(),
            dtype: header.dtype,
            shape: header.shape,
            place,
            alias: false,
        });
        Ok(())
    }

    /// Weights in several files, which are opened one after another.
    fn index(&mut self, length: u64, folder: &Path) -> std::result::Result<(), Stopped> {
        if length > LONGEST_HEADER {
            return Err(format!("expected an index of at most {LONGEST_HEADER} bytes, got {length}").into());
        }
        let mut json = vec![0; length as usize];
        let stream = self.reader.files[0].stream()?;
        stream.seek(SeekFrom::Start(0))?;
        stream.read_exact(&mut json)?;
        let index = index::parse(&json)?;
        drop(json);
        self.reader.files.clear();
        for (number, shard) in index.shards.iter().enumerate() {
            let mut file = TensorFile::at(&folder.join(&**shard), true).map_err(Stopped::Shard)?;
            let first = self.reader.records.len() as u32;
            for mut entry in file.entries {
                match index.tensors.get(&entry.name) {
                    Some(&expected) if expected == number as u32 => {}
                    None if entry.alias => {}
                    expected => {
                        let expected = match expected {
                            Some(&at) => format!("in {}", quote(&index.shards[at as usize])),
                            None => "nowhere".into(),
                        };
                        let [name, shard] = [&entry.name, shard].map(|name| quote(name));
                        return Err(
                            format!("index: expected tensor {name} {expected}, got it in {shard}").into()
                        );
                    }
                }
                entry.place.record += first;
                self.entries.push(entry);
            }
            for mut record in file.reader.records {
                record.file = number as u32;
                self.reader.records.push(record);
            }
            let mut opened = file.reader.files.swap_remove(0);
            if index.shards.len() > crate::reader::MOST_OPEN {
                opened.close();
            }
            self.reader.files.push(opened);
        }
        let listed: std::collections::HashSet<&str> = self.entries.iter().map(|entry| &*entry.name).collect();
        match index.tensors.iter().find(|(name, _)| !listed.contains(&***name)) {
            Some((name, &shard)) => {
                let [name, shard] = [name, &index.shards[shard as usize]].map(|name| quote(name));
                Err(format!("index: expected tensor {name} in {shard}, got none").into())
            }
            None => Ok(()),
        }
    }

    /// The tensors by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> {
        self.entries.iter().map(TensorInfo)
    }

    /// The tensors below an item alone, without its name: of a training checkpoint `state_dict`, `model.encoder`.
    ///
    /// # Errors
    /// There are none.
    pub fn item(mut self, name: &str) -> Result<Self> {
        let below =
            |entry: &mut Entry| match entry.name.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) {
                Some(rest) => {
                    entry.name = rest.into();
                    true
                }
                None => false,
            };
        self.entries.retain_mut(below);
        self.root = Root::Whole;
        match self.entries.is_empty() {
            true => {
                Err(Error::state(format!("{}: expected tensors below {}, got none", self.name, quote(name))))
            }
            false => Ok(self),
        }
    }

    /// Refuses larger tensors than this: of elements that a compressed file or a view repeats a small one may have many.
    ///
    /// # Errors
    /// A tensor takes more bytes.
    pub fn limit(self, bytes: u64) -> Result<Self> {
        match self.entries.iter().find(|entry| entry.bytes() > bytes) {
            Some(entry) => Err(Error::format(format!(
                "{}: tensor {}: expected at most {bytes} bytes, got {}",
                self.name,
                quote(&entry.name),
                entry.bytes()
            ))),
            None => Ok(self),
        }
    }

    /// The values of a tensor. Those of types with fewer bits are exact, F64 is rounded to F32; integers and truth values must
    /// be exact too. Infinities and NaN come as they are.
    ///
    /// # Errors
    /// There is no tensor of this name, its type cannot be converted, it has too many axes, or the file is cut or damaged.
    pub fn tensor<T: Scalar>(&mut self, name: &str) -> Result<Tensor<T>> {
        let at = self.find(name)?;
        let entry = &self.entries[at];
        if !dtype::is_number(entry.dtype) {
            return Err(self.wrong(at, format!("expected numbers, got values of type {}", entry.dtype)));
        }
        let shape = Shape::new(&entry.shape).map_err(|e| self.wrong(at, e.to_string()))?;
        let values = self.decoded(at)?;
        Tensor::from_vec(shape, values)
    }

    /// The bytes of a tensor: elements in row-major order, little-endian, as the file has them.
    ///
    /// # Errors
    /// There is no tensor of this name, or the file is cut or damaged.
    pub fn bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        let at = self.find(name)?;
        let mut bytes = Vec::with_capacity(self.entries[at].bytes() as usize);
        self.chunks(at, &mut |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn find(&self, name: &str) -> Result<usize> {
        let found = self.entries.binary_search_by(|entry| (*entry.name).cmp(name));
        found.map_err(|_| Error::state(format!("{}: expected a tensor {}, got none", self.name, quote(name))))
    }

    fn wrong(&self, at: usize, text: String) -> Error {
        Error::value(format!("{}: tensor {}: {text}", self.name, quote(&self.entries[at].name)))
    }

    fn chunks(&mut self, at: usize, f: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Result<()> {
        let entry = &self.entries[at];
        let read = self.reader.tensor(&entry.place, entry.dtype, &entry.shape, f);
        read.map_err(|fault| fault.within(&format!("tensor {}", quote(&entry.name))).of_file(&self.name))
    }

    /// Values of a type that can be converted.
    fn decoded<T: Scalar>(&mut self, at: usize) -> Result<Vec<T>> {
        let dtype = self.entries[at].dtype;
        let count = self.entries[at].shape.iter().product();
        let mut values = Vec::with_capacity(count);
        self.chunks(at, &mut |chunk| dtype::decode(dtype, chunk, &mut values).map_err(Fault::from))?;
        Ok(values)
    }

    /// One tensor for a parameter. Its size was compared with the model's, so no more is allocated than the model itself takes.
    pub(crate) fn value<T: Scalar>(
        &mut self,
        at: usize,
        shape: Shape,
        counter: bool,
        finite: bool,
    ) -> Result<Tensor<T>> {
        let values = if counter {
            let mut count = 0;
            self.chunks(at, &mut |chunk| {
                count = chunk.first_chunk().map_or(count, |&bytes| i64::from_le_bytes(bytes));
                Ok(())
            })?;
            let exact = dtype::count(count).ok_or_else(|| {
                self.wrong(at, format!("expected a count from 0 that {} holds exactly, got {count}", T::NAME))
            })?;
            vec![exact]
        } else {
            self.decoded(at)?
        };
        if finite {
            check_finite(&values).map_err(|e| self.wrong(at, e.to_string()))?;
        }
        Tensor::from_vec(shape, values)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// The text of the architecture, taken out.
    pub(crate) fn architecture(&mut self) -> Option<String> {
        self.architecture.take()
    }

    /// Where a tensor comes in the order in which reading is fastest.
    pub(crate) fn order(&self, at: usize) -> (u32, u64) {
        let Place { record, start, .. } = self.entries[at].place;
        (record, start)
    }
}

/// What to do with weights of Keras without the feature that reads them.
#[cfg(not(feature = "keras"))]
const KERAS: &str = "expected weights of PyTorch or NumPy, got HDF5, as Keras writes it: turn on the feature `keras`, or in \
                     Python save `{v.path: v.numpy() for v in model.variables}` with `numpy.savez`";

/// Why reading stopped.
enum Stopped {
    Fault(Fault),
    /// In a file that an index named.
    Shard(Error),
}

impl<F: Into<Fault>> From<F> for Stopped {
    fn from(fault: F) -> Self {
        Self::Fault(fault.into())
    }
}

/// The forms that are read.
enum Form {
    /// With the length of its header.
    Safetensors(u64),
    Index,
    Zip,
    Legacy,
    Npy,
    Hdf5,
}

impl Form {
    /// Tells a form by the first bytes of a file. Those of other forms are, as the length of a header, beyond every limit.
    fn of(bytes: &[u8]) -> Outcome<Self> {
        let Some(&prefix) = bytes.first_chunk::<8>() else {
            return Err(format!("expected at least 8 bytes, got {}", bytes.len()).into());
        };
        if bytes.get(257..262) == Some(b"ustar") {
            return Err("expected weights, got a tar archive, as torch.save wrote it before version 0.1.10: if it is from \
                        someone you trust, convert it in Python with `torch.save(torch.load(path, weights_only=False), \
                        new_path)`"
                .into());
        }
        let length = u64::from_le_bytes(prefix);
        Ok(match prefix {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::Zip,
            [0x80, 2..=5, ..] if length > LONGEST_HEADER => Self::Legacy,
            _ if bytes.starts_with(npy::MAGIC) => Self::Npy,
            [b'{' | b' ' | b'\n', ..] if length > LONGEST_HEADER && !prefix.contains(&0) => Self::Index,
            [0x89, b'H', b'D', b'F', b'\r', b'\n', 0x1a, b'\n'] => Self::Hdf5,
            [b'G', b'G', b'U', b'F', ..] => {
                return Err("expected weights of PyTorch or NumPy, got a GGUF file, which is not read".into());
            }
            _ => Self::Safetensors(length),
        })
    }
}

/// The first value of a slice that is not finite, as an error.
pub(crate) fn check_finite<T: Scalar>(values: &[T]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::value(format!("expected finite values, got {} at position {i}", values[i]))),
    }
}
