//! What is wrong with a file, before its name is known.

use chainrule_core::Error;
use std::io::{self, ErrorKind};

/// What a decoder found.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The operating system's.
    Io(io::Error),
    /// The file's.
    Text(String),
}

pub(crate) type Outcome<T> = Result<T, Fault>;

impl Fault {
    pub(crate) fn of_file(self, name: &str) -> Error {
        match self {
            Self::Io(error) => Error::io(error, format!("read {name}")),
            Self::Text(text) => Error::format(format!("{name}: {text}")),
        }
    }

    /// The same fault of a part of the file.
    pub(crate) fn within(self, part: &str) -> Self {
        match self {
            Self::Io(_) => self,
            Self::Text(text) => Self::Text(format!("{part}: {text}")),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof => {
                Self::Text("the file is cut: expected more bytes, got its end".into())
            }
            _ => Self::Io(error),
        }
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Fault {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}
