//! Layer norm. A row is read from memory once and stays in the first-level cache from pass to pass.

use super::mean::{Mean, sum_of};
use crate::{
    Scalar, compiled,
    disjoint::Disjoint,
    kernels::{
        kernel,
        reduce::{DEPTH, blocked, fold},
    },
    par,
};

/// Elements of a piece of rows, 64 KiB of f32, and most pieces whose ∂γ and ∂β are summed at the end.
const PIECE: usize = 1 << 14;
const PIECES: usize = 32;
/// Lanes of a partial sum, and those for the remainder at the end of a row.
const LANES: usize = 32;
const FEW: usize = 8;
/// μ²/σ² from which the rounding of the block sums is seen in x̂, and the mean is taken again of x − μ: at 2¹⁰, it is 1e-5 of σ.
const FAR: f64 = 1024.0;
/// Elements between shares, which two threads write to all the time: no cache line, nor the next, is part of both.
const APART: usize = 32;

/// Rows of one piece, by sizes alone.
fn rows_per_piece(rows: usize, d: usize) -> usize {
    PIECE.div_ceil(d.max(1)).max(rows.div_ceil(PIECES))
}

#[inline(always)]
fn row_sum<T: Scalar>(x: &[T], f: impl Fn(T) -> T) -> f64 {
    let (many, rest) = x.as_chunks::<LANES>();
    let total = blocked::<T, LANES>(many.len(), |i, lanes| {
        for (lane, &v) in lanes.iter_mut().zip(&many[i]) {
            *lane += f(v);
        }
    });
    let (few, rest) = rest.as_chunks::<FEW>();
    let total = total
        + blocked::<T, FEW>(few.len(), |i, lanes| {
            for (lane, &v) in lanes.iter_mut().zip(&few[i]) {
                *lane += f(v);
            }
        });
    total + rest.iter().map(|&v| f(v)).sum::<T>().to_f64()
}

kernel! {
    /// Layer norm of the rows of one piece; about 0 and not about the mean unless `centered`.
    fn forward_rows[T: Scalar](
        centered: bool,
        x: &[T],
        y: &mut [T],
        d: usize,
        eps: T,
        affine: (Option<&[T]>, Option<&[T]>),
        mean: &mut [Mean<T>],
        rstd: &mut [T],
    ) {
        let by = 1.0 / d as f64;
        let rows = x.chunks_exact(d).zip(y.chunks_exact_mut(d));
        for (((x, y), mean), rstd) in rows.zip(mean).zip(rstd) {
            let mut m = if centered { T::from_f64(row_sum(x, |v| v) * by) } else { T::ZERO };
            let mut low = T::ZERO;
            let mut var = T::from_f64(row_sum(x, |v| (v - m) * (v - m)) * by);
            if centered && m * m > T::from_f64(FAR) * var {
                // μ = m + mean(x − m), σ² = mean((x − m)²) − mean(x − m)²
                let shift = T::from_f64(row_sum(x, |v| v - m) * by);
                var -= shift * shift;
                [m, low] = sum_of(m, shift);
            }
            let r = T::ONE / (var + eps).sqrt();
            // x̂ = (x − m) ρ + s
            let s = -low * r;
            (*mean, *rstd) = ([m, low], r);
            match affine {
                (Some(w), Some(b)) => {
                    for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(w).zip(b) {
                        *y = (x - m).v_mul_add::<FMA>(r, s).v_mul_add::<FMA>(w, b);
                    }
                }
                (Some(w), None) => {
                    for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                        *y = (x - m).v_mul_add::<FMA>(r, s) * w;
                    }
                }
                _ => {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = (x - m).v_mul_add::<FMA>(r, s);
                    }
                }
            }
        }
    }
}

compiled! {
    /// y = x̂ γ + β over rows of `d` with x̂ = (x − μ) ρ, where μ and σ² are the row's mean and biased variance,
    /// ρ = 1/√(σ² + ε). Fills `mean` and `rstd`, one value a row. γ and β are optional; β comes with γ.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn layer_norm[T](
        x: &[T],
        y: &mut [T],
        d: usize,
        eps: T,
        affine: (Option<&[T]>, Option<&[T]>),
        mean: &mut [Mean<T>],
        rstd: &mut [T],
    ) {
        assert!(x.len() == y.len() && x.len() == mean.len() * d && rstd.len() == mean.len());
        let per = rows_per_piece(mean.len(), d);
        par::for_chunks3((y, per * d), (mean, per), (rstd, per), |i, y, mean, rstd| {
            forward_rows(true, &x[i * per * d..][..y.len()], y, d, eps, affine, mean, rstd);
        });
    }
}

