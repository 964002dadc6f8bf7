//! Weighted sums along one axis, the same for every line: interpolation, windows over channels, and their transposes.

use crate::{
    Scalar, compiled,
    kernels::reduce::{Columns, DEPTH},
    par,
};

/// Elements of a piece: 64 KiB of f32.
const PIECE: usize = 1 << 14;
/// Columns whose sums are kept together.
const COLUMNS: usize = 64;

/// A sparse matrix (rows, columns) over an axis, row by row: the elements that each output reads, and their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Taps<T> {
    /// Where the entries of each row begin, and the end of the last.
    starts: Vec<usize>,
    index: Vec<usize>,
    weight: Vec<T>,
    /// The length of the axis that is read.
    columns: usize,
}

impl<T> Default for Taps<T> {
    fn default() -> Self {
        Self { starts: vec![0], index: Vec::new(), weight: Vec::new(), columns: 0 }
    }
}

impl<T: Scalar> Taps<T> {
    /// No row yet, over an axis of so many elements; keeps its memory.
    pub fn clear(&mut self, columns: usize) {
        self.starts.clear();
        self.starts.push(0);
        self.index.clear();
        self.weight.clear();
        self.columns = columns;
    }

    /// One more row, of these entries; weights of 0 are left out.
    ///
    /// # Panics
    /// If an entry lies beyond the axis.
    pub fn push(&mut self, entries: impl IntoIterator<Item = (usize, f64)>) {
        for (index, weight) in entries.into_iter().filter(|&(_, weight)| weight != 0.0) {
            assert!(index < self.columns, "an entry lies on the axis");
            self.index.push(index);
            self.weight.push(T::from_f64(weight));
        }
        self.starts.push(self.index.len());
    }

    /// The rows: the length of the axis that is written.
    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// The length of the axis that is read.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Becomes the transpose of another; keeps its memory.
    pub fn transpose_of(&mut self, other: &Self) {
        let Self { starts, index, weight, columns } = self;
        *columns = other.rows();
        starts.clear();
        starts.resize(other.columns + 1, 0);
        other.index.iter().for_each(|&column| starts[column + 1] += 1);
        for row in 0..other.columns {
            starts[row + 1] += starts[row];
        }
        index.resize(other.index.len(), 0);
        weight.resize(other.index.len(), T::ZERO);
        // `starts[row]` moves to the end of its row, which is where the next begins.
        for row in 0..other.rows() {
            for entry in other.starts[row]..other.starts[row + 1] {
                let at = &mut starts[other.index[entry]];
                (index[*at], weight[*at]) = (row, other.weight[entry]);
                *at += 1;
            }
        }
        starts.copy_within(0..other.columns, 1);
        starts[0] = 0;
    }

    fn row(&self, row: usize) -> (&[usize], &[T]) {
        let at = self.starts[row]..self.starts[row + 1];
        (&self.index[at.clone()], &self.weight[at])
    }
}

compiled! {
    /// `y[o, i, c] = Σ w x[o, j, c]` over the entries (j, w) of row i, for x (outer, columns, inner) and y (outer, rows, inner).
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn weigh[T](x: &[T], y: &mut [T], taps: &Taps<T>, inner: usize) {
        let (small, large) = (taps.columns() * inner, taps.rows() * inner);
        if large == 0 || y.is_empty() {
            return assert!(y.is_empty(), "y has a row of {inner} for each of {} rows", taps.rows());
        }
        let outer = y.len() / large;
        assert!(y.len() == outer * large && x.len() == outer * small, "x and y have as many lines");
        let per = (PIECE / large).max(1);
        par::for_chunks(y, per * large, |piece, y| {
            for (i, y) in y.chunks_exact_mut(large).enumerate() {
                let x = &x[(piece * per + i) * small..][..small];
                if inner == 1 {
                    line(x, y, taps);
                } else {
                    columns(x, y, taps, inner);
                }
            }
        });
    }
}

