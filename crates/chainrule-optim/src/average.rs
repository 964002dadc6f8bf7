//! Averages of the weights over the steps of training.

use crate::driver::each;
use chainrule_core::{Error, ParamId, Parameters, Result, Scalar, Tensor};
use chainrule_tensor::kernels::layers::optim::lerp;

/// An average of a model's parameters: exponential (EMA), or over all updates alike (stochastic weight averaging, Izmailov
/// and others, 2018). Buffers, such as the running statistics of norms, are not averaged: those of the model stand beside the
/// average, and may have to be estimated anew for it.
///
/// ```
/// # use chainrule_core::{Grads, Optimizer, Parameters, Result};
/// use chainrule_optim::Average;
/// # fn f(model: &mut impl Parameters<T = f32>, optimizer: &mut impl Optimizer<f32>, grads: &Grads<f32>) -> Result<()> {
/// let mut average = Average::exponential(0.999)?;
/// for _ in 0..100 {
///     optimizer.step(model, grads)?;
///     average.update(model)?;
/// }
/// average.swap(model)?; // evaluate
/// average.swap(model) // and train on
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Average<T> {
    /// None: every update counts alike.
    decay: Option<f64>,
    warmup: bool,
    updates: u64,
    entries: Vec<Entry<T>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    path: String,
    id: ParamId,
    mean: Tensor<T>,
}

impl<T: Scalar> Average<T> {
    /// a ← δ a + (1 − δ) w, the first weights as they are.
    ///
    /// # Errors
    /// The decay δ is not in [0, 1].
    pub fn exponential(decay: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&decay) {
            return Err(Error::value(format!("Average: expected a decay in [0, 1], got {decay}")));
        }
        Ok(Self { decay: Some(decay), ..Self::uniform() })
    }

    /// The mean of all weights that were seen: a ← a + (w − a)/n.
    pub fn uniform() -> Self {
        Self { decay: None, warmup: false, updates: 0, entries: Vec::new() }
    }

    /// Begins an exponential average with smaller decays, min(δ, (1 + n)/(10 + n)) after n updates.
    #[must_use]
    pub fn warmup(mut self, warmup: bool) -> Self {
        self.warmup = warmup;
        self
    }

    /// How many weights were seen.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Takes the weights of a model as they are now, after each step or, for a uniform average, at the end of an epoch.
    ///
    /// # Errors
    /// It is another model than before, or a parameter is not initialised.
    pub fn update(&mut self, model: &dyn Parameters<T = T>) -> Result<()> {
        if self.updates == 0 {
            self.entries.clear();
            each(model, &mut |path, p| {
                let mean = p.tensor().cloned();
                let mean =
                    mean.ok_or_else(|| p.value().err().unwrap_or_else(other).in_layer(path.to_string()))?;
                self.entries.push(Entry { path: path.to_string(), id: p.id(), mean });
                Ok(())
            })?;
            self.updates = 1;
            return Ok(());
        }
        self.check(model)?;
        let n = self.updates as f64;
        let newest = match self.decay {
            None => 1.0 / (n + 1.0),
            Some(decay) if self.warmup => 1.0 - decay.min((1.0 + n) / (10.0 + n)),
            Some(decay) => 1.0 - decay,
        };
        let (mut entries, newest) = (self.entries.iter_mut(), T::from_f64(newest));
        each(model, &mut |_, p| {
            if let Some(entry) = entries.next() {
                lerp(entry.mean.data_mut(), p.value()?, newest); // a += (1 − δ)(w − a)
            }
            Ok(())
        })?;
        self.updates = self.updates.saturating_add(1);
        Ok(())
    }

    /// Exchanges the weights of the model and their average; the same again goes back.
    ///
    /// # Errors
    /// It is another model, or there was no update. Nothing has changed then.
    pub fn swap(&mut self, model: &mut dyn Parameters<T = T>) -> Result<()> {
        self.check(model)?;
        let entries = &mut self.entries;
        model.try_visit_mut(&mut |_, p| {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.id == p.id()) {
                p.value_mut()?.swap_with_slice(entry.mean.data_mut());
            }
            Ok(())
        })
    }

    /// Writes the average into a model with the same paths and shapes, such as a clone.
    ///
    /// # Errors
    /// A parameter has no average of its shape.
    pub fn write_to(&self, model: &mut dyn Parameters<T = T>) -> Result<()> {
        each(model, &mut |path, p| self.of(&path.to_string(), p.shape()).map(drop))?;
        model.try_visit_mut(&mut |path, p| {
            if p.is_buffer() {
                return Ok(());
            }
            p.set(self.of(&path.to_string(), p.shape())?.clone())
        })
    }

    /// The paths and averages of all parameters, to be saved.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<T>)> {
        self.entries.iter().map(|entry| (entry.path.as_str(), &entry.mean))
    }

    /// Goes on with what was saved of [`Average::iter`] and [`Average::updates`].
    ///
    /// # Errors
    /// A parameter of the model has none of its shape. Nothing has changed then.
    pub fn restore(
        &mut self,
        model: &dyn Parameters<T = T>,
        updates: u64,
        mut saved: impl FnMut(&str) -> Option<Tensor<T>>,
    ) -> Result<()> {
        let mut entries = Vec::new();
        each(model, &mut |path, p| {
            let path = path.to_string();
            match saved(&path) {
                Some(mean) if mean.shape() == p.shape() => entries.push(Entry { path, id: p.id(), mean }),
                _ => return Err(missing(&path, p.shape())),
            }
            Ok(())
        })?;
        (self.updates, self.entries) = (updates.max(1), entries);
        Ok(())
    }

    fn of(&self, path: &str, shape: &[usize]) -> Result<&Tensor<T>> {
        let entry = self.entries.iter().find(|entry| entry.path == path && entry.mean.shape()[..] == *shape);
        entry.map(|entry| &entry.mean).ok_or_else(|| missing(path, shape))
    }

    /// The parameters must be those of the first update.
    fn check(&self, model: &dyn Parameters<T = T>) -> Result<()> {
        let (mut entries, mut same) = (self.entries.iter(), true);
        each(model, &mut |_, p| {
            same &= entries.next().is_some_and(|entry| entry.id == p.id() && entry.mean.shape() == p.shape());
            Ok(())
        })?;
        if same && entries.next().is_none() { Ok(()) } else { Err(other()) }
    }
}

