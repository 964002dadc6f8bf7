//! The two scalar types: `f32` for work, `f64` for checking.

use crate::kernels::{dispatch::Instances, lanes::Vectors, math::Elementary};
use std::{
    fmt::{Debug, Display, LowerExp},
    iter::Sum,
    ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign},
};

/// `f32` or `f64`. Sealed: kernels are written for these two.
pub trait Scalar:
    Vectors
    + Elementary
    + Copy
    + Default
    + PartialEq
    + PartialOrd
    + Debug
    + Display
    + LowerExp
    + Send
    + Sync
    + Sum
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + 'static
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// The distance from 1 to the next larger value.
    const EPSILON: Self;
    /// −∞
    const NEG_INFINITY: Self;
    /// +∞
    const INFINITY: Self;
    /// `"F32"` or `"F64"`, as safetensors spells it.
    const NAME: &'static str;

    /// The nearest value to `v`.
    fn from_f64(v: f64) -> Self;
    /// This value, exactly.
    fn to_f64(self) -> f64;
    /// The nearest value to `n`.
    fn from_usize(n: usize) -> Self {
        Self::from_f64(n as f64)
    }
    /// The value as an index, when it is an integer ≥ 0.
    fn to_index(self) -> Option<usize> {
        let v = self.to_f64();
        (v >= 0.0 && v.fract() == 0.0 && v < 9.0e15).then_some(v as usize)
    }
    /// |x|
    fn abs(self) -> Self;
    /// √x
    fn sqrt(self) -> Self;
    /// eˣ
    fn exp(self) -> Self;
    /// eˣ − 1
    fn exp_m1(self) -> Self;
    /// ln x
    fn ln(self) -> Self;
    /// ln(1 + x)
    fn ln_1p(self) -> Self;
    /// sin x
    fn sin(self) -> Self;
    /// cos x
    fn cos(self) -> Self;
    /// tan x
    fn tan(self) -> Self;
    /// arctan x
    fn atan(self) -> Self;
    /// sinh x
    fn sinh(self) -> Self;
    /// cosh x
    fn cosh(self) -> Self;
    /// tanh x
    fn tanh(self) -> Self;
    /// xʸ
    fn powf(self, y: Self) -> Self;
    /// xⁿ
    fn powi(self, n: i32) -> Self;
    /// The largest integer that is not larger.
    fn floor(self) -> Self;
    /// 1 above 0 and for 0, −1 below and for −0, NaN for NaN.
    fn signum(self) -> Self;
    /// The larger of two; the other when one is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller of two; the other when one is NaN.
    fn min(self, other: Self) -> Self;
    /// Neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// Not a number.
    fn is_nan(self) -> bool;
    /// Little-endian bytes are appended to `out`.
    fn write_le(self, out: &mut Vec<u8>);
    /// The instance of a function for this type, of those that [`compiled!`](crate::compiled) makes.
    #[doc(hidden)]
    fn pick<I: Instances>(single: I::Of<f32>, double: I::Of<f64>) -> I::Of<Self>;
}

macro_rules! scalar {
    ($t:ident, $name:literal, $instance:tt) => {
        impl Scalar for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const EPSILON: Self = $t::EPSILON;
            const NEG_INFINITY: Self = $t::NEG_INFINITY;
            const INFINITY: Self = $t::INFINITY;
            const NAME: &'static str = $name;
            #[inline(always)]
            fn from_f64(v: f64) -> Self {
                v as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $t::abs(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            fn exp(self) -> Self {
                $t::exp(self)
            }
            fn exp_m1(self) -> Self {
                $t::exp_m1(self)
            }
            fn ln(self) -> Self {
                $t::ln(self)
            }
            fn ln_1p(self) -> Self {
                $t::ln_1p(self)
            }
            fn sin(self) -> Self {
                $t::sin(self)
            }
            fn cos(self) -> Self {
                $t::cos(self)
            }
            fn tan(self) -> Self {
                $t::tan(self)
            }
            fn atan(self) -> Self {
                $t::atan(self)
            }
            fn sinh(self) -> Self {
                $t::sinh(self)
            }
            fn cosh(self) -> Self {
                $t::cosh(self)
            }
            fn tanh(self) -> Self {
                $t::tanh(self)
            }
            fn powf(self, y: Self) -> Self {
                $t::powf(self, y)
            }
            fn powi(self, n: i32) -> Self {
                $t::powi(self, n)
            }
            fn floor(self) -> Self {
                $t::floor(self)
            }
            fn signum(self) -> Self {
                $t::signum(self)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                $t::max(self, other)
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                $t::min(self, other)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                $t::is_finite(self)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                $t::is_nan(self)
            }
            fn write_le(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            #[inline(always)]
            fn pick<I: Instances>(single: I::Of<f32>, double: I::Of<f64>) -> I::Of<Self> {
                (single, double).$instance
            }
        }
    };
}

scalar!(f32, "F32", 0);
scalar!(f64, "F64", 1);
