//! Convolutions of images, forward and backward, over (N, C, H, W).
//!
//! ```text
//! y[n, k, i, j] = b[k] + Σ over c, r, s of w[k, c, r, s] · x[n, c, i·stride + r·dilation − before, j·stride + s·dilation − before]
//! ```
//!
//! with zeros outside the image, and c over the channels of k's group.

mod geometry;
mod plain;
pub mod winograd;

pub use geometry::Geometry;

use crate::Scalar;

/// Memory that the kernels keep from one call to the next.
#[derive(Clone, Debug, Default)]
pub struct Workspace<T> {
    _numbers: Vec<T>,
}

/// y = w ⋆ x + b, overwritten.
///
/// # Panics
/// If a slice is not as long as the geometry says.
pub fn conv2d<T: Scalar>(
    g: &Geometry,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
    _work: &mut Workspace<T>,
) {
    g.check(x, w, y);
    plain::forward(g, x, w, bias, y);
}

/// dx = wᵀ ⋆ dy, overwritten.
///
/// # Panics
/// If a slice is not as long as the geometry says.
pub fn conv2d_input_gradient<T: Scalar>(
    g: &Geometry,
    w: &[T],
    dy: &[T],
    dx: &mut [T],
    _work: &mut Workspace<T>,
) {
    g.check(dx, w, dy);
    plain::input_gradient(g, w, dy, dx);
}

/// dw += dy ⋆ x.
///
/// # Panics
/// If a slice is not as long as the geometry says.
pub fn conv2d_weight_gradient<T: Scalar>(
    g: &Geometry,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
    _work: &mut Workspace<T>,
) {
    g.check(x, dw, dy);
    plain::weight_gradient(g, x, dy, dw);
}
