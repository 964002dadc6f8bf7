//! HDF5, in which Keras keeps weights: `.h5`, `.weights.h5`, and the latter in a `.keras` archive.
//!
//! The package reads the structure of the file, groups and types. Elements are read here: datasets that lie in one piece, as Keras
//! writes them, are records of the file. Links to other files are not followed.

use crate::{
    fault::{Fault, Outcome},
    file::Entry,
    header::MOST_AXES,
    reader::{Place, Record, Stream},
};
use chainrule_core::text::quote;
use hdf5_pure::{Datatype, DatatypeByteOrder, File, Group, Layout};
use safetensors::Dtype;
use std::{
    io::{Read, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// How deep groups may be nested.
const DEEPEST: usize = 16;

/// The tensors of a file, by their paths in it, and where they lie.
pub(crate) fn tensors(stream: &mut Stream<'_>, length: u64) -> Outcome<(Vec<Entry>, Vec<Record>)> {
    let mut bytes = vec![0; length as usize];
    stream.seek(SeekFrom::Start(0))?;
    stream.read_exact(&mut bytes)?;
    let walk = || {
        let file = File::from_bytes(bytes).map_err(wrong)?;
        let mut walker =
            Walker { entries: Vec::new(), records: Vec::new(), length, room: (1 << 16) + 16 * length };
        walker.group(&file.root(), "", 0)?;
        Ok((walker.entries, walker.records))
    };
    // The package promises errors for damaged files; where it fails to, that is one.
    catch_unwind(AssertUnwindSafe(walk))
        .unwrap_or_else(|_| Err("HDF5: expected a file that can be read, got another".into()))
}

fn wrong(error: hdf5_pure::Error) -> Fault {
    Fault::Text(format!("HDF5: {error}"))
}

struct Walker {
    entries: Vec<Entry>,
    records: Vec<Record>,
    length: u64,
    /// How many bytes of names there may still be: groups can stand under several.
    room: u64,
}

impl Walker {
    fn group(&mut self, group: &Group, path: &str, depth: usize) -> Outcome<()> {
        if depth > DEEPEST {
            return Err(format!("HDF5: expected groups nested at most {DEEPEST} deep, got more").into());
        }
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        for name in group.datasets().map_err(wrong)? {
            let path = below(&name);
            self.charge(path.len())?;
            let dataset = group.dataset(&name).map_err(wrong)?;
            // What else there is, such as text, is no tensor.
            let Some((dtype, big)) = dtype(&dataset.datatype().map_err(wrong)?) else { continue };
            let shape = dataset.shape().map_err(wrong)?;
            let layout = dataset.layout().map_err(wrong)?;
            let entry = self.entry(&path, dtype, big, &shape, &layout);
            self.entries.push(entry.map_err(|fault| fault.within(&format!("tensor {}", quote(&path))))?);
        }
        for name in group.groups().map_err(wrong)? {
            let path = below(&name);
            self.charge(path.len())?;
            self.group(&group.group(&name).map_err(wrong)?, &path, depth + 1)?;
        }
        Ok(())
    }

    fn charge(&mut self, name: usize) -> Outcome<()> {
        let room = self.room.checked_sub(name as u64 + 256);
        self.room = room.ok_or("HDF5: expected names that the file has room for, got more of them")?;
        Ok(())
    }

    fn entry(
        &mut self,
        name: &str,
        dtype: Dtype,
        big: bool,
        shape: &[u64],
        layout: &Layout,
    ) -> Outcome<Entry> {
        let sizes = shape.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Box<[usize]>>>();
        let width = dtype.bitsize() / 8;
        let volume = |sizes: &[usize]| sizes.iter().try_fold(width, |n, &axis| n.checked_mul(axis.max(1)));
        let sizes = sizes.filter(|sizes| {
            sizes.len() <= MOST_AXES && volume(sizes).is_some_and(|n| n <= isize::MAX as usize)
        });
        let shape = sizes.ok_or("expected a shape that memory holds, got a larger one")?;
        let bytes = shape.iter().product::<usize>() as u64 * width as u64;
        let start = match *layout {
            _ if bytes == 0 => 0,
            Layout::Contiguous { address: Some(start), size } if size == bytes => start,
            Layout::Contiguous { .. } => {
                return Err(format!("expected {bytes} bytes in the file, got others").into());
            }
            _ => {
                return Err("expected elements in one piece, as Keras writes them, got another layout".into());
            }
        };
        if start.checked_add(bytes).is_none_or(|end| end > self.length) {
            return Err("expected elements within the file, got some beyond it: it is cut".into());
        }
        let record = self.records.len() as u32;
        self.records.push(Record { big, ..Record::plain(start, bytes) });
        Ok(Entry {
            name: name.into(),
            dtype,
            shape,
            place: Place { record, start: 0, strides: None },
            alias: false,
        })
    }
}

/// The type of numbers, and whether they are big-endian.
fn dtype(datatype: &Datatype) -> Option<(Dtype, bool)> {
    let (dtype, order) = match datatype {
        Datatype::FixedPoint { size, byte_order, layout }
            if layout.bit_offset == 0 && u32::from(layout.bit_precision) == 8 * size =>
        {
            let dtype = match (size, layout.signed) {
                (1, true) => Dtype::I8,
                (2, true) => Dtype::I16,
                (4, true) => Dtype::I32,
                (8, true) => Dtype::I64,
                (1, false) => Dtype::U8,
                (2, false) => Dtype::U16,
                (4, false) => Dtype::U32,
                (8, false) => Dtype::U64,
                _ => return None,
            };
            (dtype, byte_order)
        }
        Datatype::FloatingPoint { size, byte_order, layout } if layout.bit_offset == 0 => {
            let dtype = match (size, layout.exponent_size, layout.mantissa_size, layout.exponent_bias) {
                (2, 5, 10, 15) => Dtype::F16,
                (2, 8, 7, 127) => Dtype::BF16,
                (4, 8, 23, 127) => Dtype::F32,
                (8, 11, 52, 1023) => Dtype::F64,
                _ => return None,
            };
            (dtype, byte_order)
        }
        // Of h5py: true and false.
        Datatype::Enumeration { size: 1, base_type, members } if members.len() == 2 => match **base_type {
            Datatype::FixedPoint { size: 1, .. } => return Some((Dtype::BOOL, false)),
            _ => return None,
        },
        _ => return None,
    };
    match order {
        DatatypeByteOrder::LittleEndian => Some((dtype, false)),
        DatatypeByteOrder::BigEndian => Some((dtype, true)),
        _ => None,
    }
}
