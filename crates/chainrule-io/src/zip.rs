//! The directory of a zip archive (APPNOTE 6.3.10), strictly: what PyTorch and NumPy write, and no more.
//!
//! Directory and local headers must agree, records must not overlap, and each name stands once. Records are stored or
//! deflated; encrypted and split archives are refused. Zip64 is read.

use crate::{
    fault::{Fault, Outcome},
    reader::{DEFLATED, Record, Stream},
};
use chainrule_core::text::quote;
use std::{
    collections::HashSet,
    io::{Read, Seek, SeekFrom},
};

/// The longest directory. A tensor takes about a hundred bytes.
const LONGEST: u64 = 16 << 20;

/// One record and its name.
pub(crate) struct Member {
    pub name: Box<str>,
    pub record: Record,
}

struct Header<'b>(&'b [u8]);

impl Header<'_> {
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }
    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }
    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }
}

/// Where the directory is.
struct End {
    entries: u64,
    size: u64,
    start: u64,
}

/// The records of an archive in the order of its directory.
pub(crate) fn members(stream: &mut Stream<'_>, length: u64) -> Outcome<Vec<Member>> {
    let end = end(stream, length)?;
    if end.size > LONGEST {
        return Err(format!("expected a directory of at most {LONGEST} bytes, got {}", end.size).into());
    }
    let mut bytes = vec![0; end.size as usize];
    stream.seek(SeekFrom::Start(end.start))?;
    stream.read_exact(&mut bytes)?;
    let mut members: Vec<Member> = Vec::new();
    // Offset and index, to be sorted.
    let mut offsets: Vec<(u64, usize)> = Vec::new();
    let mut rest = &*bytes;
    while !rest.is_empty() {
        let (member, offset, next) = member(rest)?;
        offsets.push((offset, members.len()));
        members.push(member);
        rest = next;
    }
    if members.len() as u64 != end.entries {
        let got = members.len();
        return Err(format!("expected the {} entries that the archive counts, got {got}", end.entries).into());
    }
    let mut names = HashSet::with_capacity(members.len());
    if let Some(twice) = members.iter().find(|member| !names.insert(&*member.name)) {
        return Err(
            format!("expected each name once in the archive, got {} twice", quote(&twice.name)).into()
        );
    }
    drop(names);
    offsets.sort_unstable();
    for (i, &(offset, index)) in offsets.iter().enumerate() {
        let next = offsets.get(i + 1).map_or(end.start, |&(next, _)| next);
        let member = &mut members[index];
        local(stream, member, offset, next).map_err(|fault| fault.within(&quote(&member.name)))?;
    }
    Ok(members)
}

/// The record at the end of the archive.
fn end(stream: &mut Stream<'_>, length: u64) -> Outcome<End> {
    let none = || {
        Fault::from(
            "expected a directory at the end of the zip archive, got none: the file is cut or damaged",
        )
    };
    let tail = length.min(22 + 0xffff);
    let mut bytes = vec![0; tail as usize];
    stream.seek(SeekFrom::Start(length - tail))?;
    stream.read_exact(&mut bytes)?;
    // Its comment ends where the file does.
    let fits = |at: usize| {
        let header = Header(&bytes[at..]);
        header.u32(0) == 0x0605_4b50 && at + 22 + usize::from(header.u16(20)) == bytes.len()
    };
    let at = (0..bytes.len().saturating_sub(21)).rev().find(|&at| fits(at)).ok_or_else(none)?;
    let header = Header(&bytes[at..]);
    let position = length - tail + at as u64;
    if header.u16(4) != header.u16(6)
        || header.u16(8) != header.u16(10)
        || ![0, 0xffff].contains(&header.u16(4))
    {
        return Err("expected an archive in one piece, got a part of one".into());
    }
    let small =
        End { entries: header.u16(10).into(), size: header.u32(12).into(), start: header.u32(16).into() };
    let (end, position) = match wide(stream, position)? {
        Some((wide, at)) => {
            let agrees = |small: u64, most: u64, wide: u64| small == most || small == wide;
            if !agrees(small.entries, 0xffff, wide.entries)
                || !agrees(small.size, 0xffff_ffff, wide.size)
                || !agrees(small.start, 0xffff_ffff, wide.start)
            {
                return Err("expected the two ends of the archive to agree, got others".into());
            }
            (wide, at)
        }
        None => (small, position),
    };
    if end.start.checked_add(end.size) != Some(position) {
        let (start, size) = (end.start, end.size);
        return Err(format!(
            "expected a directory that ends at byte {position}, got {size} bytes from {start} on"
        )
        .into());
    }
    Ok(end)
}

/// The end of a zip64 archive, and its position.
fn wide(stream: &mut Stream<'_>, small: u64) -> Outcome<Option<(End, u64)>> {
    let Some(locator_at) = small.checked_sub(20) else { return Ok(None) };
    let mut locator = [0; 20];
    stream.seek(SeekFrom::Start(locator_at))?;
    stream.read_exact(&mut locator)?;
    let locator = Header(&locator);
    if locator.u32(0) != 0x0706_4b50 {
        return Ok(None);
    }
    let at = locator.u64(8);
    let mut header = [0; 56];
    if at.checked_add(56).is_none_or(|end| end > locator_at) {
        return Err("expected the zip64 end of the archive before its locator, got another place".into());
    }
    stream.seek(SeekFrom::Start(at))?;
    stream.read_exact(&mut header)?;
    let header = Header(&header);
    let whole = header.u64(4).checked_add(12).and_then(|size| at.checked_add(size)) == Some(locator_at);
    if header.u32(0) != 0x0606_4b50 || !whole {
        return Err("expected a zip64 end of the archive, got another record".into());
    }
    if header.u32(16) != header.u32(20)
        || header.u64(24) != header.u64(32)
        || locator.u32(4) != header.u32(16)
    {
        return Err("expected an archive in one piece, got a part of one".into());
    }
    Ok(Some((End { entries: header.u64(32), size: header.u64(40), start: header.u64(48) }, at)))
}

