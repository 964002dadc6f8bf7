//! Text as its tokens arrive.

use super::Tokenizer;
use chainrule_core::Result;

/// Decodes tokens one by one. A character of several tokens comes with the last of them; all that comes, joined, is what
/// [`Tokenizer::decode`] gives for all tokens.
///
/// ```
/// use chainrule_text::{Bytes, TextDecoder};
/// let bytes = Bytes::new();
/// let mut decoder = TextDecoder::new(&bytes);
/// assert_eq!(decoder.push(195)?, "");
/// assert_eq!(decoder.push(169)?, "é");
/// assert_eq!(decoder.finish(), "");
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub struct TextDecoder<'t> {
    tokenizer: &'t dyn Tokenizer,
    first: bool,
    /// What is not yet a whole character.
    pending: Vec<u8>,
}

impl<'t> TextDecoder<'t> {
    /// A decoder at the start of a text.
    pub fn new(tokenizer: &'t dyn Tokenizer) -> Self {
        Self { tokenizer, first: true, pending: Vec::new() }
    }

    /// A decoder within a text: a token that has a space before it gets it.
    pub fn within(tokenizer: &'t dyn Tokenizer) -> Self {
        Self { first: false, ..Self::new(tokenizer) }
    }

    /// The text that is complete with the next token; none in the middle of a character.
    ///
    /// # Errors
    /// The id is beyond the vocabulary.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.tokenizer.decode_token(id, self.first, &mut self.pending)?;
        self.first = false;
        let (mut text, mut rest) = (String::new(), &self.pending[..]);
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    rest = after;
                    let Some(invalid) = error.error_len() else { break };
                    text.push('\u{fffd}');
                    rest = &rest[invalid..];
                }
            }
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        Ok(text)
    }

    /// A character that was not completed, as �.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

impl std::fmt::Debug for TextDecoder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextDecoder").field("pending", &self.pending).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Bytes;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn piece_by_piece_is_the_text_of_the_whole(ids in prop::collection::vec(prop_oneof![0u32..256, 0xc0u32..0xf8, 0x80u32..0xc0], 0..40)) {
            let bytes = Bytes::new();
            let mut decoder = TextDecoder::new(&bytes);
            let mut text = String::new();
            for &id in &ids {
                text += &decoder.push(id).unwrap();
            }
            text += &decoder.finish();
            prop_assert_eq!(text, bytes.decode(&ids).unwrap());
        }
    }
}
