//! Learning the merges of byte-pair encoding, in time linear in the text but for the order of pairs.

use super::{
    MOST_TOKENS,
    bpe::{Bpe, LONGEST_TOKEN, Settings, char_of},
    special::{Part, Special},
    split,
    vocabulary::Vocabulary,
};
use chainrule_core::{Error, Result};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
};

/// Learns a [`Bpe`] from text: special tokens first, then the 256 bytes, then a token for each merge.
///
/// ```
/// use chainrule_text::{BpeTrainer, Tokenizer};
/// let text = "the theory of the thing is there. ".repeat(50);
/// let bpe = BpeTrainer::new(300).train([&text])?;
/// assert!(bpe.encode(&text)?.len() * 3 < text.len());
/// assert_eq!(bpe.decode(&bpe.encode("another text: ☃")?)?, "another text: ☃");
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BpeTrainer {
    vocab_size: usize,
    min_count: u64,
    special: Vec<String>,
    words: bool,
}

impl BpeTrainer {
    /// For a vocabulary of at most so many tokens; text that repeats too little gives fewer.
    pub fn new(vocab_size: usize) -> Self {
        Self { vocab_size, min_count: 2, special: Vec::new(), words: true }
    }

    /// How often a pair has to stand in the text to be merged, 2 by default.
    #[must_use]
    pub fn min_count(self, count: u64) -> Self {
        Self { min_count: count, ..self }
    }

    /// Tokens that stand for themselves, such as `<|endoftext|>`; they get the first ids.
    #[must_use]
    pub fn special(mut self, tokens: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.special.extend(tokens.into_iter().map(Into::into));
        self
    }

    /// Whether text is cut into GPT-2's words first (default), so that no token reaches over the end of one.
    #[must_use]
    pub fn words(self, words: bool) -> Self {
        Self { words, ..self }
    }

    /// Learns from texts.
    ///
    /// # Errors
    /// The vocabulary has no room for the bytes and the special tokens, or is too large; a special token is empty or there twice.
    pub fn train(&self, texts: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Bpe> {
        let least = 256 + self.special.len();
        if self.vocab_size < least || self.vocab_size > MOST_TOKENS {
            return Err(Error::value(format!(
                "BpeTrainer: expected a vocabulary of {least} to {MOST_TOKENS} tokens, got {}",
                self.vocab_size
            )));
        }
        let special = Special::from("BpeTrainer", 0, &self.special)?;
        let counts = self.count(texts, &special);
        let mut chars: Vec<(char, u8)> = (0..=255).map(|byte| (char_of(byte), byte)).collect();
        chars.sort_unstable();
        let mut of_byte = [0; 256];
        for (&(_, byte), id) in chars.iter().zip(self.special.len() as u32..) {
            of_byte[usize::from(byte)] = id;
        }
        let names = self.special.iter().cloned().chain(chars.iter().map(|(c, _)| c.to_string()));
        let mut vocabulary = Vocabulary::new("BpeTrainer", names)?;
        let mut corpus = Corpus::new(counts, &of_byte)?;
        let (mut pairs, mut merged, mut learned) = (Vec::new(), Vec::new(), HashSet::new());
        while vocabulary.len() < self.vocab_size {
            let Some((count, pair)) = corpus.most_frequent() else { break };
            if count < self.min_count.max(1) {
                break;
            }
            let name = |id| vocabulary.token(id).unwrap_or_default();
            let token = [name(pair.0), name(pair.1)].concat();
            if token.len() > LONGEST_TOKEN {
                corpus.leave(pair);
                continue;
            }
            // Two ways to one token share its id, and so do a merge and a special token of the same text.
            let id = match vocabulary.id(&token) {
                Some(id) => id,
                None => vocabulary.add("BpeTrainer", token)?,
            };
            corpus.merge(pair, id);
            // A pair of tokens that came about in another way is merged as it was before.
            if learned.insert(pair) {
                pairs.push(pair);
                merged.push(id);
            }
        }
        Bpe::new(vocabulary, special, pairs, merged, Settings { words: self.words, ..Settings::default() })
    }

    /// How often each word is there, in the order of the words.
    fn count(
        &self,
        texts: impl IntoIterator<Item = impl AsRef<str>>,
        special: &Special,
    ) -> Vec<(String, u64)> {
        let mut counts: HashMap<String, u64> = HashMap::new();
        let mut add = |word: &str| match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => drop(counts.insert(word.to_owned(), 1)),
        };
        for text in texts {
            for part in special.parts(text.as_ref()) {
                match part {
                    Part::Text(text) if self.words => split::words(text).for_each(&mut add),
                    Part::Text(text) => add(text),
                    Part::Token(_) => {}
                }
            }
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable();
        counts
    }
}

type Pair = (u32, u32);

/// No symbol: between words, and where one was merged into another.
const NONE: u32 = u32::MAX;

/// All different words, one after another, and the pairs in them. A position that was merged into one before it has no symbol; `before`
/// and `after` lead from each symbol to its neighbours.
struct Corpus {
    symbols: Vec<u32>,
    before: Vec<u32>,
    after: Vec<u32>,
    /// How often the word of a position is in the text.
    weights: Vec<u64>,
    pairs: HashMap<Pair, Occurrences>,
    /// Pairs with a count that they had; the greatest on top, then the pair of the smallest ids.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

#[derive(Default)]
struct Occurrences {
    count: u64,
    /// Where it stood, some of them no longer.
    at: Vec<u32>,
}

impl Corpus {
    fn new(words: Vec<(String, u64)>, of_byte: &[u32; 256]) -> Result<Self> {
        let length: usize = words.iter().map(|(word, _)| word.len() + 1).sum();
        if u32::try_from(length).is_err() {
            return Err(Error::value(format!(
                "BpeTrainer: expected words of less than 4 GiB, got {length} bytes"
            )));
        }
        let mut symbols = Vec::with_capacity(length);
        let mut weights = Vec::with_capacity(length);
        for (word, count) in words {
            symbols.extend(word.bytes().map(|byte| of_byte[usize::from(byte)]));
            symbols.push(NONE);
            weights.resize(symbols.len(), count);
        }
        let n = symbols.len() as u32;
        let mut corpus = Self {
            symbols,
            before: (0..n).map(|i| i.wrapping_sub(1)).collect(),
            after: (0..n).map(|i| i + 1).collect(),
            weights,
            pairs: HashMap::new(),
            queue: BinaryHeap::new(),
        };
        (0..n).for_each(|at| {
            corpus.add(at);
        });
        let all = corpus.pairs.iter().map(|(&pair, found)| (found.count, Reverse(pair)));
        corpus.queue = all.collect();
        Ok(corpus)
    }

