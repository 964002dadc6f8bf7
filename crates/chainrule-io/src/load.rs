//! From a file to a model: the header first, all names and shapes at once, then the numbers, and only then the model.

use crate::{number, save::check_finite};
use chainrule_core::{Error, ParamId, Parameters, Result, Scalar, Shape, Tensor};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Cursor, Read, Seek, SeekFrom},
    path::Path,
};

/// Headers take about a hundred bytes a tensor: a longer one is an attack or an accident.
const LONGEST_HEADER: u64 = 16 << 20;

/// Loads every parameter and buffer of a model from a safetensors file, which PyTorch may have written.
///
/// Numbers of type F64, F32, F16 and BF16 become the model's own, counters are read from I64. Of a parameter with several
/// names one may be missing. The file is read tensor by tensor, after its header was found to fit.
///
/// # Errors
/// One error of kind [`State`](chainrule_core::Kind::State) lists all names that are missing, unexpected, of another shape
/// or of a type that cannot be read. A file that is cut or lies about its contents, numbers that are not finite and what
/// the operating system reports are errors too. The model is as it was after any of them.
pub fn load<T: Scalar>(model: &mut (impl Parameters<T> + ?Sized), path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let name = path.display().to_string();
    let open = || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    let (file, length) = open().map_err(|e| Error::io(e, format!("read {name}")))?;
    Source { reader: file, length, name }.load(model)
}

/// [`load`] from the contents of a file.
///
/// # Errors
/// As [`load`].
pub fn from_bytes<T: Scalar>(model: &mut (impl Parameters<T> + ?Sized), bytes: &[u8]) -> Result<()> {
    Source { reader: Cursor::new(bytes), length: bytes.len() as u64, name: "weights".into() }.load(model)
}

struct Source<R> {
    reader: R,
    length: u64,
    name: String,
}

impl<R: Read + Seek> Source<R> {
    fn load<T: Scalar>(mut self, model: &mut (impl Parameters<T> + ?Sized)) -> Result<()> {
        let (start, header) = self.header()?;
        let wanted = self.matched(model, &header)?;
        let mut loaded: BTreeMap<ParamId, Tensor<T>> = BTreeMap::new();
        for (name, param) in &wanted {
            let Some(info) = header.info(name) else { continue };
            let tensor = self.tensor(start, name, param, info)?;
            match loaded.get(&param.id) {
                Some(other) if *other != tensor => {
                    return Err(Error::state(format!(
                        "{}: expected the same numbers under all names of one parameter, got others in `{name}`",
                        self.name
                    )));
                }
                Some(_) => {}
                None => _ = loaded.insert(param.id, tensor),
            }
        }
        let mut result = Ok(());
        model.visit_mut(&mut |_, param| {
            if let Some(tensor) = loaded.remove(&param.id()) {
                // Shapes were compared before: this cannot fail half-way.
                result = std::mem::replace(&mut result, Ok(())).and(param.set(tensor));
            }
        });
        result
    }

    /// The start of the numbers, and what stands where. Of this only the header's length is not checked by its parser.
    fn header(&mut self) -> Result<(u64, Metadata)> {
        let mut prefix = [0; 8];
        if self.length < 8 {
            return Err(self.lies(format!("expected at least 8 bytes, got {}", self.length)));
        }
        self.fill(&mut prefix)?;
        let n = u64::from_le_bytes(prefix);
        let most = LONGEST_HEADER.min(self.length - 8);
        if n > most {
            return Err(self.lies(format!("expected a header of at most {most} bytes, got a length of {n}")));
        }
        let mut text = vec![0; n as usize];
        self.fill(&mut text)?;
        let header: Metadata =
            serde_json::from_slice(&text).map_err(|e| self.lies(format!("header: {e}")))?;
        let (promised, held) = (header.data_len() as u64, self.length - 8 - n);
        if promised != held {
            return Err(
                self.lies(format!("expected {promised} bytes of numbers after the header, got {held}"))
            );
        }
        Ok((8 + n, header))
    }

    /// The model's parameters by name, if header and model fit together.
    fn matched<T: Scalar>(
        &self,
        model: &(impl Parameters<T> + ?Sized),
        header: &Metadata,
    ) -> Result<BTreeMap<String, Wanted>> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        let mut problems = Vec::new();
        model.visit(&mut |path, param| {
            let new = Wanted { id: param.id(), shape: *param.shape(), counter: param.is_counter() };
            let name = path.to_string();
            if wanted.get(&name).is_some_and(|old| old.id != new.id) {
                problems.push(format!("two parameters of the model are named `{name}`"));
            }
            wanted.insert(name, new);
        });
        let present: BTreeSet<ParamId> =
            wanted.iter().filter(|(name, _)| header.info(name).is_some()).map(|(_, p)| p.id).collect();
        for (name, param) in &wanted {
            match header.info(name) {
                None if present.contains(&param.id) => {}
                None => problems.push(format!("missing `{name}` {}", param.shape)),
                Some(info) => problems.extend(param.problem::<T>(name, info)),
            }
        }
        let mut names: Vec<String> = header.offset_keys();
        names.sort_unstable();
        for name in names.iter().filter(|name| !wanted.contains_key(*name)) {
            let shape = header.info(name).map(|info| info.shape.clone()).unwrap_or_default();
            problems.push(format!("unexpected `{}` {shape:?}", name.escape_debug()));
        }
        if problems.is_empty() {
            return Ok(wanted);
        }
        Err(Error::state(format!("{} and the model do not fit: {}", self.name, problems.join("; "))))
    }

    /// One tensor: its size was compared with the model's, so no more is allocated than the model itself takes.
    fn tensor<T: Scalar>(
        &mut self,
        start: u64,
        name: &str,
        param: &Wanted,
        info: &TensorInfo,
    ) -> Result<Tensor<T>> {
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0; end - begin];
        let moved = self.reader.seek(SeekFrom::Start(start + begin as u64));
        moved.map_err(|e| Error::io(e, format!("read {}", self.name)))?;
        self.fill(&mut bytes)?;
        let values: Vec<T> = number::decode(info.dtype, &bytes);
        let of = |text: String| Error::value(format!("{}: tensor `{name}`: {text}", self.name));
        check_finite(&values).map_err(|e| of(e.to_string()))?;
        if param.counter && values[0] < T::ZERO {
            return Err(of(format!("expected a count that is not negative, got {}", values[0])));
        }
        Tensor::from_vec(param.shape, values)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.reader.read_exact(bytes).map_err(|e| Error::io(e, format!("read {}", self.name)))
    }

    fn lies(&self, text: String) -> Error {
        Error::format(format!("{}: {text}", self.name))
    }
}

struct Wanted {
    id: ParamId,
    shape: Shape,
    counter: bool,
}

impl Wanted {
    fn problem<T: Scalar>(&self, name: &str, info: &TensorInfo) -> Option<String> {
        if info.shape != self.shape[..] {
            return Some(format!("expected `{name}` {}, got {:?}", self.shape, info.shape));
        }
        if self.counter && info.dtype != Dtype::I64 {
            return Some(format!("expected `{name}` of type I64, got {}", info.dtype));
        }
        if !self.counter && !number::is_float(info.dtype) {
            return Some(format!("expected `{name}` of type {}, got {}", T::NAME, info.dtype));
        }
        None
    }
}
