//! Noise over elements, counter-based: the bits of an element depend on the key and on its position alone.

use crate::{Scalar, compiled, kernels::kernel, noise, par};

/// Elements of a piece, and of a block: one hash of 64 bits serves elements i and i + HALF of a block.
const PIECE: usize = 1 << 14;
const BLOCK: usize = 2 * HALF;
const HALF: usize = 128;

kernel! {
    /// [`dropout`] of one piece that begins with block number `first`.
    fn dropout_piece[T: Scalar](x: &[T], y: &mut [T], key: u64, first: usize, threshold: u32, scale: T) {
        let mut bits = [0; HALF];
        for (block, (x, y)) in (first..).zip(x.chunks(BLOCK).zip(y.chunks_mut(BLOCK))) {
            for (j, bits) in bits.iter_mut().enumerate() {
                *bits = noise(key, (block * HALF + j) as u64);
            }
            let (low, high) = y.split_at_mut(HALF.min(x.len()));
            for ((y, &x), &bits) in low.iter_mut().zip(x).zip(&bits) {
                *y = x * if bits as u32 >= threshold { scale } else { T::ZERO };
            }
            for ((y, &x), &bits) in high.iter_mut().zip(&x[low.len()..]).zip(&bits) {
                *y = x * if (bits >> 32) as u32 >= threshold { scale } else { T::ZERO };
            }
        }
    }
}

compiled! {
    /// yᵢ = xᵢ mᵢ/(1 − p), where mᵢ is 0 with probability p (to within 2⁻³²) and 1 otherwise, by the key's noise.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dropout[T](x: &[T], y: &mut [T], key: u64, p: f64) {
        assert_eq!(x.len(), y.len());
        let threshold = (p * f64::from(u32::MAX)) as u32;
        let scale = if p < 1.0 { T::from_f64(1.0 / (1.0 - p)) } else { T::ZERO };
        par::for_chunks(y, PIECE, |i, y| {
            dropout_piece(&x[i * PIECE..][..y.len()], y, key, i * (PIECE / BLOCK), threshold, scale);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_depends_on_key_and_position_alone() {
        let n = 3 * PIECE + 21;
        let mask = |n: usize, key: u64, threads: usize| {
            let (x, mut y) = (vec![1.0f64; n], vec![f64::NAN; n]);
            par::with_threads(threads, || dropout(&x, &mut y, key, 0.3));
            y
        };
        let all = mask(n, 5, 1);
        assert!(mask(n, 5, 3) == all && mask(1000, 5, 1) == all[..1000] && mask(37, 5, 1) == all[..37]);
        assert_ne!(mask(100, 6, 1), all[..100]);
        let singles = mask(n, 5, 1).iter().map(|&v| v as f32).collect::<Vec<_>>();
        let (ones, mut y) = (vec![1.0f32; n], vec![0.0; n]);
        dropout(&ones, &mut y, 5, 0.3);
        assert_eq!(y, singles);
    }

    #[test]
    fn the_share_of_zeros_is_p_and_the_mean_stays() {
        for p in [0.0, 0.1, 0.5, 0.9, 1.0] {
            let n = 100_000;
            let (x, mut y) = (vec![1.0f64; n], vec![f64::NAN; n]);
            dropout(&x, &mut y, 1, p);
            let zeros = y.iter().filter(|v| **v == 0.0).count() as f64 / n as f64;
            assert!((zeros - p).abs() < 4.0 * (p * (1.0 - p) / n as f64).sqrt() + 1e-12, "{p} {zeros}");
            // Neighbours, and the two elements of one hash, fall independently.
            for apart in [1, HALF, BLOCK] {
                let both = (apart..n).filter(|&i| y[i] == 0.0 && y[i - apart] == 0.0).count() as f64;
                let both = both / (n - apart) as f64;
                assert!((both - p * p).abs() < 0.01, "{p} {apart} {both}");
            }
        }
    }
}