    /// The pair that begins at a position.
    fn pair(&self, at: u32) -> Option<Pair> {
        let first = *self.symbols.get(at as usize)?;
        let second = *self.symbols.get(*self.after.get(at as usize)? as usize)?;
        (first != NONE && second != NONE).then_some((first, second))
    }

    fn add(&mut self, at: u32) -> Option<Pair> {
        let pair = self.pair(at)?;
        let found = self.pairs.entry(pair).or_default();
        found.count += self.weights[at as usize];
        found.at.push(at);
        Some(pair)
    }

    fn remove(&mut self, at: u32) {
        if let Some(found) = self.pair(at).and_then(|pair| self.pairs.get_mut(&pair)) {
            found.count = found.count.saturating_sub(self.weights[at as usize]);
        }
    }

    fn most_frequent(&mut self) -> Option<(u64, Pair)> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let now = self.pairs.get(&pair).map_or(0, |found| found.count);
            if now == count && now > 0 {
                return Some((now, pair));
            }
            // Less by now; where it became more, it was pushed again.
            if (1..count).contains(&now) {
                self.queue.push((now, Reverse(pair)));
            }
        }
        None
    }

    /// Leaves a pair as it is, for good.
    fn leave(&mut self, pair: Pair) {
        self.pairs.insert(pair, Occurrences::default());
    }