fn missing(path: &str, shape: &[usize]) -> Error {
    Error::state(format!("Average: expected an average of shape {shape:?} for `{path}`, got none"))
}

#[cold]
fn other() -> Error {
    Error::state("Average: expected the model of the first update, got another")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bag;

    fn set(bag: &mut Bag<f64>, w: f64) {
        bag.0[0].value_mut().unwrap()[0] = w;
    }

    /// δ = ½: 8, then ½ 8 + ½ 4 = 6, then ½ 6 + ½ 0 = 3. Uniform: 8, 6, 4.
    #[test]
    fn by_hand() {
        for (mut average, want) in
            [(Average::exponential(0.5).unwrap(), [8.0, 6.0, 3.0]), (Average::uniform(), [8.0, 6.0, 4.0])]
        {
            let mut bag = Bag::<f64>::new(&[8.0]);
            for (w, want) in [8.0, 4.0, 0.0].into_iter().zip(want) {
                set(&mut bag, w);
                average.update(&bag).unwrap();
                average.swap(&mut bag).unwrap();
                assert!((bag.0[0].value().unwrap()[0] - want).abs() < 1e-15);
                average.swap(&mut bag).unwrap();
                assert_eq!(bag.0[0].value().unwrap(), [w]);
            }
            assert_eq!(average.updates(), 3);
            // Saved and restored for a clone.
            let mut clone = bag.clone();
            let mut again = average.clone();
            again
                .restore(&clone, 3, |path| average.iter().find(|(p, _)| *p == path).map(|(_, t)| t.clone()))
                .unwrap();
            set(&mut clone, 1.0);
            assert!(average.update(&clone).is_err() && average.swap(&mut clone).is_err());
            again.update(&clone).unwrap();
            average.write_to(&mut clone).unwrap();
            assert!((clone.0[0].value().unwrap()[0] - want[2]).abs() < 1e-15);
            assert!(average.write_to(&mut Bag::<f64>::new(&[1.0, 2.0])).is_err());
        }
    }

    /// After one update the decay is 2/11 at most: 11, then 11 + 9/11 (0 − 11) = 2.
    #[test]
    fn a_warm_up_begins_with_small_decays() {
        let (mut bag, mut average) =
            (Bag::<f64>::new(&[11.0]), Average::exponential(0.99).unwrap().warmup(true));
        average.update(&bag).unwrap();
        set(&mut bag, 0.0);
        average.update(&bag).unwrap();
        assert!((average.iter().next().unwrap().1.data()[0] - 2.0).abs() < 1e-14);
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        assert!(Average::<f64>::exponential(1.5).is_err() && Average::<f64>::exponential(f64::NAN).is_err());
        assert!(Average::uniform().swap(&mut Bag::<f64>::new(&[1.0])).is_err());
    }
}
