//! Axes in another order.
//!
//! ```text
//! y[i_{o₀}, i_{o₁}, …] = x[i₀, i₁, …]        ∂E/∂x: ∂E/∂y, its axes in the inverse order
//! ```
//!
//! Keeps nothing. Derivation: docs/layers/shape/permute.md.

use super::order::{Reorder, Reordered, reordered};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Layer, Result, Scalar, Shape, Spec};
use std::marker::PhantomData;

/// Axis i of y is axis `order[i]` of x.
///
/// # Shapes
/// x of as many axes as the order has, y with the axes in that order. The batch is axis 0, and stays so in the orders of most networks.
///
/// # Examples
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_layers::Permute;
/// let y = Permute::new([0, 2, 3, 1]).infer(&Tensor::<f32>::zeros([2, 3, 8, 9]))?; // channels last
/// assert_eq!(y.shape()[..], [2, 8, 9, 3]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Permute<T = f32> {
    order: Shape,
    of: PhantomData<T>,
}

impl<T: Scalar> Permute<T> {
    /// The axes in this order, each once.
    pub fn new(order: impl Into<Shape>) -> Self {
        Self { order: order.into(), of: PhantomData }
    }
}

impl<T: Scalar> Reorder for Permute<T> {
    fn check_settings(&self) -> Result<()> {
        let axes = self.order.len();
        if axes > 0 && (0..axes).all(|axis| self.order.contains(&axis)) {
            return Ok(());
        }
        Err(Error::value(format!("Permute: expected each axis from 0 once, got {}", self.order)))
    }

    fn reordered(&self, input: &[usize]) -> Result<Reordered> {
        self.check_settings()?;
        if input.len() != self.order.len() {
            let axes = self.order.len();
            return Err(Error::shape(format!("Permute: expected an input of {axes} axes, got {input:?}")));
        }
        let mut axes = self.order.iter().map(|&axis| input[axis]);
        let output = axes.try_fold(Shape::default(), |shape, n| shape.push(n))?;
        Ok(Reordered { from: Shape::new(input)?, order: self.order, output })
    }

    fn settings(&self) -> Spec {
        Spec::new("Permute").with("order", self.order)
    }
}

reordered!(Permute);

impl<T: Scalar> FromSpec<T> for Permute<T> {
    const FACTS: Facts = Facts::new("Permute")
        .family("shape")
        .formula("x, axes in another order")
        .page("layers/shape/permute.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new(args.get::<Shape>("order")?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(Self::new([0, 2, 1]).spec(), [[2, 3, 4]]),
            Example::new(Self::new([2, 0, 1, 3]).spec(), [[2, 3, 4, 2]]),
            Example::bench(Self::new([0, 2, 3, 1]).spec(), [[8, 64, 32, 32]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_core::{Call, Grads, Module, Tensor};
    use chainrule_gradcheck::laws;

    laws! {
        obeys_the_laws(
            (shape, order) in collection::vec(1..4usize, 1..5).prop_flat_map(|shape| {
                let order: Vec<usize> = (0..shape.len()).collect();
                (Just(shape), Just(order).prop_shuffle())
            }),
        ) {
            layer: Permute::new(Shape::new(&order).unwrap()),
            input: shape,
            wrong: vec![2; order.len() + 1],
        }
    }

    /// (1 2 3; 4 5 6) transposed: (1 4; 2 5; 3 6). For g = (0 1; 2 3; 4 5): ∂x = (0 2 4; 1 3 5).
    #[test]
    pub fn by_hand() {
        let x = Tensor::from([[1., 2., 3.], [4., 5., 6.]]);
        let layer = Permute::<f64>::new([1, 0]);
        let y = layer.infer(&x).unwrap();
        assert_eq!(y, Tensor::from([[1., 4.], [2., 5.], [3., 6.]]));
        let (dy, mut dx) = (Tensor::from([[0., 1.], [2., 3.], [4., 5.]]), Tensor::default());
        let call = Call::new(&layer, &x, &y, &dy).unwrap();
        layer.backward(call, &mut (), &mut Grads::new(&layer), Some(&mut dx)).unwrap();
        assert_eq!(dx, Tensor::from([[0., 2., 4.], [1., 3., 5.]]));
    }

    #[test]
    fn what_is_no_order_is_an_error() {
        for order in [&[][..], &[1], &[0, 0], &[0, 2], &[usize::MAX, 0]] {
            assert!(Permute::<f32>::new(Shape::new(order).unwrap_or_default()).check().is_err(), "{order:?}");
        }
    }
}
