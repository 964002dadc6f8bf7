//! Short documents, several in a row.

use super::{check_ids, write_classes, write_ids};
use chainrule_core::{Classes, Error, Result, Scalar, Shape};
use chainrule_data::{Batch, Pick, Schema, Source, TargetSchema};
use std::{collections::BTreeMap, sync::Arc};

/// Short documents put together into rows of T tokens with little padding; no token is predicted from another document.
///
/// The second input numbers the documents of a row, 1, 2, …, and is 0 at padding: from it a model makes the mask that keeps them
/// apart. A document of more than T + 1 tokens is cut into pieces. Each goes into the row in which it leaves the least room, the
/// longest first (best fit, decreasing).
///
/// # Shapes
/// x (N, T) of ids, document (N, T); classes (N, T), [`Classes::IGNORED`] where no token follows
///
/// # Examples
/// ```
/// use chainrule_data::Loader;
/// use chainrule_text::Packed;
/// let packed = Packed::new([vec![1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]], 5, 10)?;
/// let mut loader: Loader<_> = Loader::new(packed, 2)?;
/// let batch = loader.next_batch()?.unwrap();
/// assert_eq!(batch.inputs[0].data()[..5], [4.0, 5.0, 6.0, 1.0, 2.0]); // targets 5 6 7 2 3
/// assert_eq!(batch.inputs[1].data()[..5], [1.0, 1.0, 1.0, 2.0, 2.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Packed {
    /// The pieces of each row. Clones share them.
    rows: Arc<[Vec<Vec<u32>>]>,
    length: usize,
    padding: u32,
    vocab_size: usize,
    documents: bool,
    schema: Schema,
}

impl Packed {
    /// The rows of some documents. One of fewer than two tokens has nothing to predict and is left out.
    ///
    /// # Errors
    /// A length of 0, an id that is not below `vocab_size`, or no document of two tokens.
    pub fn new(documents: impl Into<Vec<Vec<u32>>>, length: usize, vocab_size: usize) -> Result<Self> {
        let documents = documents.into();
        check_ids("Packed", vocab_size, documents.iter().map(Vec::as_slice))?;
        if length == 0 || length == usize::MAX {
            return Err(Error::value(format!("Packed: expected a length of at least 1, got {length}")));
        }
        // Pieces overlap by a token: the target of the last position of one begins the next.
        let mut pieces: Vec<Vec<u32>> = Vec::new();
        for document in documents {
            if document.len() <= length + 1 {
                pieces.push(document);
                continue;
            }
            let starts = (0..document.len()).step_by(length);
            pieces
                .extend(starts.map(|start| document[start..document.len().min(start + length + 1)].to_vec()));
        }
        pieces.retain(|piece| piece.len() > 1);
        if pieces.is_empty() {
            return Err(Error::value("Packed: expected a document of at least two tokens, got none"));
        }
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
        let mut rows: Vec<Vec<Vec<u32>>> = Vec::new();
        // Rows by the room that is left in them.
        let mut open: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for piece in pieces {
            let width = piece.len() - 1;
            let fit = open.range(width..).next().map(|(&room, _)| room);
            let (room, row) = match fit {
                Some(room) => {
                    let at = open.get_mut(&room).and_then(Vec::pop).unwrap_or_default();
                    if open.get(&room).is_some_and(Vec::is_empty) {
                        open.remove(&room);
                    }
                    (room, at)
                }
                None => {
                    rows.push(Vec::new());
                    (length, rows.len() - 1)
                }
            };
            rows[row].push(piece);
            if room > width {
                open.entry(room - width).or_default().push(row);
            }
        }
        let shape = Shape::new(&[length])?;
        let classes = TargetSchema::Classes { shape, classes: Some(vocab_size), names: Vec::new() };
        Ok(Self {
            rows: rows.into(),
            length,
            padding: 0,
            vocab_size,
            documents: true,
            schema: Schema::new([shape, shape], [classes]),
        })
    }

