//! Loops over elements: maps of one, two or three slices.

use super::kernel;
use crate::{Scalar, compiled, par};

/// Elements below which a map is not cut into pieces: to copy so many f32 takes 2 µs from the second-level cache and 9 µs from
/// memory, and waking a thread takes 7 µs.
const PIECE: usize = 1 << 15;

/// A function of one value, or of a pair: any closure. A large one is a type of its own whose `of` is `inline(always)`: the
/// compiler leaves large closures out of the loop, which then does not vectorise. It also learns whether the processor
/// multiplies and adds in one instruction, `FMA`.
pub trait Function<X, Y>: Copy + Sync {
    /// f(x)
    fn of<const FMA: bool>(self, x: X) -> Y;
}

impl<X, Y, F: Fn(X) -> Y + Copy + Sync> Function<X, Y> for F {
    #[inline(always)]
    fn of<const FMA: bool>(self, x: X) -> Y {
        self(x)
    }
}

kernel! {
    /// yᵢ = f(xᵢ), in this thread.
    pub(crate) fn map_serial[T: Scalar, F: Function<T, T>](x: &[T], y: &mut [T], f: F) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = f.of::<FMA>(x);
        }
    }
}

kernel! {
    /// zᵢ = f((xᵢ, yᵢ)), in this thread.
    pub(crate) fn map2_serial[T: Scalar, F: Function<(T, T), T>](x: &[T], y: &[T], z: &mut [T], f: F) {
        for ((z, &x), &y) in z.iter_mut().zip(x).zip(y) {
            *z = f.of::<FMA>((x, y));
        }
    }
}

kernel! {
    /// yᵢ = f(yᵢ, xᵢ), in this thread.
    pub(crate) fn update_serial[T: Scalar, F: Fn(T, T) -> T](y: &mut [T], x: &[T], f: &F) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = f(*y, x);
        }
    }
}

kernel! {
    /// yᵢ = f(yᵢ), in this thread.
    pub(crate) fn apply_serial[T: Scalar, F: Function<T, T>](y: &mut [T], f: F) {
        for y in y.iter_mut() {
            *y = f.of::<FMA>(*y);
        }
    }
}

compiled! {
    /// y = x.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn copy[T](x: &[T], y: &mut [T]) {
        assert_eq!(x.len(), y.len());
        par::for_chunks(y, PIECE, |i, y| y.copy_from_slice(&x[i * PIECE..][..y.len()]));
    }
}

compiled! {
    /// y = 0.
    pub fn zero[T](y: &mut [T]) {
        par::for_chunks(y, PIECE, |_, y| y.fill(T::ZERO));
    }
}

/// yᵢ = f(xᵢ).
///
/// # Panics
/// If the lengths differ.
pub fn map<T: Scalar>(x: &[T], y: &mut [T], f: impl Function<T, T>) {
    assert_eq!(x.len(), y.len());
    par::for_chunks(y, PIECE, |i, y| map_serial(&x[i * PIECE..][..y.len()], y, f));
}

/// yᵢ = f(yᵢ).
pub fn apply<T: Scalar>(y: &mut [T], f: impl Function<T, T>) {
    par::for_chunks(y, PIECE, |_, y| apply_serial(y, f));
}

/// zᵢ = f((xᵢ, yᵢ)).
///
/// # Panics
/// If the lengths differ.
pub fn map2<T: Scalar>(x: &[T], y: &[T], z: &mut [T], f: impl Function<(T, T), T>) {
    assert!(x.len() == z.len() && y.len() == z.len());
    par::for_chunks(z, PIECE, |i, z| {
        let at = i * PIECE..i * PIECE + z.len();
        map2_serial(&x[at.clone()], &y[at], z, f);
    });
}

/// yᵢ = f(yᵢ, xᵢ).
///
/// # Panics
/// If the lengths differ.
pub fn update<T: Scalar>(y: &mut [T], x: &[T], f: impl Fn(T, T) -> T + Sync) {
    assert_eq!(x.len(), y.len());
    par::for_chunks(y, PIECE, |i, y| update_serial(y, &x[i * PIECE..][..y.len()], &f));
}

compiled! {
    /// yᵢ += xᵢ.
    pub fn add_assign[T](y: &mut [T], x: &[T]) {
        update(y, x, |y, x| y + x);
    }
}

compiled! {
    /// yᵢ += a xᵢ.
    pub fn add_scaled[T](y: &mut [T], a: T, x: &[T]) {
        update(y, x, move |y, x| y + a * x);
    }
}

compiled! {
    /// yᵢ = a yᵢ.
    pub fn scale[T](y: &mut [T], a: T) {
        par::for_chunks(y, PIECE, |_, y| y.iter_mut().for_each(|v| *v *= a));
    }
}
