//! Merging the symbols of one word, in O(n log n) for n symbols.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

/// Of a pair of tokens: its rank, which is merged before all greater ones, and the token that it becomes.
pub(super) type Merges = HashMap<(u32, u32), (u32, u32)>;

/// No symbol.
const NONE: u32 = u32::MAX;

/// Symbols in a doubly linked list. A symbol that was merged into the one before it has the id [`NONE`].
#[derive(Clone, Copy, Debug)]
struct Symbol {
    id: u32,
    before: u32,
    after: u32,
}

/// The memory of [`Merger::merge`], kept from word to word.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    /// (rank, position) of pairs, the next one to be merged on top; some are no longer there.
    pairs: BinaryHeap<Reverse<(u32, u32)>>,
}

impl Merger {
    /// Merges the pair of the smallest rank, the leftmost of them first, until there is none, and appends the ids that are left.
    pub(super) fn merge(&mut self, word: &[u32], merges: &Merges, out: &mut Vec<u32>) {
        let n = word.len() as u32;
        self.symbols.clear();
        self.symbols.extend(word.iter().zip(0..n).map(|(&id, i)| Symbol {
            id,
            before: i.checked_sub(1).unwrap_or(NONE),
            after: if i + 1 < n { i + 1 } else { NONE },
        }));
        self.pairs.clear();
        (0..n).for_each(|i| self.push(i, merges));
        while let Some(Reverse((rank, at))) = self.pairs.pop() {
            let Some((now, merged)) = self.pair(at, merges) else { continue };
            // Another pair stands there by now.
            if now != rank {
                continue;
            }
            let Symbol { before, after, .. } = self.symbols[at as usize];
            let beyond = self.symbols[after as usize].after;
            self.symbols[after as usize].id = NONE;
            (self.symbols[at as usize].id, self.symbols[at as usize].after) = (merged, beyond);
            if beyond != NONE {
                self.symbols[beyond as usize].before = at;
            }
            if before != NONE {
                self.push(before, merges);
            }
            self.push(at, merges);
        }
        out.extend(self.symbols.iter().map(|symbol| symbol.id).filter(|&id| id != NONE));
    }

    /// The rank of the pair that begins at a symbol, and what it becomes.
    fn pair(&self, at: u32, merges: &Merges) -> Option<(u32, u32)> {
        let first = self.symbols[at as usize];
        let second = self.symbols.get(first.after as usize)?;
        if first.id == NONE { None } else { merges.get(&(first.id, second.id)).copied() }
    }

    fn push(&mut self, at: u32, merges: &Merges) {
        if let Some((rank, _)) = self.pair(at, merges) {
            self.pairs.push(Reverse((rank, at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: look for the best pair, merge it, begin again.
    fn plain(word: &[u32], merges: &Merges) -> Vec<u32> {
        let mut word = word.to_vec();
        loop {
            let pairs = (1..word.len()).filter_map(|i| {
                let &(rank, merged) = merges.get(&(word[i - 1], word[i]))?;
                Some((rank, i, merged))
            });
            let Some((_, at, merged)) = pairs.min() else { return word };
            word[at - 1] = merged;
            word.remove(at);
        }
    }

    proptest! {
        #[test]
        fn merging_by_a_heap_gives_what_the_definition_gives(
            word in prop::collection::vec(0u32..4, 0..40),
            pairs in prop::collection::vec((0u32..10, 0u32..10), 0..12),
        ) {
            let mut merges = Merges::new();
            for (rank, pair) in pairs.into_iter().enumerate() {
                merges.entry(pair).or_insert((rank as u32, 4 + rank as u32));
            }
            let mut out = Vec::new();
            let mut merger = Merger::default();
            merger.merge(&[1, 1, 1], &merges, &mut Vec::new());
            merger.merge(&word, &merges, &mut out);
            prop_assert_eq!(out, plain(&word, &merges));
        }
    }
}
