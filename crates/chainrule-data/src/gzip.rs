//! Decompression that stops where a file holds more than it can be trusted with.

use chainrule_tensor::Result;
use flate2::read::MultiGzDecoder;
use std::{
    cell::Cell,
    io::{self, ErrorKind, Read},
    rc::Rc,
};

/// How much more a compressed file may hold than its size, and what it may hold in any case.
const MOST_RATIO: u64 = 100;
const ALWAYS: u64 = 256 << 20;

pub(crate) fn gzip<'s>(source: impl Read + 's, _: &str) -> Result<Box<dyn Read + 's>> {
    let read = Rc::new(Cell::new(0));
    let source = Counted { source, read: Rc::clone(&read) };
    Ok(Box::new(Unpacked { source: MultiGzDecoder::new(source), read, given: 0 }))
}

/// Counts what is read.
struct Counted<R> {
    source: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(bytes)?;
        self.read.set(self.read.get().saturating_add(n as u64));
        Ok(n)
    }
}

/// What a decompressor gives, up to the limit.
struct Unpacked<R> {
    source: R,
    /// How many compressed bytes it took.
    read: Rc<Cell<u64>>,
    given: u64,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(bytes)?;
        self.given = self.given.saturating_add(n as u64);
        let most = ALWAYS.max(self.read.get().saturating_mul(MOST_RATIO));
        if self.given > most {
            let text = format!("more than {most} bytes from {}: unpack it first", self.read.get());
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        Ok(n)
    }
}
