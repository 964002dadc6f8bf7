//! The peak of a thread: independent multiply-adds in registers.

use chainrule_tensor::kernels::{Isa, isa};
use std::{hint::black_box, time::Instant};

/// Twelve chains of multiply-adds: more than the latency of one hides.
macro_rules! chains {
    ($name:ident, $features:literal, $splat:ident, $fma:ident, $store:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        fn $name(rounds: usize) -> f32 {
            use std::arch::x86_64::*;
            let (x, y) = ($splat(black_box(1.000_001)), $splat(black_box(1e-9)));
            let mut acc = [$splat(0.5); 12];
            for _ in 0..rounds {
                for acc in &mut acc {
                    *acc = $fma(*acc, x, y);
                }
            }
            let mut out = [0.0; 16];
            for acc in acc {
                // SAFETY: the array is as long as the longest vector.
                unsafe { $store(out.as_mut_ptr(), acc) };
                black_box(out);
            }
            out[0]
        }
    };
}
chains!(chains512, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps);
chains!(chains256, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps);

/// The same for any processor: products and sums in small arrays.
fn chains_portable(rounds: usize) -> f32 {
    let (x, y) = (black_box([1.000_001f32; 4]), black_box([1e-9f32; 4]));
    let mut acc = [[0.5f32; 4]; 12];
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = std::array::from_fn(|i| acc[i] * x[i] + y[i]);
        }
    }
    acc.iter().flatten().sum()
}

/// Seconds that a floating-point operation takes at the peak of one thread.
pub fn seconds_of_an_operation() -> f64 {
    let rounds = 4000;
    let (lanes, run): (usize, fn(usize) -> f32) = match isa() {
        // SAFETY: `isa` names an instruction set only if the processor has it.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => (16, |rounds| unsafe { chains512(rounds) }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => (8, |rounds| unsafe { chains256(rounds) }),
        _ => (4, chains_portable),
    };
    let start = Instant::now();
    black_box(run(rounds));
    start.elapsed().as_secs_f64() / (rounds * 12 * lanes * 2) as f64
}