    /// Merges a pair wherever it stands, from left to right.
    fn merge(&mut self, pair: Pair, id: u32) {
        let mut places = self.pairs.remove(&pair).unwrap_or_default().at;
        places.sort_unstable();
        places.dedup();
        let mut grown = HashSet::new();
        for at in places {
            if self.pair(at) != Some(pair) {
                continue;
            }
            let (before, after) = (self.before[at as usize], self.after[at as usize]);
            let beyond = self.after[after as usize];
            self.remove(before);
            self.remove(after);
            self.symbols[at as usize] = id;
            self.symbols[after as usize] = NONE;
            self.after[at as usize] = beyond;
            // The end of the word stands beyond its last symbol.
            self.before[beyond as usize] = at;
            grown.extend(self.add(before));
            grown.extend(self.add(at));
        }
        // In aaa the pair aa stands twice, and can be merged once: what remains is there no more.
        for pair in grown {
            if let Some(found) = self.pairs.get(&pair) {
                self.queue.push((found.count, Reverse(pair)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tokenizer;
    use super::*;
    use proptest::prelude::*;

    fn trained(text: &str, merges: usize) -> Vec<String> {
        let bpe = BpeTrainer::new(256 + merges).train([text]).unwrap();
        bpe.vocabulary.tokens()[256..].to_vec()
    }

    #[test]
    fn by_hand() {
        // low ×5, Ġlower ×2, Ġnewest ×6, Ġwidest ×3: es 9, st 9, t..; pairs of equal counts by their ids.
        let text = format!(
            "low{}{}{}{}",
            " low".repeat(4),
            " lower".repeat(2),
            " newest".repeat(6),
            " widest".repeat(3)
        );
        // e s 9 before s t 9 (e < s), then es t 9; l o 7, lo w 7; the next are of 6: e w before n e before Ġ n …
        let tokens = trained(&text, 5);
        assert_eq!(tokens, ["es", "est", "lo", "low", "ew"]);
    }

    /// The definition: count all pairs of all words anew for each merge.
    fn plain(text: &str, merges: usize) -> Vec<String> {
        let mut words: Vec<Vec<String>> =
            split::words(text).map(|word| word.bytes().map(|b| char_of(b).to_string()).collect()).collect();
        let mut order: Vec<String> = {
            let mut chars: Vec<char> = (0..=255).map(char_of).collect();
            chars.sort_unstable();
            chars.into_iter().map(String::from).collect()
        };
        while order.len() < 256 + merges {
            let mut counts: HashMap<(String, String), usize> = HashMap::new();
            for word in &words {
                for pair in word.windows(2) {
                    *counts.entry((pair[0].clone(), pair[1].clone())).or_default() += 1;
                }
            }
            let id = |token: &String| order.iter().position(|t| t == token).unwrap();
            let best = counts.into_iter().filter(|(_, count)| *count > 1);
            let Some((pair, _)) = best.max_by_key(|((a, b), count)| (*count, Reverse((id(a), id(b))))) else {
                break;
            };
            let token = format!("{}{}", pair.0, pair.1);
            for word in &mut words {
                let mut i = 0;
                while i + 1 < word.len() {
                    if word[i] == pair.0 && word[i + 1] == pair.1 {
                        word[i] = token.clone();
                        word.remove(i + 1);
                    }
                    i += 1;
                }
            }
            if !order.contains(&token) {
                order.push(token);
            }
        }
        order[256..].to_vec()
    }

    proptest! {
        #[test]
        fn training_gives_what_the_definition_gives(text in "[ab c]{0,60}", merges in 0usize..12) {
            prop_assert_eq!(trained(&text, merges), plain(&text, merges));
        }
    }

    #[test]
    fn a_vocabulary_without_room_for_the_bytes_is_an_error() {
        let error = BpeTrainer::new(256).special(["<s>"]).train(["a"]).unwrap_err().to_string();
        assert_eq!(error, "BpeTrainer: expected a vocabulary of 257 to 2097152 tokens, got 256");
        assert!(BpeTrainer::new(usize::MAX).train(["a"]).is_err());
        assert!(BpeTrainer::new(300).special([""]).train(["a"]).is_err());
        assert_eq!(BpeTrainer::new(300).train([""]).unwrap().vocab_size(), 256);
    }

    #[test]
    fn a_long_text_without_spaces_takes_no_quadratic_time() {
        let text: String =
            (0..400_000u32).map(|i| if i.wrapping_mul(2654435761) >> 31 == 0 { 'a' } else { 'b' }).collect();
        for trainer in [BpeTrainer::new(400), BpeTrainer::new(400).words(false)] {
            let bpe = trainer.train([&text, &"a".repeat(400_000)]).unwrap();
            let ids = bpe.encode(&text).unwrap();
            assert_eq!(bpe.decode(&ids).unwrap(), text);
        }
    }
}
