//! Batches of a source, in an order that depends on the seed and the epoch alone.

use crate::{Batch, Pick, Source};
use chainrule_tensor::{Error, Result, Rng, Scalar, noise_key};

/// Goes through a source in batches, in one set of buffers.
///
/// Without [`Loader::shuffle`] the samples come in their own order; with it, in an order that belongs to (seed, epoch):
/// epoch 5 is the same whether or not epoch 4 was seen, so a run continues where it stopped. A stream comes in its own order.
///
/// ```
/// use chainrule_data::{Loader, iris};
/// let data = iris::<f32>();
/// let mut loader = Loader::new(&data, 64)?.shuffle(1);
/// for _epoch in 0..2 {
///     let mut sizes = Vec::new();
///     while let Some(batch) = loader.next_batch()? {
///         sizes.push(batch.len());
///     }
///     assert_eq!(sizes, [64, 64, 22]);
/// }
/// # Ok::<(), chainrule_data::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Loader<S, T = f32> {
    source: S,
    batch_size: usize,
    seed: Option<u64>,
    drop_last: bool,
    epoch: u64,
    stage: Stage,
    /// The positions of a source with a length, in the order of this epoch.
    order: Vec<usize>,
    next: usize,
    batch: Batch<T>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the first batch of an epoch.
    Start,
    Within,
    /// The last batch was given.
    End,
}

impl<T: Scalar, S: Source<T>> Loader<S, T> {
    /// A loader at the start of epoch 0, not shuffled, that keeps a short last batch.
    ///
    /// # Errors
    /// A batch size of 0.
    pub fn new(source: S, batch_size: usize) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::value("loader: expected a batch size of at least 1, got 0"));
        }
        let order = (0..source.samples().unwrap_or(0)).collect();
        Ok(Self {
            source,
            batch_size,
            seed: None,
            drop_last: false,
            epoch: 0,
            stage: Stage::Start,
            order,
            next: 0,
            batch: Batch::default(),
        })
    }

    /// Shuffles each epoch by this seed. A stream has no positions to shuffle.
    #[must_use]
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self.start_epoch(self.epoch);
        self
    }

    /// Whether a last batch that is shorter than the others is dropped (default: no).
    #[must_use]
    pub fn drop_last(mut self, drop: bool) -> Self {
        self.drop_last = drop;
        self
    }

    /// Goes to the start of an epoch. Without it epoch 0 comes first, and the next one when one has ended.
    pub fn start_epoch(&mut self, epoch: u64) {
        (self.epoch, self.next, self.stage) = (epoch, 0, Stage::Start);
        if let Some(seed) = self.seed {
            // From the same start each time: the order depends on seed and epoch, not on epochs before.
            self.order.iter_mut().enumerate().for_each(|(i, o)| *o = i);
            let mut rng = Rng::new(noise_key(seed, epoch));
            rng.shuffle(&mut self.order);
            self.source.arrange(&mut self.order, self.batch_size, &mut rng);
        }
    }

    /// Goes past so many samples of the epoch, as if they had been read: a run continues within an epoch. Those of a stream are read.
    ///
    /// # Errors
    /// The source fails, or the epoch has fewer samples.
    pub fn skip(&mut self, samples: usize) -> Result<()> {
        if self.stage != Stage::Within {
            self.source.start_epoch(self.epoch)?;
            self.stage = Stage::Within;
        }
        if self.source.samples().is_some() {
            if samples > self.order.len() - self.next.min(self.order.len()) {
                return Err(few(samples, self.order.len() - self.next));
            }
            self.next += samples;
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        let mut left = samples;
        while left > 0 {
            match self.source.fill(Pick::Next(left.min(self.batch_size)), &mut batch)? {
                0 => return Err(few(samples, samples - left)),
                n => left -= n.min(left),
            }
        }
        self.batch = batch;
        self.next += samples;
        Ok(())
    }

    /// The next batch of this epoch; `None` after the last, and then the first of the next epoch.
    ///
    /// # Errors
    /// The source fails, or gives another kind of batch than its schema says.
    pub fn next_batch(&mut self) -> Result<Option<&Batch<T>>> {
        let mut batch = std::mem::take(&mut self.batch);
        let more = self.fill(&mut batch);
        self.batch = batch;
        Ok(more?.then_some(&self.batch))
    }

    /// Overwrites a batch of the caller's with the next samples; false after the last, and then its contents are
    /// unspecified.
    ///
    /// # Errors
    /// As [`Loader::next_batch`].
    pub fn fill(&mut self, batch: &mut Batch<T>) -> Result<bool> {
        if self.stage == Stage::End {
            self.start_epoch(self.epoch.wrapping_add(1));
        }
        if self.stage == Stage::Start {
            self.source.start_epoch(self.epoch)?;
            self.stage = Stage::Within;
        }
        let n = match self.source.samples() {
            None => self.source.fill(Pick::Next(self.batch_size), batch)?,
            Some(_) => {
                let end = self.next.saturating_add(self.batch_size).min(self.order.len());
                let positions = &self.order[self.next..end];
                let short = self.drop_last && positions.len() < self.batch_size;
                if short || positions.is_empty() {
                    0
                } else {
                    self.source.fill(Pick::At(positions), batch)?
                }
            }
        };
        if n == 0 || (self.drop_last && n < self.batch_size) {
            self.stage = Stage::End;
            return Ok(false);
        }
        self.next += n;
        self.source.schema().check(batch, n)?;
        Ok(true)
    }

    /// The number of batches of an epoch; `None` of a stream.
    pub fn batches(&self) -> Option<usize> {
        let n = self.source.samples()?;
        Some(if self.drop_last { n / self.batch_size } else { n.div_ceil(self.batch_size) })
    }

    /// The number of samples of an epoch, without those of a short last batch that is dropped; `None` of a stream.
    pub fn samples(&self) -> Option<usize> {
        Some(self.source.samples()?.min(self.batches()?.saturating_mul(self.batch_size)))
    }

    /// The positions in the source of all samples of this epoch, in order; none of a stream.
    pub fn order(&self) -> &[usize] {
        &self.order[..self.samples().unwrap_or(0)]
    }

    /// The positions in the source of the newest samples of this epoch, so many of them; none of a stream.
    pub fn last(&self, samples: usize) -> &[usize] {
        let end = self.next.min(self.order.len());
        &self.order[end.saturating_sub(samples)..end]
    }

    /// The number of the epoch, from 0.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The samples of a full batch.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The source.
    pub fn source(&self) -> &S {
        &self.source
    }
}

