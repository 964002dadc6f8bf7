//! Elementary functions without branches, so that loops over them vectorise. No libm is called.
//!
//! Each function is written once for both scalar types: range reduction, a polynomial, and the reassembly by integer
//! arithmetic on the exponent. The tests hold these bounds over the whole range, in units in the last place:
//!
//! | function | f32 | f64 |
//! |---|---|---|
//! | exp | 2 | 2 |
//! | exp_m1, ln, ln_1p | 3 | 3 |
//! | tanh, sigmoid | 4 | 4 |
//! | erf | 2 | 6 |
//!
//! NaN gives NaN, infinities give the limits, and denormal results are within one of the smallest denormals.

mod elementary;
#[expect(clippy::excessive_precision, reason = "the coefficients stand as they were published")]
mod erf;

use super::elementwise::map;
use crate::Scalar;

/// The functions that are written once for each scalar type.
pub trait MathScalar: Sized {
    /// eˣ
    fn v_exp(self) -> Self;
    /// eˣ − 1, accurate near 0.
    fn v_exp_m1(self) -> Self;
    /// ln x
    fn v_ln(self) -> Self;
    /// ln(1 + x), accurate near 0.
    fn v_ln_1p(self) -> Self;
    /// tanh x
    fn v_tanh(self) -> Self;
    /// 1/(1 + e⁻ˣ)
    fn v_sigmoid(self) -> Self;
    /// 2/√π ∫₀ˣ exp(−t²) dt
    fn v_erf(self) -> Self;
}

/// c₀ + c₁x + c₂x² + …, by Horner's rule.
macro_rules! poly {
    ($x:expr; $last:expr) => { $last };
    ($x:expr; $first:expr, $($rest:expr),+) => { $first + $x * poly!($x; $($rest),+) };
}
use poly;

macro_rules! slices {
    ($($(#[$doc:meta])* $name:ident = $f:ident),* $(,)?) => {
        $($(#[$doc])* pub fn $name<T: Scalar>(x: &[T], y: &mut [T]) {
            map(x, y, T::$f);
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
