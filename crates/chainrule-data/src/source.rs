//! Where batches come from.

use crate::{Augmented, Batch, Mapped, Schema};
use chainrule_tensor::{Error, Result, Rng, Scalar};

/// Samples for training: in memory, computed, or from a stream without a known length.
///
/// A [`Dataset`](crate::Dataset) is one, and so is a reference to it; [`Stream`](crate::Stream) makes one of an iterator,
/// and [`Source::map`] and [`Source::augment`] of another source. [`Loader`](crate::Loader) and the trainer take any.
///
/// ```
/// use chainrule_data::{Batch, Loader, Pick, Result, Schema, Source, TargetSchema};
///
/// /// y = x² on a grid, computed when it is needed.
/// struct Parabola {
///     schema: Schema,
/// }
///
/// impl Source<f32> for Parabola {
///     fn samples(&self) -> Option<usize> {
///         Some(1000)
///     }
///     fn schema(&self) -> &Schema {
///         &self.schema
///     }
///     fn fill(&mut self, pick: Pick<'_>, batch: &mut Batch<f32>) -> Result<usize> {
///         let positions = pick.positions()?;
///         batch.reset(&self.schema, positions.len())?;
///         for (i, &p) in positions.iter().enumerate() {
///             let x = p as f32 / 1000.0;
///             batch.sample_mut(0, i)[0] = x;
///             batch.values_mut(0)[i] = x * x;
///         }
///         Ok(positions.len())
///     }
/// }
///
/// let schema = Schema::new([[1]], [TargetSchema::values([1])]);
/// let mut loader = Loader::new(Parabola { schema }, 32)?.shuffle(1);
/// assert_eq!(loader.next_batch()?.map(Batch::len), Some(32));
/// # Ok::<(), chainrule_data::Error>(())
/// ```
pub trait Source<T: Scalar = f32> {
    /// The number of samples; `None` if it streams.
    fn samples(&self) -> Option<usize>;

    /// What a sample looks like.
    fn schema(&self) -> &Schema;

    /// Whether batches differ in their shapes beyond the batch axis, as sequences padded to the longest of a batch do. The schema
    /// is then that of the last batch.
    fn shapes_vary(&self) -> bool {
        false
    }

    /// Goes to the start of an epoch: a stream begins again, random transforms draw other noise.
    ///
    /// # Errors
    /// The source fails.
    fn start_epoch(&mut self, _epoch: u64) -> Result<()> {
        Ok(())
    }

    /// Changes the order of an epoch, which [`Loader`](crate::Loader) has shuffled, to one that suits the source, such as
    /// samples of about one length in a batch. A loader that does not shuffle does not call it, nor does one of a stream.
    ///
    /// `order` holds the positions, of which each `batch_size` become a batch; they must stay the same positions.
    fn arrange(&self, _order: &mut [usize], _batch_size: usize, _rng: &mut Rng) {}

    /// Overwrites a batch with the samples picked, and returns how many they are: fewer than picked only at the end of a
    /// stream. The buffers of the batch are reused.
    ///
    /// # Errors
    /// The source fails, or the pick is of the other kind than the source.
    fn fill(&mut self, pick: Pick<'_>, batch: &mut Batch<T>) -> Result<usize>;

    /// This source with every batch changed by `f`.
    ///
    /// ```
    /// use chainrule_data::{Loader, Source, digits};
    /// let inverted = digits::<f32>().map(|batch| {
    ///     batch.inputs[0].data_mut().iter_mut().for_each(|v| *v = 1.0 - *v);
    ///     Ok(())
    /// });
    /// assert_eq!(Loader::new(inverted, 8)?.next_batch()?.unwrap().x().data()[0], 1.0);
    /// # Ok::<(), chainrule_data::Error>(())
    /// ```
    fn map<F: FnMut(&mut Batch<T>) -> Result<()>>(self, f: F) -> Mapped<Self, F>
    where
        Self: Sized,
    {
        Mapped::new(self, f)
    }

    /// This source with every sample of a batch changed at random: `f` gets the batch, the index of the sample in it, and a
    /// generator keyed by (seed, epoch, position of the sample in the source). So the noise does not depend on the batch size
    /// or on the order.
    ///
    /// ```
    /// use chainrule_data::{Source, digits};
    /// let noisy = digits::<f32>().augment(1, |batch, sample, rng| {
    ///     batch.sample_mut(0, sample).iter_mut().for_each(|v| *v += 0.05 * rng.normal() as f32);
    ///     Ok(())
    /// });
    /// ```
    fn augment<F: FnMut(&mut Batch<T>, usize, &mut Rng) -> Result<()>>(
        self,
        seed: u64,
        f: F,
    ) -> Augmented<Self, F>
    where
        Self: Sized,
    {
        Augmented::new(self, seed, f)
    }
}

/// Which samples [`Source::fill`] is to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick<'a> {
    /// Those of these positions, in this order: of a source with a length.
    At(&'a [usize]),
    /// The next ones, at most so many: of a stream.
    Next(usize),
}

impl<'a> Pick<'a> {
    /// The positions.
    ///
    /// # Errors
    /// The pick is one of a stream.
    pub fn positions(self) -> Result<&'a [usize]> {
        match self {
            Self::At(positions) => Ok(positions),
            Self::Next(_) => {
                Err(Error::value("source: expected positions, for it has a length; got a count"))
            }
        }
    }

    /// How many samples at most.
    ///
    /// # Errors
    /// The pick is one of positions.
    pub fn count(self) -> Result<usize> {
        match self {
            Self::Next(count) => Ok(count),
            Self::At(_) => Err(Error::value("source: expected a count, for it streams; got positions")),
        }
    }
}

macro_rules! forwarded {
    ($($source:ty),*) => {$(
        impl<T: Scalar, S: Source<T> + ?Sized> Source<T> for $source {
            fn samples(&self) -> Option<usize> {
                (**self).samples()
            }
            fn schema(&self) -> &Schema {
                (**self).schema()
            }
            fn shapes_vary(&self) -> bool {
                (**self).shapes_vary()
            }
            fn start_epoch(&mut self, epoch: u64) -> Result<()> {
                (**self).start_epoch(epoch)
            }
            fn arrange(&self, order: &mut [usize], batch_size: usize, rng: &mut Rng) {
                (**self).arrange(order, batch_size, rng);
            }
            fn fill(&mut self, pick: Pick<'_>, batch: &mut Batch<T>) -> Result<usize> {
                (**self).fill(pick, batch)
            }
        }
    )*};
}
forwarded!(&mut S, Box<S>);
