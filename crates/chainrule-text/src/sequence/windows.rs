//! Windows of a long text.

use super::{check_ids, write_classes, write_ids};
use chainrule_core::{Error, Result, Rng, Scalar, Shape};
use chainrule_data::{Batch, Pick, Schema, Source, TargetSchema};
use chainrule_tensor::noise_key;
use std::sync::Arc;

/// Windows of T tokens of a long text, each with the token that follows at every position.
///
/// # Shapes
/// x (N, T), classes (N, T): `classes[t] = x[t + 1]`
///
/// # Examples
/// ```
/// use chainrule_data::Loader;
/// use chainrule_text::Windows;
/// let windows = Windows::new([0, 1, 2, 3, 4, 5, 6], 3, 7)?; // 0 1 2 → 1 2 3, 3 4 5 → 4 5 6
/// let mut loader: Loader<_> = Loader::new(windows, 2)?;
/// let batch = loader.next_batch()?.unwrap();
/// assert_eq!(batch.x().data(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Windows {
    /// Clones share it.
    ids: Arc<[u32]>,
    length: usize,
    stride: usize,
    /// How many windows an epoch draws, the seed, and the key of the epoch.
    drawn: Option<(usize, u64, u64)>,
    schema: Schema,
}

impl Windows {
    /// The windows of `length` tokens of a text, one after another; what remains at the end is left out.
    ///
    /// # Errors
    /// A length of 0, a text that is not longer than a window, or an id that is not below `vocab_size`.
    pub fn new(ids: impl Into<Vec<u32>>, length: usize, vocab_size: usize) -> Result<Self> {
        let ids = ids.into();
        if length == 0 || length >= ids.len() {
            return Err(Error::value(format!(
                "Windows: expected a length of at least 1, and a text of more tokens, got {length} and {}",
                ids.len()
            )));
        }
        check_ids("Windows", vocab_size, [&ids[..]])?;
        let classes = TargetSchema::Classes {
            shape: Shape::new(&[length])?,
            classes: Some(vocab_size),
            names: Vec::new(),
        };
        let schema = Schema::new([[length]], [classes]);
        Ok(Self { ids: ids.into(), length, stride: length, drawn: None, schema })
    }

    /// The windows of documents that are put one after another, each with a separator after it: no token is padding, and a window
    /// may hold the end of one and the start of another.
    ///
    /// # Errors
    /// As [`Windows::new`].
    pub fn of_documents(
        documents: impl IntoIterator<Item = impl AsRef<[u32]>>,
        separator: u32,
        length: usize,
        vocab_size: usize,
    ) -> Result<Self> {
        let mut ids = Vec::new();
        for document in documents {
            ids.extend_from_slice(document.as_ref());
            ids.push(separator);
        }
        Self::new(ids, length, vocab_size)
    }

    /// How many tokens lie between the starts of two windows, `length` by default; with fewer they overlap.
    ///
    /// # Errors
    /// A stride of 0.
    pub fn stride(mut self, stride: usize) -> Result<Self> {
        if stride == 0 {
            return Err(Error::value("Windows: expected a stride of at least 1, got 0"));
        }
        self.stride = stride;
        Ok(self)
    }

    /// Draws so many windows an epoch, each anywhere in the text with the same probability. They belong to (seed, epoch).
    ///
    /// # Errors
    /// A count of 0.
    pub fn drawn(mut self, count: usize, seed: u64) -> Result<Self> {
        if count == 0 {
            return Err(Error::value("Windows: expected at least one window an epoch, got 0"));
        }
        self.drawn = Some((count, seed, noise_key(seed, 0)));
        Ok(self)
    }

    /// The number of windows of an epoch.
    pub fn len(&self) -> usize {
        match self.drawn {
            Some((count, ..)) => count,
            None => (self.ids.len() - self.length - 1) / self.stride + 1,
        }
    }

    /// Never: a text is longer than a window.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Where a window begins.
    fn start(&self, window: usize) -> usize {
        match self.drawn {
            Some((_, _, key)) => Rng::new(noise_key(key, window as u64)).below(self.ids.len() - self.length),
            None => window * self.stride,
        }
    }
}

