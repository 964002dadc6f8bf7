//! Records of a file, stored or deflated, and tensors that lie in them in any order.

use crate::{crc::Crc, fault::Outcome};
use safetensors::Dtype;
use std::{
    fs::{self, File},
    io::{self, BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// How many bytes are decoded at a time.
const CHUNK: usize = 1 << 16;

/// How many bytes are read around one element of a sparse view.
const WINDOW: usize = 1 << 12;

/// A view is read with all that lies between its elements while that is at most twice the view and this.
const SPAN: u64 = 1 << 20;

/// How many shards stay open.
pub(crate) const MOST_OPEN: usize = 100;

/// The most that deflate makes of a byte.
pub(crate) const DEFLATED: u64 = 1032;

/// One of the files that tensors come from. It stays open, so that it is the same file to the end whatever takes its place; of
/// many shards one at a time does.
pub(crate) struct Source<'a> {
    path: Option<PathBuf>,
    stream: Option<Stream<'a>>,
}

pub(crate) enum Stream<'a> {
    File(BufReader<File>),
    Bytes(Cursor<&'a [u8]>),
    #[cfg(feature = "keras")]
    Owned(Cursor<Vec<u8>>),
}

impl<'a> Source<'a> {
    pub fn open(path: &Path) -> io::Result<(Self, u64)> {
        let (stream, length) = file(path)?;
        Ok((Self { path: Some(path.into()), stream: Some(stream) }, length))
    }

    pub fn bytes(bytes: &'a [u8]) -> (Self, u64) {
        (Self { path: None, stream: Some(Stream::Bytes(Cursor::new(bytes))) }, bytes.len() as u64)
    }

    /// A file inside of another.
    #[cfg(feature = "keras")]
    pub fn owned(bytes: Vec<u8>) -> Self {
        Self { path: None, stream: Some(Stream::Owned(Cursor::new(bytes))) }
    }

    pub fn stream(&mut self) -> io::Result<&mut Stream<'a>> {
        if self.stream.is_none() {
            let path = self.path.as_ref().ok_or(ErrorKind::NotFound)?;
            self.stream = Some(file(path)?.0);
        }
        self.stream.as_mut().ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Closes a file that can be opened again.
    pub fn close(&mut self) {
        if self.path.is_some() {
            self.stream = None;
        }
    }
}

fn file<'a>(path: &Path) -> io::Result<(Stream<'a>, u64)> {
    // Opening a pipe waits for whoever writes to it, and a device has no end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "expected a regular file, got another kind"));
    }
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok((Stream::File(BufReader::new(file)), length))
}

impl Read for Stream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(bytes),
            Self::Bytes(all) => all.read(bytes),
            #[cfg(feature = "keras")]
            Self::Owned(all) => all.read(bytes),
        }
    }
}

impl Seek for Stream<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::File(file) => file.seek(to),
            Self::Bytes(all) => all.seek(to),
            #[cfg(feature = "keras")]
            Self::Owned(all) => all.seek(to),
        }
    }
}

/// A run of bytes in a file.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Which of the files.
    pub file: u32,
    pub start: u64,
    /// How many bytes of the file it takes.
    pub packed: u64,
    /// How many bytes it holds.
    pub size: u64,
    pub deflated: bool,
    /// The checksum, until it was compared.
    pub crc: Option<u32>,
    /// Elements are big-endian.
    pub big: bool,
}

impl Record {
    /// Bytes as they are.
    pub fn plain(start: u64, size: u64) -> Self {
        Self { file: 0, start, packed: size, size, deflated: false, crc: None, big: false }
    }
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub record: u32,
    /// The byte of the record at which its first element begins.
    pub start: u64,
    /// Steps along each axis, in elements; without them the elements follow each other in row-major order.
    pub strides: Option<Box<[u64]>>,
}

