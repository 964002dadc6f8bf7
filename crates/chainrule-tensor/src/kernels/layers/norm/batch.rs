//! Batch norm. A piece takes a group of channels through all its passes, so that it is read from memory once.

use super::channels::{Affine, Channels, NARROW, WIDE};
use crate::{
    Scalar,
    disjoint::Disjoint,
    kernels::{
        kernel, prefetch,
        reduce::{fold, sum},
    },
    par,
};
use std::ops::Range;

/// Lanes of a partial sum, those for the remainder at the end of an axis, and elements after which lanes are summed.
const LANES: usize = 32;
const FEW: usize = 8;
const BLOCK: usize = 4096;
/// (μ − p)²/σ² from which the variance is computed again: it then has lost four bits.
const FAR: f64 = 16.0;
/// Rows after which the sums of columns are added to the totals.
const ROWS: usize = 128;

/// One value for each channel of a group, or for each column where L is narrow.
type Each<T> = [T; WIDE];

impl Channels {
    fn group(self, channels: Range<usize>) -> Group {
        let (l, c) = (self.l, channels.len());
        let run = if l < NARROW { 1 } else { l };
        Group { n: self.n, l, run, first: channels.start * l, width: c * l, stride: self.c * l }
    }
}

/// Some channels of all images: of each image, `width` contiguous elements.
#[derive(Clone, Copy)]
struct Group {
    n: usize,
    l: usize,
    /// How many elements share one value of an `Each`: L, or 1 where L is narrow.
    run: usize,
    first: usize,
    width: usize,
    stride: usize,
}

impl Group {
    fn start(&self, image: usize) -> usize {
        self.first + image * self.stride
    }

    fn row<'a, T>(&self, x: &'a [T], image: usize) -> &'a [T] {
        &x[self.start(image)..][..self.width]
    }

    /// The channels' values, repeated for every column where L is narrow.
    fn spread<T: Scalar>(&self, channels: impl Iterator<Item = T>) -> Each<T> {
        let mut each = [T::ZERO; WIDE];
        each.chunks_mut(self.l / self.run).zip(channels).for_each(|(each, v)| each.fill(v));
        each
    }

    /// Each channel's value from those of its columns: their sum.
    fn gather<T: Scalar>(&self, each: &Each<T>, channels: &mut [T]) {
        let each = each.chunks(self.l / self.run);
        channels.iter_mut().zip(each).for_each(|(v, each)| *v = each.iter().copied().sum());
    }

    /// Σ f(x, z, m) of each channel, K sums at once.
    fn sums<T: Scalar, const K: usize>(
        &self,
        (x, z): (&[T], &[T]),
        m: &Each<T>,
        out: [&mut [T]; K],
        f: impl Fn(T, T, T) -> [T; K],
    ) {
        let mut each = [[T::ZERO; WIDE]; K];
        if self.run == 1 {
            column_sums(x, z, self, m, &mut each, &f)
        } else {
            run_sums(x, z, self, m, &mut each, &f)
        }
        out.into_iter().zip(&each).for_each(|(out, each)| self.gather(each, out));
    }
}

/// laneᵢ += f(xᵢ, zᵢ, m).
#[inline(always)]
fn add_lanes<T: Scalar, const K: usize, const N: usize>(
    x: &[T; N],
    z: &[T; N],
    m: T,
    lanes: &mut [[T; N]; K],
    f: &impl Fn(T, T, T) -> [T; K],
) {
    for i in 0..N {
        let v = f(x[i], z[i], m);
        for k in 0..K {
            lanes[k][i] += v[k];
        }
    }
}

