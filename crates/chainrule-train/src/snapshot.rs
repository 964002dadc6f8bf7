//! The values of a model, to go back to.

use chainrule_core::{Error, Parameters, Result, Scalar};
use std::mem;

/// A copy of all parameters and buffers of a model, in memory that is reused. A parameter that did not change since the last
/// copy is not copied again: a frozen one costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Snapshot<T> {
    values: Vec<T>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    version: [u64; 2],
    start: usize,
    length: usize,
}

impl<T: Scalar> Snapshot<T> {
    /// Copies the values of a model.
    ///
    /// # Errors
    /// A parameter is not initialised.
    pub(crate) fn take(&mut self, model: &dyn Parameters<T = T>) -> Result<()> {
        let (mut n, mut end) = (0, 0);
        let Self { values, entries } = self;
        let result = model.try_visit(&mut |_, param| {
            let value = param.value()?;
            let entry = Entry { version: param.version(), start: end, length: value.len() };
            match entries.get_mut(n) {
                Some(old) if (old.start, old.length) == (entry.start, entry.length) => {
                    if mem::replace(old, entry).version != entry.version {
                        values[end..][..value.len()].copy_from_slice(value);
                    }
                }
                // The first copy, or one of another model.
                _ => {
                    entries.truncate(n);
                    values.truncate(end);
                    entries.push(entry);
                    values.extend_from_slice(value);
                }
            }
            (n, end) = (n + 1, end + value.len());
            Ok(())
        });
        // What follows a failure is not of this model.
        entries.truncate(n);
        values.truncate(end);
        result
    }

    /// Gives the model the values back: those that changed since.
    ///
    /// # Errors
    /// The model has other parameters than the one that was copied.
    pub(crate) fn restore(&self, model: &mut dyn Parameters<T = T>) -> Result<()> {
        let mut entries = self.entries.iter();
        model.try_visit_mut(&mut |path, param| {
            let entry = entries.next().filter(|entry| entry.length == param.volume());
            let entry = entry.ok_or_else(|| {
                Error::state(format!("expected the model whose values were kept, got another at `{path}`"))
            })?;
            if param.version() != entry.version {
                param.value_mut()?.copy_from_slice(&self.values[entry.start..][..entry.length]);
            }
            Ok(())
        })
    }

    /// Calls `f` with every parameter and its values in the copy.
    pub(crate) fn visit(
        &self,
        model: &dyn Parameters<T = T>,
        f: &mut dyn FnMut(&chainrule_core::Path<'_>, &chainrule_core::Param<T>, &[T]),
    ) {
        let mut entries = self.entries.iter();
        model.visit(&mut |path, param| {
            if let Some(entry) = entries.next().filter(|entry| entry.length == param.volume()) {
                f(path, param, &self.values[entry.start..][..entry.length]);
            }
        });
    }

    /// The values of all parameters, one behind the other.
    pub(crate) fn values(&self) -> &[T] {
        &self.values
    }

    /// A copy of a model of these parameters with other values.
    ///
    /// # Errors
    /// There are more or fewer values, or a parameter is not initialised.
    pub(crate) fn of(model: &dyn Parameters<T = T>, values: Vec<T>) -> Result<Self> {
        let mut snapshot = Self { values: Vec::new(), entries: Vec::new() };
        snapshot.take(model)?;
        if snapshot.values.len() != values.len() {
            return Err(Error::state(format!(
                "expected {} values of the model, got {}",
                snapshot.values.len(),
                values.len()
            )));
        }
        // No parameter has these values by its version.
        snapshot.entries.iter_mut().for_each(|entry| entry.version = [u64::MAX; 2]);
        Ok(Self { values, ..snapshot })
    }

    /// Calls `f` with every parameter whose values may have changed since the copy, until it gives something.
    pub(crate) fn find_changed<R>(
        &self,
        model: &dyn Parameters<T = T>,
        mut f: impl FnMut(&chainrule_core::Path<'_>, &chainrule_core::Param<T>) -> Option<R>,
    ) -> Option<R> {
        let (mut entries, mut found) = (self.entries.iter(), None);
        model.visit(&mut |path, param| {
            let same = entries.next().is_some_and(|entry| entry.version == param.version());
            if found.is_none() && !same {
                found = f(path, param);
            }
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_core::{Init, Param, Params, ParamsMut, Rng};

    struct Bag(Vec<Param<f64>>);

    impl Parameters for Bag {
        type T = f64;
        fn list<'a>(&'a self, out: &mut Params<'_, 'a, f64>) {
            self.0.iter().for_each(|p| out.add(p));
        }
        fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, f64>) {
            self.0.iter_mut().for_each(|p| out.add(p));
        }
    }

    fn bag(sizes: &[usize], seed: u64) -> Bag {
        let param = |&n: &usize| Param::new("p", [n], Init::Uniform { low: -1.0, high: 1.0 });
        let mut bag = Bag(sizes.iter().map(param).collect());
        let mut rng = Rng::new(seed);
        bag.visit_mut(&mut |_, p| p.fill(&mut rng));
        bag
    }

    fn values(bag: &Bag) -> Vec<Vec<f64>> {
        bag.0.iter().map(|p| p.value().unwrap().to_vec()).collect()
    }

    #[test]
    fn what_changed_comes_back_and_the_rest_is_left_alone() {
        let mut model = bag(&[3, 2, 4], 1);
        let mut kept = Snapshot::default();
        kept.take(&model).unwrap();
        let first = values(&model);
        for round in 0..3 {
            let untouched = model.0[0].version();
            model.0[1].value_mut().unwrap()[0] = f64::NAN;
            model.0[2].value_mut().unwrap()[round] = 7.0;
            let changed = kept.find_changed(&model, |_, p| p.value().unwrap()[0].is_nan().then_some(p.id()));
            assert_eq!(changed, Some(model.0[1].id()));
            kept.restore(&mut model).unwrap();
            assert_eq!((values(&model), model.0[0].version()), (first.clone(), untouched));
            kept.take(&model).unwrap();
        }
        model.0[2].value_mut().unwrap()[1] = 9.0;
        let second = values(&model);
        kept.take(&model).unwrap();
        model.0[2].value_mut().unwrap()[1] = 0.0;
        kept.restore(&mut model).unwrap();
        assert_eq!(values(&model), second);
    }

    #[test]
    fn another_model_is_copied_anew() {
        let mut kept = Snapshot::default();
        kept.take(&bag(&[3, 2, 4], 1)).unwrap();
        for sizes in [&[3, 2, 4][..], &[3, 5], &[1], &[3, 5, 1, 1]] {
            let mut model = bag(sizes, 2);
            let before = values(&model);
            kept.take(&model).unwrap();
            model.0.iter_mut().for_each(|p| p.value_mut().unwrap().fill(0.0));
            kept.restore(&mut model).unwrap();
            assert_eq!(values(&model), before);
        }
        assert!(kept.restore(&mut bag(&[3, 5, 1, 1, 1], 1)).is_err());
        let mut empty = Bag(vec![Param::new("p", [2], Init::ZEROS)]);
        assert!(kept.take(&empty).is_err() && kept.restore(&mut empty).is_err());
    }
}
