//! Noise over elements, counter-based: the bits of an element depend on the key and on its position alone.

use crate::{
    Scalar, compiled,
    kernels::{kernel, math::sin_cos},
    noise, par,
};

/// Elements of a piece, and of a block: one hash of 64 bits serves elements i and i + HALF of a block.
const PIECE: usize = 1 << 14;
const BLOCK: usize = 2 * HALF;
const HALF: usize = 128;

/// The bits of a block, of which the low halves are those of the first [`HALF`] elements.
#[inline(always)]
fn block_bits(key: u64, block: usize) -> [u64; HALF] {
    let mut bits = [0; HALF];
    for (j, bits) in bits.iter_mut().enumerate() {
        *bits = noise(key, (block * HALF + j) as u64);
    }
    bits
}

/// A function of an element and its 32 bits. Its `of` is `inline(always)`.
trait Noisy<T>: Copy + Sync {
    fn of(self, x: T, bits: u32) -> T;
}

kernel! {
    /// yᵢ = f(xᵢ, bits of i), of one piece that begins with block number `first`.
    fn noisy_piece[T: Scalar, F: Noisy<T>](x: &[T], y: &mut [T], key: u64, first: usize, f: F) {
        for (block, (x, y)) in (first..).zip(x.chunks(BLOCK).zip(y.chunks_mut(BLOCK))) {
            let bits = block_bits(key, block);
            let (low, high) = y.split_at_mut(HALF.min(x.len()));
            for ((y, &x), &bits) in low.iter_mut().zip(x).zip(&bits) {
                *y = f.of(x, bits as u32);
            }
            for ((y, &x), &bits) in high.iter_mut().zip(&x[low.len()..]).zip(&bits) {
                *y = f.of(x, (bits >> 32) as u32);
            }
        }
    }
}

/// yᵢ = f(xᵢ, bits of i).
fn noisy<T: Scalar>(x: &[T], y: &mut [T], key: u64, f: impl Noisy<T>) {
    assert_eq!(x.len(), y.len());
    par::for_chunks(y, PIECE, |i, y| {
        noisy_piece(&x[i * PIECE..][..y.len()], y, key, i * (PIECE / BLOCK), f);
    });
}

/// Bits below this drop an element.
fn threshold(p: f64) -> u32 {
    (p * f64::from(u32::MAX)) as u32
}

/// x scaled, where it is kept.
#[derive(Clone, Copy)]
struct Scaled<T> {
    threshold: u32,
    scale: T,
}

impl<T: Scalar> Noisy<T> for Scaled<T> {
    #[inline(always)]
    fn of(self, x: T, bits: u32) -> T {
        x * if bits >= self.threshold { self.scale } else { T::ZERO }
    }
}

compiled! {
    /// yᵢ = xᵢ mᵢ/(1 − p), where mᵢ is 0 with probability p (to within 2⁻³²) and 1 otherwise, by the key's noise.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dropout[T](x: &[T], y: &mut [T], key: u64, p: f64) {
        let scale = if p < 1.0 { T::from_f64(1.0 / (1.0 - p)) } else { T::ZERO };
        noisy(x, y, key, Scaled { threshold: threshold(p), scale });
    }
}

/// What becomes of an element x: a scale and a shift of what is kept, and the shift of what is dropped, which is scaled by 0.
#[derive(Clone, Copy, Debug)]
pub struct Affine<T> {
    /// The factor of what is kept.
    pub scale: T,
    /// What is added to it.
    pub kept: T,
    /// What stands for the others.
    pub dropped: T,
}

#[derive(Clone, Copy)]
struct Masked<T> {
    threshold: u32,
    to: Affine<T>,
}

impl<T: Scalar> Noisy<T> for Masked<T> {
    #[inline(always)]
    fn of(self, x: T, bits: u32) -> T {
        let Affine { scale, kept, dropped } = self.to;
        let keep = bits >= self.threshold;
        x * if keep { scale } else { T::ZERO } + if keep { kept } else { dropped }
    }
}

compiled! {
    /// yᵢ = scale xᵢ + kept, or 0 xᵢ + dropped with probability p, by the key's noise.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn mask[T](x: &[T], y: &mut [T], key: u64, p: f64, to: Affine<T>) {
        noisy(x, y, key, Masked { threshold: threshold(p), to });
    }
}

