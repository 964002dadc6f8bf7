//! Gradients: one flat buffer, outside the layers.

use crate::{Param, ParamId, Parameters};
use chainrule_tensor::{
    Error, Result, Scalar, Tensor,
    kernels::{elementwise, layers::embedding::zero_rows},
};
use std::{
    collections::HashSet,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// ∂E/∂θ of a model in one flat buffer, laid out in the order of its parameters. Clipping, averaging and accumulation are
/// loops over one slice.
#[derive(Clone, Debug)]
pub struct Grads<T> {
    values: Tensor<T>,
    layout: u64,
    /// Sorted by id; shared by clones.
    slots: Arc<[(ParamId, Range<usize>)]>,
    /// Sorted by range.
    tables: Vec<Table>,
    /// The name of a parameter of another model that a gradient was requested for.
    foreign: Option<&'static str>,
}

/// What [`Grads::zero`] has to set to zero of a gradient that is added to by rows.
#[derive(Clone, Debug)]
struct Table {
    range: Range<usize>,
    width: usize,
    /// The rows added to since the last zero, some of them many times.
    rows: Vec<u32>,
    /// Or any element may differ from zero.
    all: bool,
}

impl<T: Scalar> Grads<T> {
    /// Zeros for every parameter of a model, frozen ones included.
    pub fn new(model: &(impl Parameters<T = T> + ?Sized)) -> Self {
        let (mut slots, mut known, mut end) = (Vec::new(), HashSet::new(), 0);
        model.visit(&mut |_, p| {
            if !p.is_buffer() && known.insert(p.id()) {
                slots.push((p.id(), end..end + p.volume()));
                end += p.volume();
            }
        });
        Self::laid_out(slots, Tensor::zeros([end]))
    }

    fn laid_out(mut slots: Vec<(ParamId, Range<usize>)>, values: Tensor<T>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        slots.sort_unstable_by_key(|(id, _)| *id);
        let layout = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { values, layout, slots: slots.into(), tables: Vec::new(), foreign: None }
    }

    /// The identity of the layout: that of a clone is the same, and that of [`Grads::new`] another each time. What was found
    /// out about gradients and a model holds for all gradients of one layout.
    #[inline]
    pub fn layout(&self) -> u64 {
        self.layout
    }

    /// Whether every gradient that was requested since the last zero had a place. Containers look after each child, a pass
    /// after backward, and optimizers before they step.
    ///
    /// # Errors
    /// A gradient of another model's parameter was requested, and is lost.
    #[inline]
    pub fn check(&self) -> Result<()> {
        self.foreign.map_or(Ok(()), |name| Err(foreign(name)))
    }

    /// Where a parameter's gradient stands in [`Grads::values`]; `None` if it is of another model or a buffer.
    #[inline]
    pub fn range(&self, param: &Param<T>) -> Option<Range<usize>> {
        let at = self.slots.binary_search_by_key(&param.id(), |(id, _)| *id).ok()?;
        Some(self.slots[at].1.clone())
    }

    /// The gradient to add to; `None` when it is not needed: the parameter is frozen. `None` too if a parameter that learns is
    /// of another model, which [`Grads::check`] then reports.
    #[inline]
    pub fn of(&mut self, param: &Param<T>) -> Option<&mut [T]> {
        let range = self.requested(param)?;
        if let Ok(at) = self.table(&range) {
            self.tables[at].all = true;
        }
        Some(&mut self.values.data_mut()[range])
    }

    /// The gradient of a table, of which nothing but these rows, each of `width` elements, is added to: a large table of which
    /// a step uses a few rows is not set to zero as a whole. `None` as for [`Grads::of`].
    pub fn of_rows(&mut self, param: &Param<T>, rows: &[u32], width: usize) -> Option<&mut [T]> {
        let range = self.requested(param)?;
        let at = self.table(&range).unwrap_or_else(|at| {
            // Room for all that are ever listed: a step of fewer rows than the first allocates nothing.
            let rows = Vec::with_capacity(range.len() / width.max(1));
            self.tables.insert(at, Table { range: range.clone(), width, rows, all: true });
            at
        });
        let table = &mut self.tables[at];
        // Beyond as many rows as the table has, all of it is the shorter way.
        table.all |= table.width != width || table.rows.len() + rows.len() > range.len() / width;
        if !table.all {
            table.rows.extend_from_slice(rows);
        }
        Some(&mut self.values.data_mut()[range])
    }

    /// Where the gradient of a trainable parameter stands.
    #[inline]
    fn requested(&mut self, param: &Param<T>) -> Option<Range<usize>> {
        if !param.trainable() {
            return None;
        }
        let range = self.range(param);
        if range.is_none() {
            self.foreign = Some(param.name());
        }
        range
    }

    /// Where the table at `range` stands in `tables`, or would.
    #[inline]
    fn table(&self, range: &Range<usize>) -> std::result::Result<usize, usize> {
        self.tables.binary_search_by_key(&range.start, |t| t.range.start)
    }

    fn touch_all(&mut self) {
        self.tables.iter_mut().for_each(|t| t.all = true);
    }

    /// The gradient of a parameter, to be read.
    pub fn get(&self, param: &Param<T>) -> Option<&[T]> {
        self.range(param).map(|range| &self.values.data()[range])
    }

    /// The gradient of the parameter at a path, to be read: `encoder.0.weight`.
    ///
    /// # Errors
    /// There is no such parameter, or they are of another model.
    pub fn at(&self, model: &(impl Parameters<T = T> + ?Sized), path: &str) -> Result<&[T]> {
        let (mut found, mut paths) = (None, Vec::new());
        model.visit(&mut |at, p| {
            let at = at.to_string();
            if at == path {
                found = found.or(self.get(p));
            } else if !p.is_buffer() {
                paths.push(format!("`{at}`"));
            }
        });
        found.ok_or_else(|| {
            let (path, paths) = (path.escape_debug(), paths.join(", "));
            Error::value(format!(
                "expected the path of a parameter with a gradient, got `{path}`; there are {paths}"
            ))
        })
    }

    /// Sets all to zero.
    pub fn zero(&mut self) {
        self.foreign = None;
        let (values, mut start) = (self.values.data_mut(), 0);
        for t in &mut self.tables {
            elementwise::zero(&mut values[start..t.range.start]);
            start = t.range.end;
            let table = &mut values[t.range.clone()];
            if t.all {
                elementwise::zero(table)
            } else {
                zero_rows(&t.rows, t.width, table)
            }
            t.rows.clear();
            t.all = false;
        }
        elementwise::zero(&mut values[start..]);
    }

    /// All gradients.
    #[inline]
    pub fn values(&self) -> &[T] {
        self.values.data()
    }

    /// All gradients, to be changed.
    pub fn values_mut(&mut self) -> &mut [T] {
        self.touch_all();
        self.values.data_mut()
    }

    /// Adds the gradients of another shard of the same model.
    ///
    /// # Errors
    /// They are of another model, such as a clone.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.check()?;
        other.check()?;
        if self.layout != other.layout && self.slots != other.slots {
            return Err(Error::value(format!(
                "expected gradients of the same model, got {} elements of another beside {}",
                other.values.len(),
                self.values.len()
            )));
        }
        self.touch_all();
        elementwise::add_assign(self.values.data_mut(), other.values());
        Ok(())
    }

    /// Multiplies all by a scalar.
    pub fn scale(&mut self, by: T) {
        if !by.is_finite() {
            self.touch_all(); // 0 · ∞ is NaN
        }
        elementwise::scale(self.values.data_mut(), by);
    }
}