compiled! {
    /// y = x ρ γ over rows of `d`, with ρ = 1/√(mean(x²) + ε): [`layer_norm`] about 0 in place of the mean. Fills `mean` with
    /// zeros and `rstd` with ρ. γ is optional.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn rms_norm[T](
        x: &[T],
        y: &mut [T],
        d: usize,
        eps: T,
        weight: Option<&[T]>,
        mean: &mut [Mean<T>],
        rstd: &mut [T],
    ) {
        assert!(x.len() == y.len() && x.len() == mean.len() * d && rstd.len() == mean.len());
        let per = rows_per_piece(mean.len(), d);
        par::for_chunks3((y, per * d), (mean, per), (rstd, per), |i, y, mean, rstd| {
            forward_rows(false, &x[i * per * d..][..y.len()], y, d, eps, (weight, None), mean, rstd);
        });
    }
}

/// x̂ = (x − m) ρ + s of a row.
#[derive(Clone, Copy)]
struct Standard<T> {
    m: T,
    r: T,
    s: T,
}

/// Elements `at` to `at + N` of a row: adds to the lanes of Σ g and Σ g x̂, and to ∂γ and ∂β. W: there is a γ.
#[inline(always)]
fn add_lanes<T: Scalar, const W: bool, const N: usize, const FMA: bool>(
    at: usize,
    (x, dy, w): (&[T], &[T], &[T]),
    Standard { m, r, s }: Standard<T>,
    (dw, db): (&mut [T], &mut [T]),
    (sum_g, sum_gx): (&mut [T; N], &mut [T; N]),
) {
    let (x, dy, w) = (&x[at..][..N], &dy[at..][..N], if W { &w[at..][..N] } else { w });
    let (dw, db) = (&mut dw[at..][..N], &mut db[at..][..N]);
    for i in 0..N {
        let (x_hat, g) = ((x[i] - m).v_mul_add::<FMA>(r, s), if W { dy[i] * w[i] } else { dy[i] });
        sum_g[i] += g;
        sum_gx[i] = g.v_mul_add::<FMA>(x_hat, sum_gx[i]);
        dw[i] = dy[i].v_mul_add::<FMA>(x_hat, dw[i]); // ∂γ += dy ⊙ x̂
        db[i] += dy[i]; // ∂β += dy
    }
}

/// One row: dx, and the row's share of ∂γ and ∂β. W: there is a γ.
#[inline(always)]
fn backward_row<T: Scalar, const W: bool, const FMA: bool>(
    centered: bool,
    row: (&[T], &[T], &[T]),
    x_hat: Standard<T>,
    (dw, db): (&mut [T], &mut [T]),
    dx: Option<&mut [T]>,
) {
    let d = row.0.len();
    let (many, some) = (d / LANES * LANES, d / FEW * FEW);
    let (mut sum_g, mut sum_gx) = (0.0, 0.0);
    for block in (0..many).step_by(DEPTH * LANES) {
        let (mut g, mut gx) = ([T::ZERO; LANES], [T::ZERO; LANES]);
        for at in (block..many.min(block + DEPTH * LANES)).step_by(LANES) {
            add_lanes::<T, W, LANES, FMA>(at, row, x_hat, (dw, db), (&mut g, &mut gx));
        }
        sum_g += fold(g).to_f64();
        sum_gx += fold(gx).to_f64();
    }
    let (mut few_g, mut few_gx) = ([T::ZERO; FEW], [T::ZERO; FEW]);
    for at in (many..some).step_by(FEW) {
        add_lanes::<T, W, FEW, FMA>(at, row, x_hat, (dw, db), (&mut few_g, &mut few_gx));
    }
    let (mut one_g, mut one_gx) = ([T::ZERO], [T::ZERO]);
    for at in some..d {
        add_lanes::<T, W, 1, FMA>(at, row, x_hat, (dw, db), (&mut one_g, &mut one_gx));
    }
    let mean =
        |total: f64, few: [T; FEW], one: T| T::from_f64((total + (fold(few) + one).to_f64()) / d as f64);
    let (x, dy, w) = row;
    let Some(dx) = dx else { return };
    // dx = ρ (g − mean(g) − x̂ mean(g ⊙ x̂)) = ρ g − (a + b (x − m)) with b = ρ² mean(g ⊙ x̂), a = ρ (mean(g) + s mean(g ⊙ x̂))
    let Standard { m, r, s } = x_hat;
    let mean_g = if centered { mean(sum_g, few_g, one_g[0]) } else { T::ZERO };
    let mean_gx = mean(sum_gx, few_gx, one_gx[0]);
    let (a, b) = (r * (mean_g + s * mean_gx), r * r * mean_gx);
    if W {
        for (((dx, &x), &dy), &w) in dx.iter_mut().zip(x).zip(dy).zip(w) {
            *dx = r * (dy * w) - (a + b * (x - m));
        }
    } else {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            *dx = r * dy - (a + b * (x - m));
        }
    }
}

