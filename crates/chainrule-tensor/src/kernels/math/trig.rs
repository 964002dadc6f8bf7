//! sin and cos.
//!
//! ```text
//! x = n π/2 + r,  |r| ≤ π/4;  sin x and cos x are ± sin r and ± cos r, exchanged for odd n
//! ```
//!
//! π/2 is a sum of three parts of few bits, of which n takes exact products up to |n| = 2¹³ in f32 and 2²⁰ in f64. sin r and cos r
//! are their Taylor series.

use crate::Scalar;

/// (sin x, cos x), within 2 units of [`Scalar::EPSILON`] for |x| up to 10⁴ in f32 and 10⁶ in f64. Beyond, the error grows with |x|, and
/// both stay within ±1. NaN at infinities and NaN.
#[inline(always)]
pub fn sin_cos<T: Scalar, const FMA: bool>(x: T) -> (T, T) {
    let single = const { size_of::<T>() == 4 };
    let c = |single_value: f64, double: f64| T::from_f64(if single { single_value } else { double });
    let round = c(1.5 * (1u32 << 23) as f64, 1.5 * (1u64 << 52) as f64);
    let (half, quarter) = (T::from_f64(0.5), T::from_f64(0.25));
    let n = x.v_mul_add::<FMA>(T::from_f64(std::f64::consts::FRAC_2_PI), round) - round;
    // r = ((x − n P₁) − n P₂) − n P₃
    let r = n.v_mul_add::<FMA>(-c(1.570_312_5, 1.570_796_326_734_125_6), x);
    let r = n.v_mul_add::<FMA>(-c(4.837_512_969_970_703e-4, 6.077_100_506_303_966e-11), r);
    let r = n.v_mul_add::<FMA>(-c(7.549_789_954_891_882e-8, 2.022_266_248_795_950_6e-21), r);
    let limit = T::from_f64(0.79); // of large x, whose r is not exact
    let r = if r > limit { limit } else { r };
    let r = if r < -limit { -limit } else { r };
    let z = r * r;
    let term = |sum: T, coefficient: f64| sum.v_mul_add::<FMA>(z, T::from_f64(coefficient));
    let (mut s, mut k) = if single {
        (T::from_f64(1.0 / 362_880.0), T::from_f64(1.0 / 40_320.0))
    } else {
        let s = term(
            term(T::from_f64(1.0 / 355_687_428_096_000.0), -1.0 / 1_307_674_368_000.0),
            1.0 / 6_227_020_800.0,
        );
        let k =
            term(term(T::from_f64(1.0 / 20_922_789_888_000.0), -1.0 / 87_178_291_200.0), 1.0 / 479_001_600.0);
        (
            term(term(s, -1.0 / 39_916_800.0), 1.0 / 362_880.0),
            term(term(k, -1.0 / 3_628_800.0), 1.0 / 40_320.0),
        )
    };
    s = term(term(term(s, -1.0 / 5_040.0), 1.0 / 120.0), -1.0 / 6.0);
    k = term(term(term(k, -1.0 / 720.0), 1.0 / 24.0), -0.5);
    let sin = (z * s).v_mul_add::<FMA>(r, r); // r + r³ (−1/6 + …)
    let cos = k.v_mul_add::<FMA>(z, T::ONE); // 1 + r² (−½ + …)
    // n/4 less its nearest integer: 0, ±¼, ±½ for n mod 4 = 0, 1 or 3, 2.
    let turn = n * quarter;
    let turn = turn - ((turn + round) - round);
    let odd = turn.abs() == quarter;
    let (a, b) = if odd { (cos, sin) } else { (sin, cos) };
    let a = if turn.abs() == half || turn == -quarter { -a } else { a };
    let b = if turn.abs() == half || turn == quarter { -b } else { b };
    (a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Scalar>(x: T, within: f64) {
        let (sin, cos) = (x.to_f64().sin(), x.to_f64().cos());
        for (got, want) in [sin_cos::<T, false>(x).0, sin_cos::<T, true>(x).0].map(|got| (got, sin)) {
            assert!((got.to_f64() - want).abs() <= within, "sin {x}: {got} for {want}");
        }
        for (got, want) in [sin_cos::<T, false>(x).1, sin_cos::<T, true>(x).1].map(|got| (got, cos)) {
            assert!((got.to_f64() - want).abs() <= within, "cos {x}: {got} for {want}");
        }
    }

    #[test]
    fn sin_and_cos_agree_with_the_library() {
        let (single, double) = (2.0 * f64::from(f32::EPSILON), 2.0 * f64::EPSILON);
        for i in -200_000..200_000 {
            let x = f64::from(i) * 0.049_731;
            check(x as f32, single);
            check(x, double);
            check(x * 100.0, double);
            check(x * 1e-4, double);
            check((x * 1e-4) as f32, single);
        }
        for i in -4000..4000 {
            let x = f64::from(i) * std::f64::consts::FRAC_PI_4;
            check(x, double);
            check(x as f32, single);
        }
    }

    #[test]
    fn what_is_far_stays_within_one_and_what_is_no_number_gives_nan() {
        for x in [1e6f32, 1e9, 1e30, f32::MAX, -f32::MAX, -3e7] {
            let (sin, cos) = sin_cos::<f32, false>(x);
            assert!(sin.abs() <= 1.0 && cos.abs() <= 1.0, "{x}: {sin} {cos}");
        }
        for x in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            let (sin, cos) = sin_cos::<f64, false>(x);
            assert!(sin.is_nan() && cos.is_nan(), "{x}");
        }
        assert_eq!(sin_cos::<f32, false>(0.0), (0.0, 1.0));
    }
}
