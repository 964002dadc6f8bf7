//! exp, ln, and what follows from them.
//!
//! ```text
//! eˣ   = 2ⁿ eʳ              n = round(x/ln 2),  r = x − n ln 2,  |r| ≤ ½ ln 2
//! ln x = k ln 2 + ln m      x = 2ᵏ m,  √½ ≤ m < √2
//! ln m = 2 artanh s = 2s (1 + s²/3 + s⁴/5 + …),  s = (m − 1)/(m + 1)
//! ```
//!
//! eʳ − 1 is r + r² P(r): in f32, P is the polynomial of least error in this range, 0.05 units in the last place; in f64
//! it is the Taylor series, whose fourteenth term lies below rounding.
//!
//! Where x ≤ 0, as in all that networks do, 2ⁿ does not overflow, and one product makes it, see `down`.

use super::{Elementary, Sum, erf, poly};

macro_rules! elementary {
    ($t:ident, $bits:ident, $int:ident, mantissa: $mantissa:literal, bias: $bias:literal,
     ln2: ($ln2_hi:literal, $ln2_lo:literal), exp_range: ($low:literal, $high:literal), exp_shift: $shift:literal,
     exp_m1: [$($exp:expr),*], artanh: [$($artanh:expr),*]) => {
        mod $t {
            use super::{super::Sum, poly};

            /// 1.5·2^mantissa: adding and subtracting it rounds to an integer, which is in the low bits between.
            const ROUND: $t = 1.5 * (1u64 << $mantissa) as $t;

            /// 2ⁿ for a normal result.
            #[inline(always)]
            pub const fn power(n: $int) -> $t {
                $t::from_bits(((n + $bias) << $mantissa) as $bits)
            }

            /// (eʳ − 1, n) with x = n ln 2 + r.
            #[inline(always)]
            pub fn reduced<const FMA: bool>(x: $t) -> ($t, $int) {
                let sum = $t::sum::<FMA>;
                let x = if x < $low { $low } else { x };
                let x = if x > $high { $high } else { x };
                let shifted = sum(x, std::$t::consts::LOG2_E, ROUND);
                let n = shifted - ROUND;
                let r = sum(n, -$ln2_lo, sum(n, -$ln2_hi, x));
                let q = sum(r * r, poly!(sum, r; $($exp),*), r);
                (q, (shifted.to_bits() as $int) - (ROUND.to_bits() as $int))
            }

            /// (r, 2ⁿ⁺ˢ) with −x = n ln 2 + r, for n + S in the range of normal values: the rounded value has the exponent
            /// in its low bits, and one shift puts it in place.
            #[inline(always)]
            pub fn down<const FMA: bool, const S: i64>(x: $t) -> ($t, $t) {
                let sum = $t::sum::<FMA>;
                let round = ROUND + ($bias + S) as $t;
                let shifted = sum(x, -std::$t::consts::LOG2_E, round);
                let n = shifted - round;
                let r = sum(n, -$ln2_lo, sum(n, -$ln2_hi, -x));
                (r, $t::from_bits(shifted.to_bits() << $mantissa))
            }

            /// (m, k) with x = 2ᵏ m and √½ ≤ m < √2; denormals are scaled first.
            #[inline(always)]
            pub fn split(x: $t) -> ($t, $t) {
                let tiny = x < $t::MIN_POSITIVE;
                let bits = (if tiny { x * power($mantissa) } else { x }).to_bits();
                // How far the exponent lies above that of √½.
                let offset = bits.wrapping_sub(std::$t::consts::FRAC_1_SQRT_2.to_bits()) as $int >> $mantissa;
                let m = $t::from_bits(bits.wrapping_sub((offset << $mantissa) as $bits));
                // A small integer becomes a float by the same trick of the low bits.
                let k = $t::from_bits((ROUND.to_bits() as $int).wrapping_add(offset) as $bits) - ROUND;
                (m, if tiny { k - $mantissa as $t } else { k })
            }

            /// ln(m) + k ln 2.
            #[inline(always)]
            pub fn ln<const FMA: bool>(m: $t, k: $t) -> $t {
                let sum = $t::sum::<FMA>;
                let f = m - 1.0;
                let s = f / (m + 1.0);
                let z = s * s;
                // ln m = f − s (f − R), R = 2z/3 + 2z²/5 + …: the leading term f is exact.
                let rest = z * poly!(sum, z; $($artanh),*);
                k * $ln2_hi + (f - (s * (f - rest) - k * $ln2_lo))
            }

            /// Puts in what a logarithm has no exponent for.
            #[inline(always)]
            pub fn ln_special(x: $t, v: $t) -> $t {
                let v = if x == $t::INFINITY { x } else { v };
                let v = if x == 0.0 { $t::NEG_INFINITY } else { v };
                if x < 0.0 || x.is_nan() { $t::NAN } else { v }
            }
        }

        impl Elementary for $t {
            #[inline(always)]
            fn v_mul_add<const FMA: bool>(self, b: Self, c: Self) -> Self {
                $t::sum::<FMA>(self, b, c)
            }
            #[inline(always)]
            fn v_exp<const FMA: bool>(self) -> Self {
                let (q, n) = $t::reduced::<FMA>(self);
                // Two halves, so that neither over- nor underflows before the product does.
                (1.0 + q) * $t::power(n >> 1) * $t::power(n - (n >> 1))
            }

            #[inline(always)]
            fn v_exp_neg<const FMA: bool>(self) -> Self {
                let sum = $t::sum::<FMA>;
                let x = if self > -$low { -$low } else { self };
                let (r, scale) = $t::down::<FMA, $shift>(x);
                // The last product rounds denormals, once.
                poly!(sum, r; 1.0, 1.0, $($exp),*) * scale * const { $t::power(-$shift) }
            }

            #[inline(always)]
            fn v_exp_m1<const FMA: bool>(self) -> Self {
                let (q, n) = $t::reduced::<FMA>(self);
                let large = (1.0 + q) * $t::power(n >> 1) * $t::power(n - (n >> 1));
                // Beyond this 2ⁿ may overflow, and the 1 is lost anyway.
                let scale = $t::power(if n > 80 { 80 } else if n < -80 { -80 } else { n });
                let small = scale * q + (scale - 1.0); // 2ⁿ eʳ − 1 = 2ⁿ (eʳ − 1) + (2ⁿ − 1)
                let v = if self > 50.0 { large } else { small };
                if self == 0.0 { self } else { v } // keeps the sign of −0
            }

            #[inline(always)]
            fn v_exp_m1_neg<const FMA: bool>(self) -> Self {
                let sum = $t::sum::<FMA>;
                let x = if self > 40.0 { 40.0 } else { self }; // e⁻⁴⁰ is lost beside 1
                let (r, scale) = $t::down::<FMA, 0>(x);
                let q = sum(r * r, poly!(sum, r; $($exp),*), r);
                sum(scale, q, scale - 1.0) // 2ⁿ eʳ − 1 = 2ⁿ (eʳ − 1) + (2ⁿ − 1)
            }

            #[inline(always)]
            fn v_ln<const FMA: bool>(self) -> Self {
                let (m, k) = $t::split(self);
                $t::ln_special(self, $t::ln::<FMA>(m, k))
            }

            #[inline(always)]
            fn v_ln_1p<const FMA: bool>(self) -> Self {
                // ln(1 + x) = ln u + (what rounding u = 1 + x lost)/u.
                let u = 1.0 + self;
                let lost = if self > 1.0 { 1.0 - (u - self) } else { self - (u - 1.0) };
                let (m, k) = $t::split(u);
                let v = $t::ln_special(u, $t::ln::<FMA>(m, k) + if u > 0.0 { lost / u } else { 0.0 });
                let v = if self.abs() < 0.5 * $t::EPSILON { self } else { v };
                if self == $t::INFINITY { self } else { v }
            }

            #[inline(always)]
            fn v_tanh<const FMA: bool>(self) -> Self {
                let e = (2.0 * self.abs()).v_exp_m1_neg::<FMA>(); // tanh|x| = −e/(2 + e), e = exp(−2|x|) − 1
                (-e / (2.0 + e)).copysign(self)
            }

            #[inline(always)]
            fn v_sigmoid<const FMA: bool>(self) -> Self {
                let z = self.abs().v_exp_neg::<FMA>(); // never overflows
                (if self < 0.0 { z } else { 1.0 }) / (1.0 + z)
            }

            #[inline(always)]
            fn v_erf<const FMA: bool>(self) -> Self {
                erf::$t::<FMA>(self)
            }
        }
    };
}