compiled! {
    /// [`mask`] of whole planes: their bits are those of their number.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn mask_planes[T](x: &[T], y: &mut [T], plane: usize, key: u64, p: f64, to: Affine<T>) {
        assert_eq!(x.len(), y.len());
        let (plane, masked) = (plane.max(1), Masked { threshold: threshold(p), to });
        let planes = (PIECE / plane).max(1);
        par::for_chunks(y, planes * plane, |i, y| {
            let x = &x[i * planes * plane..][..y.len()];
            for (number, (x, y)) in (i * planes..).zip(x.chunks(plane).zip(y.chunks_mut(plane))) {
                let bits = noise(key, number as u64) as u32;
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = masked.of(x, bits));
            }
        });
    }
}

/// The slope of x where x ≤ 0, from its bits: uniform between two.
#[derive(Clone, Copy)]
struct Slopes<T> {
    lower: T,
    /// (upper − lower)/2³²
    step: f64,
}

impl<T: Scalar> Slopes<T> {
    #[inline(always)]
    fn of(self, x: T, bits: u32) -> T {
        let slope = self.lower + T::from_f64(self.step * f64::from(bits));
        let slope = if x > T::ZERO { T::ONE } else { slope };
        if x.is_nan() { x } else { slope }
    }
}

kernel! {
    /// yᵢ = vᵢ times the slope of xᵢ, of one piece that begins with block number `first`.
    fn slopes_piece[T: Scalar](x: &[T], v: &[T], y: &mut [T], key: u64, first: usize, slopes: Slopes<T>) {
        let blocks = x.chunks(BLOCK).zip(v.chunks(BLOCK)).zip(y.chunks_mut(BLOCK));
        for (block, ((x, v), y)) in (first..).zip(blocks) {
            let bits = block_bits(key, block);
            let (low, high) = y.split_at_mut(HALF.min(x.len()));
            for (((y, &x), &v), &bits) in low.iter_mut().zip(x).zip(v).zip(&bits) {
                *y = v * slopes.of(x, bits as u32);
            }
            let (x, v) = (&x[low.len()..], &v[low.len()..]);
            for (((y, &x), &v), &bits) in high.iter_mut().zip(x).zip(v).zip(&bits) {
                *y = v * slopes.of(x, (bits >> 32) as u32);
            }
        }
    }
}

compiled! {
    /// yᵢ = vᵢ for xᵢ > 0 and vᵢ aᵢ otherwise, where aᵢ is uniform in [lower, upper) by the key's noise.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn random_slopes[T](x: &[T], v: &[T], y: &mut [T], key: u64, lower: f64, upper: f64) {
        assert!(x.len() == y.len() && v.len() == y.len());
        let slopes = Slopes { lower: T::from_f64(lower), step: (upper - lower) / 2f64.powi(32) };
        par::for_chunks(y, PIECE, |i, y| {
            let at = i * PIECE..i * PIECE + y.len();
            slopes_piece(&x[at.clone()], &v[at], y, key, i * (PIECE / BLOCK), slopes);
        });
    }
}

kernel! {
    /// yᵢ = xᵢ + std nᵢ, or xᵢ + std nᵢ xᵢ, of one piece that begins with block number `first`.
    fn normal_piece[T: Scalar](x: &[T], y: &mut [T], key: u64, first: usize, std: T, relative: bool) {
        for (block, (x, y)) in (first..).zip(x.chunks(BLOCK).zip(y.chunks_mut(BLOCK))) {
            let bits = block_bits(key, block);
            let mut normals = [[T::ZERO; HALF]; 2];
            let [cosines, sines] = &mut normals;
            for ((c, s), &bits) in cosines.iter_mut().zip(sines).zip(&bits) {
                // u = 2⁻²⁴ … 1 and v = −½ … ½ − 2⁻²⁴, 24 bits each: exact in f32. √(−2 ln u) (cos 2πv, sin 2πv)
                let u = f64::from((bits as u32 >> 8) + 1) * (1.0 / (1 << 24) as f64);
                let v = f64::from((bits >> 32) as i32 >> 8) * (1.0 / (1 << 24) as f64);
                let radius = (T::from_f64(-2.0) * T::from_f64(u).v_ln::<FMA>()).sqrt();
                let (sin, cos) = sin_cos::<T, FMA>(T::from_f64(v) * T::from_f64(std::f64::consts::TAU));
                (*c, *s) = (radius * cos, radius * sin);
            }
            let (low, high) = y.split_at_mut(HALF.min(x.len()));
            for ((y, &x), &n) in low.iter_mut().zip(x).zip(&normals[0]) {
                *y = x + std * n * if relative { x } else { T::ONE };
            }
            for ((y, &x), &n) in high.iter_mut().zip(&x[low.len()..]).zip(&normals[1]) {
                *y = x + std * n * if relative { x } else { T::ONE };
            }
        }
    }
}

