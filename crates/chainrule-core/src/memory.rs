//! What a stream remembers, as data: to be copied, put back, or reordered by the rows of the batch.

use crate::{Error, Path, Result, StateValue};
use chainrule_tensor::{Scalar, Shape, Tensor, text::quote};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

/// Walks over what a layer remembers between the pieces of a stream. A layer with memory over time implements
/// [`Layer::memory`](crate::Layer::memory) by one call for each part of it, in a fixed order; containers hand
/// [`Memory::child`] to their children. Saving, restoring and reordering follow from this one list.
///
/// Each call may read its argument or replace it, so that counts come before what they are the sizes of:
///
/// ```
/// use chainrule_core::{Memory, Result, Scalar};
///
/// /// The sums so far of a batch (N, width), unless no stream has begun.
/// struct Sums<T> {
///     started: bool,
///     n: usize,
///     sums: Vec<T>,
/// }
///
/// fn memory<T: Scalar>(sums: &mut Sums<T>, width: usize, out: &mut Memory<'_, T>) -> Result<()> {
///     out.flag("started", &mut sums.started)?;
///     if sums.started {
///         out.batch("batch", &mut sums.n)?;
///         out.rows("sums", &mut sums.sums, [1, sums.n, width])?;
///     }
///     Ok(())
/// }
/// ```
pub struct Memory<'v, T> {
    path: Path<'v>,
    visitor: &'v mut (dyn Visitor<T> + 'v),
}

/// What becomes of each part.
trait Visitor<T> {
    fn count(&mut self, path: &Path<'_>, count: &mut usize) -> Result<()>;
    fn batch(&mut self, path: &Path<'_>, rows: &mut usize) -> Result<()>;
    fn rows(&mut self, path: &Path<'_>, values: &mut Vec<T>, layout: Layout) -> Result<()>;
}

/// Values (outer, rows, width), where the distance from row to row is `stride`.
#[derive(Clone, Copy)]
struct Layout {
    outer: usize,
    rows: usize,
    width: usize,
    stride: usize,
}

impl Layout {
    /// The elements, and those with the room between them.
    fn lengths(&self) -> Option<[usize; 2]> {
        let rows = self.outer.checked_mul(self.rows)?;
        Some([rows.checked_mul(self.width)?, rows.checked_mul(self.stride.max(self.width))?])
    }
}

impl<'v, T> Memory<'v, T> {
    fn new(visitor: &'v mut (dyn Visitor<T> + 'v)) -> Self {
        Self { path: Path::ROOT, visitor }
    }

    /// The memory of a child: its paths begin with `name`.
    pub fn child<'c>(&'c mut self, name: &'c str) -> Memory<'c, T> {
        Memory { path: self.path.child(name), visitor: &mut *self.visitor }
    }

    /// A count, such as the steps so far.
    ///
    /// # Errors
    /// None of that name was saved.
    pub fn count(&mut self, name: &str, count: &mut usize) -> Result<()> {
        self.visitor.count(&self.path.child(name), count)
    }

    /// A yes or no, such as whether a stream has begun.
    ///
    /// # Errors
    /// None of that name was saved.
    pub fn flag(&mut self, name: &str, flag: &mut bool) -> Result<()> {
        let mut count = usize::from(*flag);
        self.count(name, &mut count)?;
        if count > 1 {
            let path = self.path.child(name).to_string();
            return Err(Error::state(format!("stream: {}: expected 0 or 1, got {count}", quote(&path))));
        }
        *flag = count == 1;
        Ok(())
    }

    /// The number of rows of the batch, which stands before all [`Memory::rows`] of it: another one after they were reordered.
    ///
    /// # Errors
    /// None of that name was saved, or a row was asked for that there is not.
    pub fn batch(&mut self, name: &str, rows: &mut usize) -> Result<()> {
        self.visitor.batch(&self.path.child(name), rows)
    }

    /// Values of the shape (outer, rows of the batch, width): after the call there are as many.
    ///
    /// # Errors
    /// Values of another shape were saved.
    pub fn rows(&mut self, name: &str, values: &mut Vec<T>, shape: [usize; 3]) -> Result<()> {
        self.spaced_rows(name, values, shape, shape[2])
    }

    /// [`Memory::rows`] with room for more behind each: a row begins `stride` elements behind the one before. What was saved is put
    /// back without room, so that `stride` must be the width where a state is new.
    ///
    /// # Errors
    /// As [`Memory::rows`].
    pub fn spaced_rows(
        &mut self,
        name: &str,
        values: &mut Vec<T>,
        [outer, rows, width]: [usize; 3],
        stride: usize,
    ) -> Result<()> {
        self.visitor.rows(&self.path.child(name), values, Layout { outer, rows, width, stride })
    }
}

impl<T> std::fmt::Debug for Memory<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("path", &self.path.to_string()).finish_non_exhaustive()
    }
}

