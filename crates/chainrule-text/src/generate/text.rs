//! Text while it is generated.

use super::{generator::Steps, run::Ended};
use crate::{TextDecoder, Tokenizer};
use chainrule_core::{Module, Result};
use std::ops::Deref;

/// The text of one continuation as it grows.
pub(super) struct Writing<'t> {
    decoder: TextDecoder<'t>,
    pub(super) text: String,
    /// Bytes that were handed out.
    given: usize,
    /// Nothing more comes.
    finished: bool,
}

impl<'t> Writing<'t> {
    pub(super) fn new(tokenizer: &'t dyn Tokenizer) -> Self {
        let decoder = TextDecoder::within(tokenizer);
        Self { decoder, text: String::new(), given: 0, finished: false }
    }

    /// Adds a token; if the text now holds one of the strings, it is cut there, and the string is returned.
    pub(super) fn push(&mut self, id: u32, strings: &[String]) -> Result<Option<String>> {
        let piece = self.decoder.push(id)?;
        Ok(self.add(&piece, strings))
    }

    /// Adds what the decoder holds back, as [`Writing::push`].
    pub(super) fn finish(&mut self, strings: &[String]) -> Option<String> {
        if self.finished {
            return None;
        }
        let rest = self.decoder.finish();
        let found = self.add(&rest, strings);
        self.finished = true;
        found
    }

    fn add(&mut self, piece: &str, strings: &[String]) -> Option<String> {
        if self.finished || piece.is_empty() {
            return None;
        }
        let longest = strings.iter().map(String::len).max().unwrap_or(0);
        // A string that was not there before ends in the piece.
        let mut from = self.text.len().saturating_sub(longest);
        while !self.text.is_char_boundary(from) {
            from -= 1;
        }
        self.text.push_str(piece);
        let found =
            strings.iter().filter_map(|string| Some((self.text[from..].find(string.as_str())?, string)));
        let (at, string) = found.min_by_key(|&(at, _)| at)?;
        self.text.truncate(from + at);
        self.finished = true;
        Some(string.clone())
    }

    /// The text that is new and cannot be the start of a string that stops.
    fn new_text(&mut self, strings: &[String]) -> String {
        let held = if self.finished { 0 } else { held(&self.text[self.given..], strings) };
        let end = self.text.len() - held;
        let new = self.text[self.given..end].to_owned();
        self.given = end;
        new
    }
}

/// The length of the longest end of a text that is the start of one of the strings, and not all of it.
fn held(text: &str, strings: &[String]) -> usize {
    let starts = strings.iter().flat_map(|string| {
        let ends = string.char_indices().map(|(at, _)| at).filter(|&at| at > 0 && at <= text.len());
        ends.filter(move |&at| text.ends_with(&string[..at]))
    });
    starts.max().unwrap_or(0)
}

/// The text of a continuation, piece by piece; see [`Generator::text`](crate::Generator::text). All pieces, joined, are what
/// [`Generator::write`](crate::Generator::write) gives.
pub struct Text<'g, P: Deref<Target: Module>>(pub(super) Steps<'g, P>);

impl<P: Deref<Target: Module>> Text<'_, P> {
    /// Why the text ended, once it has.
    pub fn ended(&self) -> Option<&Ended> {
        self.0.run.rows[0].ended.as_ref()
    }

    /// The tokens so far, without the prompt.
    pub fn ids(&self) -> &[u32] {
        self.0.run.rows[0].new_ids()
    }
}

impl<P: Deref<Target: Module>> Iterator for Text<'_, P> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        loop {
            let more = self.0.step();
            if let Some(Err(error)) = more {
                return Some(Err(error));
            }
            let Steps { run, stops, .. } = &mut self.0;
            let new = run.rows[0].writing.as_mut()?.new_text(&stops.strings);
            if !new.is_empty() {
                return Some(Ok(new));
            }
            more.as_ref()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bytes;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_never_hold_a_string_that_stops_and_sum_to_the_text_before_it(
            text in "[abcé]{0,30}", strings in prop::collection::vec("[abcé]{1,4}", 0..3),
        ) {
            let bytes = Bytes::new();
            let mut writing = Writing::new(&bytes);
            let (mut all, mut found) = (String::new(), None);
            for id in bytes.encode(&text).unwrap() {
                found = writing.push(id, &strings).unwrap();
                all += &writing.new_text(&strings);
                if found.is_some() {
                    break;
                }
            }
            found = found.or(writing.finish(&strings));
            all += &writing.new_text(&strings);
            let end = strings.iter().filter_map(|string| Some(text.find(string)? + string.len())).min();
            let expected = match end {
                // The string whose end comes first, and of those that end there the one that starts first.
                Some(end) => {
                    let fits = strings.iter().filter(|string| text[..end].ends_with(string.as_str()));
                    &text[..end - fits.map(String::len).max().unwrap()]
                }
                None => &text[..],
            };
            prop_assert_eq!(all.as_str(), expected);
            prop_assert_eq!(found.is_some(), end.is_some());
        }
    }
}
