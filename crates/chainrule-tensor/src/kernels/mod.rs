//! Kernels: functions over slices and sizes. They know nothing of layers, and they alone may be `unsafe`.
//!
//! A kernel is written once as plain loops that the compiler can vectorise. The `simd!` macro compiles it for
//! AVX-512, for AVX2 with FMA and for the portable target, and picks one at run time.

pub mod conv;
pub mod elementwise;
pub mod embedding;
pub mod gemm;
mod lanes;
pub mod limits;
pub mod loss;
pub mod math;
pub mod noise;
pub mod norm;
pub mod optim;
pub mod pad;
mod parts;
pub mod pool;
pub mod reduce;
pub mod softmax;

use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Isa {
    /// What every processor of the target has.
    Portable = 1,
    /// AVX2 and FMA.
    Avx2 = 2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512 = 3,
}

/// The vectors of each scalar type.
#[expect(private_bounds)]
pub trait VectorScalar: lanes::Vectors {}
impl VectorScalar for f32 {}
impl VectorScalar for f64 {}

static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// The instruction set in use: the best that this processor has, or less if `CHAINRULE_ISA` is `portable` or `avx2`.
#[inline]
pub fn isa() -> Isa {
    match CHOSEN.load(Ordering::Relaxed) {
        1 => Isa::Portable,
        2 => Isa::Avx2,
        3 => Isa::Avx512,
        _ => choose(),
    }
}

#[cold]
fn choose() -> Isa {
    let wanted = match std::env::var("CHAINRULE_ISA").as_deref() {
        Ok("portable") => Isa::Portable,
        Ok("avx2") => Isa::Avx2,
        _ => Isa::Avx512,
    };
    let isa = wanted.min(best());
    CHOSEN.store(isa as u8, Ordering::Relaxed);
    isa
}

/// The best instruction set that this processor has.
pub fn best() -> Isa {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if avx2 && avx512 {
            return Isa::Avx512;
        }
        if avx2 {
            return Isa::Avx2;
        }
    }
    Isa::Portable
}

/// Compiles a function for every [`Isa`] and dispatches at run time. The body must be safe code. In it, `FMA` says whether the
/// processor multiplies and adds in one instruction.
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident [$($generics:tt)*] ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name<$($generics)*>($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn portable<$($generics)*>($($arg: $ty),*) $(-> $ret)? {
                #[allow(dead_code)]
                const FMA: bool = false;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            #[inline(always)]
            fn fused<$($generics)*>($($arg: $ty),*) $(-> $ret)? {
                #[allow(dead_code)]
                const FMA: bool = true;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512<$($generics)*>($($arg: $ty),*) $(-> $ret)? {
                fused($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2<$($generics)*>($($arg: $ty),*) $(-> $ret)? {
                fused($($arg),*)
            }
            match $crate::kernels::isa() {
                // SAFETY: `isa` names an instruction set only after the processor was asked for it.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::Isa::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => portable($($arg),*),
            }
        }
    };
}
pub(crate) use simd;

/// Asks for `length` elements that will be needed soon. Any address may be named.
#[inline(always)]
fn ask<T>(from: *const T, length: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for at in (0..length).step_by(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program could notice, and every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at).cast()) };
    }
    let _ = (from, length);
}
