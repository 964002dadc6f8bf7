//! Two parts of a dataset: one to train on, one held out.

use crate::Dataset;
use chainrule_tensor::{Error, Result, Rng, Scalar};

impl<T: Scalar> Dataset<T> {
    /// Shuffles, and holds out a fraction: (the rest, the held-out part).
    ///
    /// ```
    /// let (train, test) = chainrule_data::diabetes::<f32>().split(0.25, 1)?;
    /// assert_eq!((train.len(), test.len()), (331, 111));
    /// # Ok::<(), chainrule_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// A fraction that leaves one part empty.
    pub fn split(&self, held_out: f64, seed: u64) -> Result<(Self, Self)> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        Rng::keyed(seed, "split").shuffle(&mut order);
        let count = part(held_out, self.len())?;
        Ok((self.select(&order[count..])?, self.select(&order[..count])?))
    }

    /// As [`Dataset::split`], with each class held out in the same fraction, to within one sample.
    ///
    /// # Errors
    /// A fraction that leaves one part empty, or targets that are numbers.
    pub fn split_stratified(&self, held_out: f64, seed: u64) -> Result<(Self, Self)> {
        let Some(labels) = self.labels() else {
            return Err(Error::value("stratified split: expected classes as targets, got numbers"));
        };
        part(held_out, self.len())?;
        let mut rng = Rng::keyed(seed, "split");
        let mut order: Vec<usize> = (0..self.len()).collect();
        rng.shuffle(&mut order);
        order.sort_by_key(|&i| labels[i]); // stable: random within a class
        // Sample k of this order is held out when round((k + 1) f) steps up, which spreads the fraction evenly.
        let step = |k: usize| (k as f64 * held_out).round() as usize;
        let (held, rest): (Vec<_>, Vec<_>) = (0..order.len()).partition(|&k| step(k + 1) > step(k));
        let mut take = |ranks: Vec<usize>| {
            let mut positions: Vec<usize> = ranks.into_iter().map(|k| order[k]).collect();
            rng.shuffle(&mut positions);
            self.select(&positions)
        };
        Ok((take(rest)?, take(held)?))
    }
}

/// The size of the held-out part.
fn part(held_out: f64, n: usize) -> Result<usize> {
    let count = (held_out * n as f64).round();
    if !(held_out > 0.0 && held_out < 1.0 && count >= 1.0 && count < n as f64) {
        return Err(Error::value(format!(
            "split: expected a fraction between 0 and 1 that leaves samples on both sides of {n}, got {held_out}"
        )));
    }
    Ok(count as usize)
}
