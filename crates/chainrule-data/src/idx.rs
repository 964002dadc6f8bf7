//! The idx format of MNIST: a typed array of any rank (LeCun, Cortes and Burges, "The MNIST database", 1998).
//!
//! ```text
//! 00 00  type  rank    axis₀ axis₁ …    data
//! one byte each        u32, big-endian  big-endian, row-major
//! ```
//!
//! Memory follows what the file really holds, not what its header says: reading stops where the header's counts end, and a
//! compressed file may hold 256 MiB, or a hundred times its size if that is more. MNIST's hold 5 times theirs; what is
//! compressed better has to be unpacked first.

#[cfg(feature = "gzip")]
use crate::gzip::gzip;
use chainrule_tensor::{Error, Result, Scalar, Shape, Tensor};
use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

/// The element types of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, 0x08.
    U8,
    /// Signed bytes, 0x09.
    I8,
    /// 16 bits, signed, 0x0B.
    I16,
    /// 32 bits, signed, 0x0C.
    I32,
    /// Single precision, 0x0D.
    F32,
    /// Double precision, 0x0E.
    F64,
}

impl Kind {
    fn new(code: u8) -> Option<Self> {
        Some(match code {
            0x08 => Self::U8,
            0x09 => Self::I8,
            0x0b => Self::I16,
            0x0c => Self::I32,
            0x0d => Self::F32,
            0x0e => Self::F64,
            _ => return None,
        })
    }

    /// The bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// An array as it stands in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Idx {
    kind: Kind,
    shape: Shape,
    bytes: Vec<u8>,
}

impl Idx {
    /// Reads a file, plain or compressed with gzip, recognised by their first bytes.
    ///
    /// # Errors
    /// The file cannot be read; otherwise as [`Idx::read`], with the file's name in front. A file that is too small for
    /// what its header says is refused before its data are read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Header::open(path.as_ref())?.finish()
    }

    /// Reads from anywhere, plain or compressed with gzip, up to the end.
    ///
    /// ```
    /// use chainrule_data::idx::Idx;
    /// let array = Idx::read(&[0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9][..])?; // one axis of 3 bytes
    /// assert_eq!(array.tensor::<f32>().data(), [7.0, 8.0, 9.0]);
    /// # Ok::<(), chainrule_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// Another format, a header or data that are cut or longer than the header says, axes whose volume overflows, a
    /// damaged compression or one beyond the limit, or a source that fails. The text names the field.
    pub fn read(source: impl Read) -> Result<Self> {
        Header::read(source, None, "idx".into())?.finish()
    }

    /// The element type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The axes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The values as they stand in the file: big-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The type, the axes and the bytes, taken apart.
    pub fn into_parts(self) -> (Kind, Shape, Vec<u8>) {
        (self.kind, self.shape, self.bytes)
    }

    /// The values as a tensor.
    pub fn tensor<T: Scalar>(&self) -> Tensor<T> {
        fn decode<T: Scalar, const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<T> {
            bytes.as_chunks().0.iter().map(|&b| T::from_f64(f(b))).collect()
        }
        let b = &self.bytes;
        let data = match self.kind {
            Kind::U8 => decode(b, |[v]| v.into()),
            Kind::I8 => decode(b, |[v]| (v as i8).into()),
            Kind::I16 => decode(b, |v| i16::from_be_bytes(v).into()),
            Kind::I32 => decode(b, |v| i32::from_be_bytes(v).into()),
            Kind::F32 => decode(b, |v| f32::from_be_bytes(v).into()),
            Kind::F64 => decode(b, f64::from_be_bytes),
        };
        Tensor::from_vec(self.shape, data).expect("the data fill the shape")
    }
}

/// Deflate makes at most 1,032 bytes of one.
const MOST_COMPRESSED: u64 = 1032;

/// A file whose header was read, and whose data come next.
pub(crate) struct Header<'s> {
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    /// The bytes of the data.
    length: usize,
    source: Box<dyn Read + 's>,
    name: String,
}

impl Header<'static> {
    /// Of a file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(e, format!("open {}", path.display())))?;
        let size = file.metadata().ok().filter(|m| m.is_file()).map(|m| m.len());
        Header::read(file, size, path.display().to_string())
    }
}

