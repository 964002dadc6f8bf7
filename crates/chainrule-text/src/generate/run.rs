//! Several sequences that are continued together, token by token.

use super::{
    check_model,
    sampler::{Sampler, Scratch},
    text::Writing,
    vocabulary_of,
};
use crate::Tokenizer;
use chainrule_core::{Error, Module, Parameters, Result, Rng, Scalar, Session, Tensor};
use chainrule_tensor::noise_key;
use std::ops::Deref;

/// Why a continuation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It has as many tokens as it may have.
    MaxTokens,
    /// Prompt and continuation fill the model's context.
    Context,
    /// The next token was one that stops; it is not part of the continuation.
    Token(u32),
    /// The text held a string that stops; text from there on is not part of the continuation.
    Text(String),
    /// The condition held.
    Condition,
}

/// A continuation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Generated {
    /// The tokens after the prompt.
    pub ids: Vec<u32>,
    /// Their text up to a string that stops, where a tokenizer was given.
    pub text: String,
    /// Why there are no more.
    pub ended: Ended,
}

/// A condition on the tokens after the prompt.
pub(super) type Condition = Box<dyn FnMut(&[u32]) -> bool + Send>;

/// When a continuation ends.
pub(super) struct Stops {
    pub(super) max_tokens: usize,
    pub(super) context: Option<usize>,
    pub(super) tokens: Vec<u32>,
    pub(super) strings: Vec<String>,
    pub(super) condition: Option<Condition>,
}

/// One sequence.
pub(super) struct Row<'t> {
    /// Prompt and continuation.
    ids: Vec<u32>,
    prompt: usize,
    rng: Rng,
    pub(super) writing: Option<Writing<'t>>,
    pub(super) ended: Option<Ended>,
}

impl Row<'_> {
    /// The tokens after the prompt.
    pub(super) fn new_ids(&self) -> &[u32] {
        &self.ids[self.prompt..]
    }
}

/// The state of a generation: position 0 is that of the first token of every prompt.
pub(super) struct Run<'t> {
    pub(super) rows: Vec<Row<'t>>,
    /// How many positions the model has seen.
    fed: usize,
    scratch: Scratch,
}

impl<'t> Run<'t> {
    /// Of prompts whose row i draws from the stream (seed, first + i).
    pub(super) fn new(
        prompts: Vec<Vec<u32>>,
        tokenizer: Option<&'t dyn Tokenizer>,
        stops: &Stops,
        (seed, first): (u64, u64),
    ) -> Result<Self> {
        if prompts.is_empty() {
            return Err(Error::value("Generator: expected at least one prompt, got none"));
        }
        if tokenizer.is_none() && !stops.strings.is_empty() {
            return Err(Error::value(
                "Generator: expected a tokenizer for strings that stop, got none: use `text`, `write` or `write_all`",
            ));
        }
        if stops.strings.iter().any(String::is_empty) {
            return Err(Error::value(
                "Generator: expected strings that stop of at least one character, got an empty one",
            ));
        }
        for (i, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(Error::value(format!(
                    "Generator: expected at least one token in a prompt, got none in prompt {i}"
                )));
            }
            if let Some(context) = stops.context.filter(|&context| prompt.len() > context) {
                return Err(Error::value(format!(
                    "Generator: expected prompts of at most {context} tokens, the context, got {} in prompt {i}",
                    prompt.len()
                )));
            }
        }
        let rows = prompts.into_iter().zip(0u64..).map(|(ids, i)| {
            let prompt = ids.len();
            let mut row = Row {
                ids,
                prompt,
                rng: Rng::new(noise_key(seed, first.wrapping_add(i))),
                writing: tokenizer.map(Writing::new),
                ended: None,
            };
            row.ended = stops.length(&row);
            row
        });
        Ok(Self { rows: rows.collect(), fed: 0, scratch: Scratch::default() })
    }

    pub(super) fn done(&self) -> bool {
        self.rows.iter().all(|row| row.ended.is_some())
    }

    /// Feeds the next tokens, and draws one for each row of which all were fed. The tokens of a prompt that is longer than the shortest
    /// are fed one by one in place of tokens that were drawn, so that no row sees padding: each gets what it gets alone.
    pub(super) fn step<P: Deref<Target: Module>>(
        &mut self,
        session: &mut Session<P>,
        x: &mut Tensor<<P::Target as Parameters>::T>,
        sampler: &Sampler,
        stops: &mut Stops,
    ) -> Result<()> {
        let Self { rows, fed, scratch } = self;
        let n = rows.len();
        let t = if *fed == 0 { rows.iter().map(|row| row.ids.len()).min().unwrap_or(1) } else { 1 };
        x.reset([n, t]);
        for (row, x) in rows.iter().zip(x.data_mut().chunks_exact_mut(t)) {
            for (x, at) in x.iter_mut().zip(*fed..) {
                // A row that ended gets its last token: what comes of it is not read.
                let id = row.ids.get(at).or(row.ids.last()).copied().unwrap_or_default();
                *x = Scalar::from_usize(id as usize);
            }
        }
        let y = session.stream(&*x)?;
        let v = vocabulary_of("Generator", y, n, t)?;
        *fed += t;
        for (i, row) in rows.iter_mut().enumerate() {
            if row.ended.is_some() || row.ids.len() > *fed {
                continue;
            }
            let logits = &y.data()[(i * t + t - 1) * v..][..v];
            let next = sampler.draw(logits, &row.ids, &mut row.rng, scratch).map_err(|e| {
                Error::value(format!("Generator: sequence {i}, after {} tokens: {e}", row.ids.len()))
            })?;
            stops.take(next, row)?;
        }
        Ok(())
    }
}

impl Stops {
    /// Whether a row has all tokens that it may have.
    fn length(&self, row: &Row<'_>) -> Option<Ended> {
        if row.new_ids().len() >= self.max_tokens {
            return Some(Ended::MaxTokens);
        }
        // The last position of the context still predicts a token.
        self.context.filter(|&context| row.ids.len() > context).map(|_| Ended::Context)
    }

    /// Adds a token to a row, unless it stops.
    fn take(&mut self, next: u32, row: &mut Row<'_>) -> Result<()> {
        if self.tokens.contains(&next) {
            row.ended = Some(Ended::Token(next));
        } else {
            row.ids.push(next);
            if let Some(writing) = &mut row.writing {
                row.ended = writing.push(next, &self.strings)?.map(Ended::Text);
            }
            if row.ended.is_none() {
                let condition = self.condition.as_mut();
                let holds = condition.is_some_and(|condition| condition(&row.ids[row.prompt..]));
                row.ended = if holds { Some(Ended::Condition) } else { self.length(row) };
            }
        }
        if let (Some(ended), Some(writing)) = (&mut row.ended, &mut row.writing)
            && let Some(string) = writing.finish(&self.strings)
        {
            *ended = Ended::Text(string);
        }
        Ok(())
    }
}

/// A session of a model that can be continued.
pub(super) fn session<P: Deref<Target: Module>>(model: P) -> Result<Session<P>> {
    check_model("Generator", &*model)?;
    Ok(Session::new(model))
}
