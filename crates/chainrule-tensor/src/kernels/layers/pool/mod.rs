//! Pooling over the planes of (N, C, …): one, two or three axes.

mod average;
mod corners;
mod max;
mod spans;
mod starts;
mod unpool;

pub use average::{Span, average_pool, average_pool_gradient};
pub use corners::{max_pool_corners, max_pool_corners_gradient};
pub use max::{max_pool, max_pool_gradient};
pub use spans::max_pool_spans;
pub use starts::max_pool_starts;
pub use unpool::{max_unpool, max_unpool_gradient};

/// Elements of a piece of planes: max pooling takes 0.12 ns each, so that a piece lasts 2 µs; handing it out takes 0.3 µs.
const PIECE: usize = 1 << 14;

/// Planes of one piece, by sizes alone.
fn planes_per_piece(plane: usize) -> usize {
    PIECE.div_ceil(plane.max(1))
}

/// Runs a loop over the windows j..j + k such that they cover 0..n. Rows that hold a few vectors, but not many, go in
/// blocks of one size; the last ends with the row, and may cover windows that were covered before. A macro, because a closure that
/// is called in four places is not inlined, and its loop then not vectorised.
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