impl<'s> Header<'s> {
    fn read(mut source: impl Read + 's, size: Option<u64>, name: String) -> Result<Self> {
        let start = take(&mut source, 2, &name)?;
        let compressed = start == [0x1f, 0x8b];
        let whole = io::Cursor::new(start).chain(source);
        if compressed {
            let most = size.map(|size| size.saturating_mul(MOST_COMPRESSED));
            Self::plain(gzip(whole, &name)?, most, name)
        } else {
            Self::plain(Box::new(whole), size, name)
        }
    }

    /// `most`: the bytes that the source can give at most, when that is known.
    fn plain(mut source: Box<dyn Read + 's>, most: Option<u64>, name: String) -> Result<Self> {
        let fail = |text: String| Err(Error::format(format!("{name}: {text}")));
        let head = take(&mut source, 4, &name)?;
        if head.len() < 4 {
            return fail(format!("idx header: expected 4 bytes of magic number, got {}", head.len()));
        }
        if head[..2] != [0, 0] {
            return fail(format!(
                "idx magic number: expected bytes 00 00, got {:02x} {:02x}",
                head[0], head[1]
            ));
        }
        let Some(kind) = Kind::new(head[2]) else {
            return fail(format!("idx type: expected 08, 09, 0b, 0c, 0d or 0e, got {:02x}", head[2]));
        };
        let rank = usize::from(head[3]);
        if !(1..=Shape::MAX_RANK).contains(&rank) {
            return fail(format!("idx rank: expected 1 to {} axes, got {rank}", Shape::MAX_RANK));
        }
        let axes = take(&mut source, 4 * rank, &name)?;
        if axes.len() < 4 * rank {
            return fail(format!(
                "idx header: axis {}: expected {} bytes of {rank} axes, got {}",
                axes.len() / 4,
                4 * rank,
                axes.len()
            ));
        }
        let axes: Vec<usize> = axes.as_chunks().0.iter().map(|&a| u32::from_be_bytes(a) as usize).collect();
        let expected = axes.iter().try_fold(kind.size(), |v, &a| v.checked_mul(a));
        let (Ok(shape), Some(length)) = (Shape::new(&axes), expected) else {
            return fail(format!("idx header: expected axes whose volume fits in memory, got {axes:?}"));
        };
        let most = most.map(|m| m.saturating_sub(4 + 4 * rank as u64));
        if let Some(most) = most.filter(|&m| m < length as u64) {
            return fail(format!(
                "idx data: expected {length} bytes for {shape}, got a file of at most {most}"
            ));
        }
        Ok(Self { kind, shape, length, source, name })
    }

    /// The data too, and the end of the file after them.
    pub(crate) fn finish(self) -> Result<Idx> {
        let Self { kind, shape, length, mut source, name } = self;
        let fail = |text: String| Err(Error::format(format!("{name}: {text}")));
        let bytes = take(&mut source, length, &name)?;
        if bytes.len() < length {
            return fail(format!("idx data: expected {length} bytes for {shape}, got {}", bytes.len()));
        }
        if !take(&mut source, 1, &name)?.is_empty() {
            return fail(format!("idx data: expected the end after {length} bytes for {shape}, got more"));
        }
        Ok(Idx { kind, shape, bytes })
    }
}

#[cfg(not(feature = "gzip"))]
fn gzip<'s>(_: impl Read + 's, name: &str) -> Result<Box<dyn Read + 's>> {
    Err(Error::format(format!(
        "{name}: gzip: expected the feature `gzip` of chainrule-data, got a build without it"
    )))
}

/// Up to `n` bytes, fewer at the end of the source; memory grows with what comes.
fn take(source: &mut impl Read, n: usize, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(n.min(1 << 20));
    match source.take(n as u64).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(e) => Err(read_error(e, name)),
    }
}

fn read_error(e: io::Error, name: &str) -> Error {
    match e.kind() {
        // What the decompressor says of a damaged or cut stream.
        ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => {
            Error::format(format!("{name}: gzip: expected a whole compressed stream, got: {e}"))
        }
        _ => Error::io(e, format!("read {name}")),
    }
}
