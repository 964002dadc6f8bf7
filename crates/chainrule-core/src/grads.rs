//! Gradients: one flat buffer, outside the layers.

use crate::{Param, ParamId, Parameters};
use chainrule_tensor::{
    Error, Result, Scalar, Tensor,
    kernels::{elementwise, layers::embedding::zero_rows},
};
use std::{collections::HashSet, ops::Range};

/// ∂E/∂θ of a model in one flat buffer, laid out in the order of its parameters. Clipping, averaging and accumulation are
/// loops over one slice.
#[derive(Clone, Debug)]
pub struct Grads<T> {
    values: Tensor<T>,
    /// Sorted by id.
    slots: Vec<(ParamId, Range<usize>)>,
    /// Sorted by range.
    tables: Vec<Table>,
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
        slots.sort_unstable_by_key(|(id, _)| *id);
        Self { values: Tensor::zeros([end]), slots, tables: Vec::new() }
    }

    /// Where a parameter's gradient stands in [`Grads::values`]; `None` if it is of another model or a buffer.
    #[inline]
    pub fn range(&self, param: &Param<T>) -> Option<Range<usize>> {
        let at = self.slots.binary_search_by_key(&param.id(), |(id, _)| *id).ok()?;
        Some(self.slots[at].1.clone())
    }

    /// The gradient to add to; `None` when it is not needed: the parameter is frozen.
    ///
    /// # Panics
    /// If the parameter is trainable and of another model: a gradient would be lost.
    #[inline]
    pub fn of(&mut self, param: &Param<T>) -> Option<&mut [T]> {
        let range = self.requested(param)?;
        if let Ok(at) = self.table(&range) {
            self.tables[at].all = true;
        }
        Some(&mut self.values.data_mut()[range])
    }

    /// The gradient of a table, of which nothing but these rows, each of `width` elements, is added to: a large table of which
    /// a step uses a few rows is not set to zero as a whole. `None` and panics as for [`Grads::of`].
    pub fn of_rows(&mut self, param: &Param<T>, rows: &[u32], width: usize) -> Option<&mut [T]> {
        let range = self.requested(param)?;
        let at = self.table(&range).unwrap_or_else(|at| {
            self.tables.insert(at, Table { range: range.clone(), width, rows: Vec::new(), all: true });
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

    /// Where the gradient of a trainable parameter stands; panics as [`Grads::of`].
    #[inline]
    fn requested(&self, param: &Param<T>) -> Option<Range<usize>> {
        param.trainable().then(|| self.range(param).expect("gradients were made for another model"))
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

    /// Sets all to zero.
    pub fn zero(&mut self) {
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
    /// They are of a model with another number of elements.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        if self.values.len() != other.values.len() {
            return Err(Error::shape(format!(
                "expected {} gradient elements, got {}",
                self.values.len(),
                other.values.len()
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
        let mut slots: Vec<_> = model
            .iter()
            .map(|p| {
                end += p.volume();
                (p.id(), end - p.volume()..end)
            })
            .collect();
        slots.sort_unstable_by_key(|(id, _)| *id);
        let mut grads = Grads { values: Tensor::full([end], 7.0), slots, tables: Vec::new() };
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
            let (_, mut sum) = ready();
            way(&model, &mut grads);
            sum.add(&grads).unwrap();
            sum.zero();
            assert_eq!(sum.values(), [0.0; 12], "way {i}, added");
        }
    }

    #[test]
    fn rows_that_were_not_named_are_left_alone() {
        let (model, mut grads) = ready();
        grads.of_rows(&model[1], &[2], 2).unwrap()[0] = 1.0;
        grads.zero();
        assert_eq!(grads.values()[3], 1.0);
    }
}
