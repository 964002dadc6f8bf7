//! Tokens and their ids.

use super::MOST_TOKENS;
use chainrule_core::{Error, Result, text::quote};
use std::collections::HashMap;

/// Tokens with the ids 0, 1, …, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Vocabulary {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// The tokens in the order of their ids.
    pub(super) fn new(kind: &str, tokens: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut vocabulary = Self::default();
        tokens.into_iter().try_for_each(|token| vocabulary.add(kind, token).map(drop))?;
        if vocabulary.tokens.is_empty() {
            return Err(Error::value(format!("{kind}: expected at least one token, got none")));
        }
        Ok(vocabulary)
    }

    /// Tokens with their ids, in any order.
    pub(super) fn of_ids(kind: &str, mut entries: Vec<(u32, String)>) -> Result<Self> {
        entries.sort_unstable();
        match entries.iter().enumerate().find(|(i, (id, _))| *id as usize != *i) {
            Some((i, (id, token))) => Err(Error::format(format!(
                "{kind}: expected the ids 0 to {}, each once, got {id} of {} where {i} was expected",
                entries.len() - 1,
                quote(token)
            ))),
            None => Self::new(kind, entries.into_iter().map(|(_, token)| token)),
        }
    }

    pub(super) fn add(&mut self, kind: &str, token: String) -> Result<u32> {
        let id = self.tokens.len();
        if id >= MOST_TOKENS {
            return Err(Error::value(format!("{kind}: expected at most {MOST_TOKENS} tokens, got more")));
        }
        if self.ids.insert(token.clone(), id as u32).is_some() {
            return Err(Error::value(format!(
                "{kind}: expected each token once, got {} twice",
                quote(&token)
            )));
        }
        self.tokens.push(token);
        Ok(id as u32)
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    pub(super) fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// The tokens in the order of their ids.
    pub(super) fn tokens(&self) -> &[String] {
        &self.tokens
    }
}