compiled! {
    /// yᵢ = xᵢ + std nᵢ, or xᵢ (1 + std nᵢ) if `relative`, where nᵢ is standard normal by the key's noise (Box and Muller, 1958),
    /// within ±5.77.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn normal[T](x: &[T], y: &mut [T], key: u64, std: f64, relative: bool) {
        assert_eq!(x.len(), y.len());
        let std = T::from_f64(std);
        par::for_chunks(y, PIECE, |i, y| {
            normal_piece(&x[i * PIECE..][..y.len()], y, key, i * (PIECE / BLOCK), std, relative);
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

    #[test]
    fn normal_noise_has_the_moments_of_the_normal_distribution() {
        let n = 200_001;
        let (x, mut y) = (vec![0.0f64; n], vec![f64::NAN; n]);
        normal(&x, &mut y, 3, 1.0, false);
        let moment = |k: i32| y.iter().map(|v| v.powi(k)).sum::<f64>() / n as f64;
        let within = |k, want: f64, variance: f64| {
            let (got, within) = (moment(k), 4.0 * (variance / n as f64).sqrt());
            assert!((got - want).abs() < within, "{k}: {got} for {want} within {within}");
        };
        within(1, 0.0, 1.0);
        within(2, 1.0, 2.0);
        within(3, 0.0, 15.0);
        within(4, 3.0, 96.0);
        // Neighbours, and the two elements of one hash, are independent.
        for apart in [1, HALF, BLOCK] {
            let product = (apart..n).map(|i| y[i] * y[i - apart]).sum::<f64>() / (n - apart) as f64;
            assert!(product.abs() < 0.01, "{apart}: {product}");
        }
        let (x, mut singles) = (vec![0.0f32; n], vec![f32::NAN; n]);
        normal(&x, &mut singles, 3, 1.0, false);
        assert!(singles.iter().zip(&y).all(|(&s, &d)| (f64::from(s) - d).abs() < 1e-5));
    }

    #[test]
    fn noise_depends_on_key_and_position_alone() {
        let n = 2 * PIECE + 321;
        let x: Vec<f64> = (0..n).map(|i| (i % 19) as f64 - 9.0).collect();
        let to = Affine { scale: 2.0, kept: 1.0, dropped: -1.0 };
        let all = |n: usize, key: u64, threads: usize| {
            par::with_threads(threads, || {
                let mut ys = [(); 4].map(|()| vec![f64::NAN; n]);
                normal(&x[..n], &mut ys[0], key, 0.5, true);
                random_slopes(&x[..n], &x[..n], &mut ys[1], key, 0.1, 0.4);
                mask(&x[..n], &mut ys[2], key, 0.3, to);
                mask_planes(&x[..n], &mut ys[3], 7, key, 0.3, to);
                ys
            })
        };
        let whole = all(n, 5, 1);
        assert!(all(n, 5, 3) == whole);
        for (y, other) in whole.iter().zip(all(701, 5, 1)) {
            assert!(other == y[..701]);
        }
        for (y, other) in whole.iter().zip(all(701, 6, 1)) {
            assert!(other != y[..701]);
        }
    }

    #[test]
    fn planes_fall_as_wholes() {
        let (x, mut y) = (vec![3.0f64; 70_000], vec![f64::NAN; 70_000]);
        mask_planes(&x, &mut y, 7, 2, 0.25, Affine { scale: 2.0, kept: 1.0, dropped: -1.0 });
        assert!(y.chunks(7).all(|plane| plane == [7.0; 7] || plane == [-1.0; 7]));
        let dropped = y.chunks(7).filter(|plane| plane[0] == -1.0).count() as f64 / 10_000.0;
        assert!((dropped - 0.25).abs() < 0.02, "{dropped}");
    }

    #[test]
    fn random_slopes_are_uniform() {
        let (x, mut y) = (vec![-1.0f64; 100_000], vec![f64::NAN; 100_000]);
        random_slopes(&x, &x, &mut y, 2, 0.25, 0.5);
        let (least, most) = y.iter().fold((1.0f64, 0.0f64), |(a, b), &v| (a.min(-v), b.max(-v)));
        let mean = -y.iter().sum::<f64>() / 1e5;
        assert!((0.25..0.2501).contains(&least) && (0.4999..0.5).contains(&most), "{least} {most}");
        assert!((mean - 0.375).abs() < 0.002, "{mean}");
    }
}
