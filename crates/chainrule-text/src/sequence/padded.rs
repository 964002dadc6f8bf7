//! Sequences of different lengths, padded to the longest of a batch.

use super::{check_ids, write_classes, write_ids};
use chainrule_core::{Classes, Error, Result, Rng, Scalar, Shape};
use chainrule_data::{Batch, Pick, Schema, Source, TargetSchema};
use std::sync::Arc;

/// Sequences of different lengths as batches (N, T), T the longest of the batch, with the lengths as a second input.
///
/// A shuffling loader puts sequences of about one length into one batch: pools of some batches are sorted by length, and the
/// batches then come in random order.
///
/// # Shapes
/// x (N, T) of ids, padded at the end; lengths (N). Classes (N, T) of next tokens, [`Classes::IGNORED`] at padding, or (N).
///
/// # Examples
/// ```
/// use chainrule_data::Loader;
/// use chainrule_text::Padded;
/// let names = [vec![5, 3, 1], vec![5, 4, 4, 2, 1]];
/// let mut loader: Loader<_> = Loader::new(Padded::next_token(names, 6)?, 2)?;
/// let batch = loader.next_batch()?.unwrap();
/// assert_eq!(batch.inputs[0].data(), [5.0, 3.0, 0.0, 0.0, 5.0, 4.0, 4.0, 2.0]);
/// assert_eq!(batch.inputs[1].data(), [2.0, 4.0]); // targets: 3 1 – –, 4 4 2 1
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Padded {
    /// Clones share them.
    sequences: Arc<[Vec<u32>]>,
    /// The class of each sequence; none if the next tokens are the targets.
    labels: Option<Arc<[usize]>>,
    padding: u32,
    vocab_size: usize,
    lengths: bool,
    pool: usize,
    /// That of the last batch.
    schema: Schema,
}

impl Padded {
    /// Sequences in which each token is predicted from those before it: the last token is a target alone.
    ///
    /// # Errors
    /// No sequences, one of fewer than two tokens, or an id that is not below `vocab_size`.
    pub fn next_token(sequences: impl Into<Vec<Vec<u32>>>, vocab_size: usize) -> Result<Self> {
        Self::new(sequences.into(), None, vocab_size, vocab_size)
    }

    /// Sequences with a class each.
    ///
    /// # Errors
    /// No sequences, an empty one, an id that is not below `vocab_size`, another number of labels, or a label that is not below
    /// `classes`.
    pub fn classes(
        sequences: impl Into<Vec<Vec<u32>>>,
        vocab_size: usize,
        labels: impl Into<Vec<usize>>,
        classes: usize,
    ) -> Result<Self> {
        Self::new(sequences.into(), Some(labels.into()), vocab_size, classes)
    }

    fn new(
        sequences: Vec<Vec<u32>>,
        labels: Option<Vec<usize>>,
        vocab_size: usize,
        classes: usize,
    ) -> Result<Self> {
        let least = if labels.is_some() { 1 } else { 2 };
        if sequences.is_empty() {
            return Err(Error::value("Padded: expected at least one sequence, got none"));
        }
        if let Some(at) = sequences.iter().position(|sequence| sequence.len() < least) {
            return Err(Error::value(format!(
                "Padded: expected sequences of at least {least} tokens, got {} in sequence {at}",
                sequences[at].len()
            )));
        }
        check_ids("Padded", vocab_size, sequences.iter().map(Vec::as_slice))?;
        let shape = match &labels {
            None => Shape::new(&[0])?,
            Some(labels) if labels.len() != sequences.len() => {
                return Err(Error::shape(format!(
                    "Padded: expected a label for each of {} sequences, got {}",
                    sequences.len(),
                    labels.len()
                )));
            }
            Some(labels) => {
                if let Some(at) = labels.iter().position(|&label| label >= classes) {
                    return Err(Error::index(format!(
                        "Padded: expected classes below {classes}, got {} at sequence {at}",
                        labels[at]
                    )));
                }
                Shape::default()
            }
        };
        let targets = [TargetSchema::Classes { shape, classes: Some(classes), names: Vec::new() }];
        let schema = Schema::new([Shape::new(&[0])?, Shape::default()], targets);
        let mut padded = Self {
            sequences: sequences.into(),
            labels: labels.map(Into::into),
            padding: 0,
            vocab_size,
            lengths: true,
            pool: 50,
            schema,
        };
        // Before the first batch, that of all sequences in one.
        let longest = padded.sequences.iter().map(|sequence| padded.length(sequence)).max().unwrap_or(0);
        padded.set_length(longest)?;
        Ok(padded)
    }

