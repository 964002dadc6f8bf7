//! Batch norm. A piece takes a group of channels through all its passes, so that it is read from memory once.

use super::{
    channels::{Affine, Channels, NARROW, WIDE},
    mean::{Mean, sum_of},
};
use crate::{
    Scalar, compiled,
    disjoint::Disjoint,
    kernels::{
        kernel, prefetch,
        reduce::{Columns, DEPTH, fold, sum},
    },
    par,
};
use std::ops::Range;

/// Lanes of a partial sum, those for the remainder at the end of an axis, and images whose remainders are summed together.
const LANES: usize = 32;
const FEW: usize = 8;
const ENDS: usize = DEPTH / FEW;
/// Elements of a channel whose mean is the pivot of its variance.
const SOME: usize = 256;
/// (μ − p)²/σ² from which the variance is computed again: it then has lost four bits.
const FAR: f64 = 16.0;

/// One value for each channel of a group, or for each column where L is narrow.
type Each<T> = [T; WIDE];

impl Channels {
    pub(super) fn group(self, channels: Range<usize>) -> Group {
        let (l, c) = (self.l, channels.len());
        let run = if l < NARROW { 1 } else { l };
        Group { n: self.n, l, run, first: channels.start * l, width: c * l, stride: self.c * l }
    }
}

/// Some channels of all images: of each image, `width` contiguous elements.
#[derive(Clone, Copy)]
pub(super) struct Group {
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
    pub(super) fn spread<T: Scalar>(&self, channels: impl Iterator<Item = T>) -> Each<T> {
        let mut each = [T::ZERO; WIDE];
        each.chunks_mut(self.l / self.run).zip(channels).for_each(|(each, v)| each.fill(v));
        each
    }

    /// Each channel's value from those of its columns: their sum.
    fn gather<T: Scalar>(&self, each: &Each<f64>, channels: &mut [T]) {
        let each = each.chunks(self.l / self.run);
        channels.iter_mut().zip(each).for_each(|(v, each)| *v = T::from_f64(each.iter().sum()));
    }