#[inline(always)]
fn line<T: Scalar>(x: &[T], y: &mut [T], taps: &Taps<T>) {
    for (row, y) in y.iter_mut().enumerate() {
        let (index, weight) = taps.row(row);
        let sum = |(index, weight): (&[usize], &[T])| {
            let mut terms = index.iter().zip(weight).map(|(&j, &w)| w * x[j]);
            terms.next().map_or(T::ZERO, |first| terms.fold(first, |sum, term| sum + term))
        };
        *y = if index.len() <= DEPTH {
            sum((index, weight))
        } else {
            T::from_f64(index.chunks(DEPTH).zip(weight.chunks(DEPTH)).map(|part| sum(part).to_f64()).sum())
        };
    }
}

#[inline(always)]
fn columns<T: Scalar>(x: &[T], y: &mut [T], taps: &Taps<T>, inner: usize) {
    for (row, y) in y.chunks_exact_mut(inner).enumerate() {
        let (index, weight) = taps.row(row);
        if index.len() > DEPTH {
            for (y, start) in y.chunks_mut(COLUMNS).zip((0..).step_by(COLUMNS)) {
                let mut sums = Columns::<T, COLUMNS>::new();
                for (&j, &w) in index.iter().zip(weight) {
                    let x = &x[j * inner + start..][..y.len()];
                    sums.row(y.len()).iter_mut().zip(x).for_each(|(sum, &x)| *sum += w * x);
                }
                let sums = sums.sums(y.len());
                y.iter_mut().zip(sums).for_each(|(y, &sum)| *y = T::from_f64(sum));
            }
            continue;
        }
        let rows = |at: usize| (&x[index[at] * inner..][..inner], weight[at]);
        match index.len() {
            0 => y.fill(T::ZERO),
            1 => {
                let (x, w) = rows(0);
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = w * x);
            }
            _ => {
                let ((a, v), (b, w)) = (rows(0), rows(1));
                y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = v * a + w * b);
                for at in 2..index.len() {
                    let (x, w) = rows(at);
                    y.iter_mut().zip(x).for_each(|(y, &x)| *y += w * x);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_along_an_axis_agree_with_the_matrix() {
        for (rows, columns, inner, outer) in
            [(3, 4, 1, 2), (2, 100, 1, 3), (2, 100, 70, 2), (5, 3, 3, 1), (1, 3, 2, 2)]
        {
            let value = |r: usize, c: usize| {
                if (r + c).is_multiple_of(3) { 0.0 } else { (r * 7 + c * 3) as f64 % 5.0 - 1.0 }
            };
            let mut taps = Taps::<f64>::default();
            taps.clear(columns);
            (0..rows).for_each(|r| taps.push((0..columns).map(|c| (c, value(r, c)))));
            let mut transpose = Taps::default();
            transpose.transpose_of(&taps);
            assert_eq!((transpose.rows(), transpose.columns()), (columns, rows));
            let mut again = Taps::default();
            again.transpose_of(&transpose);
            assert_eq!(again, taps);
            for (taps, rows, columns, value) in [
                (&taps, rows, columns, &value as &dyn Fn(usize, usize) -> f64),
                (&transpose, columns, rows, &|r, c| value(c, r)),
            ] {
                let x: Vec<f64> = (0..outer * columns * inner).map(|i| (i * 37 % 11) as f64 - 4.0).collect();
                let mut y = vec![f64::NAN; outer * rows * inner];
                weigh(&x, &mut y, taps, inner);
                for o in 0..outer {
                    for r in 0..rows {
                        for i in 0..inner {
                            let want: f64 =
                                (0..columns).map(|c| value(r, c) * x[(o * columns + c) * inner + i]).sum();
                            let got = y[(o * rows + r) * inner + i];
                            assert!((got - want).abs() < 1e-9, "{got} {want}");
                        }
                    }
                }
            }
        }
    }
}
