//! Pooling over the planes (H, W) of (N, C, H, W).

mod average;
mod corners;
mod max;

pub use average::{Window, average_pool, average_pool_gradient};
pub use corners::{max_pool_corners, max_pool_corners_gradient};
pub use max::{Slide, max_pool, max_pool_gradient};

/// Elements of a piece of planes.
const PIECE: usize = 1 << 14;

/// Planes of one piece, by sizes alone.
fn planes_per_piece(plane: usize) -> usize {
    PIECE.div_ceil(plane.max(1))
}
