//! Update rules of optimizers: one pass over parameter, gradient and state.

use crate::{
    Scalar, compiled,
    kernels::{kernel, reduce::fold},
    par,
};

mod factored;
mod rules;

pub use factored::*;
pub use rules::*;

/// Elements of a piece of work: Adam takes 0.36 ns each, so that a piece lasts 12 µs, as long as waking a thread takes.
const PIECE: usize = 1 << 15;

/// The coefficients of a step of gradient descent.
#[derive(Clone, Copy, Debug)]
pub struct SgdStep<T> {
    /// The learning rate.
    pub rate: T,
    /// The factor of w in the gradient.
    pub weight_decay: T,
    /// The factor that w shrinks by before the step, 1 − η λ with decoupled decay, else 1.
    pub shrink: T,
    /// −1 to maximise, else 1.
    pub sign: T,
    /// How much of the velocity stays.
    pub momentum: T,
    /// 1 − dampening; 1 on the first step.
    pub gain: T,
    /// Whether the gradient is taken ahead along the velocity (Nesterov).
    pub nesterov: bool,
}

kernel! {
    /// w = c w − η (s g + λ w)
    fn sgd_piece[T: Scalar](w: &mut [T], g: &[T], s: SgdStep<T>) {
        for (w, &g) in w.iter_mut().zip(g) {
            *w = s.shrink * *w - s.rate * (s.sign * g + s.weight_decay * *w);
        }
    }
}

kernel! {
    /// d = s g + λ w,  v = μ v + (1 − τ) d,  w = c w − η v  or  η (d + μ v)
    fn momentum_piece[T: Scalar](w: &mut [T], g: &[T], v: &mut [T], s: SgdStep<T>) {
        let (of_d, of_v) = if s.nesterov { (T::ONE, s.momentum) } else { (T::ZERO, T::ONE) };
        for ((w, &g), v) in w.iter_mut().zip(g).zip(v) {
            let d = s.sign * g + s.weight_decay * *w;
            *v = s.momentum * *v + s.gain * d;
            *w = s.shrink * *w - s.rate * (of_d * d + of_v * *v);
        }
    }
}

compiled! {
    /// A step without momentum.
    pub fn sgd[T](w: &mut [T], g: &[T], step: SgdStep<T>) {
        par::for_chunks(w, PIECE, |i, w| sgd_piece(w, &g[i * PIECE..][..w.len()], step));
    }
}

compiled! {
    /// A step with momentum; v is the velocity.
    pub fn sgd_momentum[T](w: &mut [T], g: &[T], v: &mut [T], step: SgdStep<T>) {
        par::for_chunks2((w, PIECE), (v, PIECE), |i, w, v| {
            momentum_piece(w, &g[i * PIECE..][..w.len()], v, step)
        });
    }
}

/// The coefficients of a step of Adam.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep<T> {
    /// η/(1 − β₁ᵗ)
    pub rate: T,
    /// 1/√(1 − β₂ᵗ)
    pub root: T,
    /// 1 − β₁, rounded once: 1 − round(β₁) would be 0 for a β₁ that rounds to 1.
    pub one_minus_beta1: T,
    /// β₂
    pub beta2: T,
    /// 1 − β₂, rounded once
    pub one_minus_beta2: T,
    /// ε
    pub eps: T,
    /// The factor of w in the gradient.
    pub weight_decay: T,
    /// The factor that w shrinks by before the step, 1 − η λ with decoupled decay, else 1.
    pub shrink: T,
    /// −1 to maximise, else 1.
    pub sign: T,
}

kernel! {
    /// d = s g + λ w,  m += (1 − β₁)(d − m),  v = β₂ v + (1 − β₂) d²,  w −= η m̂/(√v̂ + ε)
    fn adam_piece[T: Scalar](w: &mut [T], g: &[T], m: &mut [T], v: &mut [T], s: AdamStep<T>) {
        for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
            let d = s.sign * g + s.weight_decay * *w;
            *m += s.one_minus_beta1 * (d - *m);
            *v = s.beta2 * *v + s.one_minus_beta2 * d * d;
            *w = s.shrink * *w - s.rate * *m / (v.sqrt() * s.root + s.eps);
        }
    }
}

kernel! {
    /// As `adam_piece`, with the largest v so far in place of v.
    fn amsgrad_piece[T: Scalar](w: &mut [T], g: &[T], m: &mut [T], state: (&mut [T], &mut [T]), s: AdamStep<T>) {
        for ((((w, &g), m), v), largest) in w.iter_mut().zip(g).zip(m).zip(state.0).zip(state.1) {
            let d = s.sign * g + s.weight_decay * *w;
            *m += s.one_minus_beta1 * (d - *m);
            *v = s.beta2 * *v + s.one_minus_beta2 * d * d;
            *largest = if *v > *largest { *v } else { *largest };
            *w = s.shrink * *w - s.rate * *m / (largest.sqrt() * s.root + s.eps);
        }
    }
}

compiled! {
    /// A step of Adam; m and v are its moments.
    pub fn adam[T](w: &mut [T], g: &[T], m: &mut [T], v: &mut [T], step: AdamStep<T>) {
        par::for_chunks3((w, PIECE), (m, PIECE), (v, PIECE), |i, w, m, v| {
            adam_piece(w, &g[i * PIECE..][..w.len()], m, v, step);
        });
    }
}

compiled! {
    /// A step of Adam with the largest second moment so far (AMSGrad).
    pub fn amsgrad[T](
        w: &mut [T],
        g: &[T],
        m: &mut [T],
        v: &mut [T],
        largest: &mut [T],
        step: AdamStep<T>,
    ) {
        amsgrad_piece(w, g, m, (v, largest), step);
    }
}

kernel! {
    /// Σ xᵢ² in f64, so that a norm neither overflows nor depends on the length.
    pub fn sum_of_squares[T](x: &[T]) -> f64 {
        let mut lanes = [0.0f64; 8];
        let (chunks, rest) = x.as_chunks::<8>();
        for chunk in chunks {
            for (lane, &v) in lanes.iter_mut().zip(chunk) {
                let v = v.to_f64();
                *lane += v * v;
            }
        }
        fold(lanes) + rest.iter().map(|v| v.to_f64() * v.to_f64()).sum::<f64>()
    }
}
