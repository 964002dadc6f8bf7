//! What loading took and what it left.

use chainrule_core::text::quote;
use std::fmt;

/// What [`Load`](crate::Load) took from a file, and what it left. Prints as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The item of a checkpoint in which the tensors were, such as `state_dict`.
    pub item: Option<String>,
    /// The tensors that the model took.
    pub taken: Vec<Taken>,
    /// The tensors of the file that it did not take, and the parameters that found none.
    pub left: Vec<Left>,
}

/// A parameter that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taken {
    /// Its path in the model.
    pub path: String,
    /// The name of the tensor in the file.
    pub from: String,
}

/// A tensor that was not taken, or a parameter that was not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// The name of the tensor in the file; the path of a parameter that is missing in it.
    pub name: String,
    /// Why.
    pub reason: Reason,
}

/// Why something was left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// A parameter of the model has no tensor in the file, and keeps what it had.
    Missing,
    /// A tensor of the file has no parameter in the model.
    Unexpected,
    /// A tensor of the file was skipped as the caller said.
    Skipped,
    /// A tensor has another shape, or a type that the parameter cannot be read from.
    Mismatched {
        /// The parameter's.
        expected: String,
        /// The tensor's.
        got: String,
    },
}

impl Report {
    /// Whether everything was taken and every parameter loaded.
    pub fn is_complete(&self) -> bool {
        self.left.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} taken, {} left", self.taken.len(), self.left.len())?;
        if let Some(item) = &self.item {
            write!(f, " of {}", quote(item))?;
        }
        for Taken { path, from } in &self.taken {
            write!(f, "\n  {}", quote(path))?;
            if path != from {
                write!(f, " from {}", quote(from))?;
            }
        }
        for Left { name, reason } in &self.left {
            write!(f, "\n  left {}: {reason}", quote(name))?;
        }
        Ok(())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing in the file"),
            Self::Unexpected => f.write_str("unexpected by the model"),
            Self::Skipped => f.write_str("skipped"),
            Self::Mismatched { expected, got } => write!(f, "expected {expected}, got {got}"),
        }
    }
}