#[cold]
fn wrong(path: &Path<'_>, text: &str) -> Error {
    Error::state(format!("stream: {}: {text}", quote(&path.to_string())))
}

/// What a stream remembers, by path: counts, and values by row of the batch. See [`Session::stream_state`](crate::Session::stream_state).
#[derive(Clone, Debug, PartialEq)]
pub struct StreamState<T>(BTreeMap<String, StateValue<Tensor<T>>>);

impl<T> Default for StreamState<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Scalar> StreamState<T> {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of what a walk lists: `StreamState::of(|out| model.remember(&mut state, out))`.
    ///
    /// # Errors
    /// Those of the walk, and two parts of one path.
    pub fn of(walk: impl FnOnce(&mut Memory<'_, T>) -> Result<()>) -> Result<Self> {
        let mut all = Self::new();
        walk(&mut Memory::new(&mut all))?;
        Ok(all)
    }

    /// Gives a new state what was saved; the walk is over one that no pass has used. After an error the state is unspecified.
    ///
    /// # Errors
    /// A part is missing, unexpected or of another shape.
    pub fn restore(&self, walk: impl FnOnce(&mut Memory<'_, T>) -> Result<()>) -> Result<()> {
        let mut restore = Restore { from: self, used: BTreeSet::new() };
        walk(&mut Memory::new(&mut restore))?;
        match self.0.keys().find(|path| !restore.used.contains(*path)) {
            Some(path) => Err(Error::state(format!(
                "stream: expected the state of this model, got {}, which it does not have",
                quote(path)
            ))),
            None => Ok(()),
        }
    }

    /// Row i of every batch that `walk` lists becomes what row `rows[i]` was: [`Session::reorder`](crate::Session::reorder) of a state
    /// of one's own. `walk` is called twice, so that an error leaves all as it was.
    ///
    /// # Errors
    /// A row that there is not.
    pub fn reorder(rows: &[usize], walk: impl FnMut(&mut Memory<'_, T>) -> Result<()>) -> Result<()> {
        reorder(rows, &mut Vec::new(), walk)
    }

    fn put(&mut self, path: &Path<'_>, value: StateValue<Tensor<T>>) -> Result<()> {
        match self.0.insert(path.to_string(), value) {
            None => Ok(()),
            Some(_) => Err(wrong(path, "expected each path once, got it twice")),
        }
    }

    /// Adds a part, or replaces the one of the same path.
    pub fn insert(
        &mut self,
        path: impl Into<String>,
        value: StateValue<Tensor<T>>,
    ) -> Option<StateValue<Tensor<T>>> {
        self.0.insert(path.into(), value)
    }

    /// A part.
    pub fn get(&self, path: &str) -> Option<&StateValue<Tensor<T>>> {
        self.0.get(path)
    }

    /// The paths and parts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &StateValue<Tensor<T>>)> {
        self.0.iter().map(|(path, value)| (path.as_str(), value))
    }

    /// The number of parts.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Scalar> Visitor<T> for StreamState<T> {
    fn count(&mut self, path: &Path<'_>, count: &mut usize) -> Result<()> {
        self.put(path, StateValue::Count(*count as u64))
    }

    fn batch(&mut self, path: &Path<'_>, rows: &mut usize) -> Result<()> {
        self.count(path, rows)
    }

    fn rows(&mut self, path: &Path<'_>, values: &mut Vec<T>, layout: Layout) -> Result<()> {
        let Layout { outer, rows, width, stride } = layout;
        let Some([length, _]) = layout.lengths().filter(|&[_, room]| values.len() >= room) else {
            return Err(wrong(path, "expected as many values as the layer says"));
        };
        let mut copy = Vec::with_capacity(length);
        if width > 0 {
            values
                .chunks_exact(stride)
                .take(outer * rows)
                .for_each(|row| copy.extend_from_slice(&row[..width]));
        }
        self.put(path, StateValue::Values(Tensor::from_vec(Shape::new(&[outer, rows, width])?, copy)?))
    }
}

/// Puts back what was saved.
struct Restore<'s, T> {
    from: &'s StreamState<T>,
    used: BTreeSet<String>,
}

/// The largest count that is taken from a saved state: layers add to it.
const LARGEST: u64 = u32::MAX as u64 >> 1;

impl<T: Scalar> Visitor<T> for Restore<'_, T> {
    fn count(&mut self, path: &Path<'_>, count: &mut usize) -> Result<()> {
        match self.from.get(&path.to_string()) {
            Some(&StateValue::Count(saved)) if saved <= LARGEST => *count = saved as usize,
            Some(StateValue::Count(saved)) => {
                return Err(wrong(path, &format!("expected a count of at most {LARGEST}, got {saved}")));
            }
            _ => return Err(wrong(path, "expected a count, got none")),
        }
        self.used.insert(path.to_string());
        Ok(())
    }