impl<T: Scalar> Source<T> for Windows {
    fn samples(&self) -> Option<usize> {
        Some(self.len())
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn start_epoch(&mut self, epoch: u64) -> Result<()> {
        if let Some((_, seed, key)) = &mut self.drawn {
            *key = noise_key(*seed, epoch);
        }
        Ok(())
    }

    fn fill(&mut self, pick: Pick<'_>, batch: &mut Batch<T>) -> Result<usize> {
        let positions = pick.positions()?;
        batch.reset(&self.schema, positions.len())?;
        for (i, &position) in positions.iter().enumerate() {
            if position >= self.len() {
                return Err(Error::index(format!(
                    "Windows: expected windows below {}, got {position}",
                    self.len()
                )));
            }
            let window = &self.ids[self.start(position)..][..self.length + 1];
            write_ids(batch.sample_mut(0, i), window);
            write_classes(&mut batch.classes_mut(0)[i * self.length..][..self.length], &window[1..]);
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

    fn pairs(batch: &Batch<f32>) -> Vec<(Vec<usize>, Vec<usize>)> {
        let classes = Target::from(batch.target()).classes().unwrap();
        let length = batch.x().shape()[1];
        let rows = batch.x().data().chunks(length).zip(classes.chunks(length));
        rows.map(|(x, t)| (x.iter().map(|&x| x as usize).collect(), t.to_vec())).collect()
    }

    proptest! {
        #[test]
        fn every_window_is_followed_by_its_targets(n in 2usize..60, length in 1usize..9, stride in 1usize..9) {
            prop_assume!(length < n);
            let windows = Windows::new((0..n as u32).collect::<Vec<_>>(), length, n).unwrap().stride(stride).unwrap();
            let mut loader: Loader<_> = Loader::new(windows.clone(), 3).unwrap();
            let mut seen = Vec::new();
            while let Some(batch) = loader.next_batch().unwrap() {
                for (x, t) in pairs(batch) {
                    prop_assert_eq!(&t, &x.iter().map(|x| x + 1).collect::<Vec<_>>());
                    seen.push(x[0]);
                }
            }
            let expected: Vec<usize> = (0..n).step_by(stride).filter(|start| start + length < n).collect();
            prop_assert_eq!(&seen, &expected);
            prop_assert_eq!(windows.len(), expected.len());
        }
    }

    #[test]
    fn drawn_windows_belong_to_seed_and_epoch_and_reach_every_start() {
        let windows = Windows::new((0..10).collect::<Vec<_>>(), 4, 10).unwrap().drawn(300, 3).unwrap();
        let mut loader: Loader<_> = Loader::new(windows, 7).unwrap();
        let mut epoch = |epoch| {
            loader.start_epoch(epoch);
            let mut starts = Vec::new();
            while let Some(batch) = loader.next_batch().unwrap() {
                starts.extend(pairs(batch).into_iter().map(|(x, _)| x[0]));
            }
            starts
        };
        let first = epoch(0);
        let mut all = first.clone();
        all.sort_unstable();
        all.dedup();
        assert_eq!((first.len(), all), (300, vec![0, 1, 2, 3, 4, 5]));
        assert!(epoch(1) != first && epoch(0) == first);
    }

    #[test]
    fn documents_are_joined_by_the_separator() {
        let windows = Windows::of_documents([vec![1, 2], vec![3]], 0, 4, 4).unwrap();
        let mut loader: Loader<_> = Loader::new(windows, 1).unwrap();
        assert_eq!(pairs(loader.next_batch().unwrap().unwrap()), [(vec![1, 2, 0, 3], vec![2, 0, 3, 0])]);
    }

    #[test]
    fn wrong_sizes_and_ids_are_errors() {
        let text = |result: Result<Windows>| result.unwrap_err().to_string();
        assert!(
            text(Windows::new([0, 1], 2, 2))
                .contains("expected a length of at least 1, and a text of more tokens, got 2 and 2")
        );
        assert!(Windows::new([], 0, 2).is_err() && Windows::new([0, 1], usize::MAX, 2).is_err());
        assert!(text(Windows::new([0, 5, 1], 1, 5)).contains("expected ids below 5, got 5 at position 1"));
        assert!(text(Windows::new([0, 0], 1, usize::MAX)).contains("1 to 2097152 tokens"));
        let windows = Windows::new([0, 1, 0], 1, 2).unwrap();
        assert!(windows.clone().stride(0).is_err() && windows.clone().drawn(0, 1).is_err());
        assert_eq!(windows.clone().stride(usize::MAX).unwrap().len(), 1);
        let mut batch = Batch::<f32>::default();
        assert!({ windows }.fill(Pick::At(&[2]), &mut batch).is_err());
    }
}
