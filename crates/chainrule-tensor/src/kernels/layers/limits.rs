//! The limits of the processor, which kernels are measured against.

use crate::kernels::{elementwise, isa};
use std::{hint::black_box, time::Instant};

/// Twelve chains of multiply-adds: more than the latency of one hides.
macro_rules! chains {
    ($name:ident, $features:literal, $splat:ident, $fma:ident, $store:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        fn $name(rounds: usize) {
            use std::arch::x86_64::*;
            let (x, y) = ($splat(black_box(1.000_001)), $splat(black_box(1e-9)));
            let mut acc = [$splat(0.5); 12];
            for _ in 0..rounds {
                for acc in &mut acc {
                    *acc = $fma(*acc, x, y);
                }
            }
            let mut out = [0.0f32; 16];
            for acc in acc {
                // SAFETY: the array is as long as the longest vector.
                unsafe { $store(out.as_mut_ptr(), acc) };
                black_box(out);
            }
        }
    };
}
chains!(chains512, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps);
chains!(chains256, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps);

/// The same for any processor: products and sums in small arrays.
fn chains_portable(rounds: usize) {
    let (x, y) = (black_box([1.000_001f32; 4]), black_box([1e-9f32; 4]));
    let mut acc = [[0.5f32; 4]; 12];
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = std::array::from_fn(|i| acc[i] * x[i] + y[i]);
        }
    }
    black_box(acc);
}

/// Floating-point operations per second of a plain loop of f32 multiply-adds in registers, in this thread, from a run of
/// some ten microseconds. Take the best of several.
///
/// ```
/// use chainrule_tensor::kernels::layers::limits;
/// assert!(limits::flops() > 0.0);
/// ```
pub fn flops() -> f64 {
    let rounds = 4000;
    let (lanes, run): (usize, fn(usize)) = match isa() {
        // SAFETY: `isa` names an instruction set only if the processor has it.
        #[cfg(target_arch = "x86_64")]
        crate::kernels::Isa::Avx512 => (16, |rounds| unsafe { chains512(rounds) }),
        // SAFETY: `isa` names AVX2 only if the processor has it, with FMA.
        #[cfg(target_arch = "x86_64")]
        crate::kernels::Isa::Avx2 => (8, |rounds| unsafe { chains256(rounds) }),
        _ => (4, chains_portable),
    };
    let start = Instant::now();
    run(rounds);
    (rounds * 12 * lanes * 2) as f64 / start.elapsed().as_secs_f64()
}

/// Bytes per second, read and written together, of a copy of `from` to `to` by all threads that a kernel would use.
///
/// # Panics
/// If the lengths differ.
pub fn copy_speed(from: &[f32], to: &mut [f32]) -> f64 {
    let start = Instant::now();
    elementwise::copy(black_box(from), black_box(to));
    2.0 * size_of_val(from) as f64 / start.elapsed().as_secs_f64()
}
