//! Vectors of the instruction sets, under one trait, so that the kernels are written once.
//!
//! Every method is `inline(always)`: it becomes part of a kernel that is compiled with the features that it needs.

use super::{
    Isa,
    dispatch::dispatch,
    gemm::{Block, Dots, Gemm, Pack, Scratch},
};
use std::{cell::Cell, thread::LocalKey};

/// A vector register of `N` elements.
///
/// # Safety
/// All methods: the processor has the instruction set, and memory that is read or written is valid. The lanes that a
/// mask leaves out are not touched.
pub trait Lanes: Copy {
    type T: crate::Scalar;
    type Mask: Copy;
    const N: usize;

    unsafe fn splat(v: Self::T) -> Self;
    /// The first `n` ≤ N lanes.
    unsafe fn mask(n: usize) -> Self::Mask;
    unsafe fn load(from: *const Self::T) -> Self;
    /// The masked lanes; 0 in the others.
    unsafe fn load_masked(from: *const Self::T, mask: Self::Mask) -> Self;
    /// `load_masked` for use under a condition: never made unconditional with an empty mask, which takes hundreds of
    /// cycles where the address is null.
    #[inline(always)]
    unsafe fn load_if(from: *const Self::T, mask: Self::Mask) -> Self {
        // SAFETY: the masked elements are valid, and the processor has the instruction set.
        unsafe { Self::load_masked(from, mask) }
    }
    unsafe fn store(self, to: *mut Self::T);
    unsafe fn store_masked(self, to: *mut Self::T, mask: Self::Mask);
    /// self · b + c
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// c − self · b
    unsafe fn neg_mul_add(self, b: Self, c: Self) -> Self;
    unsafe fn add(self, b: Self) -> Self;
    unsafe fn sub(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    /// max(self, 0); NaN stays.
    unsafe fn relu(self) -> Self;
    /// The larger of self, which holds magnitudes, and |b|; NaN is larger than all.
    unsafe fn larger(self, b: Self) -> Self;
    /// The sum of the lanes: halves are added until one is left, as every set does it.
    unsafe fn sum(self) -> Self::T;
    /// The sums of the lanes of sixteen vectors, each as [`Lanes::sum`], in vectors again: `each(i, v)` gets those from the i-th on.
    #[inline(always)]
    unsafe fn sums(vectors: &[Self; 16], mut each: impl FnMut(usize, Self)) {
        for first in (0..16).step_by(Self::N) {
            let mut out = [<Self::T as crate::Scalar>::ZERO; 16];
            for (out, v) in out.iter_mut().zip(&vectors[first..][..Self::N]) {
                // SAFETY: the processor has the instruction set.
                *out = unsafe { v.sum() };
            }
            // SAFETY: N ≤ 16.
            each(first, unsafe { Self::load(out.as_ptr()) });
        }
    }
    #[inline(always)]
    unsafe fn prefetch(_from: *const Self::T) {}

    /// to[k·to_stride + r] = from[r·from_stride + k] for r < rows ≤ N, k < N.
    #[inline(always)]
    unsafe fn transpose(
        from: *const Self::T,
        from_stride: usize,
        rows: usize,
        to: *mut Self::T,
        to_stride: usize,
    ) {
        for k in 0..Self::N {
            for r in 0..rows {
                // SAFETY: the caller vouches for `rows` rows of N elements of `from`, and N rows of `rows` of `to`.
                unsafe { *to.add(k * to_stride + r) = *from.add(r * from_stride + k) };
            }
        }
    }
}

/// Vectors as small arrays: what the compiler makes of them on any processor.
macro_rules! portable {
    ($name:ident, $t:ty, $n:literal) => {
        #[derive(Clone, Copy)]
        pub struct $name([$t; $n]);

        impl Lanes for $name {
            type T = $t;
            type Mask = usize;
            const N: usize = $n;

            #[inline(always)]
            unsafe fn splat(v: $t) -> Self {
                Self([v; $n])
            }
            #[inline(always)]
            unsafe fn mask(n: usize) -> usize {
                n
            }
            #[inline(always)]
            unsafe fn load(from: *const $t) -> Self {
                // SAFETY: the caller vouches for `N` elements.
                Self(unsafe { from.cast::<[$t; $n]>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn load_masked(from: *const $t, mask: usize) -> Self {
                if mask >= $n {
                    // SAFETY: a full mask means `N` valid elements.
                    return unsafe { Self::load(from) };
                }
                // Out of line, as in `store_masked`: ends of rows are rare, and loops are compiled many times.
                #[inline(never)]
                unsafe fn part(from: *const $t, n: usize) -> [$t; $n] {
                    // SAFETY: the caller vouches for `n` elements.
                    std::array::from_fn(|i| if i < n { unsafe { *from.add(i) } } else { 0.0 })
                }
                // SAFETY: the caller vouches for the `mask` first elements.
                Self(unsafe { part(from, mask) })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $t) {
                // SAFETY: the caller vouches for `N` elements.
                unsafe { to.cast::<[$t; $n]>().write_unaligned(self.0) };
            }
            #[inline(always)]
            unsafe fn store_masked(self, to: *mut $t, mask: usize) {
                #[inline(never)]
                unsafe fn part(v: [$t; $n], to: *mut $t, n: usize) {
                    for (i, &v) in v.iter().enumerate().take(n) {
                        // SAFETY: the caller vouches for `n` elements.
                        unsafe { *to.add(i) = v };
                    }
                }
                // SAFETY: the caller vouches for the `mask` first elements.
                unsafe { part(self.0, to, mask) };
            }
            #[inline(always)]
            unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
            }
            #[inline(always)]
            unsafe fn add(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] + b.0[i]))
            }
            #[inline(always)]
            unsafe fn neg_mul_add(self, b: Self, c: Self) -> Self {
                Self(std::array::from_fn(|i| c.0[i] - self.0[i] * b.0[i]))
            }
            #[inline(always)]
            unsafe fn sub(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] - b.0[i]))
            }
            #[inline(always)]
            unsafe fn mul(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] * b.0[i]))
            }
            #[inline(always)]
            unsafe fn relu(self) -> Self {
                Self(self.0.map(|v| if v < 0.0 { 0.0 } else { v }))
            }
            #[inline(always)]
            unsafe fn larger(self, b: Self) -> Self {
                // Magnitudes are in the order of their bits.
                Self(std::array::from_fn(|i| {
                    <$t>::from_bits(self.0[i].to_bits().max(b.0[i].abs().to_bits()))
                }))
            }
            #[inline(always)]
            unsafe fn sum(self) -> $t {
                crate::kernels::reduce::fold(self.0)
            }
        }
    };
}