kernel! {
    /// The gradients of the rows of one piece; adds ∂γ and ∂β of these rows to `share`.
    fn backward_rows[T: Scalar](
        centered: bool,
        xdy: (&[T], &[T]),
        d: usize,
        statistics: (&[Mean<T>], &[T]),
        weight: Option<&[T]>,
        share: &mut [T],
        dx: Option<&mut [T]>,
    ) {
        let (dw, db) = share.split_at_mut(d);
        let mut dx = dx.map(|dx| dx.chunks_exact_mut(d));
        let rows = xdy.0.chunks_exact(d).zip(xdy.1.chunks_exact(d));
        for (((x, dy), &[m, low]), &r) in rows.zip(statistics.0).zip(statistics.1) {
            let dx = dx.as_mut().and_then(Iterator::next);
            let x_hat = Standard { m, r, s: -low * r };
            match weight {
                Some(w) => backward_row::<T, true, FMA>(centered, (x, dy, w), x_hat, (dw, db), dx),
                None => backward_row::<T, false, FMA>(centered, (x, dy, &[]), x_hat, (dw, db), dx),
            }
        }
    }
}

/// Memory for the gradients of [`layer_norm`]: the shares of the pieces in ∂γ and ∂β, and their sums.
#[derive(Clone, Debug, Default)]
pub struct Shares<T> {
    block: Vec<T>,
    total: Vec<f64>,
}

impl<T> Shares<T> {
    /// Σ dy x̂ and Σ dy over all rows, d of each.
    pub fn sums(&self, d: usize) -> [&[T]; 2] {
        let (dw, db) = self.block[..2 * d].split_at(d);
        [dw, db]
    }

    /// What it takes for so many rows of d.
    pub fn bytes(rows: usize, d: usize) -> usize {
        let pieces = rows.div_ceil(rows_per_piece(rows, d)).max(1);
        let elements = pieces.saturating_mul(d.saturating_mul(2).saturating_add(APART));
        elements.saturating_mul(size_of::<T>() + size_of::<f64>())
    }
}

compiled! {
    /// The gradients of [`layer_norm`], given its x, the μ and ρ of its rows and g = dy γ: fills `dx` with
    /// ρ (g − mean(g) − x̂ mean(g x̂)), and `shares` with Σ dy x̂ and Σ dy over the rows.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn layer_norm_gradient[T](
        x_and_dy: (&[T], &[T]),
        d: usize,
        statistics: (&[Mean<T>], &[T]),
        weight: Option<&[T]>,
        shares: &mut Shares<T>,
        dx: Option<&mut [T]>,
    ) {
        gradients(true, x_and_dy, d, statistics, weight, shares, dx);
    }
}

compiled! {
    /// The gradients of [`rms_norm`]: fills `dx` with ρ (g − x̂ mean(g x̂)), and `shares` with Σ dy x̂ and Σ dy over the rows.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn rms_norm_gradient[T](
        x_and_dy: (&[T], &[T]),
        d: usize,
        statistics: (&[Mean<T>], &[T]),
        weight: Option<&[T]>,
        shares: &mut Shares<T>,
        dx: Option<&mut [T]>,
    ) {
        gradients(false, x_and_dy, d, statistics, weight, shares, dx);
    }
}

