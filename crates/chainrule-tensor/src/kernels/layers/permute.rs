//! Axes in another order: rows of the larger memory are gathered, two axes at a time.

use crate::{Scalar, Shape, compiled, par};

/// Elements of a piece: 64 KiB of f32.
const PIECE: usize = 1 << 14;
/// Elements of a row that are gathered before the next row: their cache lines stay in the first level.
const BLOCK: usize = 128;

/// The axes of y as (length, step in x), outermost first, axes that stay neighbours as one.
fn axes(shape: &[usize], order: &[usize]) -> ([(usize, usize); Shape::MAX_RANK], usize) {
    let mut steps = [1; Shape::MAX_RANK];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        steps[axis] = steps[axis + 1] * shape[axis + 1];
    }
    let (mut out, mut count) = ([(1, 0); Shape::MAX_RANK], 0);
    for &axis in order.iter().filter(|&&axis| shape[axis] != 1) {
        let (n, step) = (shape[axis], steps[axis]);
        match out[..count].last_mut() {
            Some(last) if last.1 == n * step => *last = (last.0 * n, step),
            _ => {
                out[count] = (n, step);
                count += 1;
            }
        }
    }
    (out, count)
}

compiled! {
    /// y is x of this shape with its axes in another order: axis i of y is axis `order[i]` of x.
    ///
    /// # Panics
    /// If `order` is no permutation of the axes, or the lengths do not fit.
    pub fn permute[T](x: &[T], y: &mut [T], shape: &[usize], order: &[usize]) {
        let all = (0..shape.len()).all(|axis| order.contains(&axis));
        assert!(all && order.len() == shape.len() && shape.len() <= Shape::MAX_RANK, "a permutation of the axes");
        let volume = shape.iter().try_fold(1usize, |v, &n| v.checked_mul(n));
        assert!(volume == Some(x.len()) && y.len() == x.len(), "x and y are as long as {shape:?} says");
        if x.is_empty() {
            return;
        }
        let (axes, count) = axes(shape, order);
        let (outer, [(m, down), (n, step)]) = match axes[..count] {
            [] => (&axes[..0], [(1, 0), (1, 1)]),
            [row] => (&axes[..0], [(1, 0), row]),
            [ref outer @ .., column, row] => (outer, [column, row]),
        };
        let per = PIECE.div_ceil(n);
        par::for_chunks(y, per * n, |piece, y| {
            let (mut row, mut y) = (piece * per, y);
            while !y.is_empty() {
                // Rows of one outer index.
                let (mut index, first) = (row / m, row % m);
                let rows = (m - first).min(y.len() / n);
                let mut base = first * down;
                for &(length, step) in outer.iter().rev() {
                    base += index % length * step;
                    index /= length;
                }
                let (part, rest) = y.split_at_mut(rows * n);
                gather(&x[base..], part, n, [down, step]);
                (row, y) = (row + rows, rest);
            }
        });
    }
}

/// `y[i, k] = x[i down + k step]` over rows of n.
#[inline(always)]
fn gather<T: Scalar>(x: &[T], y: &mut [T], n: usize, [down, step]: [usize; 2]) {
    if step == 1 {
        for (i, y) in y.chunks_exact_mut(n).enumerate() {
            y.copy_from_slice(&x[i * down..][..n]);
        }
        return;
    }
    if down == 1 && n < 8 {
        let rows = y.len() / n;
        for k in 0..n {
            let x = &x[k * step..][..rows];
            y[k..].iter_mut().step_by(n).zip(x).for_each(|(y, &x)| *y = x);
        }
        return;
    }
    for start in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - start);
        for (i, y) in y.chunks_exact_mut(n).enumerate() {
            let x = x[i * down + start * step..].iter().step_by(step);
            y[start..][..width].iter_mut().zip(x).for_each(|(y, &x)| *y = x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position;

    #[test]
    fn every_order_agrees_with_the_definition() {
        let shapes: [&[usize]; 8] =
            [&[], &[5], &[3, 4], &[300, 200], &[2, 3, 4], &[2, 1, 3, 5], &[2, 2, 3, 3, 2], &[40, 3, 50]];
        for shape in shapes {
            let volume: usize = shape.iter().product();
            let x: Vec<f32> = (0..volume).map(|i| i as f32).collect();
            let mut orders = vec![Vec::new()];
            for axis in 0..shape.len() {
                let longer = |order: &Vec<usize>| {
                    (0..=axis)
                        .map(|at| {
                            let mut order = order.clone();
                            order.insert(at, axis);
                            order
                        })
                        .collect::<Vec<_>>()
                };
                orders = orders.iter().flat_map(longer).collect();
            }
            for order in orders {
                let mut y = vec![-1.0; volume];
                permute(&x, &mut y, shape, &order);
                let lengths: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
                for (i, &got) in y.iter().enumerate() {
                    let at = position(&lengths, i);
                    let want = (0..shape.len()).fold(0, |flat, axis| {
                        flat * shape[axis] + at[order.iter().position(|&o| o == axis).unwrap()]
                    });
                    assert_eq!(got, want as f32, "{shape:?} {order:?} {i}");
                }
            }
        }
    }
}
