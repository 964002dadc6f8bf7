//! Two parts of a data set: one to train on, one held out.

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

    /// As [`Dataset::split`], with each class held out in the same fraction, to within one sample. A sample of every class
    /// stays to train on, whatever the fraction.
    ///
    /// # Errors
    /// A fraction that leaves one part empty or leaves fewer samples to train on than there are classes, or a first target
    /// that is not one class for each sample.
    pub fn split_stratified(&self, held_out: f64, seed: u64) -> Result<(Self, Self)> {
        let labels = match self.labels() {
            Some(labels) if labels.len() == self.len() => labels,
            _ => return Err(Error::value("stratified split: expected one class a sample as the target")),
        };
        let count = part(held_out, self.len())?;
        let mut rng = Rng::keyed(seed, "split");
        let mut order: Vec<usize> = (0..self.len()).collect();
        rng.shuffle(&mut order);
        order.sort_by_key(|&i| labels[i]); // stable: random within a class
        let held = held_ranks(
            &order.chunk_by(|&a, &b| labels[a] == labels[b]).map(<[_]>::len).collect::<Vec<_>>(),
            held_out,
        );
        if held.iter().filter(|&&held| held).count() < count {
            let classes = order.chunk_by(|&a, &b| labels[a] == labels[b]).count();
            return Err(Error::value(format!(
                "stratified split: expected a fraction that leaves a sample of each of {classes} classes to train on, \
                 got {held_out} of {} samples",
                self.len()
            )));
        }
        let mut take = |which: bool| {
            let of_part = order.iter().zip(&held).filter(|&(_, &held)| held == which);
            let mut positions: Vec<usize> = of_part.map(|(&p, _)| p).collect();
            rng.shuffle(&mut positions);
            self.select(&positions)
        };
        Ok((take(false)?, take(true)?))
    }
}

/// Which samples are held out, sorted by class, given the sizes of the classes. Fewer than the fraction if no class has
/// another sample to give.
fn held_ranks(sizes: &[usize], fraction: f64) -> Vec<bool> {
    let n = sizes.iter().sum::<usize>();
    // Sample k of this order is held out when round((k + 1) f) steps up, which spreads the fraction evenly.
    let step = |k: usize| (k as f64 * fraction).round() as usize;
    let mut held: Vec<bool> = (0..n).map(|k| step(k + 1) > step(k)).collect();
    let mut parts: Vec<&mut [bool]> = Vec::new();
    let mut rest = &mut held[..];
    for &size in sizes {
        let (part, others) = rest.split_at_mut(size);
        parts.push(part);
        rest = others;
    }
    let count = |part: &[bool]| part.iter().filter(|&&held| held).count();
    let mut owed = 0;
    for part in parts.iter_mut().filter(|part| count(part) == part.len()) {
        part[0] = false;
        owed += 1;
    }
    for _ in 0..owed {
        // The class that is furthest below its share gives one of those that it has beyond the last.
        let short = |part: &[bool]| part.len() as f64 * fraction - count(part) as f64;
        let giver = parts.iter_mut().filter(|part| count(part) + 1 < part.len());
        let Some(part) = giver.max_by(|a, b| short(a).total_cmp(&short(b))) else { break };
        let free = part.iter().position(|&held| !held).expect("two are not held out");
        part[free] = true;
    }
    held
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sample_of_a_class_is_not_held_out() {
        let counts = |sizes: &[usize], fraction| {
            let held = held_ranks(sizes, fraction);
            let mut rest = &held[..];
            sizes
                .iter()
                .map(|&n| {
                    let (part, others) = rest.split_at(n);
                    rest = others;
                    part.iter().filter(|&&h| h).count()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(counts(&[10, 10], 0.2), [2, 2]);
        assert_eq!(counts(&[1, 1, 8], 0.5), [0, 0, 5]);
        assert_eq!(counts(&[1, 2, 2], 0.6), [0, 1, 1]); // one too few: there is none to give
    }
}
