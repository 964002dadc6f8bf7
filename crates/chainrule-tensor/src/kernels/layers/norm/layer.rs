//! Layer norm. A row is read from memory once and stays in the first-level cache from pass to pass.

use crate::{
    Scalar,
    kernels::{kernel, reduce::fold},
    par,
};

/// Elements of a piece of rows, 64 KiB of f32, and most pieces whose ∂γ and ∂β are summed at the end.
const PIECE: usize = 1 << 14;
const PIECES: usize = 32;
/// Lanes of a partial sum, and those for the remainder at the end of a row.
const LANES: usize = 32;
const FEW: usize = 8;
/// Elements between shares, which two threads write to all the time: no cache line, nor the next, is part of both.
const APART: usize = 32;

/// Rows of one piece, by sizes alone.
fn rows_per_piece(rows: usize, d: usize) -> usize {
    PIECE.div_ceil(d.max(1)).max(rows.div_ceil(PIECES))
}

#[inline(always)]
fn row_sum<T: Scalar>(x: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += f(chunk[i]);
        }
    }
    let mut few = [T::ZERO; FEW];
    let (chunks, rest) = rest.as_chunks::<FEW>();
    for chunk in chunks {
        for i in 0..FEW {
            few[i] += f(chunk[i]);
        }
    }
    let mut total = fold(lanes) + fold(few);
    for &v in rest {
        total += f(v);
    }
    total
}

kernel! {
    /// Layer norm of the rows of one piece.
    fn forward_rows[T: Scalar](
        x: &[T],
        y: &mut [T],
        d: usize,
        eps: T,
        affine: (Option<&[T]>, Option<&[T]>),
        mean: &mut [T],
        rstd: &mut [T],
    ) {
        let by = T::ONE / T::from_usize(d);
        let rows = x.chunks_exact(d).zip(y.chunks_exact_mut(d));
        for (((x, y), mean), rstd) in rows.zip(mean).zip(rstd) {
            let m = row_sum(x, |v| v) * by;
            let r = T::ONE / (row_sum(x, |v| (v - m) * (v - m)) * by + eps).sqrt();
            (*mean, *rstd) = (m, r);
            match affine {
                (Some(w), Some(b)) => {
                    for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(w).zip(b) {
                        *y = (x - m) * r * w + b;
                    }
                }
                (Some(w), None) => {
                    for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                        *y = (x - m) * r * w;
                    }
                }
                _ => {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = (x - m) * r;
                    }
                }
            }
        }
    }
}

/// y = x̂ γ + β over rows of `d` with x̂ = (x − μ) ρ, where μ and σ² are the row's mean and biased variance,
/// ρ = 1/√(σ² + ε). Fills `mean` and `rstd`, one value a row. γ and β are optional; β comes with γ.
///
/// # Panics
/// If the lengths do not fit together.
pub fn layer_norm<T: Scalar>(
    x: &[T],
    y: &mut [T],
    d: usize,
    eps: T,
    affine: (Option<&[T]>, Option<&[T]>),
    [mean, rstd]: [&mut [T]; 2],
) {
    assert!(x.len() == y.len() && x.len() == mean.len() * d && rstd.len() == mean.len());
    let per = rows_per_piece(mean.len(), d);
    par::for_chunks3((y, per * d), (mean, per), (rstd, per), |i, y, mean, rstd| {
        forward_rows(&x[i * per * d..][..y.len()], y, d, eps, affine, mean, rstd);
    });
}

/// Elements `at` to `at + N` of a row: adds to the lanes of Σ g and Σ g x̂, and to ∂γ and ∂β. W: there is a γ.
#[inline(always)]
fn add_lanes<T: Scalar, const W: bool, const N: usize>(
    at: usize,
    (x, dy, w): (&[T], &[T], &[T]),
    (m, r): (T, T),
    (dw, db): (&mut [T], &mut [T]),
    (sum_g, sum_gx): (&mut [T; N], &mut [T; N]),
) {
    let (x, dy, w) = (&x[at..][..N], &dy[at..][..N], if W { &w[at..][..N] } else { w });
    let (dw, db) = (&mut dw[at..][..N], &mut db[at..][..N]);
    for i in 0..N {
        let (x_hat, g) = ((x[i] - m) * r, if W { dy[i] * w[i] } else { dy[i] });
        sum_g[i] += g;
        sum_gx[i] += g * x_hat;
        dw[i] += dy[i] * x_hat; // ∂γ += dy ⊙ x̂
        db[i] += dy[i]; // ∂β += dy
    }
}

