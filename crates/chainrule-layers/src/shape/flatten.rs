//! Several axes as one.
//!
//! ```text
//! y = x, its axes start … end joined        ∂E/∂x = ∂E/∂y, in x's shape
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/flatten.md.

use chainrule_core::{Call, Context, Error, Grads, Layer, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::elementwise::copy;

/// Joins the axes from `start_dim` to `end_dim`, both included, into one.
///
/// # Shapes
/// x (N, C, H, W), y (N, C·H·W) by default. Negative axes count from the last: −1.
///
/// # Examples
/// ```
/// use chainrule_core::{Layer, Tensor};
/// use chainrule_layers::Flatten;
/// let y = Flatten::new().infer(&Tensor::<f32>::zeros([32, 16, 5, 5]))?;
/// assert_eq!(y.shape()[..], [32, 400]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flatten {
    start: isize,
    end: isize,
}

impl Default for Flatten {
    fn default() -> Self {
        Self { start: 1, end: -1 }
    }
}

impl Flatten {
    /// Joins all axes but the first, the batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first axis to join, 1 by default.
    #[must_use]
    pub fn start_dim(self, start: isize) -> Self {
        Self { start, ..self }
    }

    /// The last axis to join, −1 by default.
    #[must_use]
    pub fn end_dim(self, end: isize) -> Self {
        Self { end, ..self }
    }
}

impl<T: Scalar> Layer<T> for Flatten {
    type Cache = ();

    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        let (axes, input) = (input.len(), Shape::new(input)?);
        let at = |axis: isize| match axis {
            0.. => Some(axis as usize),
            _ => axes.checked_sub(axis.unsigned_abs()),
        };
        match (at(self.start), at(self.end)) {
            (Some(start), Some(end)) if start <= end && end < axes => {
                let mut joined = Shape::new(&input[..=start])?;
                joined[start] = input[start..=end].iter().product();
                input[end + 1..].iter().try_fold(joined, |shape, &n| shape.push(n))
            }
            _ => Err(Error::shape(format!(
                "Flatten: expected an input with axes {} to {} in this order, got {input:?}",
                self.start, self.end
            ))),
        }
    }

    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: &mut Context) -> Result<()> {
        copy(x.data(), y.reset(Layer::<T>::output_shape(self, x.shape())?));
        Ok(())
    }

    fn backward(
        &self,
        call: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        if let Some(dx) = dx {
            copy(call.dy.data(), dx.reset(*call.x.shape())); // dx = dy
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws((shape, start, end) in collection::vec(1..4usize, 1..6).prop_flat_map(|shape| {
            let rank = shape.len();
            (Just(shape), 0..rank).prop_flat_map(move |(shape, start)| {
                (Just(shape), Just(start), start..rank, any::<bool>()).prop_map(|(shape, start, end, back)| {
                    let shift = if back { shape.len() as isize } else { 0 };
                    (shape, start as isize - shift, end as isize - shift)
                })
            })
        })) {
            layer: Flatten::new().start_dim(start).end_dim(end),
            input: shape,
            wrong: vec![2; if end < 0 { (-start) as usize - 1 } else { end as usize }],
        }
    }

    fn shape(layer: Flatten, input: &[usize]) -> Result<Shape> {
        Layer::<f64>::output_shape(&layer, input)
    }

    /// The axes 1 to 2 of (2, 1, 3), joined: (2, 3) with the same numbers; the gradient goes back in x's shape.
    #[test]
    fn by_hand() {
        let x = Tensor::from_fn([2, 1, 3], |i| i as f64);
        let y = Flatten::new().infer(&x).unwrap();
        assert_eq!(y, Tensor::from([[0., 1., 2.], [3., 4., 5.]]));
        let (mut grads, mut dx) = (Grads::new(&Flatten::new()), Tensor::default());
        let call = Call { x: &x, y: &y, dy: &y };
        Flatten::new().backward(call, &mut (), &mut grads, Some(&mut dx)).unwrap();
        assert_eq!(dx, x);
    }

    #[test]
    fn any_range_of_axes_can_be_joined() {
        let input = [2, 3, 4, 5];
        assert_eq!(*shape(Flatten::new().start_dim(2), &input).unwrap(), [2, 3, 20]);
        assert_eq!(*shape(Flatten::new().start_dim(0), &input).unwrap(), [120]);
        assert_eq!(*shape(Flatten::new().end_dim(2), &input).unwrap(), [2, 12, 5]);
        assert_eq!(*shape(Flatten::new().start_dim(-3).end_dim(-2), &input).unwrap(), [2, 12, 5]);
        assert_eq!(*shape(Flatten::new(), &[0, 3, 4]).unwrap(), [0, 12]);
    }

    #[test]
    fn axes_that_are_not_there_are_an_error() {
        for (start, end) in [(4, -1), (2, 1), (-5, -1), (1, 4), (1, -5)] {
            assert!(shape(Flatten::new().start_dim(start).end_dim(end), &[2, 3, 4, 5]).is_err());
        }
        assert!(shape(Flatten::new(), &[7]).is_err());
    }
}