    /// Σ f(x, z, m) of each channel, K sums at once.
    fn sums<T: Scalar, const K: usize>(
        &self,
        (x, z): (&[T], &[T]),
        m: &Each<T>,
        out: [&mut [T]; K],
        f: impl Fn(T, T, T) -> [T; K],
    ) {
        let mut each = [[0.0; WIDE]; K];
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

/// The sums of the lanes, which begin anew.
#[inline(always)]
fn settle<T: Scalar, const K: usize, const N: usize>(lanes: &mut [[T; N]; K], total: &mut [f64; K]) {
    for k in 0..K {
        total[k] += fold(lanes[k]).to_f64();
        lanes[k] = [T::ZERO; N];
    }
}

kernel! {
    /// Σ f(x, z, m) of each channel of a group.
    fn run_sums[T: Scalar, const K: usize, F: Fn(T, T, T) -> [T; K]](
        x: &[T],
        z: &[T],
        g: &Group,
        m: &Each<T>,
        out: &mut [Each<f64>; K],
        f: &F,
    ) {
        for c in 0..g.width / g.l {
            let mut total = [0.0; K];
            let (mut lanes, mut few, mut rest) = ([[T::ZERO; LANES]; K], [[T::ZERO; FEW]; K], [[T::ZERO; 1]; K]);
            let mut depth = 0;
            for image in 0..g.n {
                let at = g.start(image) + c * g.l;
                let (xs, x) = x[at..][..g.l].as_chunks::<LANES>();
                let (zs, z) = z[at..][..g.l].as_chunks::<LANES>();
                for (xs, zs) in xs.chunks(DEPTH).zip(zs.chunks(DEPTH)) {
                    depth += xs.len();
                    if depth > DEPTH {
                        settle(&mut lanes, &mut total);
                        depth = xs.len();
                    }
                    for (x, z) in xs.iter().zip(zs) {
                        prefetch(x.as_ptr().wrapping_add(g.stride), LANES);
                        prefetch(z.as_ptr().wrapping_add(g.stride), LANES);
                        add_lanes(x, z, m[c], &mut lanes, f);
                    }
                }
                let ((xs, x), (zs, z)) = (x.as_chunks::<FEW>(), z.as_chunks::<FEW>());
                for (x, z) in xs.iter().zip(zs) {
                    add_lanes(x, z, m[c], &mut few, f);
                }
                for (&x, &z) in x.iter().zip(z) {
                    add_lanes(&[x], &[z], m[c], &mut rest, f);
                }
                if image % ENDS == ENDS - 1 && !g.l.is_multiple_of(LANES) {
                    settle(&mut few, &mut total);
                    settle(&mut rest, &mut total);
                }
            }
            settle(&mut lanes, &mut total);
            settle(&mut few, &mut total);
            settle(&mut rest, &mut total);
            for k in 0..K { out[k][c] = total[k]; }
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
        out: &mut [Each<f64>; K],
        f: &F,
    ) {
        let width = g.width.min(WIDE);
        let mut columns: [Columns<T, WIDE>; K] = std::array::from_fn(|_| Columns::new());
        for start in (0..g.n).step_by(DEPTH) {
            for columns in &mut columns {
                columns.settle(width);
            }
            for image in start..g.n.min(start + DEPTH) {
                let (x, z) = (&g.row(x, image)[..width], &g.row(z, image)[..width]);
                for j in 0..width {
                    let v = f(x[j], z[j], m[j]);
                    for k in 0..K { columns[k].block[j] += v[k]; }
                }
            }
        }
        for (out, columns) in out.iter_mut().zip(&mut columns) {
            columns.settle(width);
            *out = columns.total;
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

/// Channels `at` of an optional slice, which begins anew at its end, or a constant instead.
pub(super) fn part<T: Scalar>(
    slice: Option<&[T]>,
    at: &Range<usize>,
    otherwise: T,
) -> impl Iterator<Item = T> {
    at.clone().map(move |c| slice.map_or(otherwise, |s| s[c % s.len()]))
}

/// y = (x − μ) ρ γ + β for the images of one group.
pub(super) fn normalize_group<T: Scalar>(
    x: &[T],
    y: &Disjoint<'_, T>,
    g: &Group,
    (mean, rstd): (&[Mean<T>], &[T]),
    affine: Affine<'_, T>,
    channels: &Range<usize>,
) {
    // y = (x − high) s + b with s = γ ρ, b = β − low s
    let scales = || part(affine.weight, channels, T::ONE).zip(rstd).map(|(w, &r)| w * r);
    let (m, s) = (g.spread(mean.iter().map(|&[high, _]| high)), g.spread(scales()));
    let b = part(affine.bias, channels, T::ZERO).zip(scales()).zip(mean);
    let b = g.spread(b.map(|((b, s), &[_, low])| b - low * s));
    for image in 0..g.n {
        // SAFETY: groups are of different channels, so no other piece has a part of this row.
        let y = unsafe { y.part(g.start(image), g.width) };
        normalize_row(g.row(x, image), y, g, &m, &s, &b);
    }
}

/// dw = Σ dy x̂ and db = Σ dy of each channel of a group, with x̂ = (x − μ) ρ.
pub(super) fn gradient_sums<T: Scalar>(
    x_and_dy: (&[T], &[T]),
    g: &Group,
    (mean, rstd): (&[Mean<T>], &[T]),
    dw: &mut [T],
    db: &mut [T],
) {
    let m = g.spread(mean.iter().map(|&[high, _]| high));
    g.sums(x_and_dy, &m, [&mut *dw, &mut *db], |x, dy, m| [dy * (x - m), dy]);
    for (((dw, &db), &[_, low]), &r) in dw.iter_mut().zip(&*db).zip(mean).zip(rstd) {
        *dw = (*dw - low * db) * r;
    }
}

/// dx = a dy + b (x − high) + k for the images of one group.
pub(super) fn gradient_group<T: Scalar>(
    (x, dy): (&[T], &[T]),
    dx: &Disjoint<'_, T>,
    g: &Group,
    mean: &[Mean<T>],
    abk: [Each<T>; 3],
) {
    let m = g.spread(mean.iter().map(|&[high, _]| high));
    for image in 0..g.n {
        // SAFETY: groups are of different channels, so no other piece has a part of this row.
        let dx = unsafe { dx.part(g.start(image), g.width) };
        gradient_row(g.row(x, image), g.row(dy, image), dx, g, &m, &abk);
    }
}

/// Mean and biased variance of each channel of a group, in one pass about a pivot p near the mean, that of some elements of the first
/// image:
///
/// ```text
/// μ = p + mean(x − p)        σ² = mean((x − p)²) − mean(x − p)²
/// ```
///
/// The difference loses bits if the pivot is many σ away; then a second pass takes the mean for a pivot.
pub(super) fn statistics<T: Scalar>(x: &[T], g: &Group, one_over_n: T, mean: &mut [Mean<T>], var: &mut [T]) {
    let some = |run: &[T]| T::from_f64(sum(&run[..g.l.min(SOME)]) / g.l.min(SOME) as f64);
    let first = g.row(x, 0).chunks_exact(g.l).map(some);
    let mut pivots = g.spread(first);
    for pass in 0..2 {
        let mut shift = [T::ZERO; WIDE];
        let shift = &mut shift[..mean.len()];
        g.sums((x, x), &pivots, [&mut *shift, &mut *var], |x, _, p| [x - p, (x - p) * (x - p)]);
        let mut far = false;
        for (c, ((mean, shift), var)) in mean.iter_mut().zip(shift).zip(&mut *var).enumerate() {
            let (pivot, shift) = (pivots[c * (g.l / g.run)], *shift * one_over_n);
            *mean = sum_of(pivot, shift);
            *var = *var * one_over_n - shift * shift;
            far |= shift * shift > T::from_f64(FAR) * *var;
        }
        if !far || pass == 1 {
            return;
        }
        pivots = g.spread(mean.iter().map(|&[high, _]| high));
    }
}

compiled! {
    /// y = x̂ γ + β with x̂ = (x − μ) ρ, where μ and σ² are each channel's mean and biased variance, ρ = 1/√(σ² + ε).
    /// Fills `mean`, `var` and `rstd`, (C) each.
    ///
    /// # Panics
    /// If the lengths do not fit the sizes.
    pub fn batch_norm[T](
        x: &[T],
        y: &mut [T],
        sizes: Channels,
        eps: T,
        affine: Affine<'_, T>,
        mean: &mut [Mean<T>],
        var_and_rstd: [&mut [T]; 2],
    ) {
        let [var, rstd] = var_and_rstd;
        assert!(x.len() == sizes.volume() && y.len() == x.len(), "x and y are as long as {sizes:?} says");
        assert!([mean.len(), var.len(), rstd.len()] == [sizes.c; 3], "statistics have one element a channel");
        if x.is_empty() {
            mean.fill([T::ZERO; 2]);
            return [var, rstd].into_iter().for_each(|v| v.fill(T::ZERO));
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
}

compiled! {
    /// y = (x − μ) ρ γ + β for given μ and ρ, (C) each.
    ///
    /// # Panics
    /// If the lengths do not fit the sizes.
    pub fn normalize_channels[T](
        x: &[T],
        y: &mut [T],
        sizes: Channels,
        statistics: (&[Mean<T>], &[T]),
        affine: Affine<'_, T>,
    ) {
        let (mean, rstd) = statistics;
        assert!(x.len() == sizes.volume() && y.len() == x.len(), "x and y are as long as {sizes:?} says");
        assert!([mean.len(), rstd.len()] == [sizes.c; 2], "statistics have one element a channel");
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
}

compiled! {
    /// The gradients of y = (x − μ) ρ γ + β: fills `dw` with Σ dy x̂ and `db` with Σ dy, (C) each, and `dx`
    /// - with γ ρ (dy − mean(dy) − x̂ mean(dy x̂)) if μ and ρ are this batch's (`through`),
    /// - with γ ρ dy if they are constants.
    ///
    /// # Panics
    /// If the lengths do not fit the sizes.
    pub fn batch_norm_gradient[T](
        x_and_dy: (&[T], &[T]),
        sizes: Channels,
        statistics: (&[Mean<T>], &[T]),
        weight: Option<&[T]>,
        through: bool,
        sums: [&mut [T]; 2],
        dx: Option<&mut [T]>,
    ) {
        let ((x, dy), (mean, rstd), [dw, db]) = (x_and_dy, statistics, sums);
        let dx_len = dx.as_ref().map_or(x.len(), |dx| dx.len());
        let fit = x.len() == sizes.volume() && dy.len() == x.len() && dx_len == x.len();
        assert!(fit, "x, dy and dx are as long as {sizes:?} says");
        assert!(
            [mean.len(), rstd.len(), dw.len(), db.len()] == [sizes.c; 4],
            "statistics have one element a channel"
        );
        if x.is_empty() {
            return [dw, db].into_iter().for_each(|v| v.fill(T::ZERO));
        }
        let (per, dx) = (sizes.per_group(), dx.map(Disjoint::new));
        let by = if through { T::ONE / T::from_usize(sizes.count()) } else { T::ZERO };
        par::for_chunks2((dw, per), (db, per), |i, dw, db| {
            let channels = i * per..i * per + dw.len();
            let g = sizes.group(channels.clone());
            let (mean, rstd) = (&mean[channels.clone()], &rstd[channels.clone()]);
            gradient_sums((x, dy), &g, (mean, rstd), dw, db);
            let Some(dx) = &dx else { return };
            // dx = a dy + b (x − high) + k with a = γ ρ, b = −a ρ mean(dy x̂), k = −a mean(dy) − b low
            let a = || part(weight, &channels, T::ONE).zip(rstd).map(|(w, &r)| w * r);
            let b = || a().zip(rstd).zip(&*dw).map(|((a, &r), &dw)| -a * r * dw * by);
            let k = a().zip(&*db).zip(b()).zip(mean).map(|(((a, &db), b), &[_, low])| -a * db * by - b * low);
            gradient_group((x, dy), dx, &g, mean, [g.spread(a()), g.spread(b()), g.spread(k)]);
        });
    }
}

#[cfg(test)]
mod tests;