/// One row: dx, and the row's share of ∂γ and ∂β. W: there is a γ.
#[inline(always)]
fn backward_row<T: Scalar, const W: bool>(
    row: (&[T], &[T], &[T]),
    (m, r): (T, T),
    (dw, db): (&mut [T], &mut [T]),
    dx: Option<&mut [T]>,
) {
    let d = row.0.len();
    let (many, some) = (d / LANES * LANES, d / FEW * FEW);
    let (mut g, mut gx) = ([T::ZERO; LANES], [T::ZERO; LANES]);
    for at in (0..many).step_by(LANES) {
        add_lanes::<T, W, LANES>(at, row, (m, r), (dw, db), (&mut g, &mut gx));
    }
    let (mut few_g, mut few_gx) = ([T::ZERO; FEW], [T::ZERO; FEW]);
    for at in (many..some).step_by(FEW) {
        add_lanes::<T, W, FEW>(at, row, (m, r), (dw, db), (&mut few_g, &mut few_gx));
    }
    let (mut one_g, mut one_gx) = ([T::ZERO], [T::ZERO]);
    for at in some..d {
        add_lanes::<T, W, 1>(at, row, (m, r), (dw, db), (&mut one_g, &mut one_gx));
    }
    let sum_g = fold(g) + fold(few_g) + one_g[0];
    let sum_gx = fold(gx) + fold(few_gx) + one_gx[0];
    let (x, dy, w) = row;
    let Some(dx) = dx else { return };
    let by = T::ONE / T::from_usize(d);
    // dx = ρ (g − mean(g) − x̂ mean(g ⊙ x̂)) = ρ g − (a + b (x − μ)) with a = ρ mean(g), b = ρ² mean(g ⊙ x̂)
    let (a, b) = (r * (sum_g * by), r * r * (sum_gx * by));
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
    /// The gradients of the rows of one piece; fills `share` with ∂γ and ∂β of these rows.
    fn backward_rows[T: Scalar](
        xdy: (&[T], &[T]),
        d: usize,
        statistics: (&[T], &[T]),
        weight: Option<&[T]>,
        share: &mut [T],
        dx: Option<&mut [T]>,
    ) {
        share.fill(T::ZERO);
        let (dw, db) = share.split_at_mut(d);
        let mut dx = dx.map(|dx| dx.chunks_exact_mut(d));
        let rows = xdy.0.chunks_exact(d).zip(xdy.1.chunks_exact(d));
        for (((x, dy), &m), &r) in rows.zip(statistics.0).zip(statistics.1) {
            let dx = dx.as_mut().and_then(Iterator::next);
            match weight {
                Some(w) => backward_row::<T, true>((x, dy, w), (m, r), (dw, db), dx),
                None => backward_row::<T, false>((x, dy, &[]), (m, r), (dw, db), dx),
            }
        }
    }
}

/// Elements of the `shares` of [`layer_norm_gradient`].
pub fn layer_norm_shares(rows: usize, d: usize) -> usize {
    let pieces = rows.div_ceil(rows_per_piece(rows, d)).max(1);
    pieces.saturating_mul(d.saturating_mul(2).saturating_add(APART))
}

/// The gradients of [`layer_norm`], given its x, the μ and ρ of its rows and g = dy γ: fills `dx` with
/// ρ (g − mean(g) − x̂ mean(g x̂)), and the first 2 d elements of `shares` with Σ dy x̂ and Σ dy over the rows.
///
/// # Panics
/// If the lengths do not fit together.
pub fn layer_norm_gradient<T: Scalar>(
    (x, dy): (&[T], &[T]),
    d: usize,
    (mean, rstd): (&[T], &[T]),
    weight: Option<&[T]>,
    shares: &mut Vec<T>,
    dx: Option<&mut [T]>,
) {
    let rows = mean.len();
    assert!(x.len() == dy.len() && x.len() == rows * d && rstd.len() == rows);
    let per = rows_per_piece(rows, d);
    let stride = 2 * d + APART;
    shares.resize(rows.div_ceil(per).max(1) * stride, T::ZERO);
    if rows == 0 {
        return shares.fill(T::ZERO);
    }
    let part = |i: usize| {
        let (rows, at) = (i * per..rows.min((i + 1) * per), i * per * d..x.len().min((i + 1) * per * d));
        ((&x[at.clone()], &dy[at]), (&mean[rows.clone()], &rstd[rows]))
    };
    match dx {
        Some(dx) => par::for_chunks2((&mut shares[..], stride), (dx, per * d), |i, share, dx| {
            backward_rows(part(i).0, d, part(i).1, weight, &mut share[..2 * d], Some(dx));
        }),
        None => par::for_chunks(shares, stride, |i, share| {
            backward_rows(part(i).0, d, part(i).1, weight, &mut share[..2 * d], None);
        }),
    }
    let (sum, rest) = shares.split_at_mut(stride);
    rest.chunks_exact(stride).for_each(|share| sum.iter_mut().zip(share).for_each(|(s, &v)| *s += v));
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
                let [mut mean, mut rstd] = [vec![0.0; rows], vec![0.0; rows]];
                let [mut y, mut dx] = [vec![f64::NAN; x.len()], vec![f64::NAN; x.len()]];
                let (mut shares, mut shares_alone) = (Vec::new(), vec![1.0; 3]);
                layer_norm(&x, &mut y, d, 1e-5, affine, [&mut mean, &mut rstd]);
                let statistics = (&mean[..], &rstd[..]);
                layer_norm_gradient((&x, &dy), d, statistics, affine.0, &mut shares, Some(&mut dx));
                layer_norm_gradient((&x, &dy), d, statistics, affine.0, &mut shares_alone, None);
                assert_eq!(shares, shares_alone);
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
                dw.iter().chain(&db).zip(&shares).for_each(|(&want, &got)| close(got, want));
            }
        }
    }
}