compiled! {
    fn gradients[T](
        centered: bool,
        x_and_dy: (&[T], &[T]),
        d: usize,
        statistics: (&[Mean<T>], &[T]),
        weight: Option<&[T]>,
        shares: &mut Shares<T>,
        dx: Option<&mut [T]>,
    ) {
        let ((x, dy), (mean, rstd)) = (x_and_dy, statistics);
        let rows = mean.len();
        assert!(x.len() == dy.len() && x.len() == rows * d && rstd.len() == rows);
        let per = rows_per_piece(rows, d);
        let stride = 2 * d + APART;
        let pieces = rows.div_ceil(per).max(1);
        let Shares { block, total } = shares;
        block.resize(pieces * stride, T::ZERO);
        total.clear();
        total.resize(pieces * stride, 0.0);
        let dx = dx.map(Disjoint::new);
        let parts = (&mut block[..], stride);
        par::for_chunks2(parts, (&mut total[..], stride), |i, block, total| {
            let (block, total) = (&mut block[..2 * d], &mut total[..2 * d]);
            for first in (i * per..rows.min((i + 1) * per)).step_by(DEPTH) {
                let some = first..rows.min((i + 1) * per).min(first + DEPTH);
                let at = some.start * d..some.end * d;
                // SAFETY: pieces are of different rows.
                let dx = dx.as_ref().map(|dx| unsafe { dx.part(at.start, at.len()) });
                let statistics = (&mean[some.clone()], &rstd[some]);
                block.fill(T::ZERO);
                backward_rows(centered, (&x[at.clone()], &dy[at]), d, statistics, weight, block, dx);
                total.iter_mut().zip(&*block).for_each(|(total, &v)| *total += v.to_f64());
            }
        });
        let (sum, rest) = total.split_at_mut(stride);
        rest.chunks_exact(stride).for_each(|share| sum.iter_mut().zip(share).for_each(|(s, &v)| *s += v));
        block[..2 * d].iter_mut().zip(sum).for_each(|(v, &mut sum)| *v = T::from_f64(sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729 + 13) % 31) as f64 * 0.25 - 3.0).collect()
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-11 * b.abs().max(1.0), "{a} {b}");
    }

    #[test]
    fn all_sizes_agree_with_the_naive_loop() {
        for (rows, d) in [(1, 2), (3, 5), (2, 32), (7, 33), (1000, 100), (3, 20_000)] {
            let (x, dy) = (values(rows * d, 1), values(rows * d, 2));
            let (w, b) = (values(d, 3), values(d, 4));
            for affine in [(Some(&w[..]), Some(&b[..])), (Some(&w[..]), None), (None, None)] {
                let (mut mean, mut rstd) = (vec![[0.0; 2]; rows], vec![0.0; rows]);
                let [mut y, mut dx] = [vec![f64::NAN; x.len()], vec![f64::NAN; x.len()]];
                let (mut shares, mut shares_alone) = (Shares::default(), Shares::default());
                layer_norm(&x, &mut y, d, 1e-5, affine, &mut mean, &mut rstd);
                let statistics = (&mean[..], &rstd[..]);
                layer_norm_gradient((&x, &dy), d, statistics, affine.0, &mut shares, Some(&mut dx));
                layer_norm_gradient((&x, &dy), d, statistics, affine.0, &mut shares_alone, None);
                assert_eq!(shares.sums(d), shares_alone.sums(d));
                let (mut dw, mut db) = (vec![0.0; d], vec![0.0; d]);
                for i in 0..rows {
                    let at = |j| i * d + j;
                    let n = d as f64;
                    let gamma = |j: usize| affine.0.map_or(1.0, |w| w[j]);
                    let mu = (0..d).map(|j| x[at(j)]).sum::<f64>() / n;
                    let rho = 1.0 / ((0..d).map(|j| (x[at(j)] - mu).powi(2)).sum::<f64>() / n + 1e-5).sqrt();
                    let x_hat = |j| (x[at(j)] - mu) * rho;
                    let g = |j| dy[at(j)] * gamma(j);
                    let mean_g = (0..d).map(g).sum::<f64>() / n;
                    let mean_gx = (0..d).map(|j| g(j) * x_hat(j)).sum::<f64>() / n;
                    for j in 0..d {
                        close(y[at(j)], x_hat(j) * gamma(j) + affine.1.map_or(0.0, |b| b[j]));
                        close(dx[at(j)], rho * (g(j) - mean_g - x_hat(j) * mean_gx));
                        dw[j] += dy[at(j)] * x_hat(j);
                        db[j] += dy[at(j)];
                    }
                }
                dw.iter().chain(&db).zip(shares.sums(d).concat()).for_each(|(&want, got)| close(got, want));
            }
        }
    }
}