    /// The id after the end of a sequence, 0 by default.
    ///
    /// # Errors
    /// It is not below the size of the vocabulary.
    pub fn padding(mut self, id: u32) -> Result<Self> {
        check_ids("Padded", self.vocab_size, [&[id][..]])?;
        self.padding = id;
        Ok(self)
    }

    /// Whether the lengths are a second input (default).
    #[must_use]
    pub fn lengths(mut self, lengths: bool) -> Self {
        self.lengths = lengths;
        self.schema.inputs.truncate(1);
        if lengths {
            self.schema.inputs.push(Shape::default());
        }
        self
    }

    /// How many batches are sorted by length together, 50 by default: more give less padding, fewer more chance. With 1 there is no
    /// bucketing.
    #[must_use]
    pub fn pool(self, batches: usize) -> Self {
        Self { pool: batches.max(1), ..self }
    }

    /// The tokens that a sequence has in a batch.
    fn length(&self, sequence: &[u32]) -> usize {
        sequence.len() - usize::from(self.labels.is_none())
    }

    fn set_length(&mut self, length: usize) -> Result<()> {
        self.schema.inputs[0] = Shape::new(&[length])?;
        if let (None, Some(TargetSchema::Classes { shape, .. })) =
            (&self.labels, self.schema.targets.first_mut())
        {
            *shape = Shape::new(&[length])?;
        }
        Ok(())
    }
}

impl<T: Scalar> Source<T> for Padded {
    fn samples(&self) -> Option<usize> {
        Some(self.sequences.len())
    }

    /// Of the last batch: T is the length of its longest sequence.
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn shapes_vary(&self) -> bool {
        true
    }

    fn arrange(&self, order: &mut [usize], batch_size: usize, rng: &mut Rng) {
        if self.pool == 1 || batch_size == 0 {
            return;
        }
        for pool in order.chunks_mut(batch_size.saturating_mul(self.pool)) {
            pool.sort_by_key(|&position| self.sequences[position].len());
        }
        // Whole batches change their places; a short last one stays the last.
        let whole = order.len() / batch_size * batch_size;
        let mut places: Vec<usize> = (0..whole).step_by(batch_size).collect();
        rng.shuffle(&mut places);
        let sorted = order[..whole].to_vec();
        for (batch, place) in order.chunks_exact_mut(batch_size).zip(places) {
            batch.copy_from_slice(&sorted[place..place + batch_size]);
        }
    }

