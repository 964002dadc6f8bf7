//! Token ids as batches for training.

mod packed;
mod padded;
mod windows;

pub use packed::Packed;
pub use padded::Padded;
pub use windows::Windows;

use crate::MOST_TOKENS;
use chainrule_core::{Error, Result, Scalar};

/// An error unless all ids are below `vocab_size`, which a tensor's elements can name.
fn check_ids<'i>(
    kind: &str,
    vocab_size: usize,
    sequences: impl IntoIterator<Item = &'i [u32]>,
) -> Result<()> {
    if vocab_size == 0 || vocab_size > MOST_TOKENS {
        return Err(Error::value(format!(
            "{kind}: expected a vocabulary of 1 to {MOST_TOKENS} tokens, got {vocab_size}"
        )));
    }
    for (i, sequence) in sequences.into_iter().enumerate() {
        if let Some(at) = sequence.iter().position(|&id| id as usize >= vocab_size) {
            return Err(Error::index(format!(
                "{kind}: expected ids below {vocab_size}, got {} at position {at} of sequence {i}",
                sequence[at]
            )));
        }
    }
    Ok(())
}

/// Writes ids as elements of a tensor.
fn write_ids<T: Scalar>(out: &mut [T], ids: &[u32]) {
    out.iter_mut().zip(ids).for_each(|(out, &id)| *out = T::from_usize(id as usize));
}

/// Writes ids as classes.
fn write_classes(out: &mut [usize], ids: &[u32]) {
    out.iter_mut().zip(ids).for_each(|(out, &id)| *out = id as usize);
}