#[cold]
fn foreign(name: &str) -> Error {
    Error::value(format!("expected gradients of this model, got those of another, without `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Init;

    /// A table of 4 rows of 2 between two other parameters.
    fn model() -> [Param<f64>; 3] {
        [("a", 3), ("table", 8), ("b", 1)].map(|(name, n)| Param::new(name, [n], Init::Constant(0.0)))
    }

    fn ready() -> ([Param<f64>; 3], Grads<f64>) {
        let model = model();
        let mut end = 0;
        let slots = model.iter().map(|p| {
            end += p.volume();
            (p.id(), end - p.volume()..end)
        });
        let slots = slots.collect();
        let mut grads = Grads::laid_out(slots, Tensor::full([end], 7.0));
        // What was there before the first rows is set to zero as a whole.
        grads.of_rows(&model[1], &[1], 2).unwrap();
        grads.zero();
        assert_eq!(grads.values(), [0.0; 12]);
        (model, grads)
    }

    #[test]
    fn zero_reaches_what_was_added_to_whatever_the_way() {
        type Way = fn(&[Param<f64>; 3], &mut Grads<f64>);
        let ways: [Way; 8] = [
            |m, g| g.of_rows(&m[1], &[2, 0, 2], 2).unwrap()[4] = 1.0,
            |m, g| g.of_rows(&m[1], &[2, 0, 2, 1, 3], 2).unwrap().fill(1.0),
            |m, g| g.of_rows(&m[1], &[1], 4).unwrap()[4..].fill(1.0),
            |m, g| g.of(&m[1]).unwrap().fill(1.0),
            |m, g| g.of(&m[0]).unwrap().fill(1.0),
            |m, g| g.of(&m[2]).unwrap().fill(1.0),
            |_, g| g.values_mut().fill(1.0),
            |_, g| g.scale(f64::INFINITY),
        ];
        for (i, way) in ways.iter().enumerate() {
            let (model, mut grads) = ready();
            way(&model, &mut grads);
            assert!(grads.values().iter().any(|&v| v != 0.0), "way {i}");
            grads.zero();
            assert_eq!(grads.values(), [0.0; 12], "way {i}");
            let mut sum = grads.clone();
            way(&model, &mut grads);
            sum.add(&grads).unwrap();
            sum.zero();
            assert_eq!(sum.values(), [0.0; 12], "way {i}, added");
        }
    }

    #[test]
    fn gradients_of_another_model_are_refused() {
        let ((model, mut grads), (other, others)) = (ready(), ready());
        assert!(grads.add(&grads.clone()).is_ok() && grads.add(&others).is_err());
        assert!(grads.of(&model[0]).is_some() && grads.check().is_ok());
        assert!(grads.of(&other[0]).is_none());
        let text = "expected gradients of this model, got those of another, without `a`";
        assert_eq!(grads.check().unwrap_err().to_string(), text);
        assert!(grads.add(&grads.clone()).is_err());
        grads.zero();
        assert!(grads.check().is_ok());
        assert!(grads.of_rows(&other[1], &[0], 2).is_none() && grads.check().is_err());
    }

    #[test]
    fn rows_that_were_not_named_are_left_alone() {
        let (model, mut grads) = ready();
        grads.of_rows(&model[1], &[2], 2).unwrap()[0] = 1.0;
        grads.zero();
        assert_eq!(grads.values()[3], 1.0);
    }
}
