//! A safetensors file that is read tensor by tensor, after its header was checked.

use crate::{dtype, header::Header};
use chainrule_core::{Error, Result, Scalar, Shape, Tensor, text::quote};
use safetensors::Dtype;
use std::{
    fs::{self, File},
    io::{self, BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom},
    path::Path,
};

/// The longest header. One takes about a hundred bytes a tensor: a longer one is an attack or an accident.
pub(crate) const LONGEST_HEADER: u64 = 16 << 20;

/// An open file and what its header says.
pub(crate) struct Source<R> {
    reader: R,
    /// Where the values begin.
    start: u64,
    /// For errors.
    pub name: String,
    pub header: Header,
}

pub(crate) fn open(path: &Path) -> Result<Source<BufReader<File>>> {
    let name = path.display().to_string();
    let open = || {
        // Opening a pipe waits for whoever writes to it, and a device has no end.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "expected a regular file, got another kind"));
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((BufReader::new(file), length))
    };
    let (reader, length) = open().map_err(|e| Error::io(e, format!("read {name}")))?;
    Source::new(reader, length, name)
}

pub(crate) fn of_bytes(bytes: &[u8]) -> Result<Source<Cursor<&[u8]>>> {
    Source::new(Cursor::new(bytes), bytes.len() as u64, "weights".into())
}

impl<R: Read + Seek> Source<R> {
    /// Of the header only its length is not checked by its parser.
    fn new(mut reader: R, length: u64, name: String) -> Result<Self> {
        let wrong = |text: String| Error::format(format!("{name}: {text}"));
        let io = |e| Error::io(e, format!("read {name}"));
        let mut prefix = [0; 8];
        if length < 8 {
            return Err(wrong(format!("expected at least 8 bytes, got {length}")));
        }
        reader.read_exact(&mut prefix).map_err(io)?;
        if let Some(what) = pickled(&prefix) {
            return Err(wrong(format!(
                "expected a safetensors file, got {what}: convert it in Python with \
                 `safetensors.torch.save_file(torch.load(path, map_location=\"cpu\", weights_only=True), new_path)`"
            )));
        }
        let n = u64::from_le_bytes(prefix);
        let most = LONGEST_HEADER.min(length - 8);
        if n > most {
            return Err(wrong(format!("expected a header of at most {most} bytes, got a length of {n}")));
        }
        let mut bytes = vec![0; n as usize];
        reader.read_exact(&mut bytes).map_err(io)?;
        let header = Header::parse(&bytes).map_err(wrong)?;
        let (expected, got) = (header.length, length - 8 - n);
        if expected != got {
            return Err(wrong(format!("expected {expected} bytes of values after the header, got {got}")));
        }
        Ok(Self { reader, start: 8 + n, name, header })
    }

    /// One tensor. Its size was compared with the model's, so no more is allocated than the model itself takes.
    pub fn tensor<T: Scalar>(
        &mut self,
        name: &str,
        (dtype, (begin, end)): (Dtype, (usize, usize)),
        shape: Shape,
        counter: bool,
    ) -> Result<Tensor<T>> {
        let mut bytes = vec![0; end - begin];
        let read = self
            .reader
            .seek(SeekFrom::Start(self.start + begin as u64))
            .and_then(|_| self.reader.read_exact(&mut bytes));
        read.map_err(|e| Error::io(e, format!("read {}", self.name)))?;
        let wrong = |text: String| Error::value(format!("{}: tensor {}: {text}", self.name, quote(name)));
        let values = if counter {
            let count = bytes.first_chunk().map_or(0, |&b| i64::from_le_bytes(b));
            let exact = dtype::count(count).ok_or_else(|| {
                wrong(format!("expected a count from 0 that {} holds exactly, got {count}", T::NAME))
            })?;
            vec![exact]
        } else {
            dtype::decode(dtype, &bytes)
        };
        check_finite(&values).map_err(|e| wrong(e.to_string()))?;
        Tensor::from_vec(shape, values)
    }
}

/// The first value of a slice that is not finite, as an error.
pub(crate) fn check_finite<T: Scalar>(values: &[T]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::value(format!("expected finite values, got {} at position {i}", values[i]))),
    }
}

/// What `torch.save` writes: a zip archive, before 2020 a pickle. As a length of a header both are beyond every limit.
fn pickled(prefix: &[u8; 8]) -> Option<&'static str> {
    match prefix {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => Some("a zip archive, as torch.save writes it"),
        [0x80, 2..=5, ..] => Some("a pickle, as torch.save wrote it"),
        _ => None,
    }
}
