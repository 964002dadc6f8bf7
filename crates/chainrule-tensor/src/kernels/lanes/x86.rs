//! The vectors of AVX2 and AVX-512.

use super::Lanes;
use std::arch::x86_64::*;

macro_rules! lanes {
    ($name:ident, $t:ty, $vec:ty, $n:literal, $mask_ty:ty, |$n_:ident| $mask:expr, $zero:ident, $splat:ident, $load:ident,
     |$from:ident, $m:ident| $load_masked:expr, $store:ident, $store_masked:ident, $fma:ident, $fnma:ident, $add:ident, $sub:ident, $mul:ident,
     $max:ident, |$v:ident| $sum:expr
     $(, $more:item)*) => {
        #[derive(Clone, Copy)]
        pub struct $name($vec);

        impl Lanes for $name {
            type T = $t;
            type Mask = $mask_ty;
            const N: usize = $n;

            #[inline(always)]
            unsafe fn splat(v: $t) -> Self {
                // SAFETY: the processor has the instruction set.
                Self(unsafe { $splat(v) })
            }
            #[inline(always)]
            unsafe fn mask($n_: usize) -> $mask_ty {
                // SAFETY: the processor has the instruction set; n ≤ N, so the table is read within its bounds.
                #[allow(unused_unsafe)]
                unsafe { $mask }
            }
            #[inline(always)]
            unsafe fn load(from: *const $t) -> Self {
                // SAFETY: the caller vouches for `N` elements.
                Self(unsafe { $load(from) })
            }
            #[inline(always)]
            unsafe fn load_masked($from: *const $t, $m: $mask_ty) -> Self {
                // SAFETY: the caller vouches for the masked elements; the others are not touched.
                Self(unsafe { $load_masked })
            }
            #[inline(always)]
            unsafe fn load_if(from: *const $t, mask: $mask_ty) -> Self {
                // SAFETY: the caller vouches for the masked elements. The empty instruction counts as an effect, which is not done ahead of a condition.
                unsafe {
                    std::arch::asm!("", options(nomem, nostack, preserves_flags));
                    Self::load_masked(from, mask)
                }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $t) {
                // SAFETY: the caller vouches for `N` elements.
                unsafe { $store(to, self.0) }
            }
            #[inline(always)]
            unsafe fn store_masked(self, to: *mut $t, mask: $mask_ty) {
                // SAFETY: the caller vouches for the masked elements; the others are not touched.
                unsafe { $store_masked(to, mask, self.0) }
            }
            #[inline(always)]
            unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: the processor has the instruction set.
                Self(unsafe { $fma(self.0, b.0, c.0) })
            }
            #[inline(always)]
            unsafe fn add(self, b: Self) -> Self {
                // SAFETY: the processor has the instruction set.
                Self(unsafe { $add(self.0, b.0) })
            }
            #[inline(always)]
            unsafe fn neg_mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: the processor has the instruction set.
                Self(unsafe { $fnma(self.0, b.0, c.0) })
            }
            #[inline(always)]
            unsafe fn sub(self, b: Self) -> Self {
                // SAFETY: the processor has the instruction set.
                Self(unsafe { $sub(self.0, b.0) })
            }
            #[inline(always)]
            unsafe fn mul(self, b: Self) -> Self {
                // SAFETY: the processor has the instruction set.
                Self(unsafe { $mul(self.0, b.0) })
            }
            #[inline(always)]
            unsafe fn relu(self) -> Self {
                // SAFETY: the processor has the instruction set. Of 0 and NaN the instruction returns its second operand.
                Self(unsafe { $max($zero(), self.0) })
            }
            #[inline(always)]
            unsafe fn sum(self) -> $t {
                // SAFETY: the processor has the instruction set.
                unsafe {
                    let $v = self.0;
                    $sum
                }
            }
            #[inline(always)]
            unsafe fn prefetch(from: *const $t) {
                // SAFETY: a prefetch may name any address.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
            }
            $(#[inline(always)] $more)*
        }
    };
}

