//! Seeded random numbers. The generator is rand's xoshiro256++; the distributions are ours, so that a seed gives the
//! same values in every release. There is no global generator.

use crate::Scalar;
use rand::{Rng as _, SeedableRng, rngs::Xoshiro256PlusPlus};

/// A seeded generator.
///
/// ```
/// use chainrule_tensor::Rng;
/// let (mut a, mut b) = (Rng::new(7), Rng::new(7));
/// assert_eq!(a.normal(), b.normal());
/// ```
#[derive(Clone, Debug)]
pub struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// The stream of a seed and a name: streams of other names are independent of it.
    pub fn keyed(seed: u64, name: impl std::fmt::Display) -> Self {
        use std::fmt::Write;
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        write!(hash, "{name}").expect("hashing cannot fail");
        Self::new(mix(seed ^ mix(hash.0)))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n, without bias (Lemire, "Fast random integer generation in an interval", 2019).
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "expected at least one value to draw from, got n = 0");
        let n = n as u64;
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.bits()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as usize;
            }
        }
    }

    /// Standard normal (Box and Muller, 1958; the cosine branch alone, so that every call takes two draws).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Standard normal, drawn again until it lies in [low, high].
    ///
    /// # Panics
    /// If the interval is empty or lies so far out (beyond 6) that drawing again would not end.
    pub fn truncated_normal(&mut self, low: f64, high: f64) -> f64 {
        assert!(low < high && low < 6.0 && high > -6.0, "expected an interval near 0, got [{low}, {high}]");
        if high - low < 0.5 || low > 2.0 || high < -2.0 {
            // Narrow or far out: draw evenly and accept in proportion to the density.
            let peak = if low > 0.0 {
                low
            } else if high < 0.0 {
                high
            } else {
                0.0
            };
            loop {
                let v = low + (high.min(low.max(-9.0) + 20.0) - low) * self.uniform();
                if self.uniform() < (0.5 * (peak * peak - v * v)).exp() {
                    return v;
                }
            }
        }
        loop {
            let v = self.normal();
            if (low..=high).contains(&v) {
                return v;
            }
        }
    }

    /// Puts a slice into random order (Fisher and Yates).
    pub fn shuffle<V>(&mut self, values: &mut [V]) {
        for i in (1..values.len()).rev() {
            values.swap(i, self.below(i + 1));
        }
    }

    /// Fills a slice with standard normal values.
    pub fn fill_normal<T: Scalar>(&mut self, out: &mut [T]) {
        out.iter_mut().for_each(|v| *v = T::from_f64(self.normal()));
    }
}

/// 64-bit FNV-1a.
struct Fnv(u64);

impl std::fmt::Write for Fnv {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        for b in s.bytes() {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

/// Mixes 64 bits into 64 others, one to one (the finaliser of Steele, Lea and Flood's SplitMix, 2014).
#[inline(always)]
pub fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Joins a key with one more word: a seed with a step, a place with a child's name.
#[inline]
pub fn noise_key(key: u64, word: u64) -> u64 {
    mix(key ^ mix(word))
}

/// The random bits that belong to a position under a key, whatever was drawn before: counter-based noise does not
/// depend on threads or on order.
#[inline(always)]
pub fn noise(key: u64, position: u64) -> u64 {
    mix(key.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_values_in_every_release() {
        let mut rng = Rng::new(1);
        let first: Vec<u64> = (0..3).map(|_| rng.bits()).collect();
        assert_eq!(first, [14971601782005023387, 13781649495232077965, 1847458086238483744]);
        assert_eq!(Rng::keyed(1, "0.weight").bits(), Rng::keyed(1, format!("{}.weight", 0)).bits());
        assert_ne!(Rng::keyed(1, "0.weight").bits(), Rng::keyed(1, "1.weight").bits());
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        let mut rng = Rng::new(3);
        let n = 200_000;
        let (mut m1, mut m2, mut m4) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            let v = rng.normal();
            (m1, m2, m4) = (m1 + v, m2 + v * v, m4 + v.powi(4));
        }
        let n = f64::from(n);
        assert!((m1 / n).abs() < 0.01 && (m2 / n - 1.0).abs() < 0.02 && (m4 / n - 3.0).abs() < 0.1);
        let t: Vec<f64> = (0..20_000).map(|_| rng.truncated_normal(-2.0, 2.0)).collect();
        assert!(t.iter().all(|v| v.abs() <= 2.0));
        // The variance of the normal cut at ±2 is 0.7737.
        assert!((t.iter().map(|v| v * v).sum::<f64>() / 20_000.0 - 0.7737).abs() < 0.03);
        assert!((0..100).all(|_| (3.0..=3.2).contains(&rng.truncated_normal(3.0, 3.2))));
    }

    #[test]
    fn below_is_even_and_shuffle_keeps_all() {
        let mut rng = Rng::new(5);
        let mut counts = [0; 7];
        (0..70_000).for_each(|_| counts[rng.below(7)] += 1);
        assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
        let mut v: Vec<usize> = (0..50).collect();
        rng.shuffle(&mut v);
        assert_ne!(v, (0..50).collect::<Vec<_>>());
        v.sort_unstable();
        assert_eq!(v, (0..50).collect::<Vec<_>>());
    }
}
