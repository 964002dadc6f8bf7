//! Elementary functions over slices.

use super::elementwise::map;
use crate::Scalar;

/// The functions that are written once for each scalar type.
pub trait MathScalar: Sized {}
impl MathScalar for f32 {}
impl MathScalar for f64 {}

/// yᵢ = exp xᵢ.
pub fn exp<T: Scalar>(x: &[T], y: &mut [T]) {
    map(x, y, T::exp);
}

/// yᵢ = tanh xᵢ.
pub fn tanh<T: Scalar>(x: &[T], y: &mut [T]) {
    map(x, y, T::tanh);
}

/// yᵢ = 1/(1 + exp(−xᵢ)).
pub fn sigmoid<T: Scalar>(x: &[T], y: &mut [T]) {
    map(x, y, |v| T::ONE / (T::ONE + (-v).exp()));
}

/// yᵢ = ln xᵢ.
pub fn ln<T: Scalar>(x: &[T], y: &mut [T]) {
    map(x, y, T::ln);
}
