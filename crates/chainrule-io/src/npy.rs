//! NumPy's arrays: `.npy` in versions 1 to 3, and `.npz`, a zip archive of them (numpy/lib/format.py).
//!
//! ```text
//! \x93NUMPY 1 0 <u16: length> {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n <elements>
//! ```
//!
//! The header is a literal of Python and is parsed as one, never run. Arrays of objects, which are pickles, are refused.

use crate::{
    fault::{Fault, Outcome},
    header::MOST_AXES,
};
use chainrule_core::text::quote;
use safetensors::Dtype;

pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest header: what version 1 can have.
pub(crate) const LONGEST: usize = 0xffff;

/// The longest beginning of a file up to its elements.
pub(crate) const LONGEST_START: u64 = 12 + LONGEST as u64;

/// What a header says.
#[derive(Debug, PartialEq)]
pub(crate) struct Header {
    pub dtype: Dtype,
    pub big: bool,
    pub shape: Box<[usize]>,
    /// Of arrays in Fortran order, in elements.
    pub strides: Option<Box<[u64]>>,
    /// Where the elements begin.
    pub start: u64,
    /// How many bytes of them there are.
    pub length: u64,
}

/// Parses the beginning of an array.
pub(crate) fn header(bytes: &[u8]) -> Outcome<Header> {
    let cut = || Fault::from("expected a NumPy array, got a part of one: the file is cut");
    let (magic, rest) = bytes.split_at_checked(MAGIC.len()).ok_or_else(cut)?;
    if magic != MAGIC {
        return Err("expected a NumPy array, got something else".into());
    }
    let ([major, minor], rest) = rest.split_first_chunk().ok_or_else(cut)?;
    let (length, start, rest) = match (major, minor) {
        (1, 0) => {
            let (n, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes(*n)), 10, rest)
        }
        (2 | 3, 0) => {
            let (n, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            (u32::from_le_bytes(*n) as usize, 12, rest)
        }
        _ => return Err(format!("expected an array of version 1, 2 or 3, got {major}.{minor}").into()),
    };
    if length > LONGEST {
        return Err(format!("expected a header of at most {LONGEST} bytes, got {length}").into());
    }
    let text = rest.get(..length).ok_or_else(cut)?;
    let mut header = Parser { rest: text }.header().map_err(|fault| fault.within("header"))?;
    header.start = (start + length) as u64;
    Ok(header)
}

/// Reads the literal of a header.
struct Parser<'b> {
    rest: &'b [u8],
}

impl<'b> Parser<'b> {
    fn header(mut self) -> Outcome<Header> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect(b"{")?;
        while !self.take(b"}") {
            let twice = match self.text()? {
                "descr" => descr.replace(self.after_colon(Self::descr)?).is_some(),
                "fortran_order" => fortran.replace(self.after_colon(Self::truth)?).is_some(),
                "shape" => shape.replace(self.after_colon(Self::shape)?).is_some(),
                other => {
                    let other = quote(other);
                    return Err(format!("expected `descr`, `fortran_order` or `shape`, got {other}").into());
                }
            };
            if twice {
                return Err("expected each key once, got one twice".into());
            }
            if !self.take(b",") {
                self.expect(b"}")?;
                break;
            }
        }
        self.space();
        if !self.rest.is_empty() {
            return Err("expected the end of the header after its dict, got more".into());
        }
        let (Some((dtype, big)), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
            return Err("expected `descr`, `fortran_order` and `shape`, got fewer".into());
        };
        let bytes = dtype.bitsize() / 8;
        let mut strides = Vec::with_capacity(shape.len());
        let mut count = 1usize;
        // Of an array without elements its other axes may be of any size, but memory could hold them.
        let volume = shape.iter().try_fold(bytes, |n, &axis| n.checked_mul(axis.max(1)));
        if volume.is_none_or(|n| n > isize::MAX as usize) {
            return Err("expected a shape that memory holds, got a larger one".into());
        }
        for &axis in &shape {
            strides.push(count as u64);
            count *= axis;
        }
        let strides = (fortran && shape.len() > 1).then(|| strides.into());
        Ok(Header { dtype, big, shape: shape.into(), strides, start: 0, length: (count * bytes) as u64 })
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn take(&mut self, token: &[u8]) -> bool {
        self.space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &[u8]) -> Outcome<()> {
        match self.take(token) {
            true => Ok(()),
            false => {
                let got = String::from_utf8_lossy(&self.rest[..self.rest.len().min(20)]).into_owned();
                let token = String::from_utf8_lossy(token);
                Err(format!("expected `{token}`, got {}", quote(&got)).into())
            }
        }
    }

    fn after_colon<V>(&mut self, value: impl Fn(&mut Self) -> Outcome<V>) -> Outcome<V> {
        self.expect(b":")?;
        value(self)
    }

