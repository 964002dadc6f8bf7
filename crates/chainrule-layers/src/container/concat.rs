//! Several inputs joined along one axis.
//!
//! ```text
//! y = [x₀ | x₁ | …]        ∂E/∂xᵢ = the part of ∂E/∂y that came from xᵢ
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/container/concat.md.

use chainrule_core::{Context, Error, Grads, MultiCall, MultiLayer, Result, Scalar, Shape, Tensor};

/// y = x₀, x₁, … side by side along one axis, for a [`super::Graph`] or a [`super::Parallel`].
///
/// # Shapes
/// The inputs may differ in that axis alone; y has the sum of their lengths there.
///
/// # Examples
/// ```
/// use chainrule_core::{Context, MultiLayer, Tensor};
/// use chainrule_layers::Concat;
/// let (a, b, mut y) = (Tensor::from([[1.0f32], [2.0]]), Tensor::from([[3.0], [4.0]]), Tensor::default());
/// Concat::new(1).forward(&[&a, &b], &mut y, &mut (), &mut Context::infer())?;
/// assert_eq!(y, Tensor::from([[1.0, 3.0], [2.0, 4.0]]));
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Concat {
    axis: usize,
}

impl Concat {
    /// Joins along `axis`; 1 is the axis of channels or features.
    pub fn new(axis: usize) -> Self {
        Self { axis }
    }

    /// (rows, elements a row of the input) around the axis.
    fn split(&self, shape: &[usize]) -> (usize, usize) {
        (shape[..self.axis].iter().product(), shape[self.axis..].iter().product())
    }

    /// Writes xᵢ into its place of y, whose earlier inputs fill `before` elements of each row.
    pub(super) fn put<T: Scalar>(&self, x: &Tensor<T>, before: usize, y: &mut Tensor<T>) {
        let (rows, width) = self.split(x.shape());
        let (_, full) = self.split(y.shape());
        for r in 0..rows {
            y.data_mut()[r * full + before..][..width].copy_from_slice(&x.data()[r * width..][..width]);
        }
    }

    /// Reads the part of dy that belongs to an input of shape `shape`: the inverse of `put`.
    pub(super) fn take<T: Scalar>(&self, dy: &Tensor<T>, before: usize, shape: Shape, dx: &mut Tensor<T>) {
        let (rows, width) = self.split(&shape);
        let (_, full) = self.split(dy.shape());
        let dx = dx.reset(shape);
        for r in 0..rows {
            dx[r * width..][..width].copy_from_slice(&dy.data()[r * full + before..][..width]);
        }
    }

    /// Whether two shapes differ in the axis alone.
    pub(super) fn fits(&self, a: &[usize], b: &[usize]) -> bool {
        a.len() > self.axis && a.len() == b.len() && (0..a.len()).all(|i| i == self.axis || a[i] == b[i])
    }

    /// The shape of two inputs side by side.
    pub(super) fn joined(&self, a: &Shape, b: &[usize]) -> Result<Shape> {
        let length = a[self.axis].checked_add(b[self.axis]);
        let length = length
            .ok_or_else(|| Error::shape(format!("expected lengths that can be added, got {a} and {b:?}")))?;
        Shape::new(&a.with(self.axis, length))
    }

    /// Elements that an input of this shape fills in each row.
    pub(super) fn width(&self, shape: &[usize]) -> usize {
        self.split(shape).1
    }
}

impl<T: Scalar> MultiLayer<T> for Concat {
    type Cache = ();

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let fits = inputs.first().is_some_and(|first| inputs.iter().all(|other| self.fits(first, other)));
        if !fits {
            return Err(Error::shape(format!(
                "Concat: expected inputs that differ in axis {} alone, got {inputs:?}",
                self.axis
            )));
        }
        inputs[1..].iter().try_fold(Shape::new(inputs[0])?, |joined, shape| self.joined(&joined, shape))
    }

    fn forward(&self, xs: &[&Tensor<T>], y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
        y.reset(super::single::with_shapes(xs, |shapes| MultiLayer::<T>::output_shape(self, shapes))?);
        let mut before = 0;
        for x in xs {
            self.put(x, before, y);
            before += self.width(x.shape());
        }
        Ok(())
    }

    fn backward(
        &self,
        call: MultiCall<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let mut before = 0;
        for (x, dx) in call.xs.iter().zip(dxs) {
            if let Some(dx) = dx {
                self.take(call.dy, before, *x.shape(), dx); // dxᵢ = dy[its part]
            }
            before += self.width(x.shape());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            (shape, axis) in collection::vec(1..5usize, 2..5).prop_flat_map(|s| { let n = s.len(); (Just(s), 0..n) }),
            lengths in collection::vec(1..4usize, 1..5),
        ) {
            layer: Concat::new(axis),
            inputs: lengths.iter().map(|&length| {
                let mut shape = shape.clone();
                shape[axis] = length;
                shape
            }),
            wrong_inputs: [shape.clone(), [&shape[..], &[2]].concat()],
        }
    }

    /// [1 2 | 5] over [3 4 | 6]; for g = (1 2 3; 4 5 6): ∂x₀ = (1 2; 4 5), ∂x₁ = (3; 6).
    #[test]
    fn by_hand() {
        let (a, b) = (Tensor::from([[1.0, 2.0], [3.0, 4.0]]), Tensor::from([[5.0f64], [6.0]]));
        let (mut y, mut da, mut db) = (Tensor::default(), Tensor::default(), Tensor::default());
        let concat = Concat::new(1);
        concat.forward(&[&a, &b], &mut y, &mut (), &mut Context::frozen()).unwrap();
        assert_eq!(y, Tensor::from([[1., 2., 5.], [3., 4., 6.]]));
        let dy = Tensor::from([[1., 2., 3.], [4., 5., 6.]]);
        let mut grads = Grads::new(&crate::Sequential::<f64>::new());
        let call = MultiCall { xs: &[&a, &b], y: &y, dy: &dy };
        concat.backward(call, &mut (), &mut grads, &mut [Some(&mut da), Some(&mut db)]).unwrap();
        assert_eq!((da, db), (Tensor::from([[1., 2.], [4., 5.]]), Tensor::from([[3.], [6.]])));
        assert!(MultiLayer::<f64>::output_shape(&concat, &[&[2, 3], &[3, 3]]).is_err());
        assert!(MultiLayer::<f64>::output_shape(&concat, &[&[2]]).is_err());
    }
}
