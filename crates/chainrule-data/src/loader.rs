//! Batches of a dataset, in an order that depends on the seed and the epoch alone.

use crate::{Batch, Dataset};
use chainrule_tensor::{Error, Result, Rng, Scalar, noise_key};

/// Goes through a dataset in batches, in one set of buffers.
///
/// Without [`Loader::shuffle`] the samples come in their own order; with it, in an order that belongs to (seed, epoch):
/// epoch 5 is the same whether or not epoch 4 was seen, so a run continues where it stopped.
///
/// ```
/// use chainrule_data::{Loader, iris};
/// let data = iris::<f32>();
/// let mut loader = Loader::new(&data, 64)?.shuffle(1);
/// loader.start_epoch(0);
/// let mut sizes = Vec::new();
/// while let Some(batch) = loader.next_batch() {
///     sizes.push(batch.len());
/// }
/// assert_eq!(sizes, [64, 64, 22]);
/// # Ok::<(), chainrule_data::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Loader<'a, T = f32> {
    data: &'a Dataset<T>,
    batch_size: usize,
    seed: Option<u64>,
    drop_last: bool,
    order: Vec<usize>,
    next: usize,
    batch: Batch<T>,
}

impl<'a, T: Scalar> Loader<'a, T> {
    /// A loader at the start of epoch 0, not shuffled, that keeps a short last batch.
    ///
    /// # Errors
    /// A batch size of 0.
    pub fn new(data: &'a Dataset<T>, batch_size: usize) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::value("loader: expected a batch size of at least 1, got 0"));
        }
        let order = (0..data.len()).collect();
        Ok(Self { data, batch_size, seed: None, drop_last: false, order, next: 0, batch: Batch::default() })
    }

    /// Shuffles each epoch by this seed.
    #[must_use]
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self.start_epoch(0);
        self
    }

    /// Whether a last batch that is shorter than the others is left out (default: no).
    #[must_use]
    pub fn drop_last(mut self, drop: bool) -> Self {
        self.drop_last = drop;
        self
    }

    /// Goes to the start of an epoch.
    pub fn start_epoch(&mut self, epoch: u64) {
        self.next = 0;
        if let Some(seed) = self.seed {
            // From the same start each time: the order depends on seed and epoch, not on epochs before.
            self.order.iter_mut().enumerate().for_each(|(i, o)| *o = i);
            Rng::new(noise_key(seed, epoch)).shuffle(&mut self.order);
        }
    }

    /// The next batch of this epoch; `None` after the last, until [`Loader::start_epoch`].
    pub fn next_batch(&mut self) -> Option<&Batch<T>> {
        let mut batch = std::mem::take(&mut self.batch);
        let more = self.fill(&mut batch);
        self.batch = batch;
        more.then_some(&self.batch)
    }

    /// Fills a batch of the caller's with the next samples; false, and the batch is as before, after the last.
    pub fn fill(&mut self, batch: &mut Batch<T>) -> bool {
        let start = self.next;
        let end = start.saturating_add(self.batch_size).min(self.order.len());
        if start == end || (self.drop_last && end - start < self.batch_size) {
            return false;
        }
        self.next = end;
        self.data.gather(&self.order[start..end], batch);
        true
    }

    /// The number of batches of an epoch.
    pub fn batches(&self) -> usize {
        if self.drop_last {
            self.data.len() / self.batch_size
        } else {
            self.data.len().div_ceil(self.batch_size)
        }
    }

    /// The number of samples of an epoch: all, less those of a short last batch that is dropped.
    pub fn samples(&self) -> usize {
        self.data.len().min(self.batches().saturating_mul(self.batch_size))
    }

    /// The positions in the dataset of all samples of this epoch, in order.
    pub fn order(&self) -> &[usize] {
        &self.order[..self.samples()]
    }

    /// The samples of a full batch.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The dataset.
    pub fn dataset(&self) -> &'a Dataset<T> {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Targets;
    use chainrule_tensor::Tensor;
    use proptest::prelude::*;

    fn numbered(n: usize) -> Dataset<f64> {
        Dataset::regression(Tensor::from_fn([n, 2], |i| i as f64), Tensor::from_fn([n], |i| i as f64))
            .unwrap()
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
        while let Some(b) = loader.next_batch() {
            seen.extend(b.x.data().chunks(2).map(|r| r[0] as usize / 2));
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert!(loader.next_batch().is_none());
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
    fn a_seed_means_the_same_order_for_ever() {
        let data = numbered(8);
        assert_eq!(Loader::new(&data, 8).unwrap().shuffle(1).order(), [2, 7, 3, 0, 4, 1, 6, 5]);
    }

    #[test]
    fn buffers_are_kept_over_a_short_last_batch() {
        fn place(b: &Batch<f64>) -> (*const f64, *const u8) {
            let targets = match &b.targets {
                Targets::Classes(c) => c.as_ptr().cast(),
                Targets::Values(v) => v.data().as_ptr().cast(),
            };
            (b.x.data().as_ptr(), targets)
        }
        for data in [crate::iris(), numbered(10)] {
            let mut loader = Loader::new(&data, 4).unwrap().shuffle(1);
            let first = place(loader.next_batch().unwrap());
            for epoch in 0..3 {
                loader.start_epoch(epoch);
                while let Some(b) = loader.next_batch() {
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
            while loader.fill(&mut batch) {
                batches += 1;
                let values = match &batch.targets {
                    Targets::Values(v) => v.data(),
                    Targets::Classes(_) => unreachable!(),
                };
                for (x, &t) in batch.x.data().chunks(2).zip(values) {
                    prop_assert_eq!(x, [2.0 * t, 2.0 * t + 1.0]);
                    seen.push(t as usize);
                }
            }
            prop_assert_eq!(batches, loader.batches());
            prop_assert_eq!(&seen[..], loader.order());
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), if drop { n / size * size } else { n });
        }
    }
}
