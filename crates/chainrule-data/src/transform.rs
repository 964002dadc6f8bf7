//! Sources that change the batches of others.

use crate::{Batch, Pick, Schema, Source};
use chainrule_tensor::{Result, Rng, Scalar, noise_key};

/// A source whose batches a function changes; see [`Source::map`].
#[derive(Clone, Debug)]
pub struct Mapped<S, F> {
    source: S,
    f: F,
    schema: Option<Schema>,
}

impl<S, F> Mapped<S, F> {
    pub(crate) fn new(source: S, f: F) -> Self {
        Self { source, f, schema: None }
    }

    /// Says what a sample looks like after the function, if that differs from the source's.
    #[must_use]
    pub fn with_schema(mut self, schema: Schema) -> Self {
        self.schema = Some(schema);
        self
    }
}

impl<T: Scalar, S: Source<T>, F: FnMut(&mut Batch<T>) -> Result<()>> Source<T> for Mapped<S, F> {
    fn samples(&self) -> Option<usize> {
        self.source.samples()
    }

    fn schema(&self) -> &Schema {
        self.schema.as_ref().unwrap_or_else(|| self.source.schema())
    }

    fn shapes_vary(&self) -> bool {
        self.source.shapes_vary()
    }

    fn start_epoch(&mut self, epoch: u64) -> Result<()> {
        self.source.start_epoch(epoch)
    }

    fn arrange(&self, order: &mut [usize], batch_size: usize, rng: &mut Rng) {
        self.source.arrange(order, batch_size, rng);
    }

    fn fill(&mut self, pick: Pick<'_>, batch: &mut Batch<T>) -> Result<usize> {
        let n = self.source.fill(pick, batch)?;
        if n > 0 {
            (self.f)(batch)?;
        }
        Ok(n)
    }
}

/// A source whose samples a function changes at random; see [`Source::augment`].
#[derive(Clone, Debug)]
pub struct Augmented<S, F> {
    source: S,
    f: F,
    seed: u64,
    /// That of (seed, epoch).
    key: u64,
    /// The samples of a stream so far in this epoch.
    streamed: usize,
}

impl<S, F> Augmented<S, F> {
    pub(crate) fn new(source: S, seed: u64, f: F) -> Self {
        Self { source, f, seed, key: noise_key(seed, 0), streamed: 0 }
    }
}

impl<T: Scalar, S, F> Source<T> for Augmented<S, F>
where
    S: Source<T>,
    F: FnMut(&mut Batch<T>, usize, &mut Rng) -> Result<()>,
{
    fn samples(&self) -> Option<usize> {
        self.source.samples()
    }

    fn schema(&self) -> &Schema {
        self.source.schema()
    }

    fn shapes_vary(&self) -> bool {
        self.source.shapes_vary()
    }

    fn start_epoch(&mut self, epoch: u64) -> Result<()> {
        (self.key, self.streamed) = (noise_key(self.seed, epoch), 0);
        self.source.start_epoch(epoch)
    }

    fn arrange(&self, order: &mut [usize], batch_size: usize, rng: &mut Rng) {
        self.source.arrange(order, batch_size, rng);
    }

    fn fill(&mut self, pick: Pick<'_>, batch: &mut Batch<T>) -> Result<usize> {
        let n = self.source.fill(pick, batch)?;
        for i in 0..n {
            let position = match pick {
                Pick::At(positions) => positions[i],
                Pick::Next(_) => self.streamed + i,
            };
            (self.f)(batch, i, &mut Rng::new(noise_key(self.key, position as u64)))?;
        }
        if let Pick::Next(_) = pick {
            self.streamed += n;
        }
        Ok(n)
    }
}