lanes!(
    Avx512F32,
    f32,
    __m512,
    16,
    __mmask16,
    |n| ((1u32 << n) - 1) as u16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    |from, mask| _mm512_maskz_loadu_ps(mask, from),
    _mm512_storeu_ps,
    _mm512_mask_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_fnmadd_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_max_ps,
    |v| _mm512_reduce_add_ps(v),
    unsafe fn larger(self, b: Self) -> Self {
        // SAFETY: the processor has the instruction set. Magnitudes are in the order of their bits.
        unsafe {
            let bits = _mm512_and_si512(_mm512_castps_si512(b.0), _mm512_set1_epi32(i32::MAX));
            Self(_mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(self.0), bits)))
        }
    },
    unsafe fn transpose(from: *const f32, from_stride: usize, rows: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller vouches for the instruction set and the memory.
        unsafe { transpose_rows16(from, from_stride, rows, to, to_stride) }
    },
    unsafe fn sums(v: &[Self; 16], mut each: impl FnMut(usize, Self)) {
        // SAFETY: the caller vouches for AVX-512. Each level adds halves and brings two vectors into one.
        unsafe {
            let zero = _mm512_setzero_ps();
            let (mut eight, mut four) = ([zero; 8], [zero; 4]);
            for (i, eight) in eight.iter_mut().enumerate() {
                let i = i / 4 * 8 + i % 4;
                let (a, b) = (v[i].0, v[i + 4].0);
                *eight =
                    _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
            }
            for (i, four) in four.iter_mut().enumerate() {
                let (a, b) = (eight[i], eight[i + 4]);
                *four = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            }
            let [a, b, c, d] = four;
            let e = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let f = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            each(0, Self(_mm512_add_ps(_mm512_shuffle_ps::<0x44>(e, f), _mm512_shuffle_ps::<0xee>(e, f))));
        }
    }
);

/// `Lanes::transpose` for 16 lanes. Not part of the loops around it, whose addresses would crowd out its own.
#[inline(never)]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_rows16(
    from: *const f32,
    from_stride: usize,
    rows: usize,
    to: *mut f32,
    to_stride: usize,
) {
    // SAFETY: the caller vouches for `rows` rows of 16 elements at `from`, 16 rows of `rows` elements at `to`.
    unsafe {
        let mut r = [_mm512_setzero_ps(); 16];
        if rows == 16 {
            let (mut from, mut to) = (from, to);
            for r in &mut r {
                *r = _mm512_loadu_ps(from);
                from = from.wrapping_add(from_stride);
            }
            for v in transpose16(r) {
                _mm512_storeu_ps(to, v);
                to = to.wrapping_add(to_stride);
            }
            return;
        }
        for (i, r) in r.iter_mut().enumerate() {
            *r = _mm512_loadu_ps(from.add(i.min(rows - 1) * from_stride));
        }
        let mask = ((1u32 << rows) - 1) as u16;
        for (k, v) in transpose16(r).into_iter().enumerate() {
            _mm512_mask_storeu_ps(to.add(k * to_stride), mask, v);
        }
    }
}

/// Sixteen rows into sixteen columns: pairs, quads, then 128-bit lanes twice.
#[inline(always)]
unsafe fn transpose16(r: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: the caller vouches for AVX-512; no memory is touched.
    unsafe {
        let zero = _mm512_setzero_ps();
        let (mut t, mut u) = ([zero; 16], [zero; 16]);
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..4 {
            let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
            u[4 * i] = _mm512_shuffle_ps::<0x44>(a, c);
            u[4 * i + 1] = _mm512_shuffle_ps::<0xee>(a, c);
            u[4 * i + 2] = _mm512_shuffle_ps::<0x44>(b, d);
            u[4 * i + 3] = _mm512_shuffle_ps::<0xee>(b, d);
        }
        // u[4g + c] holds, in its 128-bit lane l, column 4l + c of rows 4g..4g+4.
        let mut out = [zero; 16];
        for c in 0..4 {
            let lo01 = _mm512_shuffle_f32x4::<0x88>(u[c], u[4 + c]);
            let hi01 = _mm512_shuffle_f32x4::<0xdd>(u[c], u[4 + c]);
            let lo23 = _mm512_shuffle_f32x4::<0x88>(u[8 + c], u[12 + c]);
            let hi23 = _mm512_shuffle_f32x4::<0xdd>(u[8 + c], u[12 + c]);
            out[c] = _mm512_shuffle_f32x4::<0x88>(lo01, lo23);
            out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(lo01, lo23);
            out[4 + c] = _mm512_shuffle_f32x4::<0x88>(hi01, hi23);
            out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(hi01, hi23);
        }
        out
    }
}

/// Ones, then zeros: the mask of the first n lanes starts n before the zeros.
static MASK32: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
static MASK64: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