    fn batch(&mut self, path: &Path<'_>, rows: &mut usize) -> Result<()> {
        self.count(path, rows)
    }

    fn rows(&mut self, path: &Path<'_>, values: &mut Vec<T>, layout: Layout) -> Result<()> {
        let Layout { outer, rows, width, stride } = layout;
        if stride != width {
            return Err(wrong(path, "expected a new state to be restored"));
        }
        match self.from.get(&path.to_string()) {
            Some(StateValue::Values(saved)) if saved.shape()[..] == [outer, rows, width] => {
                values.clear();
                values.extend_from_slice(saved.data());
                self.used.insert(path.to_string());
                Ok(())
            }
            Some(StateValue::Values(saved)) => Err(wrong(
                path,
                &format!("expected values of shape {:?}, got {}", [outer, rows, width], saved.shape()),
            )),
            _ => Err(wrong(path, "expected values, got none")),
        }
    }
}

/// Whether all rows that are asked for exist. A walk with it comes first, so that a mistake changes nothing.
struct Check<'r> {
    rows: &'r [usize],
}

impl<T> Visitor<T> for Check<'_> {
    fn count(&mut self, _: &Path<'_>, _: &mut usize) -> Result<()> {
        Ok(())
    }

    fn batch(&mut self, path: &Path<'_>, rows: &mut usize) -> Result<()> {
        match self.rows.iter().find(|&row| row >= rows) {
            Some(row) => Err(wrong(path, &format!("expected rows of a batch of {rows}, got {row}"))),
            None => Ok(()),
        }
    }

    fn rows(&mut self, _: &Path<'_>, _: &mut Vec<T>, _: Layout) -> Result<()> {
        Ok(())
    }
}

/// Picks rows.
struct Reorder<'r, T> {
    rows: &'r [usize],
    /// The number of rows before.
    before: usize,
    scratch: &'r mut Vec<T>,
}

impl<T: Scalar> Visitor<T> for Reorder<'_, T> {
    fn count(&mut self, _: &Path<'_>, _: &mut usize) -> Result<()> {
        Ok(())
    }

    fn batch(&mut self, _: &Path<'_>, rows: &mut usize) -> Result<()> {
        self.before = mem::replace(rows, self.rows.len());
        Ok(())
    }

    fn rows(&mut self, path: &Path<'_>, values: &mut Vec<T>, layout: Layout) -> Result<()> {
        let Layout { outer, rows, width, stride } = layout;
        let old = Layout { rows: self.before, ..layout };
        let (Some([_, from]), Some([length, to])) = (old.lengths(), layout.lengths()) else {
            return Err(wrong(path, "expected sizes that memory can hold"));
        };
        if rows != self.rows.len() || values.len() < from || self.rows.iter().any(|&row| row >= self.before) {
            return Err(wrong(path, "expected the batch before its rows"));
        }
        self.scratch.clear();
        self.scratch.reserve(length);
        for block in 0..outer {
            for row in self.rows {
                let at = (block * self.before + row) * stride;
                self.scratch.extend_from_slice(&values[at..][..width]);
            }
        }
        values.resize(to, T::ZERO);
        if width > 0 {
            let rows = values.chunks_exact_mut(stride).zip(self.scratch.chunks_exact(width));
            rows.for_each(|(to, from)| to[..width].copy_from_slice(from));
        }
        Ok(())
    }
}

