//! Values put back to where a max pool found them.

use super::{max::NONE, planes_per_piece};
use crate::{compiled, par};

/// Elements of x in a plane of y of `plane` elements.
fn elements(x: usize, indices: usize, y: usize, plane: usize) -> usize {
    assert_eq!(x, indices, "an index for each element of x");
    let planes = y / plane.max(1);
    let whole = plane > 0 && y.is_multiple_of(plane) && planes > 0 && x.is_multiple_of(planes);
    assert!(whole, "expected whole planes of {plane} elements, got y of {y} and x of {x}");
    x / planes
}

compiled! {
    /// `y[p, indices[p, i]] = x[p, i]` for every plane p, the last of several, and 0 elsewhere.
    ///
    /// # Panics
    /// If the lengths do not fit together, or an index lies outside of its plane.
    pub fn max_unpool[T](x: &[T], indices: &[u32], y: &mut [T], plane: usize) {
        if y.is_empty() {
            return;
        }
        let (each, per) = (elements(x.len(), indices.len(), y.len(), plane), planes_per_piece(plane));
        par::for_chunks(y, per * plane, |piece, y| {
            y.fill(T::ZERO);
            for (p, y) in (piece * per..).zip(y.chunks_exact_mut(plane)) {
                let of = p * each..(p + 1) * each;
                x[of.clone()].iter().zip(&indices[of]).for_each(|(&x, &at)| y[at as usize] = x);
            }
        });
    }
}

compiled! {
    /// `dx[p, i] = dy[p, indices[p, i]]` for the last i of each index, and 0 for the others; `owners` is scratch of as many elements as dy.
    ///
    /// # Panics
    /// If the lengths do not fit together, or an index lies outside of its plane.
    pub fn max_unpool_gradient[T](dy: &[T], indices: &[u32], dx: &mut [T], owners: &mut [u32], plane: usize) {
        assert_eq!(owners.len(), dy.len(), "an owner for each element of dy");
        if dy.is_empty() || dx.is_empty() {
            return;
        }
        let (each, per) = (elements(dx.len(), indices.len(), dy.len(), plane), planes_per_piece(plane));
        par::for_chunks2((dx, per * each), (owners, per * plane), |piece, dx, owners| {
            let planes = dx.chunks_exact_mut(each).zip(owners.chunks_exact_mut(plane));
            for (p, (dx, owners)) in (piece * per..).zip(planes) {
                let (indices, dy) = (&indices[p * each..][..each], &dy[p * plane..][..plane]);
                owners.fill(NONE);
                indices.iter().enumerate().for_each(|(i, &at)| owners[at as usize] = i as u32);
                for (i, (dx, &at)) in dx.iter_mut().zip(indices).enumerate() {
                    *dx = if owners[at as usize] == i as u32 { dy[at as usize] } else { T::ZERO };
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 2 3 to the places 2 0 2 of 4: 2 0 3 0. For g = (1, 2, 4, 8) the first gets nothing.
    #[test]
    fn the_last_of_several_wins() {
        let (mut y, mut dx, mut owners) = ([7.0; 4], [7.0; 3], [0; 4]);
        max_unpool(&[1., 2., 3.], &[2, 0, 2], &mut y, 4);
        assert_eq!(y, [2., 0., 3., 0.]);
        max_unpool_gradient(&[1., 2., 4., 8.], &[2, 0, 2], &mut dx, &mut owners, 4);
        assert_eq!(dx, [0., 1., 4.]);
    }
}