lanes!(
    Avx2F32,
    f32,
    __m256,
    8,
    __m256i,
    |n| _mm256_loadu_si256(MASK32.as_ptr().add(8 - n).cast()),
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    |from, mask| _mm256_maskload_ps(from, mask),
    _mm256_storeu_ps,
    _mm256_maskstore_ps,
    _mm256_fmadd_ps,
    _mm256_fnmadd_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_max_ps,
    |v| {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    },
    unsafe fn larger(self, b: Self) -> Self {
        // SAFETY: the processor has the instruction set. Magnitudes are in the order of their bits.
        unsafe {
            let bits = _mm256_and_si256(_mm256_castps_si256(b.0), _mm256_set1_epi32(i32::MAX));
            Self(_mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(self.0), bits)))
        }
    },
    unsafe fn transpose(from: *const f32, from_stride: usize, rows: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller vouches for the instruction set and the memory.
        unsafe { transpose_rows8(from, from_stride, rows, to, to_stride) }
    },
    unsafe fn sums(v: &[Self; 16], mut each: impl FnMut(usize, Self)) {
        // SAFETY: the caller vouches for AVX2. Each level adds halves and brings two vectors into one.
        unsafe {
            for (first, v) in [(0, &v[..8]), (8, &v[8..])] {
                let mut four = [_mm256_setzero_ps(); 4];
                for (i, four) in four.iter_mut().enumerate() {
                    let (a, b) = (v[i].0, v[i + 4].0);
                    *four = _mm256_add_ps(
                        _mm256_permute2f128_ps::<0x20>(a, b),
                        _mm256_permute2f128_ps::<0x31>(a, b),
                    );
                }
                let [a, b, c, d] = four;
                let e = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let f = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                each(
                    first,
                    Self(_mm256_add_ps(_mm256_shuffle_ps::<0x44>(e, f), _mm256_shuffle_ps::<0xee>(e, f))),
                );
            }
        }
    }
);

lanes!(
    Avx2F64,
    f64,
    __m256d,
    4,
    __m256i,
    |n| _mm256_loadu_si256(MASK64.as_ptr().add(4 - n).cast()),
    _mm256_setzero_pd,
    _mm256_set1_pd,
    _mm256_loadu_pd,
    |from, mask| _mm256_maskload_pd(from, mask),
    _mm256_storeu_pd,
    _mm256_maskstore_pd,
    _mm256_fmadd_pd,
    _mm256_fnmadd_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_mul_pd,
    _mm256_max_pd,
    |v| {
        let two = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd::<1>(v));
        _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
    },
    unsafe fn larger(self, b: Self) -> Self {
        // SAFETY: the processor has the instruction set. Magnitudes are in the order of their bits, and positive as integers.
        unsafe {
            let bits = _mm256_and_si256(_mm256_castpd_si256(b.0), _mm256_set1_epi64x(i64::MAX));
            let wins = _mm256_cmpgt_epi64(bits, _mm256_castpd_si256(self.0));
            Self(_mm256_blendv_pd(self.0, _mm256_castsi256_pd(bits), _mm256_castsi256_pd(wins)))
        }
    }
);

/// `Lanes::transpose` for 8 lanes.
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn transpose_rows8(from: *const f32, from_stride: usize, rows: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller vouches for `rows` rows of 8 elements at `from`, 8 rows of `rows` elements at `to`.
    unsafe {
        let mut r = [_mm256_setzero_ps(); 8];
        for (i, r) in r.iter_mut().enumerate() {
            *r = _mm256_loadu_ps(from.add(i.min(rows - 1) * from_stride));
        }
        let (mut t, mut u) = (r, r);
        for i in 0..4 {
            t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..2 {
            let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
            u[4 * i] = _mm256_shuffle_ps::<0x44>(a, c);
            u[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
            u[4 * i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
            u[4 * i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
        }
        for c in 0..4 {
            t[c] = _mm256_permute2f128_ps::<0x20>(u[c], u[4 + c]);
            t[4 + c] = _mm256_permute2f128_ps::<0x31>(u[c], u[4 + c]);
        }
        let mask = _mm256_loadu_si256(MASK32.as_ptr().add(8 - rows).cast());
        for (k, &v) in t.iter().enumerate() {
            if rows == 8 {
                _mm256_storeu_ps(to.add(k * to_stride), v);
            } else {
                _mm256_maskstore_ps(to.add(k * to_stride), mask, v);
            }
        }
    }
}
