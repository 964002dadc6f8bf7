//! The keys and values that a stream has seen.

use chainrule_core::{Error, Memory, Result, Scalar};
use chainrule_tensor::kernels::layers::attention::Rows;

/// Keys and values, each (N, capacity, width), of the sequence so far, added ones first. The capacity doubles when it is reached.
#[derive(Debug)]
pub(super) struct KeyValues<T> {
    n: usize,
    widths: [usize; 2],
    /// Added rows, rows, and rows that there is room for.
    extra: usize,
    len: usize,
    capacity: usize,
    rows: [Vec<T>; 2],
    /// (N, capacity), if keys have a mask.
    mask: Vec<T>,
    masked: bool,
    /// Queries that were seen, of so many samples; their keys may be another input.
    queries: usize,
    samples: usize,
    started: bool,
}

impl<T> Default for KeyValues<T> {
    fn default() -> Self {
        Self {
            n: 0,
            widths: [0; 2],
            extra: 0,
            len: 0,
            capacity: 0,
            rows: [const { Vec::new() }; 2],
            mask: Vec::new(),
            masked: false,
            queries: 0,
            samples: 0,
            started: false,
        }
    }
}

/// The added rows of a sample: the learned one, and zeros.
pub(super) fn fill_added<T: Scalar>(rows: &mut [T], learned: Option<&[T]>) {
    let (first, zeros) = rows.split_at_mut(learned.map_or(0, <[T]>::len));
    first.copy_from_slice(learned.unwrap_or_default());
    zeros.fill(T::ZERO);
}

/// (N, from, width) as (N, to, width), whose rows keep their place.
fn widened<T: Scalar>(x: &[T], n: usize, from: usize, to: usize, width: usize) -> Vec<T> {
    let mut y = vec![T::ZERO; n * to * width];
    if from == 0 {
        return y;
    }
    for (y, x) in y.chunks_exact_mut((to * width).max(1)).zip(x.chunks_exact((from * width).max(1))) {
        y[..from * width].copy_from_slice(x);
    }
    y
}

impl<T: Scalar> KeyValues<T> {
    /// Forgets the sequence; its memory is kept.
    pub(super) fn clear(&mut self) {
        (self.len, self.queries, self.started) = (0, 0, false);
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.started
    }

    /// The number of queries so far.
    pub(super) fn queries(&self) -> usize {
        self.queries
    }

    /// An error unless the sequence so far has n samples, and rows of these widths.
    pub(super) fn check(&self, layer: &str, n: usize, widths: [usize; 2]) -> Result<()> {
        if self.started && self.samples != n {
            let samples = self.samples;
            return Err(Error::shape(format!(
                "{layer}: expected the {samples} samples of the sequence so far, got {n}"
            )));
        }
        if self.started && self.len > 0 && self.widths != widths {
            return Err(Error::state(format!(
                "{layer}: expected the keys and values of a stream of this layer, got those of another"
            )));
        }
        Ok(())
    }

    /// Begins a sequence of n samples with added rows.
    pub(super) fn start(&mut self, n: usize, widths: [usize; 2], extra: usize, learned: [Option<&[T]>; 2]) {
        if (self.n, self.widths) != (n, widths) {
            self.capacity = 0;
        }
        (self.n, self.widths, self.extra) = (n, widths, extra);
        (self.len, self.queries, self.samples, self.started) = (0, 0, n, true);
        self.reserve(extra);
        for ((rows, learned), width) in self.rows.iter_mut().zip(learned).zip(widths) {
            for sample in rows.chunks_exact_mut((self.capacity * width).max(1)).take(n) {
                fill_added(&mut sample[..extra * width], learned);
            }
        }
        self.len = extra;
    }

    /// Room for more rows.
    fn reserve(&mut self, more: usize) {
        let needed = self.len + more;
        if needed <= self.capacity {
            return;
        }
        let (from, to) = (self.capacity, needed.max(2 * self.capacity));
        for (rows, width) in self.rows.iter_mut().zip(self.widths) {
            *rows = widened(rows, self.n, from, to, width);
        }
        self.mask = widened(&self.mask, self.n, from, to, 1);
        self.capacity = to;
    }