kernel! {
    /// Σ f(x, z, m) of each channel of a group. Lanes are summed now and then, so that no sum has many terms.
    fn run_sums[T: Scalar, const K: usize, F: Fn(T, T, T) -> [T; K]](
        x: &[T],
        z: &[T],
        g: &Group,
        m: &Each<T>,
        out: &mut [Each<T>; K],
        f: &F,
    ) {
        for c in 0..g.width / g.l {
            let mut lanes = [[T::ZERO; LANES]; K];
            let (mut few, mut rest) = ([[T::ZERO; FEW]; K], [T::ZERO; K]);
            let mut pending = 0;
            for image in 0..g.n {
                let at = g.start(image) + c * g.l;
                let (xs, x) = x[at..][..g.l].as_chunks::<LANES>();
                let (zs, z) = z[at..][..g.l].as_chunks::<LANES>();
                for (x, z) in xs.iter().zip(zs) {
                    prefetch(x.as_ptr().wrapping_add(g.stride), LANES);
                    prefetch(z.as_ptr().wrapping_add(g.stride), LANES);
                    add_lanes(x, z, m[c], &mut lanes, f);
                }
                let ((xs, x), (zs, z)) = (x.as_chunks::<FEW>(), z.as_chunks::<FEW>());
                for (x, z) in xs.iter().zip(zs) {
                    add_lanes(x, z, m[c], &mut few, f);
                }
                for (&x, &z) in x.iter().zip(z) {
                    let v = f(x, z, m[c]);
                    for k in 0..K { rest[k] += v[k]; }
                }
                pending += g.l;
                if pending >= BLOCK {
                    pending = 0;
                    for k in 0..K { out[k][c] += fold(lanes[k]); }
                    lanes = [[T::ZERO; LANES]; K];
                }
            }
            for k in 0..K { out[k][c] += fold(lanes[k]) + (fold(few[k]) + rest[k]); }
        }
    }
}

kernel! {
    /// Σ f(x, z, m) of each column of a group.
    fn column_sums[T: Scalar, const K: usize, F: Fn(T, T, T) -> [T; K]](
        x: &[T],
        z: &[T],
        g: &Group,
        m: &Each<T>,
        out: &mut [Each<T>; K],
        f: &F,
    ) {
        let width = g.width.min(WIDE);
        for start in (0..g.n).step_by(ROWS) {
            let mut block = [[T::ZERO; WIDE]; K];
            for image in start..g.n.min(start + ROWS) {
                let (x, z) = (&g.row(x, image)[..width], &g.row(z, image)[..width]);
                for j in 0..width {
                    let v = f(x[j], z[j], m[j]);
                    for k in 0..K { block[k][j] += v[k]; }
                }
            }
            for (out, block) in out.iter_mut().zip(&block) {
                for (o, &b) in out.iter_mut().zip(block) {
                    *o += b;
                }
            }
        }
    }
}

kernel! {
    /// y = (x − m) s + b over a row of a group; m, s, b hold one value for every `run` elements.
    fn normalize_row[T: Scalar](
        x: &[T],
        y: &mut [T],
        g: &Group,
        m: &Each<T>,
        s: &Each<T>,
        b: &Each<T>,
    ) {
        if g.run == 1 {
            for ((((y, &x), &m), &s), &b) in y.iter_mut().zip(x).zip(m).zip(s).zip(b) {
                *y = (x - m) * s + b;
            }
            return;
        }
        let runs = y.chunks_exact_mut(g.run).zip(x.chunks_exact(g.run));
        for ((((y, x), &m), &s), &b) in runs.zip(m).zip(s).zip(b) {
            let ((ys, y), (xs, x)) = (y.as_chunks_mut::<LANES>(), x.as_chunks::<LANES>());
            for (y, x) in ys.iter_mut().zip(xs) {
                prefetch(y.as_ptr().wrapping_add(g.stride), LANES);
                prefetch(x.as_ptr().wrapping_add(g.stride), LANES);
                for i in 0..LANES {
                    y[i] = (x[i] - m) * s + b;
                }
            }
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (x - m) * s + b;
            }
        }
    }
}

kernel! {
    /// dx = a dy + b (x − m) + k over a row of a group; m, a, b, k hold one value for every `run` elements.
    fn gradient_row[T: Scalar](
        x: &[T],
        dy: &[T],
        dx: &mut [T],
        g: &Group,
        m: &Each<T>,
        abk: &[Each<T>; 3],
    ) {
        let [a, b, k] = abk;
        if g.run == 1 {
            for ((((((dx, &x), &dy), &m), &a), &b), &k) in dx.iter_mut().zip(x).zip(dy).zip(m).zip(a).zip(b).zip(k) {
                *dx = a * dy + b * (x - m) + k;
            }
            return;
        }
        let runs = dx.chunks_exact_mut(g.run).zip(x.chunks_exact(g.run)).zip(dy.chunks_exact(g.run));
        for ((((((dx, x), dy), &m), &a), &b), &k) in runs.zip(m).zip(a).zip(b).zip(k) {
            let ((dxs, dx), (xs, x)) = (dx.as_chunks_mut::<LANES>(), x.as_chunks::<LANES>());
            let (dys, dy) = dy.as_chunks::<LANES>();
            for ((dx, x), dy) in dxs.iter_mut().zip(xs).zip(dys) {
                prefetch(dx.as_ptr().wrapping_add(g.stride), LANES);
                prefetch(x.as_ptr().wrapping_add(g.stride), LANES);
                prefetch(dy.as_ptr().wrapping_add(g.stride), LANES);
                for i in 0..LANES {
                    dx[i] = a * dy[i] + b * (x[i] - m) + k;
                }
            }
            for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
                *dx = a * dy + b * (x - m) + k;
            }
        }
    }
}