portable!(Portable32, f32, 4);
portable!(Portable64, f64, 2);

#[cfg(all(target_arch = "x86_64", not(miri)))]
pub use x86::{Avx2F32, Avx2F64, Avx512F32};

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86;

/// What a scalar type is to the kernels: its vectors on each instruction set, and the kernels that come in one function for each
/// size of a tile. As methods of a type those are compiled once, with this crate, and not again in every program that calls them.
///
/// f64 is for checking. It has no vectors of its own for AVX-512 and takes those of AVX2: a third less to compile for
/// everybody who builds this crate.
pub trait Vectors: Sized + 'static {
    /// Whether AVX-512 has vectors of its own.
    const WIDE: bool;
    /// Lanes of a sum along vectors: those of the widest vector. Narrower ones take them in parts, whose sums are added as the halves of
    /// the widest are, so that all instruction sets that fuse multiplication and addition give the same bits.
    const LANES: usize;
    type Portable: Lanes<T = Self>;
    type Avx2: Lanes<T = Self>;
    type Avx512: Lanes<T = Self>;
    /// The product of the `matrixmultiply` crate.
    const GEMM: Gemm<Self>;

    /// # Safety
    /// As `dispatch`, for this and the two below.
    unsafe fn block(isa: Isa, job: &Block<Self>);
    unsafe fn dots(isa: Isa, job: &Dots<Self>);
    unsafe fn pack(isa: Isa, job: &Pack<Self>);
    /// Memory for packing, of which each thread has its own.
    fn scratch() -> &'static LocalKey<Cell<Scratch<Self>>>;
}

macro_rules! vectors {
    ($t:ty, $wide:literal, $lanes:literal, $portable:ty, $avx2:ty, $avx512:ty, $gemm:path) => {
        impl Vectors for $t {
            const WIDE: bool = $wide;
            const LANES: usize = $lanes;
            const GEMM: Gemm<$t> = $gemm;
            type Portable = $portable;
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            type Avx2 = $avx2;
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            type Avx512 = $avx512;
            #[cfg(not(all(target_arch = "x86_64", not(miri))))]
            type Avx2 = $portable;
            #[cfg(not(all(target_arch = "x86_64", not(miri))))]
            type Avx512 = $portable;

            unsafe fn block(isa: Isa, job: &Block<$t>) {
                // SAFETY: the caller's promises are those of `dispatch`.
                unsafe { dispatch(isa, job) }
            }
            unsafe fn dots(isa: Isa, job: &Dots<$t>) {
                // SAFETY: the caller's promises are those of `dispatch`.
                unsafe { dispatch(isa, job) }
            }
            unsafe fn pack(isa: Isa, job: &Pack<$t>) {
                // SAFETY: the caller's promises are those of `dispatch`.
                unsafe { dispatch(isa, job) }
            }
            fn scratch() -> &'static LocalKey<Cell<Scratch<$t>>> {
                thread_local!(static SCRATCH: Cell<Scratch<$t>> = const { Cell::new(Scratch::new()) });
                &SCRATCH
            }
        }
    };
}

vectors!(f32, true, 16, Portable32, Avx2F32, Avx512F32, matrixmultiply::sgemm);
vectors!(f64, false, 4, Portable64, Avx2F64, Avx2F64, matrixmultiply::dgemm);

/// Elements of a vector.
#[inline]
pub(crate) fn lanes<T: Vectors>(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => T::Avx512::N,
        Isa::Avx2 => T::Avx2::N,
        Isa::Portable => T::Portable::N,
    }
}