/// The first entry of a directory, where its local header is, and the rest.
fn member(bytes: &[u8]) -> Outcome<(Member, u64, &[u8])> {
    let cut = || Fault::from("expected an entry of the archive's directory, got a part of one");
    if bytes.len() < 46 {
        return Err(cut());
    }
    let header = Header(bytes);
    if header.u32(0) != 0x0201_4b50 {
        return Err("expected an entry of the archive's directory, got something else".into());
    }
    let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(header.u16(at)));
    let rest = bytes.get(46 + name + extra + comment..).ok_or_else(cut)?;
    let text = std::str::from_utf8(&bytes[46..46 + name]);
    let text =
        text.map_err(|_| Fault::from("expected names in UTF-8 in the archive's directory, got others"))?;
    let wrong = |what: &str| Fault::from(format!("{}: {what}", quote(text)));
    if header.u16(8) & 0x2041 != 0 {
        return Err(wrong("expected a record that is not encrypted, got an encrypted one"));
    }
    let deflated = match header.u16(10) {
        0 => false,
        8 => true,
        other => return Err(wrong(&format!("expected a stored or deflated record, got method {other}"))),
    };
    let mut sizes = [header.u32(24), header.u32(20), header.u32(42)].map(u64::from);
    let missing = || wrong("expected sizes of 64 bits, got none");
    zip64(&bytes[46 + name..46 + name + extra], &mut sizes, missing)?;
    let [size, packed, offset] = sizes;
    if !deflated && size != packed {
        return Err(wrong(&format!("expected a stored record of {size} bytes, got {packed}")));
    }
    if deflated && size / DEFLATED > packed {
        return Err(wrong(&format!("expected a size that {packed} deflated bytes can have, got {size}")));
    }
    let crc = Some(header.u32(16));
    let record = Record { file: 0, start: 0, packed, size, deflated, crc, big: false };
    Ok((Member { name: text.into(), record }, offset, rest))
}

/// Fills sizes that 32 bits do not hold from the extra field of zip64.
fn zip64(mut extra: &[u8], sizes: &mut [u64], missing: impl Fn() -> Fault) -> Outcome<()> {
    let mut wide: &[u8] = &[];
    while let Some((&[a, b, c, d], rest)) = extra.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([c, d]));
        let Some((field, rest)) = rest.split_at_checked(length) else { break };
        if [a, b] == [1, 0] {
            wide = field;
            break;
        }
        extra = rest;
    }
    for size in sizes.iter_mut().filter(|size| **size == 0xffff_ffff) {
        let (value, rest) = wide.split_first_chunk().ok_or_else(&missing)?;
        *size = u64::from_le_bytes(*value);
        wide = rest;
    }
    Ok(())
}

/// Compares a record's local header with the directory, and finds its bytes.
fn local(stream: &mut Stream<'_>, member: &mut Member, offset: u64, next: u64) -> Outcome<()> {
    let differs = || Fault::from("expected local header and directory to agree, got others");
    let beyond = || {
        Fault::from(
            "expected records one after another before the directory, got one that reaches into another",
        )
    };
    if offset.checked_add(30).is_none_or(|end| end > next) {
        return Err(beyond());
    }
    let mut fixed = [0; 30];
    stream.seek(SeekFrom::Start(offset))?;
    stream.read_exact(&mut fixed)?;
    let header = Header(&fixed);
    if header.u32(0) != 0x0403_4b50 {
        return Err("expected a local header, got something else".into());
    }
    let [name, extra] = [26, 28].map(|at| usize::from(header.u16(at)));
    let start = offset + 30 + (name + extra) as u64;
    let record = &mut member.record;
    if start.checked_add(record.packed).is_none_or(|end| end > next) {
        return Err(beyond());
    }
    let mut bytes = vec![0; name + extra];
    stream.read_exact(&mut bytes)?;
    let method = if record.deflated { 8 } else { 0 };
    if bytes[..name] != *member.name.as_bytes() || header.u16(8) != method || header.u16(6) & 0x2041 != 0 {
        return Err(differs());
    }
    let mut sizes = [header.u32(22), header.u32(18)].map(u64::from);
    zip64(&bytes[name..], &mut sizes, differs)?;
    // Sizes that come after the bytes are zero here.
    let later = header.u16(6) & 8 != 0;
    let agrees = |local: u64, directory: u64| local == directory || later && local == 0;
    if !agrees(sizes[0], record.size)
        || !agrees(sizes[1], record.packed)
        || !agrees(header.u32(14).into(), record.crc.unwrap_or(0).into())
    {
        return Err(differs());
    }
    record.start = start;
    Ok(())
}
