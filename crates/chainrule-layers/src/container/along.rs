//! Parts of a tensor along one axis.

use super::not_recorded;
use chainrule_core::{Error, ModuleCall, Result, Scalar, Shape, Tensor};

/// An axis counted from the front, or from the back when negative.
pub(super) fn axis(kind: &str, dim: isize, shape: &[usize]) -> Result<usize> {
    crate::rank::axis(dim, shape.len()).ok_or_else(|| {
        Error::shape(format!("{kind}: expected an input with axis {dim}, got shape {shape:?}"))
    })
}

/// The shape of inputs side by side along an axis, in which alone they may differ.
pub(super) fn joined(kind: &str, dim: isize, shapes: impl IntoIterator<Item = Shape>) -> Result<Shape> {
    let mut shapes = shapes.into_iter();
    let first = shapes
        .next()
        .ok_or_else(|| Error::shape(format!("{kind}: expected at least one input, got none")))?;
    let at = axis(kind, dim, &first)?;
    let mut length = first[at];
    for shape in shapes {
        if shape.len() != first.len() || (0..first.len()).any(|i| i != at && shape[i] != first[i]) {
            return Err(Error::shape(format!(
                "{kind}: expected inputs that differ in axis {dim} alone, got {first} and {shape}"
            )));
        }
        length = length.saturating_add(shape[at]);
    }
    Shape::new(&first.with(at, length))
}

/// (rows, elements of one row) of a shape whose rows begin at an axis.
fn rows(shape: &[usize], at: usize) -> (usize, usize) {
    (shape[..at].iter().product(), shape[at..].iter().product())
}

/// The parts of a tensor of one shape, from the first to the last.
pub(super) struct Parts {
    at: usize,
    rows: usize,
    /// Elements of one row of the whole.
    width: usize,
    /// Elements of one row of the parts before.
    before: usize,
}

impl Parts {
    /// Along the axis `dim` of `whole`, which has it.
    pub(super) fn new(kind: &str, dim: isize, whole: &[usize]) -> Result<Self> {
        let at = axis(kind, dim, whole)?;
        let (rows, width) = rows(whole, at);
        Ok(Self { at, rows, width, before: 0 })
    }

    /// The elements of one row of the next part, which has this shape, and where they begin.
    fn next(&mut self, part: &[usize]) -> (usize, usize) {
        let (before, width) = (self.before, rows(part, self.at).1);
        self.before += width;
        (before, width)
    }

    /// Passes over the next part.
    pub(super) fn skip(&mut self, part: &[usize]) {
        self.next(part);
    }

    /// Writes the next part into the whole.
    pub(super) fn put<T: Scalar>(&mut self, part: &Tensor<T>, whole: &mut Tensor<T>) {
        self.put_as(part.shape(), part, whole);
    }

    /// Writes the next part, in this shape, into the whole.
    pub(super) fn put_as<T: Scalar>(&mut self, shape: &[usize], part: &Tensor<T>, whole: &mut Tensor<T>) {
        let (before, width) = self.next(shape);
        for r in 0..self.rows {
            whole.data_mut()[r * self.width + before..][..width]
                .copy_from_slice(&part.data()[r * width..][..width]);
        }
    }

    /// Writes zeros into the next part of the whole.
    pub(super) fn clear<T: Scalar>(&mut self, part: &[usize], whole: &mut Tensor<T>) {
        let (before, width) = self.next(part);
        for r in 0..self.rows {
            whole.data_mut()[r * self.width + before..][..width].fill(T::ZERO);
        }
    }

    /// Reads the next part, of this shape, from the whole.
    pub(super) fn take<T: Scalar>(&mut self, whole: &Tensor<T>, shape: Shape, part: &mut Tensor<T>) {
        let (before, width) = self.next(&shape);
        let part = part.reset(shape);
        for r in 0..self.rows {
            part[r * width..][..width].copy_from_slice(&whole.data()[r * self.width + before..][..width]);
        }
    }
}

/// Writes the parts of x, of these shapes, to `ys`.
pub(super) fn take_parts<T: Scalar>(
    kind: &str,
    dim: isize,
    x: &Tensor<T>,
    shapes: impl ExactSizeIterator<Item = Shape>,
    ys: &mut [Tensor<T>],
) -> Result<()> {
    if shapes.len() != ys.len() {
        return Err(Error::shape(format!("{kind}: expected {} outputs, got {}", shapes.len(), ys.len())));
    }
    let mut parts = Parts::new(kind, dim, x.shape())?;
    ys.iter_mut().zip(shapes).for_each(|(y, shape)| parts.take(x, shape, y)); // yⱼ = x[its part]
    Ok(())
}

/// ∂E/∂x from ∂E/∂y of the parts.
pub(super) fn pull_parts<T: Scalar>(
    kind: &str,
    dim: isize,
    shapes: impl Iterator<Item = Shape>,
    call: &ModuleCall<'_, T>,
    dxs: &mut [Option<&mut Tensor<T>>],
) -> Result<()> {
    if !call.ys.iter().map(|y| *y.shape()).eq(shapes) {
        return Err(not_recorded(kind));
    }
    let (&[x], [Some(dx)]) = (call.xs, dxs) else { return Ok(()) };
    dx.reset(*x.shape());
    let mut parts = Parts::new(kind, dim, x.shape())?;
    for (y, dy) in call.ys.iter().zip(call.dys) {
        match dy {
            Some(dy) => parts.put(dy, dx), // dx[its part] = dyⱼ
            None => parts.clear(y.shape(), dx),
        }
    }
    Ok(())
}
