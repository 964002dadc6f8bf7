//! Tables: rows are gathered by index, and their gradients are scattered back.

use crate::{
    Scalar, compiled,
    disjoint::Disjoint,
    kernels::{elementwise::update_serial, prefetch, reduce::add_rows_at},
    par,
};

/// Elements of a piece: 64 KiB of f32, as for the other memory-bound kernels.
pub(super) const PIECE: usize = 1 << 14;
/// How many rows ahead of its use a row of a table is prefetched, and how many of its elements: rows come in no order, and a
/// gather with its gradient was measured 1.2 to 1.33 times as fast with it.
pub(super) const AHEAD: usize = 6;
pub(super) const MOST: usize = 512;

/// Rows of dy from which those of one index are summed together, see [`scatter_add`]: 65,536 equal addends in a row are off by some
/// 6e-4, and by 1e-6 together; to sort the indices costs a tenth of a scatter of 256 columns.
const LONG: usize = 1 << 16;

compiled! {
    /// Converts values to row indices below `rows`; the error is the position of the first that is none.
    pub fn row_indices[T](x: &[T], rows: usize, out: &mut [u32]) -> Result<(), usize> {
        for (i, (out, &v)) in out.iter_mut().zip(x).enumerate() {
            let v = v.to_f64();
            *out = v as u32;
            // A cast truncates fractions, maps NaN to 0 and saturates: integers alone survive it.
            if f64::from(*out) != v || *out as usize >= rows {
                return Err(i);
            }
        }
        Ok(())
    }
}

/// Whether so many elements are `rows` rows of d elements each.
fn is_rows(len: usize, rows: usize, d: usize) -> bool {
    d > 0 && rows.checked_mul(d) == Some(len)
}

compiled! {
    /// Row i of y is row `ids[i]` of the table, both of width d.
    ///
    /// # Panics
    /// If the lengths do not fit together or a row is not in the table.
    pub fn gather[T](table: &[T], d: usize, ids: &[u32], y: &mut [T]) {
        assert!(is_rows(y.len(), ids.len(), d), "y is a row of {d} elements for each index");
        let per = PIECE.div_ceil(d);
        par::for_chunks(y, per * d, |i, y| {
            let ids = &ids[i * per..];
            for (i, (y, &id)) in y.chunks_exact_mut(d).zip(ids).enumerate() {
                if let Some(&next) = ids.get(i + AHEAD) {
                    prefetch(table.as_ptr().wrapping_add((next as usize).wrapping_mul(d)), d.min(MOST));
                }
                y.copy_from_slice(&table[id as usize * d..][..d]);
            }
        });
    }
}

compiled! {
    /// Adds row i of dy, or row `of[i]`, to row `ids[i]` of `dw`, in the order of i; rows of index `skip` are ignored.
    ///
    /// # Panics
    /// If the lengths do not fit together or a row is not in the table.
    pub fn scatter_add[T](ids: &[u32], of: Option<&[u32]>, dy: &[T], d: usize, skip: Option<u32>, dw: &mut [T]) {
        match of {
            None => assert!(is_rows(dy.len(), ids.len(), d), "dy is a row of {d} elements for each index"),
            Some(of) => {
                let rows = dy.len().checked_div(d).unwrap_or(0);
                let inside = of.len() == ids.len() && of.iter().all(|&row| (row as usize) < rows);
                assert!(inside, "dy has a row of {d} elements for each index");
            }
        }
        if ids.len() > LONG {
            return scatter_add_sorted(ids, of, dy, d, skip, dw);
        }
        for_rows(ids, d, dw, |i, id, dw| {
            if Some(id) != skip {
                let row = of.map_or(i, |of| of[i] as usize);
                update_serial(dw, &dy[row * d..][..d], &|w, g| w + g);
            }
        });
    }
}

/// [`scatter_add`] row by row of `dw`, so that a row that many are added to is summed in blocks.
fn scatter_add_sorted<T: Scalar>(
    ids: &[u32],
    of: Option<&[u32]>,
    dy: &[T],
    d: usize,
    skip: Option<u32>,
    dw: &mut [T],
) {
    let rows = dw.len() / d;
    // Where the rows of each index begin in `order`; those of the next, once they are placed.
    let mut starts = vec![0; rows + 1];
    ids.iter().for_each(|&id| starts[id as usize + 1] += 1);
    for row in 0..rows {
        starts[row + 1] += starts[row];
    }
    let (mut order, mut next) = (vec![0; ids.len()], starts.clone());
    for (i, &id) in ids.iter().enumerate() {
        order[next[id as usize]] = of.map_or(i, |of| of[i] as usize);
        next[id as usize] += 1;
    }
    let per = rows.div_ceil(4 * par::threads()).max(1);
    par::for_chunks(dw, per * d, |piece, dw| {
        for (row, dw) in dw.chunks_exact_mut(d).enumerate() {
            let row = piece * per + row;
            if Some(row as u32) != skip {
                add_rows_at(&order[starts[row]..starts[row + 1]], dy, dw);
            }
        }
    });
}