/// Row i of every batch that `walk` lists becomes what row `rows[i]` was. After an error nothing has changed, if the walk is the same
/// twice.
pub(crate) fn reorder<T: Scalar>(
    rows: &[usize],
    scratch: &mut Vec<T>,
    mut walk: impl FnMut(&mut Memory<'_, T>) -> Result<()>,
) -> Result<()> {
    walk(&mut Memory::new(&mut Check { rows }))?;
    walk(&mut Memory::new(&mut Reorder { rows, before: 0, scratch }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two streams one behind the other, (2, N, 3), with room for 5.
    #[derive(Default, Debug, PartialEq, Clone)]
    struct Two {
        started: bool,
        n: usize,
        steps: usize,
        values: Vec<f64>,
        room: usize,
    }

    impl Two {
        fn walk(&mut self, out: &mut Memory<'_, f64>) -> Result<()> {
            out.flag("started", &mut self.started)?;
            if !self.started {
                return Ok(());
            }
            let mut out = out.child("inner");
            out.batch("batch", &mut self.n)?;
            out.count("steps", &mut self.steps)?;
            out.spaced_rows("values", &mut self.values, [2, self.n, 3], 3 + self.room)
        }

        fn new() -> Self {
            let values = (0..2 * 2 * 5).map(f64::from).collect();
            Self { started: true, n: 2, steps: 7, values, room: 2 }
        }
    }

    #[test]
    fn what_is_saved_is_put_back_without_room() {
        let mut two = Two::new();
        let saved = StreamState::of(|out| two.walk(out)).unwrap();
        let paths: Vec<&str> = saved.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["inner.batch", "inner.steps", "inner.values", "started"]);
        let mut again = Two::default();
        saved.restore(|out| again.walk(out)).unwrap();
        let values = [0, 1, 2, 5, 6, 7, 10, 11, 12, 15, 16, 17].map(f64::from);
        assert_eq!(again, Two { room: 0, values: values.to_vec(), ..two });
        assert_eq!(StreamState::of(|out| again.walk(out)).unwrap(), saved);
    }

    #[test]
    fn a_state_that_does_not_fit_is_an_error() {
        let mut two = Two::new();
        let saved = StreamState::of(|out| two.walk(out)).unwrap();
        let wrong = |path: &str, value: Option<StateValue<Tensor<f64>>>, text: &str| {
            let mut other = saved.clone();
            match value {
                Some(value) => drop(other.insert(path, value)),
                None => drop(other.0.remove(path)),
            }
            let error = other.restore(|out| Two::default().walk(out)).unwrap_err().to_string();
            assert!(error.contains(text), "{path}: {error}");
        };
        wrong(
            "inner.batch",
            Some(StateValue::Count(3)),
            "`inner.values`: expected values of shape [2, 3, 3], got [2, 2, 3]",
        );
        wrong("inner.batch", Some(StateValue::Count(u64::MAX)), "expected a count of at most 2147483647");
        wrong(
            "inner.batch",
            Some(StateValue::Values(Tensor::zeros([1]))),
            "`inner.batch`: expected a count, got none",
        );
        wrong("inner.steps", None, "`inner.steps`: expected a count, got none");
        wrong("started", Some(StateValue::Count(2)), "`started`: expected 0 or 1, got 2");
        wrong("started", Some(StateValue::Count(0)), "got `inner.batch`, which it does not have");
        wrong("other", Some(StateValue::Count(0)), "got `other`, which it does not have");
    }

    #[test]
    fn rows_are_picked_and_repeated() {
        let (mut two, mut scratch) = (Two::new(), Vec::new());
        let error = reorder(&[0, 2], &mut scratch, |out| two.walk(out)).unwrap_err().to_string();
        assert!(error.contains("`inner.batch`: expected rows of a batch of 2, got 2"), "{error}");
        assert_eq!(two, Two::new());
        reorder(&[1, 1, 0], &mut scratch, |out| two.walk(out)).unwrap();
        assert_eq!((two.n, two.values.len()), (3, 2 * 3 * 5));
        let rows: Vec<f64> = two.values.chunks(5).map(|row| row[0]).collect();
        assert_eq!(rows, [5.0, 5.0, 0.0, 15.0, 15.0, 10.0]);
        reorder(&[2], &mut scratch, |out| two.walk(out)).unwrap();
        assert_eq!(two.values.chunks(5).map(|row| row[2]).collect::<Vec<_>>(), [2.0, 12.0]);
    }
}
