//! Elementary functions without branches, so that loops over them vectorise. No libm is called.
//!
//! Each function is written once for both scalar types: range reduction, a polynomial, and the reassembly by integer
//! arithmetic on the exponent. The tests hold these bounds over the whole range, in units in the last place:
//!
//! | function | f32 | f64 |
//! |---|---|---|
//! | exp, exp_neg | 2 | 2 |
//! | exp_m1, exp_m1_neg, ln, ln_1p | 3 | 3 |
//! | tanh, sigmoid | 4 | 4 |
//! | erf | 2 | 6 |
//!
//! `sin_cos` is within 2 units of the last place of 1, see there.
//!
//! NaN gives NaN, infinities give the limits, and denormal results are within one of the smallest denormals.

mod elementary;
#[expect(clippy::excessive_precision, reason = "the coefficients as they were published")]
mod erf;
mod trig;

pub use trig::sin_cos;

use super::elementwise::{Function, map};
use crate::Scalar;

/// The functions, for a loop that is compiled for a processor with fused multiply-adds (`FMA`) or without, see
/// [`Function`]. Where there are none, `FMA` is correct and slow.
pub trait Elementary: Sized {
    /// self · b + c
    fn v_mul_add<const FMA: bool>(self, b: Self, c: Self) -> Self;
    /// eˣ
    fn v_exp<const FMA: bool>(self) -> Self;
    /// e⁻ˣ for x ≥ 0, at two thirds of the cost; correct down to −40.
    fn v_exp_neg<const FMA: bool>(self) -> Self;
    /// eˣ − 1, accurate near 0.
    fn v_exp_m1<const FMA: bool>(self) -> Self;
    /// e⁻ˣ − 1 for x ≥ 0, accurate near 0, at half the cost; correct down to −40.
    fn v_exp_m1_neg<const FMA: bool>(self) -> Self;
    /// ln x
    fn v_ln<const FMA: bool>(self) -> Self;
    /// ln(1 + x), accurate near 0.
    fn v_ln_1p<const FMA: bool>(self) -> Self;
    /// tanh x
    fn v_tanh<const FMA: bool>(self) -> Self;
    /// 1/(1 + e⁻ˣ)
    fn v_sigmoid<const FMA: bool>(self) -> Self;
    /// 2/√π ∫₀ˣ exp(−t²) dt
    fn v_erf<const FMA: bool>(self) -> Self;
}

/// c₀ + c₁x + c₂x² + …, by Horner's rule, where `sum(a, b, c)` is a b + c.
macro_rules! poly {
    ($sum:ident, $x:expr; $last:expr) => { $last };
    ($sum:ident, $x:expr; $first:expr, $($rest:expr),+) => { $sum($x, poly!($sum, $x; $($rest),+), $first) };
}
use poly;

/// a b + c
trait Sum: Sized {
    fn sum<const FMA: bool>(a: Self, b: Self, c: Self) -> Self;
}

impl Sum for f32 {
    #[inline(always)]
    fn sum<const FMA: bool>(a: Self, b: Self, c: Self) -> Self {
        if FMA { a.mul_add(b, c) } else { a * b + c }
    }
}

impl Sum for f64 {
    #[inline(always)]
    fn sum<const FMA: bool>(a: Self, b: Self, c: Self) -> Self {
        if FMA { a.mul_add(b, c) } else { a * b + c }
    }
}

macro_rules! slices {
    ($($(#[$doc:meta])* $name:ident = $f:ident),* $(,)?) => {
        $($(#[$doc])* pub fn $name<T: Scalar>(x: &[T], y: &mut [T]) {
            #[derive(Clone, Copy)]
            struct F;
            impl<T: Scalar> Function<T, T> for F {
                #[inline(always)]
                fn of<const FMA: bool>(self, x: T) -> T {
                    x.$f::<FMA>()
                }
            }
            map(x, y, F);
        })*
    };
}

slices! {
    /// yᵢ = exp xᵢ.
    exp = v_exp,
    /// yᵢ = exp xᵢ − 1.
    exp_m1 = v_exp_m1,
    /// yᵢ = ln xᵢ.
    ln = v_ln,
    /// yᵢ = ln(1 + xᵢ).
    ln_1p = v_ln_1p,
    /// yᵢ = tanh xᵢ.
    tanh = v_tanh,
    /// yᵢ = 1/(1 + exp(−xᵢ)).
    sigmoid = v_sigmoid,
    /// yᵢ = erf xᵢ.
    erf = v_erf,
}

#[cfg(test)]
mod tests;
