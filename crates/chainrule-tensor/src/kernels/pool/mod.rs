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

/// Runs a loop over the windows j..j + k such that they cover 0..n. Rows that hold a few vectors, but not many, go in
/// blocks of one size; the last ends with the row, and may cover windows that were covered before.
macro_rules! in_blocks {
    ($n:expr, $j:ident, $k:ident => $body:expr) => {
        match $n {
            n @ 16.. => in_blocks!(@of 16, n, $j, $k => $body),
            n @ 8.. => in_blocks!(@of 8, n, $j, $k => $body),
            n @ 4.. => in_blocks!(@of 4, n, $j, $k => $body),
            $k => {
                let $j = 0;
                $body
            }
        }
    };
    (@of $size:literal, $n:expr, $j:ident, $k:ident => $body:expr) => {{
        const SIZE: usize = $size;
        let ($k, mut next) = (SIZE, 0);
        while next < $n {
            let $j = next.min($n - $k);
            $body;
            next += $k;
        }
    }};
}
use in_blocks;
