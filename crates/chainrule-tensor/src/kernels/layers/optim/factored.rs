//! Adafactor: the second moment of a matrix as the product of a row's and a column's mean.

use super::{rules::total, sum_of_squares};
use crate::{
    Scalar,
    kernels::{kernel, reduce::Columns},
};

/// The coefficients of a step of Adafactor.
#[derive(Clone, Copy, Debug)]
pub struct AdafactorStep {
    /// The rate before it is divided by the size of the update.
    pub rate: f64,
    /// ω: the weight of the newest squares.
    pub newest: f64,
    /// ε₁: the smallest root of a second moment.
    pub eps: f64,
    /// d: the largest root mean square of an update.
    pub clip: f64,
    /// −1 to maximise, else 1.
    pub sign: f64,
    /// The factor that w shrinks by before the step.
    pub shrink: f64,
}

impl AdafactorStep {
    /// The factor of the update: η/max(1, rms(u)/d).
    fn factor(&self, squares: f64, n: usize) -> f64 {
        self.sign * self.rate / (squares.sqrt() / ((n as f64).sqrt() * self.clip)).max(1.0)
    }
}

/// Columns whose sums are kept together.
const COLUMNS: usize = 256;

kernel! {
    /// r += ω (meanⱼ g² − r),  c += ω (meanᵢ g² − c) of one matrix.
    pub fn adafactor_sums[T](g: &[T], r: &mut [T], c: &mut [T], step: AdafactorStep) {
        let (rows, columns) = (r.len(), c.len());
        let mix = |old: &mut T, mean: f64| {
            *old = T::from_f64(old.to_f64() + step.newest * (mean - old.to_f64()));
        };
        for (r, g) in r.iter_mut().zip(g.chunks_exact(columns)) {
            mix(r, total(columns, |j| g[j].to_f64() * g[j].to_f64()) / columns as f64);
        }
        for (c, first) in c.chunks_mut(COLUMNS).zip((0..).step_by(COLUMNS)) {
            let mut sums = Columns::<T, COLUMNS>::new();
            for g in g.chunks_exact(columns) {
                for (sum, &g) in sums.row(c.len()).iter_mut().zip(&g[first..]) {
                    *sum += g * g;
                }
            }
            let sums = sums.sums(c.len());
            c.iter_mut().zip(sums).for_each(|(c, &sum)| mix(c, sum / rows as f64));
        }
    }
}

kernel! {
    /// Σ u² of one matrix: V = r cᵀ/max(mean r, ε),  u = g/√max(V, ε²).
    pub fn adafactor_squares[T](g: &[T], r: &[T], c: &[T], mean: f64, step: AdafactorStep) -> f64 {
        let least = T::from_f64(step.eps * step.eps);
        let mut sum = 0.0;
        for (&r, g) in r.iter().zip(g.chunks_exact(c.len())) {
            let scale = T::from_f64(r.to_f64() / mean);
            sum += total(c.len(), |j| {
                let v = scale * c[j];
                let v = if v < least { least } else { v };
                (g[j] * g[j] / v).to_f64()
            });
        }
        sum
    }
}

kernel! {
    /// w = c w − a u of one matrix.
    pub fn adafactor_move[T](w: &mut [T], g: &[T], r: &[T], c: &[T], mean: f64, shrink: T, by: T, least: T) {
        for ((&r, g), w) in r.iter().zip(g.chunks_exact(c.len())).zip(w.chunks_exact_mut(c.len())) {
            let scale = T::from_f64(r.to_f64() / mean);
            for ((w, &g), &c) in w.iter_mut().zip(g).zip(c) {
                let v = scale * c;
                let v = if v < least { least } else { v };
                *w = shrink * *w - by * (g / v.sqrt());
            }
        }
    }
}

kernel! {
    /// v += ω (g² − v); returns Σ u² with u = g/√max(v, ε²).
    pub fn adafactor_vector[T](g: &[T], v: &mut [T], step: AdafactorStep) -> f64 {
        let (newest, least) = (T::from_f64(step.newest), T::from_f64(step.eps * step.eps));
        for (v, &g) in v.iter_mut().zip(g) {
            *v += newest * (g * g - *v);
        }
        let v = &*v;
        total(g.len(), |i| {
            let v = if v[i] < least { least } else { v[i] };
            (g[i] * g[i] / v).to_f64()
        })
    }
}

/// A step for a tensor whose last two axes are matrices, one after another, with r of all rows and c of all columns.
pub fn adafactor_matrices<T: Scalar>(
    w: &mut [T],
    g: &[T],
    r: &mut [T],
    c: &mut [T],
    columns: usize,
    step: AdafactorStep,
) {
    let matrices = c.len().checked_div(columns).unwrap_or(0);
    let rows = r.len().checked_div(matrices).unwrap_or(0);
    if rows == 0 || columns == 0 {
        return;
    }
    let size = rows * columns;
    // The size of the update is that of the whole tensor, so it comes before w moves; the means of the rows follow again from r.
    let mean = |r: &[T]| (crate::kernels::reduce::sum(r) / rows as f64).max(step.eps);
    let mut squares = 0.0;
    let parts = r.chunks_exact_mut(rows).zip(c.chunks_exact_mut(columns)).zip(g.chunks_exact(size));
    for ((r, c), g) in parts {
        adafactor_sums(g, r, c, step);
        squares += adafactor_squares(g, r, c, mean(r), step);
    }
    let [by, shrink, least] =
        [step.factor(squares, g.len()), step.shrink, step.eps * step.eps].map(T::from_f64);
    let parts = r.chunks_exact(rows).zip(c.chunks_exact(columns));
    for ((r, c), (w, g)) in parts.zip(w.chunks_exact_mut(size).zip(g.chunks_exact(size))) {
        adafactor_move(w, g, r, c, mean(r), shrink, by, least);
    }
}

/// A step for a vector, whose second moment v is kept whole.
pub fn adafactor_whole<T: Scalar>(w: &mut [T], g: &[T], v: &mut [T], step: AdafactorStep) {
    if g.is_empty() {
        return;
    }
    let squares = adafactor_vector(g, v, step);
    let [by, shrink, least] =
        [step.factor(squares, g.len()), step.shrink, step.eps * step.eps].map(T::from_f64);
    let one = [T::ONE];
    // The matrix of one row: r = 1.
    adafactor_move(w, g, &one, v, 1.0, shrink, by, least);
}

/// The Euclidean norm divided by the root of the length.
pub fn root_mean_square<T: Scalar>(w: &[T]) -> f64 {
    (sum_of_squares(w) / w.len().max(1) as f64).sqrt()
}