/// Channels `at` of an optional slice, or a constant instead.
fn part<T: Scalar>(slice: Option<&[T]>, at: &Range<usize>, otherwise: T) -> impl Iterator<Item = T> {
    at.clone().map(move |c| slice.map_or(otherwise, |s| s[c]))
}

/// y = (x − μ) ρ γ + β for the images of one group.
fn normalize_group<T: Scalar>(
    x: &[T],
    y: &Disjoint<'_, T>,
    g: &Group,
    (mean, rstd): (&[T], &[T]),
    affine: Affine<'_, T>,
    channels: &Range<usize>,
) {
    let scales = part(affine.weight, channels, T::ONE).zip(rstd).map(|(w, &r)| w * r);
    let (m, s) = (g.spread(mean.iter().copied()), g.spread(scales));
    let b = g.spread(part(affine.bias, channels, T::ZERO));
    for image in 0..g.n {
        // SAFETY: groups are of different channels, so no other piece has a part of this row.
        let y = unsafe { y.part(g.start(image), g.width) };
        normalize_row(g.row(x, image), y, g, &m, &s, &b);
    }
}

/// Mean and biased variance of each channel of a group, in one pass about a pivot p near the mean, that of the first image:
///
/// ```text
/// μ = p + mean(x − p)        σ² = mean((x − p)²) − mean(x − p)²
/// ```
///
/// The difference loses bits if the pivot is many σ away; then a second pass takes σ² about μ.
fn statistics<T: Scalar>(x: &[T], g: &Group, one_over_n: T, mean: &mut [T], var: &mut [T]) {
    let first = g.row(x, 0).chunks_exact(g.l).map(|run| sum(run) / T::from_usize(g.l));
    let pivots = g.spread(first);
    g.sums((x, x), &pivots, [&mut *mean, &mut *var], |x, _, p| [x - p, (x - p) * (x - p)]);
    let mut far = false;
    for (c, (mean, var)) in mean.iter_mut().zip(&mut *var).enumerate() {
        let shift = *mean * one_over_n;
        *mean = pivots[c * (g.l / g.run)] + shift;
        *var = *var * one_over_n - shift * shift;
        far |= shift * shift > T::from_f64(FAR) * *var;
    }
    if far {
        g.sums((x, x), &g.spread(mean.iter().copied()), [&mut *var], |x, _, m| [(x - m) * (x - m)]);
        var.iter_mut().for_each(|v| *v *= one_over_n);
    }
}

/// y = x̂ γ + β with x̂ = (x − μ) ρ, where μ and σ² are each channel's mean and biased variance, ρ = 1/√(σ² + ε).
/// Fills `mean`, `var` and `rstd`, (C) each.
///
/// # Panics
/// If the lengths do not fit the sizes.
pub fn batch_norm<T: Scalar>(
    x: &[T],
    y: &mut [T],
    sizes: Channels,
    eps: T,
    affine: Affine<'_, T>,
    [mean, var, rstd]: [&mut [T]; 3],
) {
    assert!(x.len() == sizes.volume() && y.len() == x.len(), "x and y are as long as {sizes:?} says");
    assert!([&*mean, var, rstd].iter().all(|v| v.len() == sizes.c), "statistics have one element a channel");
    if x.is_empty() {
        return [mean, var, rstd].into_iter().for_each(|v| v.fill(T::ZERO));
    }
    let (per, y) = (sizes.per_group(), Disjoint::new(y));
    let one_over_n = T::ONE / T::from_usize(sizes.count());
    par::for_chunks3((mean, per), (var, per), (rstd, per), |i, mean, var, rstd| {
        let channels = i * per..i * per + mean.len();
        let g = sizes.group(channels.clone());
        statistics(x, &g, one_over_n, mean, var);
        rstd.iter_mut().zip(&*var).for_each(|(r, &v)| *r = T::ONE / (v + eps).sqrt());
        normalize_group(x, &y, &g, (mean, rstd), affine, &channels);
    });
}