    /// Adds the keys and values of t more rows, (N, t, width), and their mask (N, t).
    pub(super) fn push(&mut self, new: [&[T]; 2], mask: Option<&[T]>, t: usize) {
        self.reserve(t);
        let Self { n, widths, len, capacity, extra, .. } = *self;
        for ((rows, new), width) in self.rows.iter_mut().zip(new).zip(widths) {
            for i in 0..n {
                let from = &new[i * t * width..][..t * width];
                rows[(i * capacity + len) * width..][..t * width].copy_from_slice(from);
            }
        }
        self.masked = mask.is_some();
        if let Some(mask) = mask {
            for i in 0..n {
                self.mask[i * capacity + len - extra..][..t].copy_from_slice(&mask[i * t..][..t]);
            }
        }
        self.len += t;
        self.queries += t;
    }

    /// Counts queries whose keys are another input.
    pub(super) fn count(&mut self, n: usize, t: usize) {
        (self.samples, self.started) = (n, true);
        self.queries += t;
    }

    /// Lists the sequence so far, of `heads` samples to a row of the batch. Rows are of the widths, behind `extra` added ones; `None`
    /// where the keys are another input.
    pub(super) fn memory(
        &mut self,
        heads: usize,
        rows: Option<([usize; 2], usize)>,
        masked: bool,
        out: &mut Memory<'_, T>,
    ) -> Result<()> {
        let too_long = || Error::state("stream: expected a sequence that memory can hold");
        let mut batch = self.samples / heads.max(1);
        out.batch("batch", &mut batch)?;
        out.count("queries", &mut self.queries)?;
        self.samples = batch.checked_mul(heads).ok_or_else(too_long)?;
        let Some((widths, extra)) = rows else { return Ok(()) };
        if heads > 1 {
            self.trim();
        }
        (self.n, self.widths, self.extra, self.masked) = (self.samples, widths, extra, masked);
        self.len = self.queries + extra;
        // A state that is restored has room for what was saved alone.
        self.capacity = self.capacity.max(self.len);
        let size = |rows: usize, width: usize| {
            heads.checked_mul(rows).and_then(|n| n.checked_mul(width)).ok_or_else(too_long)
        };
        for ((rows, name), width) in self.rows.iter_mut().zip(["keys", "values"]).zip(widths) {
            out.spaced_rows(name, rows, [1, batch, size(self.len, width)?], size(self.capacity, width)?)?;
        }
        if masked {
            // The mask has no added rows.
            for mask in self.mask.chunks_exact_mut(self.capacity.max(1)) {
                mask[self.len - extra..self.len].fill(T::ZERO);
            }
            out.spaced_rows("mask", &mut self.mask, [1, batch, size(self.len, 1)?], size(self.capacity, 1)?)?;
        }
        Ok(())
    }

    /// Gives back the room behind the rows.
    fn trim(&mut self) {
        let Self { n, capacity: from, len: to, .. } = *self;
        if from == to {
            return;
        }
        let trimmed = |x: &[T], width: usize| {
            let samples = x.chunks_exact((from * width).max(1)).take(n);
            samples.flat_map(|sample| &sample[..to * width]).copied().collect()
        };
        for (rows, width) in self.rows.iter_mut().zip(self.widths) {
            *rows = trimmed(rows, width);
        }
        self.mask = trimmed(&self.mask, 1);
        self.capacity = to;
    }

    /// Lists whether there is a sequence, and says so.
    pub(super) fn started(&mut self, out: &mut Memory<'_, T>) -> Result<bool> {
        out.flag("started", &mut self.started)?;
        Ok(self.started)
    }

    /// The widths of keys and values.
    pub(super) fn widths(&self) -> [usize; 2] {
        self.widths
    }

    /// The keys and the values, of heads of so many elements.
    pub(super) fn rows(&self, depth: usize) -> [Rows<'_, T>; 2] {
        let [k, v] = &self.rows;
        let rows = |data, width: usize| Rows { data, batch: self.capacity * width, row: width, head: depth };
        [rows(k, self.widths[0]), rows(v, self.widths[1])]
    }

    /// The mask of the keys, and the distance from sample to sample.
    pub(super) fn mask(&self) -> Option<(&[T], usize)> {
        self.masked.then_some((&self.mask[..], self.capacity))
    }
}