    /// A text in single or double quotes, without escapes.
    fn text(&mut self) -> Outcome<&'b str> {
        let mark = if self.take(b"\"") {
            b'"'
        } else {
            self.expect(b"'")?;
            b'\''
        };
        let end = self.rest.iter().position(|&byte| byte == mark);
        let end = end.ok_or("expected the end of a text, got none")?;
        let (text, rest) = (&self.rest[..end], &self.rest[end + 1..]);
        self.rest = rest;
        match std::str::from_utf8(text) {
            Ok(text) if text.is_ascii() && !text.contains('\\') => Ok(text),
            _ => Err("expected plain texts, got others".into()),
        }
    }

    fn truth(&mut self) -> Outcome<bool> {
        if self.take(b"True") {
            return Ok(true);
        }
        self.expect(b"False").map(|()| false)
    }

    fn shape(&mut self) -> Outcome<Vec<usize>> {
        let mut axes = Vec::new();
        self.expect(b"(")?;
        while !self.take(b")") {
            self.space();
            let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (text, rest) = self.rest.split_at(digits);
            // Python 2 wrote some with an L.
            self.rest = rest.strip_prefix(b"L").unwrap_or(rest);
            let axis = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            axes.push(axis.ok_or("expected whole numbers from 0 on as shape, got others")?);
            if axes.len() > MOST_AXES {
                return Err(format!("expected at most {MOST_AXES} axes, got more").into());
            }
            // One in brackets is a number, with a comma a tuple.
            let comma = self.take(b",");
            if !comma {
                self.expect(b")")?;
                if axes.len() == 1 {
                    return Err("expected a tuple as shape, got a number".into());
                }
                break;
            }
        }
        Ok(axes)
    }

    fn descr(&mut self) -> Outcome<(Dtype, bool)> {
        self.space();
        if self.rest.first() == Some(&b'[') {
            return Err("expected numbers, got records".into());
        }
        let text = self.text()?;
        let (order, name) = text.split_at_checked(1).unwrap_or((text, ""));
        let dtype = match name {
            "b1" => Dtype::BOOL,
            "i1" => Dtype::I8,
            "u1" => Dtype::U8,
            "i2" => Dtype::I16,
            "u2" => Dtype::U16,
            "f2" => Dtype::F16,
            "i4" => Dtype::I32,
            "u4" => Dtype::U32,
            "f4" => Dtype::F32,
            "i8" => Dtype::I64,
            "u8" => Dtype::U64,
            "f8" => Dtype::F64,
            "c8" => Dtype::C64,
            "O" | "O4" | "O8" => return Err("expected numbers, got objects, which are never read".into()),
            _ => return Err(format!("expected a type of numbers, got {}", quote(text)).into()),
        };
        match order {
            "<" | "=" => Ok((dtype, false)),
            ">" => Ok((dtype, true)),
            "|" if dtype.bitsize() == 8 => Ok((dtype, false)),
            _ => Err(format!("expected a type of numbers, got {}", quote(text)).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Outcome<Header> {
        Parser { rest: text.as_bytes() }.header()
    }

    #[test]
    fn a_header_is_a_literal() {
        let header = parse("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n").unwrap();
        let expected = Header {
            dtype: Dtype::F32,
            big: false,
            shape: [2, 3].into(),
            strides: None,
            start: 0,
            length: 24,
        };
        assert_eq!(header, expected);
        let header = parse("{\"shape\":(2L,3),\"descr\":\">i8\",\"fortran_order\":True}").unwrap();
        let strides: Box<[u64]> = [1, 2].into();
        let expected = Header {
            dtype: Dtype::I64,
            big: true,
            shape: [2, 3].into(),
            strides: Some(strides),
            start: 0,
            length: 48,
        };
        assert_eq!(header, expected);
        assert_eq!(parse("{'descr': '|b1', 'fortran_order': True, 'shape': ()}").unwrap().length, 1);
        assert_eq!(parse("{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}").unwrap().length, 24);
    }

    #[test]
    fn anything_else_is_an_error() {
        for (from, to) in [
            ("(2, 3)", "(2.0, 3)"),
            ("(2, 3)", "(-2, 3)"),
            ("(2, 3)", "6"),
            ("(2, 3)", "(6)"),
            ("(2, 3)", "[2, 3]"),
            ("(2, 3)", "(99999999999999999999,)"),
            ("(2, 3)", "(0, 9223372036854775807, 9)"),
            ("'shape'", "'shapes'"),
            ("'shape'", "'descr'"),
            ("'<f4'", "'|f4'"),
            ("'<f4'", "'<f3'"),
            ("'<f4'", "''"),
            ("'<f4'", "4"),
            ("'<f4'", "'|O'"),
            ("'<f4'", "[('a', '<f4')]"),
            ("False", "2"),
            ("False", "__import__('os')"),
            ("}", "} + x"),
            ("}", ""),
        ] {
            let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}".replacen(from, to, 1);
            assert!(parse(&text).is_err(), "{text}");
        }
    }
}