/// y = (x − μ) ρ γ + β for given μ and ρ, (C) each.
///
/// # Panics
/// If the lengths do not fit the sizes.
pub fn normalize_channels<T: Scalar>(
    x: &[T],
    y: &mut [T],
    sizes: Channels,
    (mean, rstd): (&[T], &[T]),
    affine: Affine<'_, T>,
) {
    assert!(x.len() == sizes.volume() && y.len() == x.len(), "x and y are as long as {sizes:?} says");
    assert!([mean, rstd].iter().all(|v| v.len() == sizes.c), "statistics have one element a channel");
    if x.is_empty() {
        return;
    }
    let (per, y) = (sizes.per_group(), Disjoint::new(y));
    par::for_each(sizes.c.div_ceil(per), |i| {
        let channels = i * per..sizes.c.min((i + 1) * per);
        let g = sizes.group(channels.clone());
        normalize_group(x, &y, &g, (&mean[channels.clone()], &rstd[channels.clone()]), affine, &channels);
    });
}

/// The gradients of y = (x − μ) ρ γ + β: fills `dw` with Σ dy x̂ and `db` with Σ dy, (C) each, and `dx`
/// - with γ ρ (dy − mean(dy) − x̂ mean(dy x̂)) if μ and ρ are this batch's (`through`),
/// - with γ ρ dy if they are constants.
///
/// # Panics
/// If the lengths do not fit the sizes.
pub fn batch_norm_gradient<T: Scalar>(
    (x, dy): (&[T], &[T]),
    sizes: Channels,
    (mean, rstd): (&[T], &[T]),
    weight: Option<&[T]>,
    through: bool,
    [dw, db]: [&mut [T]; 2],
    dx: Option<&mut [T]>,
) {
    let dx_len = dx.as_ref().map_or(x.len(), |dx| dx.len());
    let fit = x.len() == sizes.volume() && dy.len() == x.len() && dx_len == x.len();
    assert!(fit, "x, dy and dx are as long as {sizes:?} says");
    assert!([mean, rstd, dw, db].iter().all(|v| v.len() == sizes.c), "statistics have one element a channel");
    if x.is_empty() {
        return [dw, db].into_iter().for_each(|v| v.fill(T::ZERO));
    }
    let (per, dx) = (sizes.per_group(), dx.map(Disjoint::new));
    let by = if through { T::ONE / T::from_usize(sizes.count()) } else { T::ZERO };
    par::for_chunks2((dw, per), (db, per), |i, dw, db| {
        let channels = i * per..i * per + dw.len();
        let g = sizes.group(channels.clone());
        let (mean, rstd) = (&mean[channels.clone()], &rstd[channels.clone()]);
        let m = g.spread(mean.iter().copied());
        g.sums((x, dy), &m, [dw, db], |x, dy, m| [dy * (x - m), dy]);
        dw.iter_mut().zip(rstd).for_each(|(dw, &r)| *dw *= r);
        let Some(dx) = &dx else { return };
        // dx = a dy + b (x − μ) + k with a = γ ρ, b = −a ρ mean(dy x̂), k = −a mean(dy)
        let a = || part(weight, &channels, T::ONE).zip(rstd).map(|(w, &r)| w * r);
        let b = a().zip(rstd).zip(&*dw).map(|((a, &r), &dw)| -a * r * dw * by);
        let abk = [g.spread(a()), g.spread(b), g.spread(a().zip(&*db).map(|(a, &db)| -a * db * by))];
        for image in 0..g.n {
            // SAFETY: groups are of different channels, so no other piece has a part of this row.
            let dx = unsafe { dx.part(g.start(image), g.width) };
            gradient_row(g.row(x, image), g.row(dy, image), dx, &g, &m, &abk);
        }
    });
}

#[cfg(test)]
mod tests;
