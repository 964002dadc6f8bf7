//! Tokens that are found in a text before anything else is done to it.

use chainrule_core::{Error, Result, text::quote};
use std::collections::HashMap;

/// The longest special token, in bytes: to find them takes at most so many steps for each byte of a text.
pub(super) const LONGEST: usize = 256;

/// The most special tokens.
pub(super) const MOST: usize = 1 << 14;

/// A part of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Part<'t> {
    Text(&'t str),
    Token(u32),
}

/// A token that stands for itself wherever a text holds it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Added {
    pub(super) id: u32,
    pub(super) content: String,
    /// A mark, no text.
    pub(super) special: bool,
}

/// Special tokens, in a trie over their bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Special {
    added: Vec<Added>,
    by_id: HashMap<u32, usize>,
    /// (node, byte) to the node after it; node 0 is the root.
    edges: HashMap<(u32, u8), u32>,
    /// The token that ends at a node.
    ends: Vec<Option<u32>>,
}

impl Special {
    pub(super) fn new(kind: &str, added: Vec<Added>) -> Result<Self> {
        let mut special = Self { ends: vec![None], ..Self::default() };
        if added.len() > MOST {
            return Err(Error::value(format!(
                "{kind}: expected at most {MOST} special tokens, got {}",
                added.len()
            )));
        }
        for token in added {
            if token.content.is_empty() || token.content.len() > LONGEST {
                return Err(Error::value(format!(
                    "{kind}: expected special tokens of 1 to {LONGEST} bytes, got {} of {}",
                    quote(&token.content),
                    token.content.len()
                )));
            }
            let mut node = 0;
            for byte in token.content.bytes() {
                node = *special.edges.entry((node, byte)).or_insert_with(|| {
                    special.ends.push(None);
                    special.ends.len() as u32 - 1
                });
            }
            let twice = special.ends[node as usize].replace(token.id).is_some();
            if twice || special.by_id.insert(token.id, special.added.len()).is_some() {
                return Err(Error::value(format!(
                    "{kind}: expected each special token once, got {} twice",
                    quote(&token.content)
                )));
            }
            special.added.push(token);
        }
        Ok(special)
    }

    /// Marks with the ids from `first` on.
    pub(super) fn from(kind: &str, first: usize, contents: &[String]) -> Result<Self> {
        let added = |(i, content): (usize, &String)| Added {
            id: (first + i) as u32,
            content: content.clone(),
            special: true,
        };
        Self::new(kind, contents.iter().enumerate().map(added).collect())
    }

    pub(super) fn added(&self) -> &[Added] {
        &self.added
    }

    pub(super) fn get(&self, id: u32) -> Option<&Added> {
        self.by_id.get(&id).map(|&i| &self.added[i])
    }

    /// The token that begins where the text does, and its length; the longest if there are several.
    fn at_start(&self, text: &[u8]) -> Option<(u32, usize)> {
        let (mut node, mut found) = (0, None);
        for (i, &byte) in text.iter().enumerate() {
            let Some(&next) = self.edges.get(&(node, byte)) else { break };
            node = next;
            if let Some(id) = self.ends[node as usize] {
                found = Some((id, i + 1));
            }
        }
        found
    }

    /// The special tokens of a text, leftmost and longest first, and what lies between them.
    pub(super) fn parts<'t>(&self, text: &'t str) -> impl Iterator<Item = Part<'t>> {
        let mut firsts = [false; 256];
        self.added.iter().for_each(|token| firsts[usize::from(token.content.as_bytes()[0])] = true);
        let (mut rest, mut token) = (text, None);
        std::iter::from_fn(move || {
            if let Some(id) = token.take() {
                return Some(Part::Token(id));
            }
            if rest.is_empty() {
                return None;
            }
            let bytes = rest.as_bytes();
            let starts = (0..bytes.len()).filter(|&i| firsts[usize::from(bytes[i])]);
            let found = starts.filter_map(|i| Some((i, self.at_start(&bytes[i..])?))).next();
            let Some((start, (id, length))) = found else {
                return Some(Part::Text(std::mem::take(&mut rest)));
            };
            // A token begins and ends where its first and last characters do.
            let before = &rest[..start];
            rest = &rest[start + length..];
            if before.is_empty() {
                return Some(Part::Token(id));
            }
            token = Some(id);
            Some(Part::Text(before))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leftmost_and_longest_token_is_taken() {
        let names = ["<a>", "<a>b", "é"].map(String::from);
        let special = Special::from("test", 5, &names).unwrap();
        let parts: Vec<_> = special.parts("x<a>b<a><aé").collect();
        use Part::{Text, Token};
        assert_eq!(parts, [Text("x"), Token(6), Token(5), Text("<a"), Token(7)]);
        assert_eq!(special.parts("").count(), 0);
        assert_eq!(Special::default().parts("ab").collect::<Vec<_>>(), [Text("ab")]);
    }

    #[test]
    fn a_token_that_is_empty_long_or_there_twice_is_an_error() {
        for names in [vec![String::new()], vec!["a".repeat(LONGEST + 1)], vec!["a".into(), "a".into()]] {
            assert!(Special::from("test", 0, &names).is_err());
        }
    }
}