#[cold]
fn few(expected: usize, got: usize) -> Error {
    Error::value(format!("loader: expected {expected} more samples in the epoch, got {got}"))
}

/// The batches of one epoch, each a copy of its own: for threads and collections. [`Loader::next_batch`] reuses its memory.
impl<'l, T: Scalar, S: Source<T>> IntoIterator for &'l mut Loader<S, T> {
    type Item = Result<Batch<T>>;
    type IntoIter = Batches<'l, S, T>;

    fn into_iter(self) -> Batches<'l, S, T> {
        Batches { loader: self, ended: false }
    }
}

/// The rest of an epoch of a [`Loader`], as an iterator.
#[derive(Debug)]
pub struct Batches<'l, S, T> {
    loader: &'l mut Loader<S, T>,
    ended: bool,
}

impl<T: Scalar, S: Source<T>> Iterator for Batches<'_, S, T> {
    type Item = Result<Batch<T>>;

    fn next(&mut self) -> Option<Result<Batch<T>>> {
        if self.ended {
            return None;
        }
        let mut batch = Batch::default();
        let more = self.loader.fill(&mut batch);
        self.ended = !matches!(more, Ok(true));
        match more {
            Ok(more) => more.then_some(Ok(batch)),
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;
    use chainrule_core::Targets;
    use chainrule_tensor::Tensor;
    use proptest::prelude::*;

    fn numbered(n: usize) -> Dataset<f64> {
        Dataset::regression(Tensor::from_fn([n, 2], |i| i as f64), Tensor::from_fn([n], |i| i as f64))
            .unwrap()
    }

    fn values(batch: &Batch<f64>) -> &[f64] {
        match batch.target() {
            Targets::Values(v) => v.data(),
            _ => unreachable!(),
        }
    }

    #[test]
    fn a_batch_size_of_0_is_an_error() {
        let text = Loader::new(&numbered(3), 0).unwrap_err().to_string();
        assert_eq!(text, "loader: expected a batch size of at least 1, got 0");
    }

    #[test]
    fn without_shuffle_the_order_is_the_datasets() {
        let data = numbered(5);
        let mut loader = Loader::new(&data, 2).unwrap();
        let mut seen = Vec::new();
        while let Some(b) = loader.next_batch().unwrap() {
            seen.extend(b.x().data().chunks(2).map(|r| r[0] as usize / 2));
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn an_epoch_follows_another_without_being_started() {
        let data = numbered(5);
        let mut loader = Loader::new(&data, 2).unwrap().shuffle(3);
        let mut epochs = Vec::new();
        for epoch in 0..3 {
            let mut seen = Vec::new();
            while let Some(b) = loader.next_batch().unwrap() {
                seen.extend_from_slice(values(b));
            }
            assert_eq!((seen.len(), loader.epoch()), (5, epoch));
            epochs.push(seen);
        }
        assert_ne!(epochs[0], epochs[1]);
        loader.start_epoch(1);
        let again: Vec<f64> = (&mut loader).into_iter().flat_map(|b| values(&b.unwrap()).to_vec()).collect();
        assert_eq!(again, epochs[1]);
        let third: Vec<f64> = (&mut loader).into_iter().flat_map(|b| values(&b.unwrap()).to_vec()).collect();
        assert_eq!(third, epochs[2]);
    }

    #[test]
    fn an_epoch_is_the_same_whatever_came_before() {
        let data = numbered(40);
        let mut a = Loader::new(&data, 7).unwrap().shuffle(3);
        let mut b = a.clone();
        let first = a.order().to_vec();
        (0..5).for_each(|e| a.start_epoch(e));
        a.start_epoch(5);
        b.start_epoch(5);
        assert_eq!(a.order(), b.order());
        assert_ne!(a.order(), first);
        assert_ne!(Loader::new(&data, 7).unwrap().shuffle(4).order(), first);
    }

    #[test]
    fn what_is_skipped_is_as_if_it_had_been_read() {
        let data = numbered(20);
        let rest = |loader: &mut Loader<_, f64>| -> Vec<f64> {
            loader.into_iter().flat_map(|b| values(&b.unwrap()).to_vec()).collect()
        };
        let mut whole = Loader::new(&data, 3).unwrap().shuffle(2);
        whole.start_epoch(4);
        let all = rest(&mut whole);
        for n in 0..=20 {
            let mut loader = Loader::new(&data, 3).unwrap().shuffle(2);
            loader.start_epoch(4);
            loader.skip(n).unwrap();
            assert_eq!(rest(&mut loader), all[n..]);
        }
        let mut loader = Loader::new(&data, 3).unwrap();
        assert!(loader.skip(21).is_err());
        assert!(loader.skip(20).is_ok() && loader.skip(1).is_err());
    }

    #[test]
    fn a_seed_means_the_same_order_for_ever() {
        let data = numbered(8);
        assert_eq!(Loader::new(&data, 8).unwrap().shuffle(1).order(), [2, 7, 3, 0, 4, 1, 6, 5]);
    }

    #[test]
    fn buffers_are_kept_over_a_short_last_batch() {
        fn place(b: &Batch<f64>) -> (*const f64, *const u8) {
            let targets = match b.target() {
                Targets::Classes { indices, .. } | Targets::Sequences { indices, .. } => {
                    indices.as_ptr().cast()
                }
                Targets::Values(v) => v.data().as_ptr().cast(),
            };
            (b.x().data().as_ptr(), targets)
        }
        for data in [crate::iris(), numbered(10)] {
            let mut loader = Loader::new(&data, 4).unwrap().shuffle(1);
            let first = place(loader.next_batch().unwrap().unwrap());
            for epoch in 0..3 {
                loader.start_epoch(epoch);
                while let Some(b) = loader.next_batch().unwrap() {
                    assert_eq!(place(b), first);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_sample_comes_once_with_its_target(n in 1usize..60, size in 1usize..70, seed: u64, epoch: u64, drop: bool) {
            let data = numbered(n);
            let mut loader = Loader::new(&data, size).unwrap().shuffle(seed).drop_last(drop);
            loader.start_epoch(epoch);
            let (mut batch, mut batches, mut seen) = (Batch::default(), 0, Vec::new());
            while loader.fill(&mut batch).unwrap() {
                batches += 1;
                for (x, &t) in batch.x().data().chunks(2).zip(values(&batch)) {
                    prop_assert_eq!(x, [2.0 * t, 2.0 * t + 1.0]);
                    seen.push(t as usize);
                }
            }
            prop_assert_eq!(Some(batches), loader.batches());
            prop_assert_eq!(&seen[..], loader.order());
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), if drop { n / size * size } else { n });
        }
    }
}