    fn fill(&mut self, pick: Pick<'_>, batch: &mut Batch<T>) -> Result<usize> {
        let positions = pick.positions()?;
        let n = self.sequences.len();
        if let Some(position) = positions.iter().find(|&&position| position >= n) {
            return Err(Error::index(format!("Padded: expected sequences below {n}, got {position}")));
        }
        let lengths = positions.iter().map(|&position| self.length(&self.sequences[position]));
        let longest = lengths.max().unwrap_or(0);
        self.set_length(longest)?;
        batch.reset(&self.schema, positions.len())?;
        for (i, &position) in positions.iter().enumerate() {
            let sequence = &self.sequences[position];
            let length = self.length(sequence);
            let x = batch.sample_mut(0, i);
            write_ids(&mut x[..length], sequence);
            x[length..].fill(T::from_usize(self.padding as usize));
            if self.lengths {
                batch.inputs[1].data_mut()[i] = T::from_usize(length);
            }
            match &self.labels {
                Some(labels) => batch.classes_mut(0)[i] = labels[position],
                None => {
                    let classes = &mut batch.classes_mut(0)[i * longest..][..longest];
                    write_classes(&mut classes[..length], &sequence[1..]);
                    classes[length..].fill(Classes::IGNORED);
                }
            }
        }
        Ok(positions.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_core::Target;
    use chainrule_data::Loader;
    use proptest::prelude::*;

    /// The sequences of a batch of next tokens, without padding.
    fn sequences(batch: &Batch<f64>) -> Vec<Vec<u32>> {
        let (x, lengths) = (&batch.inputs[0], &batch.inputs[1]);
        let longest = x.shape()[1];
        let classes = Target::from(batch.target()).classes().unwrap();
        let rows = x.data().chunks(longest).zip(classes.chunks(longest)).zip(lengths.data());
        rows.map(|((x, t), &length)| {
            let length = length as usize;
            assert!(
                x[length..].iter().all(|&x| x == 7.0) && t[length..].iter().all(|&t| t == Classes::IGNORED)
            );
            assert!((1..length).all(|i| x[i] == t[i - 1] as f64));
            x[..1].iter().map(|&x| x as u32).chain(t[..length].iter().map(|&t| t as u32)).collect()
        })
        .collect()
    }

    proptest! {
        #[test]
        fn every_sequence_comes_once_and_a_batch_is_as_long_as_its_longest(
            all in prop::collection::vec(prop::collection::vec(0u32..7, 2..12), 1..40),
            size in 1usize..9, pool in 0usize..5, seed: u64, epoch in 0u64..5,
        ) {
            let padded = Padded::next_token(all.clone(), 8).unwrap().padding(7).unwrap().pool(pool);
            let mut loader = Loader::<_, f64>::new(padded, size).unwrap().shuffle(seed);
            loader.start_epoch(epoch);
            let mut seen = Vec::new();
            while let Some(batch) = loader.next_batch().unwrap() {
                let rows = sequences(batch);
                let longest = rows.iter().map(|row| row.len() - 1).max();
                prop_assert_eq!(Some(batch.x().shape()[1]), longest);
                seen.extend(rows);
            }
            let mut all = all;
            all.sort_unstable();
            seen.sort_unstable();
            prop_assert_eq!(seen, all);
        }
    }

    #[test]
    fn bucketing_leaves_little_padding_and_keeps_chance() {
        let all: Vec<Vec<u32>> = (0..1000).map(|i| vec![1; 2 + i * 37 % 100]).collect();
        let tokens: usize = all.iter().map(|sequence| sequence.len() - 1).sum();
        let padded = |pool| {
            let source = Padded::next_token(all.clone(), 2).unwrap().pool(pool);
            let mut loader: Loader<_> = Loader::new(source, 10).unwrap().shuffle(1);
            let mut lengths = Vec::new();
            while let Some(batch) = loader.next_batch().unwrap() {
                lengths.push(batch.x().shape()[1]);
            }
            lengths
        };
        let (with, without) = (padded(50), padded(1));
        let share = |lengths: &[usize]| 10.0 * lengths.iter().sum::<usize>() as f64 / tokens as f64;
        assert!(share(&with) < 1.05 && share(&without) > 1.5, "{} {}", share(&with), share(&without));
        assert!(!with.is_sorted() && with.len() == 100);
    }

    #[test]
    fn classes_and_one_input_alone() {
        let padded = Padded::classes([vec![3], vec![1, 2]], 4, [1, 0], 2).unwrap().lengths(false);
        let mut loader: Loader<_> = Loader::new(padded, 2).unwrap();
        let batch = loader.next_batch().unwrap().unwrap();
        assert_eq!((batch.inputs.len(), batch.x().data()), (1, &[3.0, 0.0, 1.0, 2.0][..]));
        assert_eq!(Target::from(batch.target()).classes().unwrap().indices(), [1, 0]);
    }

    #[test]
    fn wrong_sequences_and_labels_are_errors() {
        let text = |result: Result<Padded>| result.unwrap_err().to_string();
        assert!(text(Padded::next_token([], 3)).contains("at least one sequence"));
        assert!(
            text(Padded::next_token([vec![1, 2], vec![1]], 3))
                .contains("at least 2 tokens, got 1 in sequence 1")
        );
        assert!(
            text(Padded::next_token([vec![1, 3]], 3)).contains("below 3, got 3 at position 1 of sequence 0")
        );
        assert!(text(Padded::classes([vec![]], 3, [0], 1)).contains("at least 1 tokens, got 0"));
        assert!(
            text(Padded::classes([vec![1]], 3, [], 1)).contains("a label for each of 1 sequences, got 0")
        );
        assert!(text(Padded::classes([vec![1]], 3, [1], 1)).contains("classes below 1, got 1"));
        assert!(Padded::next_token([vec![1, 2]], 3).unwrap().padding(3).is_err());
    }
}
