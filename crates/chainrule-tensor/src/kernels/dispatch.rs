//! How a kernel that is written once is compiled for every instruction set.
//!
//! A [`Kernel`] is a job, a struct of sizes and pointers, whose `run` is generic over the [`Set`] and so over its vectors;
//! [`dispatch`] picks the instance at run time. Plain loops over slices are written as functions in [`kernel!`] and not as jobs:
//! slices that are arguments are known not to overlap, without which loops over five of them do not vectorise, and they stay
//! in registers.

use super::{Isa, lanes::Lanes};
use crate::Scalar;

/// An instruction set as a type.
pub(crate) trait Set: Copy + 'static {
    /// Its vectors of a scalar type.
    type Of<T: Scalar>: Lanes<T = T>;

    /// Runs a kernel in a function of its own that is compiled for this set: tiles that are inlined into one another would share
    /// its registers.
    ///
    /// # Safety
    /// As the kernel, and the processor has the instruction set.
    unsafe fn call<K: Kernel>(kernel: &K);
}

/// A job that is compiled for each instruction set and scalar type.
pub(crate) trait Kernel {
    /// The type of the elements.
    type T: Scalar;
    /// Whether there is an instance for [`Isa::Portable`].
    const PORTABLE: bool = true;

    /// Does the job; implementations are `inline(always)`, to become part of a function with the set's features.
    ///
    /// # Safety
    /// The memory that the job names is valid, what it writes is borrowed exclusively, and the processor has the set.
    unsafe fn run<S: Set>(&self);

    /// `run` on the portable set. This and the two below are methods of the job so that the compiler generates them beside the
    /// job's own module, and families side by side.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    #[inline(never)]
    unsafe fn portable(&self)
    where
        Self: Sized,
    {
        // SAFETY: the caller's promises are those of `run`.
        unsafe { self.run::<Portable>() }
    }

    /// `run` on AVX2.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(never)]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(&self)
    where
        Self: Sized,
    {
        // SAFETY: the caller's promises are those of `run`.
        unsafe { self.run::<Avx2>() }
    }

    /// `run` on AVX-512.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn avx512(&self)
    where
        Self: Sized,
    {
        // SAFETY: the caller's promises are those of `run`.
        unsafe { self.run::<Avx512>() }
    }
}

/// Runs a kernel on an instruction set.
///
/// # Safety
/// As [`Kernel::run`]: the memory that the job names is valid, what it writes is borrowed exclusively, and the processor has `isa`.
#[inline]
pub(crate) unsafe fn dispatch<K: Kernel>(isa: Isa, kernel: &K) {
    // SAFETY: the caller's promises are those of `call`.
    unsafe {
        match isa {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Isa::Avx512 if <K::T as super::lanes::Vectors>::WIDE => Avx512::call(kernel),
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Isa::Avx512 | Isa::Avx2 => Avx2::call(kernel),
            _ if K::PORTABLE => Portable::call(kernel),
            _ => unreachable!("a kernel without a portable instance"),
        }
    }
}

/// What every processor of the target has.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Set for Portable {
    type Of<T: Scalar> = T::Portable;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: &K) {
        // SAFETY: the caller's promises are those of `run`.
        unsafe { kernel.portable() }
    }
}

/// AVX2 and FMA.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

#[cfg(all(target_arch = "x86_64", not(miri)))]
impl Set for Avx2 {
    type Of<T: Scalar> = T::Avx2;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: &K) {
        // SAFETY: the processor has AVX2 and FMA, as the caller promises.
        unsafe { kernel.avx2() }
    }
}

/// AVX-512 F, BW, DQ and VL.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

#[cfg(all(target_arch = "x86_64", not(miri)))]
impl Set for Avx512 {
    type Of<T: Scalar> = T::Avx512;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: &K) {
        // SAFETY: the processor has AVX-512 F, BW, DQ and VL, as the caller promises.
        unsafe { kernel.avx512() }
    }
}

/// Whether a loop is compiled for a processor that multiplies and adds in one instruction.
#[derive(Clone, Copy)]
pub(crate) struct Fused<const FMA: bool>;

/// The instances of a function for the two scalar types, as a type.
pub trait Instances {
    /// The pointer to the instance.
    type Of<T: Scalar>: Copy;
}

/// Compiles a function for f32 and f64 with the crate that it stands in. A generic function is compiled by whoever calls it, which
/// in a debug build is a program without optimisation, and in every build is more to compile for that program.
///
/// ```
/// use chainrule_tensor::{Scalar, compiled};
/// compiled! {
///     /// Σ xᵢ²
///     pub fn squares[T](x: &[T]) -> T {
///         x.iter().map(|&x| x * x).sum()
///     }
/// }
/// assert_eq!(squares(&[3.0f32, 4.0]), 25.0);
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! compiled {
    ($(#[$meta:meta])* $vis:vis fn $name:ident [$t:ident] ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[inline]
        $vis fn $name<$t: $crate::Scalar>($($arg: $ty),*) $(-> $ret)? {
            struct Signature;
            impl $crate::Instances for Signature {
                type Of<$t: $crate::Scalar> = fn($($ty),*) $(-> $ret)?;
            }
            #[inline(always)]
            fn body<$t: $crate::Scalar>($($arg: $ty),*) $(-> $ret)? $body
            let single = {
                type $t = f32;
                #[inline(never)]
                fn single($($arg: $ty),*) $(-> $ret)? {
                    body::<$t>($($arg),*)
                }
                single
            };
            let double = {
                type $t = f64;
                #[inline(never)]
                fn double($($arg: $ty),*) $(-> $ret)? {
                    body::<$t>($($arg),*)
                }
                double
            };
            <$t as $crate::Scalar>::pick::<Signature>(single, double)($($arg),*)
        }
    };
}

/// Compiles a function for every [`Isa`] and dispatches at run time. The body must be safe code. In it, `FMA` says whether the
/// processor multiplies and adds in one instruction. One for other crates, generic over `[T]` alone, is
/// [`compiled!`] too.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident [$t:ident] ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $crate::compiled! {
            $(#[$meta])* $vis fn $name[$t]($($arg: $ty),*) $(-> $ret)? {
                $crate::kernels::kernel! {
                    fn all[$t: $crate::Scalar]($($arg: $ty),*) $(-> $ret)? $body
                }
                all($($arg),*)
            }
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident [$($generics:tt)*] ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name<$($generics)*>($($arg: $ty),*) $(-> $ret)? {
            use $crate::kernels::{dispatch::Fused, isa};
            #[inline(always)]
            fn body<const FMA: bool, $($generics)*>(_: Fused<FMA>, $($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512<$($generics)*>($($arg: $ty),*) $(-> $ret)? {
                body(Fused::<true>, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2<$($generics)*>($($arg: $ty),*) $(-> $ret)? {
                body(Fused::<true>, $($arg),*)
            }
            match isa() {
                // SAFETY: `isa` names AVX-512 only after it was detected.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::Isa::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: `isa` names AVX2 only after it was detected, with FMA.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => body(Fused::<false>, $($arg),*),
            }
        }
    };
}
pub(crate) use kernel;

/// Prefetches `len` elements that will be needed soon. Any address may be named.
#[inline(always)]
pub(crate) fn prefetch<V>(from: *const V, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for at in (0..len).step_by(64 / size_of::<V>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no effect that the program could observe, and every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at).cast()) };
    }
    let _ = (from, len);
}