/// Reads records.
pub(crate) struct Reader<'a> {
    pub files: Vec<Source<'a>>,
    /// The file that was read last.
    last: u32,
    pub records: Vec<Record>,
    #[cfg(feature = "deflate")]
    inflating: Option<Inflating>,
}

impl<'a> Reader<'a> {
    pub fn new(file: Source<'a>) -> Self {
        Self {
            files: vec![file],
            last: 0,
            records: Vec::new(),
            #[cfg(feature = "deflate")]
            inflating: None,
        }
    }

    /// The bytes of a record that is wanted as a whole.
    pub fn whole(&mut self, record: u32) -> Outcome<Vec<u8>> {
        let size = self.records[record as usize].size;
        let mut bytes = Vec::with_capacity(size as usize);
        self.session(record)?.run(0, size, &mut |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// The first bytes of a record, at most `most`. Its checksum is not compared.
    pub fn head(&mut self, record: u32, most: u64) -> Outcome<Vec<u8>> {
        let mut session = self.session(record)?;
        let mut bytes = vec![0; most.min(session.record.size) as usize];
        session.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// The elements of a tensor in row-major order, little-endian, some whole elements at a time.
    pub fn tensor(
        &mut self,
        place: &Place,
        dtype: Dtype,
        shape: &[usize],
        f: &mut dyn FnMut(&[u8]) -> Outcome<()>,
    ) -> Outcome<()> {
        let bits = dtype.bitsize();
        let count: u64 = shape.iter().map(|&n| n as u64).product();
        let length = count * bits as u64 / 8;
        let big = self.records[place.record as usize].big;
        // The two parts of a complex number are numbers.
        let word = match dtype {
            Dtype::C64 => 4,
            _ => bits / 8,
        };
        let mut swapped = Vec::new();
        let mut little = |chunk: &[u8]| {
            if !big || word < 2 {
                return f(chunk);
            }
            swapped.clear();
            swapped.extend_from_slice(chunk);
            swapped.chunks_exact_mut(word).for_each(<[u8]>::reverse);
            f(&swapped)
        };
        let mut session = self.session(place.record)?;
        match &place.strides {
            None => session.run(place.start, length, &mut little),
            Some(strides) if count > 0 => {
                // A checksum is compared before the first element is taken.
                if session.record.crc.is_some() {
                    session.run(0, 0, &mut |_| Ok(()))?;
                }
                gather(&mut session, place.start, strides, shape, bits / 8, &mut little)
            }
            Some(_) => Ok(()),
        }
    }

    fn session(&mut self, index: u32) -> Outcome<Session<'_, 'a>> {
        let record = &mut self.records[index as usize];
        if self.files.len() > MOST_OPEN && self.last != record.file {
            self.files[self.last as usize].close();
        }
        self.last = record.file;
        let stream = self.files[record.file as usize].stream()?;
        #[cfg(not(feature = "deflate"))]
        let _ = index;
        #[cfg(not(feature = "deflate"))]
        if record.deflated {
            return Err("expected stored records, got a deflated one: turn on the feature `deflate`".into());
        }
        Ok(Session {
            stream,
            record,
            #[cfg(feature = "deflate")]
            index,
            #[cfg(feature = "deflate")]
            inflating: &mut self.inflating,
        })
    }
}

/// One record, its file open.
struct Session<'r, 'a> {
    stream: &'r mut Stream<'a>,
    record: &'r mut Record,
    #[cfg(feature = "deflate")]
    index: u32,
    #[cfg(feature = "deflate")]
    inflating: &'r mut Option<Inflating>,
}

impl Session<'_, '_> {
    /// Some bytes of the record.
    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> Outcome<()> {
        if at.checked_add(bytes.len() as u64).is_none_or(|end| end > self.record.size) {
            return Err("expected bytes within their record, got bytes beyond it".into());
        }
        #[cfg(feature = "deflate")]
        if self.record.deflated {
            return self.inflate_at(at, bytes);
        }
        self.stream.seek(SeekFrom::Start(self.record.start + at))?;
        self.stream.read_exact(bytes)?;
        Ok(())
    }

    /// A run of bytes, piece by piece, whose lengths are multiples of any element's but for the last. If the checksum of the
    /// record was not compared yet, all of it is read.
    fn run(&mut self, start: u64, length: u64, f: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<()> {
        let size = self.record.size;
        let end = start.checked_add(length).filter(|&end| end <= size);
        let end = end.ok_or("expected bytes within their record, got bytes beyond it")?;
        let mut piece = vec![0; (size as usize).min(CHUNK)];
        let Some(expected) = self.record.crc else {
            return self.pieces(&mut piece, start, end, f);
        };
        let mut crc = Crc::new();
        let mut all = |bytes: &[u8]| {
            crc.update(bytes);
            Ok(())
        };
        self.pieces(&mut piece, 0, start, &mut all)?;
        self.pieces(&mut piece, start, end, &mut |bytes| {
            all(bytes)?;
            f(bytes)
        })?;
        self.pieces(&mut piece, end, size, &mut all)?;
        #[cfg(feature = "deflate")]
        self.end_of_deflated()?;
        let got = crc.value();
        if got != expected {
            return Err(
                format!("expected the checksum {expected:08x}, got {got:08x}: the file is damaged").into()
            );
        }
        self.record.crc = None;
        Ok(())
    }

    fn pieces(
        &mut self,
        piece: &mut [u8],
        mut at: u64,
        end: u64,
        f: &mut dyn FnMut(&[u8]) -> Outcome<()>,
    ) -> Outcome<()> {
        while at < end {
            let n = (end - at).min(piece.len() as u64) as usize;
            self.read_at(at, &mut piece[..n])?;
            f(&piece[..n])?;
            at += n as u64;
        }
        Ok(())
    }
}

/// The byte after the last that a view touches, counted from its first; nothing if that overflows.
pub(crate) fn span(strides: &[u64], shape: &[usize], width: u64) -> Option<u64> {
    let mut last = 0u64;
    for (&stride, &n) in strides.iter().zip(shape) {
        last = last.checked_add(stride.checked_mul((n as u64).checked_sub(1)?)?)?;
    }
    last.checked_add(1)?.checked_mul(width)
}

/// Whether a view has so much between its elements that they are read one by one.
pub(crate) fn sparse(span: u64, bytes: u64) -> bool {
    span > SPAN + 2 * bytes
}

/// The elements of a view in row-major order.
fn gather(
    session: &mut Session<'_, '_>,
    start: u64,
    strides: &[u64],
    shape: &[usize],
    width: usize,
    f: &mut dyn FnMut(&[u8]) -> Outcome<()>,
) -> Outcome<()> {
    let count: u64 = shape.iter().map(|&n| n as u64).product();
    let span =
        span(strides, shape, width as u64).ok_or("expected a view within its storage, got a larger one")?;
    let sparse = sparse(span, count * width as u64);
    let mut held = vec![0; if sparse { WINDOW } else { span as usize }];
    // Which bytes of the view are held.
    let (mut from, mut to) = (0, if sparse { 0 } else { span });
    if !sparse {
        session.read_at(start, &mut held)?;
    }
    let mut out = Vec::with_capacity((count as usize * width).min(CHUNK));
    let mut index = vec![0; shape.len()];
    let mut at = 0u64;
    for _ in 0..count {
        let byte = at * width as u64;
        if byte < from || byte + width as u64 > to {
            let n = (span - byte).min(WINDOW as u64);
            session.read_at(start + byte, &mut held[..n as usize])?;
            (from, to) = (byte, byte + n);
        }
        let place = (byte - from) as usize;
        out.extend_from_slice(&held[place..place + width]);
        if out.len() == CHUNK {
            f(&out)?;
            out.clear();
        }
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                at += strides[axis];
                break;
            }
            at -= strides[axis] * (index[axis] as u64 - 1);
            index[axis] = 0;
        }
    }
    f(&out)
}

/// A deflated record that is read forward.
#[cfg(feature = "deflate")]
struct Inflating {
    record: u32,
    state: flate2::Decompress,
    input: Box<[u8]>,
    /// Which bytes of `input` were not taken yet.
    have: std::ops::Range<usize>,
    /// How many packed bytes came from the file.
    fed: u64,
}

#[cfg(feature = "deflate")]
impl Session<'_, '_> {
    fn inflate_at(&mut self, at: u64, bytes: &mut [u8]) -> Outcome<()> {
        let inflating = self.inflating.get_or_insert_with(|| Inflating {
            record: u32::MAX,
            state: flate2::Decompress::new(false),
            input: vec![0; 1 << 14].into(),
            have: 0..0,
            fed: 0,
        });
        if inflating.record != self.index || inflating.state.total_out() > at {
            inflating.record = self.index;
            inflating.state.reset(false);
            (inflating.have, inflating.fed) = (0..0, 0);
        }
        let mut skipped = [0; 1 << 13];
        while inflating.state.total_out() < at {
            let n = (at - inflating.state.total_out()).min(skipped.len() as u64) as usize;
            inflating.fill(self.stream, self.record, &mut skipped[..n])?;
        }
        inflating.fill(self.stream, self.record, bytes)
    }

    /// After the last byte of a deflated record its stream ends too.
    fn end_of_deflated(&mut self) -> Outcome<()> {
        if !self.record.deflated {
            return Ok(());
        }
        if self.record.size == 0 {
            self.inflate_at(0, &mut [])?;
        }
        let Some(inflating) = self.inflating else { return Ok(()) };
        let mut more = [0];
        let ended = inflating.step(self.stream, self.record, &mut more);
        match ended {
            Ok((0, true)) if inflating.state.total_in() == self.record.packed => Ok(()),
            Ok(_) => Err("expected the deflated bytes that the directory says, got others".into()),
            Err(fault) => Err(fault),
        }
    }
}

#[cfg(feature = "deflate")]
impl Inflating {
    fn fill(&mut self, stream: &mut Stream<'_>, record: &Record, mut bytes: &mut [u8]) -> Outcome<()> {
        while !bytes.is_empty() {
            let (n, ended) = self.step(stream, record, bytes)?;
            bytes = &mut bytes[n..];
            if ended && !bytes.is_empty() {
                return Err("expected more deflated bytes, got their end".into());
            }
        }
        Ok(())
    }

    /// Inflates some bytes: how many, and whether they were the last.
    fn step(&mut self, stream: &mut Stream<'_>, record: &Record, bytes: &mut [u8]) -> Outcome<(usize, bool)> {
        use flate2::{FlushDecompress, Status};
        loop {
            if self.have.is_empty() && self.fed < record.packed {
                let n = (record.packed - self.fed).min(self.input.len() as u64) as usize;
                stream.seek(SeekFrom::Start(record.start + self.fed))?;
                stream.read_exact(&mut self.input[..n])?;
                self.fed += n as u64;
                self.have = 0..n;
            }
            let (taken, made) = (self.state.total_in(), self.state.total_out());
            let input = &self.input[self.have.clone()];
            let status = self.state.decompress(input, bytes, FlushDecompress::None);
            let status = status.map_err(|e| format!("deflated bytes: {e}"))?;
            let taken = (self.state.total_in() - taken) as usize;
            let made = (self.state.total_out() - made) as usize;
            self.have.start += taken;
            match status {
                Status::StreamEnd => return Ok((made, true)),
                _ if made > 0 => return Ok((made, false)),
                _ if taken == 0 && self.fed == record.packed => {
                    return Err("expected more deflated bytes, got their end".into());
                }
                _ if taken == 0 => return Err("deflated bytes: no progress".into()),
                _ => {}
            }
        }
    }
}
