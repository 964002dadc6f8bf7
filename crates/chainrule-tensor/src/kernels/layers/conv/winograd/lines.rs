//! The matrices of F(4, 3), applied to a line of elements, each a vector.
//!
//! With the points 0, ±a, ±b and ∞, a signal d of six elements and a filter g of three have the four sums
//!
//! ```text
//! y = Aᵀ [(G g) ⊙ (Bᵀ d)]
//! ```
//!
//! Row α of G is (1, α, α²) / N(α) with N(α) = Π over β ≠ α of (α − β); column α of Aᵀ is (1, α, α², α³); row α of Bᵀ holds
//! the coefficients of Π over β ≠ α of (x − β). For ∞ they are (0, 0, 1), (0, 0, 0, 1) and those of the product over all.

use crate::{Scalar, kernels::lanes::Lanes};

/// The points. With 1 and 2, as in the paper, the matrices are simpler and the error is six times as large.
const A: f64 = std::f64::consts::FRAC_1_SQRT_2;
const B: f64 = std::f64::consts::SQRT_2;
const A2: f64 = 0.5;
const B2: f64 = 2.0;
/// 1/N of 0, of ±a and of ±b.
const N0: f64 = 1.0 / (A2 * B2);
const NA: f64 = 1.0 / (2.0 * A2 * (A2 - B2));
const NB: f64 = 1.0 / (2.0 * B2 * (B2 - A2));

#[inline(always)]
unsafe fn c<L: Lanes>(v: f64) -> L {
    // SAFETY: the caller has the instruction set; no memory is touched.
    unsafe { L::splat(L::T::from_f64(v)) }
}

/// Bᵀ d
///
/// # Safety
/// The processor has the instruction set.
#[inline(always)]
pub(super) unsafe fn bt<L: Lanes>(d: [L; 6]) -> [L; 6] {
    // SAFETY: the caller has the instruction set; no memory is touched.
    unsafe {
        let (a, b, a2, b2) = (c::<L>(A), c::<L>(B), c::<L>(A2), c::<L>(B2));
        let (sum, product) = (c::<L>(A2 + B2), c::<L>(A2 * B2));
        let (even_a, odd_a) = (b2.neg_mul_add(d[2], d[4]), b2.neg_mul_add(d[1], d[3]));
        let (even_b, odd_b) = (a2.neg_mul_add(d[2], d[4]), a2.neg_mul_add(d[1], d[3]));
        [
            product.mul_add(d[0], sum.neg_mul_add(d[2], d[4])),
            a.mul_add(odd_a, even_a),
            a.neg_mul_add(odd_a, even_a),
            b.mul_add(odd_b, even_b),
            b.neg_mul_add(odd_b, even_b),
            product.mul_add(d[1], sum.neg_mul_add(d[3], d[5])),
        ]
    }
}

/// G g
///
/// # Safety
/// The processor has the instruction set.
#[inline(always)]
pub(super) unsafe fn g<L: Lanes>(g: [L; 3]) -> [L; 6] {
    // SAFETY: the caller has the instruction set; no memory is touched.
    unsafe {
        let (a2, b2) = (c::<L>(A2), c::<L>(B2));
        let even_a = a2.mul_add(g[2], g[0]).mul(c(NA));
        let even_b = b2.mul_add(g[2], g[0]).mul(c(NB));
        let (odd_a, odd_b) = (c::<L>(A * NA), c::<L>(B * NB));
        [
            g[0].mul(c(N0)),
            odd_a.mul_add(g[1], even_a),
            odd_a.neg_mul_add(g[1], even_a),
            odd_b.mul_add(g[1], even_b),
            odd_b.neg_mul_add(g[1], even_b),
            g[2],
        ]
    }
}

/// Aᵀ m
///
/// # Safety
/// The processor has the instruction set.
#[inline(always)]
pub(super) unsafe fn at<L: Lanes>(m: [L; 6]) -> [L; 4] {
    // SAFETY: the caller has the instruction set; no memory is touched.
    unsafe {
        let (sum_a, sum_b) = (m[1].add(m[2]), m[3].add(m[4]));
        let (difference_a, difference_b) = (m[1].sub(m[2]), m[3].sub(m[4]));
        [
            m[0].add(sum_a).add(sum_b),
            c::<L>(A).mul_add(difference_a, c::<L>(B).mul(difference_b)),
            c::<L>(A2).mul_add(sum_a, c::<L>(B2).mul(sum_b)),
            c::<L>(A * A2).mul_add(difference_a, c::<L>(B * B2).mul_add(difference_b, m[5])),
        ]
    }
}

/// Aᵀ m + y
///
/// # Safety
/// The processor has the instruction set.
#[inline(always)]
pub(super) unsafe fn at_plus<L: Lanes>(m: [L; 6], y: L) -> [L; 4] {
    // SAFETY: the caller has the instruction set; no memory is touched.
    unsafe {
        let [a, b, c, d] = at(m);
        [a.add(y), b.add(y), c.add(y), d.add(y)]
    }
}

/// A y
///
/// # Safety
/// The processor has the instruction set.
#[inline(always)]
pub(super) unsafe fn a<L: Lanes>(y: [L; 4]) -> [L; 6] {
    // SAFETY: the caller has the instruction set; no memory is touched.
    unsafe {
        let (even_a, even_b) = (c::<L>(A2).mul_add(y[2], y[0]), c::<L>(B2).mul_add(y[2], y[0]));
        let (odd_a, odd_b) = (c::<L>(A2).mul_add(y[3], y[1]), c::<L>(B2).mul_add(y[3], y[1]));
        let (a, b) = (c::<L>(A), c::<L>(B));
        [
            y[0],
            a.mul_add(odd_a, even_a),
            a.neg_mul_add(odd_a, even_a),
            b.mul_add(odd_b, even_b),
            b.neg_mul_add(odd_b, even_b),
            y[3],
        ]
    }
}

/// Gᵀ u
///
/// # Safety
/// The processor has the instruction set.
#[inline(always)]
pub(super) unsafe fn gt<L: Lanes>(u: [L; 6]) -> [L; 3] {
    // SAFETY: the caller has the instruction set; no memory is touched.
    unsafe {
        let (sum_a, sum_b) = (u[1].add(u[2]).mul(c(NA)), u[3].add(u[4]).mul(c(NB)));
        let (difference_a, difference_b) = (u[1].sub(u[2]), u[3].sub(u[4]));
        [
            c::<L>(N0).mul_add(u[0], sum_a.add(sum_b)),
            c::<L>(A * NA).mul_add(difference_a, c::<L>(B * NB).mul(difference_b)),
            c::<L>(A2).mul_add(sum_a, c::<L>(B2).mul_add(sum_b, u[5])),
        ]
    }
}
