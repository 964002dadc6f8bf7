//! The one error type of the workspace.

use crate::text;
use std::{convert::Infallible, fmt, io, sync::Arc};

/// What went wrong, in one word of memory. Look at [`Error::kind`] to tell the cases apart.
///
/// A text may quote a file: every constructor cuts it at 8000 characters and escapes control characters, see
/// [`text::message`].
#[derive(Clone)]
pub struct Error(Box<Inner>);

/// A result with the workspace's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Clone)]
struct Inner {
    /// Names from the innermost layer outwards; printed in reverse.
    path: Vec<String>,
    kind: Kind,
}

/// The kinds of error.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// A tensor has another shape than was needed.
    Shape(String),
    /// A label or an index is out of range.
    Index(String),
    /// A hyper-parameter or an argument is invalid, or an element is not finite.
    Value(String),
    /// Backward was called with a cache in which forward recorded no such call.
    NotRecorded(String),
    /// Parameters are missing, unexpected, mis-shaped or not initialised.
    State(String),
    /// A file's contents are not what its format promises.
    Format(String),
    /// The operating system reported an error; the text says what was being done.
    Io(Arc<io::Error>, String),
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])* pub fn $name(text: impl AsRef<str>) -> Self {
                Self::new(Kind::$kind(text::message(text.as_ref())))
            })*
        }
    };
}

kinds! {
    /// A [`Kind::Shape`] error.
    shape => Shape,
    /// A [`Kind::Index`] error.
    index => Index,
    /// A [`Kind::Value`] error.
    value => Value,
    /// A [`Kind::NotRecorded`] error.
    not_recorded => NotRecorded,
    /// A [`Kind::State`] error.
    state => State,
    /// A [`Kind::Format`] error.
    format => Format,
}

impl Error {
    fn new(kind: Kind) -> Self {
        Self(Box::new(Inner { path: Vec::new(), kind }))
    }

    /// A [`Kind::Io`] error, with what was being done ("read train-images.gz").
    pub fn io(error: io::Error, doing: impl Into<String>) -> Self {
        Self::new(Kind::Io(Arc::new(error), doing.into()))
    }

    /// Which kind of error this is.
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// The path of the layer in which it happened, such as `encoder.0`; empty outside of any container.
    pub fn path(&self) -> String {
        self.0.path.iter().rev().map(String::as_str).collect::<Vec<_>>().join(".")
    }

    /// Adds a container's name for the child in which the error happened to the front of the path.
    #[must_use]
    pub fn in_layer(mut self, name: impl Into<String>) -> Self {
        self.0.path.push(name.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.path.is_empty() {
            // Names may come from a file.
            write!(f, "in layer `{}`: ", text::message(&self.path()))?;
        }
        match &self.0.kind {
            Kind::Shape(s)
            | Kind::Index(s)
            | Kind::Value(s)
            | Kind::NotRecorded(s)
            | Kind::State(s)
            | Kind::Format(s) => f.write_str(s),
            Kind::Io(error, doing) if doing.is_empty() => fmt::Display::fmt(error, f),
            Kind::Io(error, doing) => write!(f, "{doing}: {error}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<io::Error> for Error {
    /// A [`Kind::Io`] error without a word on what was being done.
    fn from(error: io::Error) -> Self {
        Self::io(error, "")
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            Kind::Io(error, _) => Some(&**error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_word_and_names_its_place() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        let e =
            Error::shape("Linear: expected input (.., 784), got [32, 100]").in_layer("0").in_layer("encoder");
        assert_eq!(e.to_string(), "in layer `encoder.0`: Linear: expected input (.., 784), got [32, 100]");
    }
    #[test]
    fn a_clone_keeps_kind_path_and_cause() {
        let e = Error::io(io::ErrorKind::NotFound.into(), "read weights").in_layer("0");
        let again = e.clone();
        assert_eq!((again.to_string(), again.path()), (e.to_string(), e.path()));
        assert!(std::error::Error::source(&again).is_some());
        assert_eq!(Error::from(io::Error::other("disk full")).to_string(), "disk full");
    }
}
