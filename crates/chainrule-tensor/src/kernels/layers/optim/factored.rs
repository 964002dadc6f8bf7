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
    /// r += ω (meanⱼ g² + ε − r),  c += ω (meanᵢ g² + ε − c) of one matrix.
    pub fn adafactor_sums[T](g: &[T], r: &mut [T], c: &mut [T], newest: f64, eps: f64) {
        let (rows, columns) = (r.len(), c.len());
        let mix = |old: &mut T, mean: f64| {
            *old = T::from_f64(old.to_f64() + newest * (mean + eps - old.to_f64()));
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
        adafactor_sums(g, r, c, step.newest, 0.0);
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

/// The coefficients of a step of Adafactor as optax has it.
#[derive(Clone, Copy, Debug)]
pub struct ScaledStep {
    /// The factor of the update before it is divided by its size, with the sign of the objective.
    pub rate: f64,
    /// ω: the weight of the newest squares.
    pub newest: f64,
    /// ε: added to every square.
    pub eps: f64,
    /// d: the largest root mean square of an update; infinite for no limit.
    pub clip: f64,
    /// β: how much of the mean of updates stays.
    pub momentum: f64,
    /// The factor of w beside the step.
    pub keep: f64,
}

impl ScaledStep {
    fn factor(&self, squares: f64, n: usize) -> f64 {
        self.rate / ((squares / n as f64).sqrt() / self.clip).max(1.0)
    }
}

/// A tensor as (outer, m, between, n, inner): its matrices lie along the axes of m and n, one for each place on the others.
#[derive(Clone, Copy, Debug)]
pub struct Matrices {
    /// Places before the first axis.
    pub outer: usize,
    /// The length of the first axis.
    pub m: usize,
    /// Places between them.
    pub between: usize,
    /// The length of the second axis.
    pub n: usize,
    /// Places behind the second axis.
    pub inner: usize,
}

impl Matrices {
    /// The places of its matrices: where the matrix begins, and where its row means (outer, m, between, inner) and its column means
    /// (outer, between, n, inner) do.
    fn places(self) -> impl Iterator<Item = [usize; 3]> {
        let Self { outer, m, between, n, inner } = self;
        (0..outer).flat_map(move |o| {
            (0..between).flat_map(move |b| {
                (0..inner).map(move |c| {
                    [
                        (o * m * between + b) * n * inner + c,
                        (o * m * between + b) * inner + c,
                        (o * between + b) * n * inner + c,
                    ]
                })
            })
        })
    }

    /// How far apart the rows of a matrix are, and the means of two rows.
    fn steps(self) -> [usize; 2] {
        [self.between * self.n * self.inner, self.between * self.inner]
    }
}

kernel! {
    /// rows += ω (mean g² + ε − rows) along n, and cols along m; of all matrices.
    fn scaled_sums[T](g: &[T], rows: &mut [T], cols: &mut [T], of: Matrices, newest: f64, eps: f64) {
        let [row, next] = of.steps();
        let mix = |old: &mut T, mean: f64| {
            *old = T::from_f64(old.to_f64() + newest * (mean + eps - old.to_f64()));
        };
        for [at, r, c] in of.places() {
            let square = |i: usize, j: usize| {
                let g = g[at + i * row + j * of.inner].to_f64();
                g * g
            };
            for i in 0..of.m {
                mix(&mut rows[r + i * next], total(of.n, |j| square(i, j)) / of.n as f64);
            }
            for j in 0..of.n {
                mix(&mut cols[c + j * of.inner], total(of.m, |i| square(i, j)) / of.m as f64);
            }
        }
    }
}

/// The factors of a matrix's rows and columns: 1/√(r/mean r) and 1/√c, where r are the rows' means if `by_rows`.
#[inline(always)]
fn factors<T: Scalar>(
    rows: &[T],
    cols: &[T],
    of: Matrices,
    by_rows: bool,
    [r, c]: [usize; 2],
) -> (impl Fn(usize) -> T, impl Fn(usize) -> T) {
    let next = of.steps()[1];
    let mean = match by_rows {
        true => total(of.m, |i| rows[r + i * next].to_f64()) / of.m as f64,
        false => total(of.n, |j| cols[c + j * of.inner].to_f64()) / of.n as f64,
    };
    let (row_scale, col_scale) = if by_rows { (mean, 1.0) } else { (1.0, mean) };
    let (row_scale, col_scale) = (T::from_f64(row_scale), T::from_f64(col_scale));
    (
        move |i: usize| (row_scale / rows[r + i * next]).sqrt(),
        move |j: usize| (col_scale / cols[c + j * of.inner]).sqrt(),
    )
}

kernel! {
    /// Σ u², u = g/(√(r/mean r) √c).
    fn scaled_squares[T](g: &[T], rows: &[T], cols: &[T], of: Matrices, by_rows: bool) -> f64 {
        let row = of.steps()[0];
        let mut sum = 0.0;
        for [at, r, c] in of.places() {
            let (by_row, by_col) = factors(rows, cols, of, by_rows, [r, c]);
            for i in 0..of.m {
                let scale = by_row(i);
                sum += total(of.n, |j| {
                    let u = (g[at + i * row + j * of.inner] * scale * by_col(j)).to_f64();
                    u * u
                });
            }
        }
        sum
    }
}

/// w = c w − u, with the mean of the updates in place of u where it is kept.
#[inline(always)]
fn scaled_element<T: Scalar>(w: &mut T, u: T, m: Option<&mut T>, [momentum, keep]: [T; 2]) {
    let u = match m {
        Some(m) => {
            *m = momentum * *m + (T::ONE - momentum) * u;
            *m
        }
        None => u,
    };
    *w = keep * *w - u;
}

kernel! {
    /// The step of a tensor of matrices.
    fn scaled_move[T](
        w: &mut [T], g: &[T], means: [&[T]; 2], m: Option<&mut [T]>, of: Matrices, by_rows: bool, by: T, terms: [T; 2]
    ) {
        let ([rows, cols], row) = (means, of.steps()[0]);
        let mut m = m;
        for [at, r, c] in of.places() {
            let (by_row, by_col) = factors(rows, cols, of, by_rows, [r, c]);
            for i in 0..of.m {
                let scale = by_row(i);
                for j in 0..of.n {
                    let at = at + i * row + j * of.inner;
                    let m = m.as_deref_mut().map(|m| &mut m[at]);
                    scaled_element(&mut w[at], g[at] * scale * by_col(j) * by, m, terms);
                }
            }
        }
    }
}

kernel! {
    /// v += ω (g² + ε − v); returns Σ u², u = g/√v.
    fn scaled_vector[T](g: &[T], v: &mut [T], newest: f64, eps: f64) -> f64 {
        let (newest, eps) = (T::from_f64(newest), T::from_f64(eps));
        for (v, &g) in v.iter_mut().zip(g) {
            *v += newest * (g * g + eps - *v);
        }
        let v = &*v;
        total(g.len(), |i| {
            let u = (g[i] / v[i].sqrt()).to_f64();
            u * u
        })
    }
}

kernel! {
    /// The step of a tensor whose second moment is kept whole.
    fn scaled_vector_move[T](w: &mut [T], g: &[T], v: &[T], m: Option<&mut [T]>, by: T, terms: [T; 2]) {
        let mut m = m;
        for (i, ((w, &g), &v)) in w.iter_mut().zip(g).zip(v).enumerate() {
            scaled_element(w, g / v.sqrt() * by, m.as_deref_mut().map(|m| &mut m[i]), terms);
        }
    }
}

impl ScaledStep {
    fn terms<T: Scalar>(&self, squares: f64, n: usize) -> (T, [T; 2]) {
        (T::from_f64(self.factor(squares, n)), [self.momentum, self.keep].map(T::from_f64))
    }

    /// A step for a tensor of matrices. The roots of the row means are taken relative to their mean if `by_rows`, else those of the columns'.
    pub fn matrices<T: Scalar>(
        self,
        w: &mut [T],
        g: &[T],
        [rows, cols]: [&mut [T]; 2],
        m: Option<&mut [T]>,
        of: Matrices,
        by_rows: bool,
    ) {
        if g.is_empty() {
            return;
        }
        if of.between * of.inner == 1 {
            let parts = rows.chunks_exact_mut(of.m).zip(cols.chunks_exact_mut(of.n));
            for ((r, c), g) in parts.zip(g.chunks_exact(of.m * of.n)) {
                adafactor_sums(g, r, c, self.newest, self.eps);
            }
        } else {
            scaled_sums(g, rows, cols, of, self.newest, self.eps);
        }
        let (by, terms) = self.terms(scaled_squares(g, rows, cols, of, by_rows), g.len());
        scaled_move(w, g, [rows, cols], m, of, by_rows, by, terms);
    }

    /// A step for a tensor whose second moment v is kept whole.
    pub fn whole<T: Scalar>(self, w: &mut [T], g: &[T], v: &mut [T], m: Option<&mut [T]>) {
        if g.is_empty() {
            return;
        }
        let (by, terms) = self.terms(scaled_vector(g, v, self.newest, self.eps), g.len());
        scaled_vector_move(w, g, v, m, by, terms);
    }
}