compiled! {
    /// Sets rows of a table of width d to zero.
    ///
    /// # Panics
    /// If a row is not in the table, or d is 0.
    pub fn zero_rows[T](ids: &[u32], d: usize, table: &mut [T]) {
        for_rows(ids, d, table, |_, _, row| row.fill(T::ZERO));
    }
}

/// `f(i, ids[i], row)` for each row `ids[i]` of a table, in the order of i as far as they are the same row. A row belongs to
/// the piece of its index's remainder, which goes over all indices: the same bits for any number of pieces, and whole
/// rows, which stream from memory faster than halves.
fn for_rows<T: Scalar>(ids: &[u32], d: usize, table: &mut [T], f: impl Fn(usize, u32, &mut [T]) + Sync) {
    assert!(d > 0, "a row has an element at least");
    // Where any index has a place, whether or not it lies in the table, which is checked where it is used.
    let fits = (u32::MAX as usize).checked_mul(d).is_some();
    let inside = |&id: &u32| (id as usize) < table.len() / d;
    assert!(
        fits || ids.iter().all(inside),
        "expected rows that lie within the table, got {d} elements a row"
    );
    let pieces = (ids.len().saturating_mul(d) / PIECE).clamp(1, par::threads());
    let table = Disjoint::new(table);
    par::for_each(pieces, |piece| {
        let own = |id: u32| id as usize % pieces == piece;
        for (i, &id) in ids.iter().enumerate() {
            if let Some(&next) = ids.get(i + AHEAD * pieces)
                && own(next)
            {
                table.prefetch((next as usize).wrapping_mul(d), d.min(MOST));
            }
            if own(id) {
                // SAFETY: other pieces have other rows, and this one drops a row before it takes the next.
                f(i, id, unsafe { table.part(id as usize * d, d) });
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_integers_in_range_are_rows() {
        let mut out = [9; 3];
        assert_eq!(row_indices(&[0.0, 2.0, -0.0], 3, &mut out), Ok(()));
        assert_eq!(out, [0, 2, 0]);
        for bad in [3.0, -1.0, 0.5, f64::NAN, f64::INFINITY, 1e10, -f64::INFINITY] {
            assert_eq!(row_indices(&[1.0, bad], 3, &mut out), Err(1), "{bad}");
            assert_eq!(row_indices(&[1.0, bad as f32], 3, &mut out), Err(1), "{bad}");
        }
    }

    #[test]
    fn rows_agree_with_the_naive_loop_for_any_number_of_threads() {
        for (rows, d, n) in
            [(3, 1, 5), (7, 5, 40), (50, 64, 900), (20, 200, 700), (4, 65, 0), (40, 3, LONG + 1)]
        {
            let table: Vec<f64> = (0..rows * d).map(|i| i as f64).collect();
            let ids: Vec<u32> = (0..n).map(|i| (i * 31 % rows) as u32).collect();
            let mut want = vec![0.5; rows * d];
            for (i, &id) in ids.iter().enumerate().filter(|(_, id)| **id != 2) {
                (0..d).for_each(|j| want[id as usize * d + j] += (i * d + j) as f64);
            }
            for threads in [1, 3] {
                par::with_threads(threads, || {
                    let mut y = vec![f64::NAN; n * d];
                    gather(&table, d, &ids, &mut y);
                    let picked = |i: usize| table[ids[i / d] as usize * d + i % d];
                    assert!(y.iter().enumerate().all(|(i, &v)| v == picked(i)));
                    let (dy, mut dw) =
                        ((0..n * d).map(|i| i as f64).collect::<Vec<_>>(), vec![0.5; rows * d]);
                    scatter_add(&ids, None, &dy, d, Some(2), &mut dw);
                    assert_eq!(dw, want);
                    zero_rows(&ids, d, &mut dw);
                    let zeroed = |row: usize| if ids.contains(&(row as u32)) { 0.0 } else { 0.5 };
                    assert!(dw.iter().enumerate().all(|(i, &v)| v == zeroed(i / d)));
                });
            }
        }
    }
}
