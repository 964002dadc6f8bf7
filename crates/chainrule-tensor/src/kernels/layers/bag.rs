//! Bags of rows of a table: their sums, means and maxima.

use super::embedding::{AHEAD, MOST, PIECE};
use crate::{
    Scalar, compiled,
    kernels::{kernel, prefetch, reduce::DEPTH},
    par,
};

/// The place of the maximum of an empty bag.
pub const NONE: usize = usize::MAX;
/// Columns that are summed together.
const COLUMNS: usize = 64;

/// Which rows make which bag.
#[derive(Clone, Copy, Debug)]
pub struct Bags<'a> {
    /// The rows' indices, bag by bag.
    pub ids: &'a [u32],
    /// Where each bag begins, and where the last ends.
    pub starts: &'a [usize],
    /// The index that is in no bag.
    pub skip: Option<u32>,
    /// Whether the rows were gathered: the i-th of the table is that of `ids[i]`.
    pub gathered: bool,
}

impl Bags<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The positions of the indices of a bag, each with that of its row.
    #[inline(always)]
    pub fn bag(&self, bag: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
        let at = self.starts[bag]..self.starts[bag + 1];
        let ids = at.map(|i| (i, self.ids[i])).filter(move |&(_, id)| Some(id) != self.skip);
        ids.map(|(i, id)| (i, if self.gathered { i } else { id as usize }))
    }

    /// How many rows a bag has.
    pub fn count(&self, bag: usize) -> usize {
        self.bag(bag).count()
    }

    /// Bags of a piece, by sizes alone.
    fn per_piece(&self, d: usize) -> usize {
        let each = self.ids.len().div_ceil(self.len().max(1)).max(1);
        (PIECE / each.saturating_mul(d).max(1)).max(1)
    }

    /// Asks for the row that comes some rows behind that of index `i`.
    #[inline(always)]
    fn ahead<T>(&self, i: usize, table: &[T], d: usize) {
        if let (false, Some(&next)) = (self.gathered, self.ids.get(i + AHEAD)) {
            prefetch(table.as_ptr().wrapping_add((next as usize).wrapping_mul(d)), d.min(MOST));
        }
    }

    fn check(&self, table: usize, d: usize, y: usize) {
        let ends = self.starts.is_sorted() && self.starts.last().is_none_or(|&end| end <= self.ids.len());
        assert!(ends, "bags are one behind the other");
        assert!(d > 0 && self.len().checked_mul(d) == Some(y), "y is a row of {d} elements for each bag");
        let (rows, used) = (table / d, &self.ids[..self.starts.last().copied().unwrap_or(0)]);
        let inside = |&id: &u32| Some(id) == self.skip || (id as usize) < rows;
        let inside = if self.gathered { used.len() <= rows } else { used.iter().all(inside) };
        assert!(inside, "expected indices of the {rows} rows of the table");
    }
}

kernel! {
    /// y = scale Σ wᵢ rowᵢ over a bag.
    fn sum_bag[T: Scalar](table: &[T], bags: &Bags<'_>, bag: usize, weights: Option<&[T]>, scale: f64, y: &mut [T]) {
        let d = y.len();
        for (y, c) in y.chunks_mut(COLUMNS).zip((0..).step_by(COLUMNS)) {
            let (mut block, mut total) = ([T::ZERO; COLUMNS], [0.0; COLUMNS]);
            for (n, (i, row)) in bags.bag(bag).enumerate() {
                if c == 0 {
                    bags.ahead(i, table, d);
                }
                let (row, w) = (&table[row * d + c..][..y.len()], weights.map_or(T::ONE, |w| w[i]));
                match row.first_chunk::<COLUMNS>() {
                    Some(row) => (0..COLUMNS).for_each(|j| block[j] += w * row[j]),
                    None => block.iter_mut().zip(row).for_each(|(b, &v)| *b += w * v),
                }
                if n % DEPTH == DEPTH - 1 {
                    total.iter_mut().zip(&mut block).for_each(|(t, b)| *t += b.to_f64());
                    block = [T::ZERO; COLUMNS];
                }
            }
            let sums = total.iter().zip(&block).map(|(t, b)| (t + b.to_f64()) * scale);
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = T::from_f64(sum));
        }
    }
}

compiled! {
    /// y = Σ wᵢ rowᵢ over the rows of each bag, divided by their number for the mean.
    ///
    /// # Panics
    /// If the lengths do not fit together, or a row is not in the table.
    pub fn sum_bags[T](table: &[T], d: usize, bags: Bags<'_>, weights: Option<&[T]>, mean: bool, y: &mut [T]) {
        bags.check(table.len(), d, y.len());
        assert!(weights.is_none_or(|w| w.len() == bags.ids.len()), "there is a weight for each index");
        let per = bags.per_piece(d);
        par::for_chunks(y, per * d, |i, y| {
            for (n, y) in (i * per..).zip(y.chunks_exact_mut(d)) {
                let scale = if mean { 1.0 / bags.count(n).max(1) as f64 } else { 1.0 };
                sum_bag(table, &bags, n, weights, scale, y);
            }
        });
    }
}

kernel! {
    /// The first maximum of each column over a bag, and the position of its index; 0 and `NONE` of an empty bag.
    fn max_bag[T: Scalar](table: &[T], bags: &Bags<'_>, bag: usize, y: &mut [T], winners: &mut [usize]) {
        let d = y.len();
        y.fill(T::ZERO);
        winners.fill(NONE);
        for (i, row) in bags.bag(bag) {
            bags.ahead(i, table, d);
            for ((y, winner), &v) in y.iter_mut().zip(&mut *winners).zip(&table[row * d..][..d]) {
                let wins = *winner == NONE || v > *y;
                *y = if wins { v } else { *y };
                *winner = if wins { i } else { *winner };
            }
        }
    }
}

compiled! {
    /// The maximum of each column over the rows of each bag, and the position of its index; 0 and [`NONE`] of an empty bag.
    ///
    /// # Panics
    /// If the lengths do not fit together, or a row is not in the table.
    pub fn max_bags[T](table: &[T], d: usize, bags: Bags<'_>, y: &mut [T], winners: &mut [usize]) {
        bags.check(table.len(), d, y.len());
        assert_eq!(y.len(), winners.len(), "a winner for each element of y");
        let per = bags.per_piece(d);
        par::for_chunks2((y, per * d), (winners, per * d), |i, y, winners| {
            for ((n, y), winners) in (i * per..).zip(y.chunks_exact_mut(d)).zip(winners.chunks_exact_mut(d)) {
                max_bag(table, &bags, n, y, winners);
            }
        });
    }
}
