//! Layers that bring the axes of x into another order, and the way back.

use chainrule_core::{Call, Result, Scalar, Shape, Spec, Tensor};
use chainrule_tensor::kernels::layers::permute::permute;

/// x and y of a layer that reorders.
pub(super) struct Reordered {
    /// x, its axes cut as the order needs them.
    pub(super) from: Shape,
    /// Axis i of y, cut likewise, is axis `order[i]` of x.
    pub(super) order: Shape,
    /// The shape of y.
    pub(super) output: Shape,
}

/// A layer whose y is x with its axes, or parts of them, in another order: ∂E/∂x is ∂E/∂y in the order of x.
pub(super) trait Reorder {
    /// Whether the settings are valid.
    fn check_settings(&self) -> Result<()> {
        Ok(())
    }

    /// What becomes of an input of this shape.
    fn reordered(&self, input: &[usize]) -> Result<Reordered>;

    /// Kind and attributes.
    fn settings(&self) -> Spec;
}

/// y = x in another order.
pub(super) fn forward<T: Scalar>(layer: &impl Reorder, x: &Tensor<T>, y: &mut Tensor<T>) -> Result<()> {
    let Reordered { from, order, output } = layer.reordered(x.shape())?;
    permute(x.data(), y.reset(output), &from, &order);
    Ok(())
}

/// dx = dy in the order of x.
pub(super) fn backward<T: Scalar>(layer: &impl Reorder, call: Call<'_, T>, dx: &mut Tensor<T>) -> Result<()> {
    let Reordered { from, order, .. } = layer.reordered(call.x.shape())?;
    permute_back(call.dy.data(), dx.reset(*call.x.shape()), &from, &order);
    Ok(())
}

/// Implements `Layer` by [`Reorder`].
macro_rules! reordered {
    ($layer:ident) => {
        impl<T: chainrule_core::Scalar> chainrule_core::Layer for $layer<T> {
            type T = T;
            type Cache = ();

            fn check(&self) -> chainrule_core::Result<()> {
                $crate::shape::order::Reorder::check_settings(self)
            }

            fn output_shape(&self, input: &[usize]) -> chainrule_core::Result<chainrule_core::Shape> {
                Ok($crate::shape::order::Reorder::reordered(self, input)?.output)
            }

            fn forward(
                &self,
                x: &chainrule_core::Tensor<T>,
                y: &mut chainrule_core::Tensor<T>,
                _: &mut (),
                _: chainrule_core::Context,
            ) -> chainrule_core::Result<()> {
                $crate::shape::order::forward(self, x, y)
            }

            fn backward(
                &self,
                call: chainrule_core::Call<'_, T>,
                _: &mut (),
                _: &mut chainrule_core::Grads<T>,
                dx: Option<&mut chainrule_core::Tensor<T>>,
            ) -> chainrule_core::Result<()> {
                dx.map_or(Ok(()), |dx| $crate::shape::order::backward(self, call, dx))
            }

            fn reads_output(&self) -> bool {
                false
            }

            fn spec(&self) -> chainrule_core::Spec {
                $crate::shape::order::Reorder::settings(self)
            }
        }
    };
}
pub(super) use reordered;

/// The inverse of `permute`: x of this shape from y, whose axis i is axis `order[i]` of x.
pub(super) fn permute_back<T: Scalar>(y: &[T], x: &mut [T], shape: &[usize], order: &[usize]) {
    let (mut lengths, mut inverse) = ([0; Shape::MAX_RANK], [0; Shape::MAX_RANK]);
    for (i, &axis) in order.iter().enumerate() {
        (lengths[i], inverse[axis]) = (shape[axis], i);
    }
    permute(y, x, &lengths[..order.len()], &inverse[..order.len()]);
}