    /// The id after the last document of a row, 0 by default.
    ///
    /// # Errors
    /// It is not below the size of the vocabulary.
    pub fn padding(mut self, id: u32) -> Result<Self> {
        check_ids("Packed", self.vocab_size, [&[id][..]])?;
        self.padding = id;
        Ok(self)
    }

    /// Whether the numbers of the documents are a second input (default).
    #[must_use]
    pub fn documents(mut self, documents: bool) -> Self {
        self.documents = documents;
        let shape = self.schema.inputs[0];
        self.schema.inputs.truncate(1);
        if documents {
            self.schema.inputs.push(shape);
        }
        self
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Never: there is a row for the first document.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl<T: Scalar> Source<T> for Packed {
    fn samples(&self) -> Option<usize> {
        Some(self.rows.len())
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn fill(&mut self, pick: Pick<'_>, batch: &mut Batch<T>) -> Result<usize> {
        let positions = pick.positions()?;
        batch.reset(&self.schema, positions.len())?;
        for (i, &position) in positions.iter().enumerate() {
            let n = self.rows.len();
            let row = self
                .rows
                .get(position)
                .ok_or_else(|| Error::index(format!("Packed: expected rows below {n}, got {position}")))?;
            batch.sample_mut(0, i).fill(T::from_usize(self.padding as usize));
            if self.documents {
                batch.sample_mut(1, i).fill(T::ZERO);
            }
            let classes = &mut batch.classes_mut(0)[i * self.length..][..self.length];
            classes.fill(Classes::IGNORED);
            let mut start = 0;
            for (piece, number) in row.iter().zip(1..) {
                let at = start..start + piece.len() - 1;
                start = at.end;
                write_ids(&mut batch.sample_mut(0, i)[at.clone()], piece);
                if self.documents {
                    batch.sample_mut(1, i)[at.clone()].fill(T::from_usize(number));
                }
                let classes = &mut batch.classes_mut(0)[i * self.length..][..self.length];
                write_classes(&mut classes[at], &piece[1..]);
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

    proptest! {
        #[test]
        fn every_pair_of_tokens_comes_once(
            documents in prop::collection::vec(prop::collection::vec(0u32..9, 0..20), 1..30), length in 1usize..9,
        ) {
            let mut expected: Vec<(u32, u32)> =
                documents.iter().flat_map(|d| d.windows(2).map(|pair| (pair[0], pair[1]))).collect();
            prop_assume!(!expected.is_empty());
            let packed = Packed::new(documents, length, 10).unwrap().padding(9).unwrap();
            let tokens = expected.len();
            // Two rows that are not half full would be one.
            prop_assert!((packed.len() - 1) * length <= 2 * tokens);
            let mut loader = Loader::<_, f64>::new(packed, 4).unwrap();
            let mut seen = Vec::new();
            while let Some(batch) = loader.next_batch().unwrap() {
                let (x, documents) = (batch.inputs[0].data(), batch.inputs[1].data());
                let classes = Target::from(batch.target()).classes().unwrap();
                for (i, &class) in classes.iter().enumerate() {
                    prop_assert_eq!(class == Classes::IGNORED, documents[i] == 0.0);
                    prop_assert_eq!(x[i] == 9.0, documents[i] == 0.0);
                    if class != Classes::IGNORED {
                        seen.push((x[i] as u32, class as u32));
                    }
                    if i % length > 0 && documents[i] == documents[i - 1] && documents[i] > 0.0 {
                        prop_assert_eq!(x[i] as usize, classes[i - 1]);
                    }
                }
            }
            seen.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn wrong_sizes_are_errors() {
        assert!(
            Packed::new([vec![1, 2]], 0, 3).is_err() && Packed::new([vec![1, 2]], usize::MAX, 3).is_err()
        );
        assert!(Packed::new([vec![1]], 4, 3).is_err() && Packed::new([vec![3, 1]], 4, 3).is_err());
        let one = Packed::new([vec![1, 2]], 4, 3).unwrap().documents(false);
        assert_eq!((Source::<f32>::schema(&one).inputs.len(), one.len()), (1, 1));
    }
}