elementary!(
    f32, u32, i32, mantissa: 23, bias: 127,
    ln2: (0.693_359_4, -2.121_944_4e-4), exp_range: (-110.0, 95.0), exp_shift: 64,
    exp_m1: [0.499_999_94, 0.166_665_2, 0.041_668_4, 0.008_368_851, 0.001_381_432],
    artanh: [2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0]
);

elementary!(
    f64, u64, i64, mantissa: 52, bias: 1023,
    ln2: (6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10), exp_range: (-760.0, 720.0), exp_shift: 512,
    exp_m1: [
        1.0 / 2.0,
        1.0 / 6.0,
        1.0 / 24.0,
        1.0 / 120.0,
        1.0 / 720.0,
        1.0 / 5_040.0,
        1.0 / 40_320.0,
        1.0 / 362_880.0,
        1.0 / 3_628_800.0,
        1.0 / 39_916_800.0,
        1.0 / 479_001_600.0,
        1.0 / 6_227_020_800.0
    ],
    artanh: [
        2.0 / 3.0,
        2.0 / 5.0,
        2.0 / 7.0,
        2.0 / 9.0,
        2.0 / 11.0,
        2.0 / 13.0,
        2.0 / 15.0,
        2.0 / 17.0,
        2.0 / 19.0,
        2.0 / 21.0
    ]
);
