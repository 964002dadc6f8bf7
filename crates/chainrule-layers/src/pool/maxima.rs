//! What adaptive and global max pools share: the maxima over windows that divide an input, and their gradient.

use super::{means::part, windows::check_positions};
use crate::rank::axes_of;
use chainrule_core::{Call, Context, Error, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::layers::pool::{Span, max_pool_gradient, max_pool_spans};

/// What forward keeps for backward.
#[derive(Debug)]
pub struct PartsMaxCache<const R: usize> {
    /// The shape of x, if the pass was recorded.
    recorded: Option<Shape>,
    /// The position of each maximum within its plane.
    positions: Vec<u32>,
    /// The windows along each axis.
    windows: [Vec<Span>; R],
}

impl<const R: usize> Default for PartsMaxCache<R> {
    fn default() -> Self {
        Self { recorded: None, positions: Vec::new(), windows: [const { Vec::new() }; R] }
    }
}

impl<const R: usize> PartsMaxCache<R> {
    /// y[o] = the maximum of window o, of as many as y has elements.
    pub(super) fn maxima<T: Scalar>(
        &mut self,
        layer: &str,
        x: &Tensor<T>,
        (y, shape): (&mut Tensor<T>, Shape),
        cx: Context,
    ) -> Result<()> {
        check_positions(layer, x.shape())?;
        let (size, parts) = (axes_of::<R>(x.shape()), axes_of::<R>(&shape));
        for (axis, windows) in self.windows.iter_mut().enumerate() {
            windows.clear();
            windows.extend((0..parts[axis]).map(|o| part(o, size[axis], parts[axis])));
        }
        let y = y.reset(shape);
        self.positions.resize(y.len(), 0);
        self.recorded = cx.recording().then_some(*x.shape());
        max_pool_spans(x.data(), y, &mut self.positions, size, self.windows.each_ref().map(Vec::as_slice));
        Ok(())
    }

    /// dx[maximum of o] += dy[o]
    pub(super) fn gradient<T: Scalar>(
        &self,
        layer: &str,
        call: Call<'_, T>,
        dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let shape = *call.x.shape();
        if self.recorded != Some(shape) || self.positions.len() != call.dy.len() {
            return Err(Error::not_recorded(format!(
                "{layer}: expected the cache of a recorded forward of this input"
            )));
        }
        if let Some(dx) = dx {
            let plane = shape[2..].iter().product();
            max_pool_gradient(call.dy.data(), &self.positions, dx.reset(shape), plane);
        }
        Ok(())
    }
}
