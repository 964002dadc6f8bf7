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
//! NaN gives NaN, infinities give the limits, and denormal results are within one of the smallest denormals.

mod elementary;
#[expect(clippy::excessive_precision, reason = "the coefficients stand as they were published")]
mod erf;

use super::elementwise::{Function, map};
use crate::Scalar;

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident, $by:ident;)*) => {
        /// The functions that are written once for each scalar type. Those with `FMA` are for kernels that know whether the
        /// processor multiplies and adds in one instruction, see [`Function`](super::elementwise::Function): where it does
        /// not, they are right and slow.
        pub trait MathScalar: Sized {
            $(
                $(#[$doc])*
                #[inline(always)]
                fn $name(self) -> Self {
                    self.$by::<false>()
                }
                $(#[$doc])*
                fn $by<const FMA: bool>(self) -> Self;
            )*
        }
    };
}

functions! {
    /// eˣ
    v_exp, v_exp_by;
    /// e⁻ˣ for x ≥ 0, at two thirds of the cost; right down to −40.
    v_exp_neg, v_exp_neg_by;
    /// eˣ − 1, accurate near 0.
    v_exp_m1, v_exp_m1_by;
    /// e⁻ˣ − 1 for x ≥ 0, accurate near 0, at half the cost; right down to −40.
    v_exp_m1_neg, v_exp_m1_neg_by;
    /// ln x
    v_ln, v_ln_by;
    /// ln(1 + x), accurate near 0.
    v_ln_1p, v_ln_1p_by;
    /// tanh x
    v_tanh, v_tanh_by;
    /// 1/(1 + e⁻ˣ)
    v_sigmoid, v_sigmoid_by;
    /// 2/√π ∫₀ˣ exp(−t²) dt
    v_erf, v_erf_by;
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

macro_rules! sums {
    ($($t:ident)*) => {
        $(impl Sum for $t {
            #[inline(always)]
            fn sum<const FMA: bool>(a: $t, b: $t, c: $t) -> $t {
                if FMA { a.mul_add(b, c) } else { a * b + c }
            }
        })*
    };
}
sums!(f32 f64);

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
    exp = v_exp_by,
    /// yᵢ = exp xᵢ − 1.
    exp_m1 = v_exp_m1_by,
    /// yᵢ = ln xᵢ.
    ln = v_ln_by,
    /// yᵢ = ln(1 + xᵢ).
    ln_1p = v_ln_1p_by,
    /// yᵢ = tanh xᵢ.
    tanh = v_tanh_by,
    /// yᵢ = 1/(1 + exp(−xᵢ)).
    sigmoid = v_sigmoid_by,
    /// yᵢ = erf xᵢ.
    erf = v_erf_by,
}

#[cfg(test)]
mod tests;
