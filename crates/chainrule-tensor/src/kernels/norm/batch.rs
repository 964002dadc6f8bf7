//! Batch norm. A piece takes a group of channels through all its passes, so that it is read from memory once.

use crate::{
    Scalar,
    kernels::{parts::Parts, reduce::fold, simd},
    par,
};
use std::ops::Range;

/// Elements of a group of channels: few enough to stay in the second-level cache from pass to pass.
const GROUP: usize = 1 << 15;
/// Below this length of L, loops run over the C·L columns.
const NARROW: usize = 16;
/// Most columns of a group where L is narrow, most channels elsewhere.
const WIDE: usize = 256;
/// Lanes of a partial sum, those for what is left at the end of an axis, and elements after which lanes are added up.
const LANES: usize = 32;
const FEW: usize = 8;
const BLOCK: usize = 4096;
/// Rows after which the sums of columns are added up.
const ROWS: usize = 128;

/// One number for each channel of a group, or for each column where L is narrow.
type Each<T> = [T; WIDE];

/// The sizes of a tensor (N, C, L): N images of C channels with L values each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Channels {
    /// Images.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Values of one channel of one image.
    pub l: usize,
}

impl Channels {
    /// All elements.
    pub fn volume(self) -> usize {
        self.n * self.c * self.l
    }

    /// Values that a channel's statistics are made of.
    pub fn count(self) -> usize {
        self.n * self.l
    }

    /// Channels of one group, by sizes alone.
    fn per_group(self) -> usize {
        let wanted = GROUP / self.count().max(1);
        match self.l {
            0..NARROW => wanted.clamp((64 / self.l.max(1)).max(1), WIDE / self.l.max(1)),
            _ => wanted.clamp(1, WIDE),
        }
    }

    fn group(self, channels: Range<usize>) -> Group {
        let (l, c) = (self.l, channels.len());
        let run = if l < NARROW { 1 } else { l };
        Group { n: self.n, l, run, first: channels.start * l, width: c * l, stride: self.c * l }
    }
}

/// The γ and β of y = x̂ γ + β, (C) each; absent ones are 1 and 0.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a, T> {
    /// γ
    pub weight: Option<&'a [T]>,
    /// β
    pub bias: Option<&'a [T]>,
}

/// Some channels of all images: of each image, `width` elements that stand together.
#[derive(Clone, Copy)]
pub struct Group {
    n: usize,
    l: usize,
    /// How many elements share one number of an `Each`: L, or 1 where L is narrow.
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

    /// Channels' numbers, repeated for every column where L is narrow.
    fn spread<T: Scalar>(&self, channels: impl Iterator<Item = T>) -> Each<T> {
        let mut each = [T::ZERO; WIDE];
        each.chunks_mut(self.l / self.run).zip(channels).for_each(|(each, v)| each.fill(v));
        each
    }

    /// Each channel's number from those of its columns: their sum.
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

simd! {
    /// Σ f(x, z, m) of each channel of a group. Lanes are added up now and then, so that no sum has many terms.
    pub fn run_sums[T: Scalar, const K: usize, F: Fn(T, T, T) -> [T; K]](
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

simd! {
    /// Σ f(x, z, m) of each column of a group.
    pub fn column_sums[T: Scalar, const K: usize, F: Fn(T, T, T) -> [T; K]](
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

simd! {
    /// y = (x − m) s + b over a row of a group; m, s, b hold one number for every `run` elements.
    pub fn normalize_row[T: Scalar](
        x: &[T],
        y: &mut [T],
        run: usize,
        m: &Each<T>,
        s: &Each<T>,
        b: &Each<T>,
    ) {
        if run == 1 {
            for ((((y, &x), &m), &s), &b) in y.iter_mut().zip(x).zip(m).zip(s).zip(b) {
                *y = (x - m) * s + b;
            }
            return;
        }
        let runs = y.chunks_exact_mut(run).zip(x.chunks_exact(run));
        for ((((y, x), &m), &s), &b) in runs.zip(m).zip(s).zip(b) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (x - m) * s + b;
            }
        }
    }
}

simd! {
    /// dx = a dy + b (x − m) + k over a row of a group; m, a, b, k hold one number for every `run` elements.
    pub fn gradient_row[T: Scalar](
        x: &[T],
        dy: &[T],
        dx: &mut [T],
        run: usize,
        m: &Each<T>,
        abk: &[Each<T>; 3],
    ) {
        let [a, b, k] = abk;
        if run == 1 {
            for ((((((dx, &x), &dy), &m), &a), &b), &k) in dx.iter_mut().zip(x).zip(dy).zip(m).zip(a).zip(b).zip(k) {
                *dx = a * dy + b * (x - m) + k;
            }
            return;
        }
        let runs = dx.chunks_exact_mut(run).zip(x.chunks_exact(run)).zip(dy.chunks_exact(run));
        for ((((((dx, x), dy), &m), &a), &b), &k) in runs.zip(m).zip(a).zip(b).zip(k) {
            for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
                *dx = a * dy + b * (x - m) + k;
            }
        }
    }
}

/// Channels `at` of an optional slice, or a number instead.
fn part<T: Scalar>(slice: Option<&[T]>, at: &Range<usize>, otherwise: T) -> impl Iterator<Item = T> {
    at.clone().map(move |c| slice.map_or(otherwise, |s| s[c]))
}

/// y = (x − μ) ρ γ + β for the images of one group.
fn normalize_group<T: Scalar>(
    x: &[T],
    y: &Parts<'_, T>,
    g: &Group,
    (mean, rstd): (&[T], &[T]),
    affine: Affine<'_, T>,
    channels: &Range<usize>,
) {
    let scales = part(affine.weight, channels, T::ONE).zip(rstd).map(|(w, &r)| w * r);
    let (m, s) = (g.spread(mean.iter().copied()), g.spread(scales));
    let b = g.spread(part(affine.bias, channels, T::ZERO));
    for image in 0..g.n {
        // SAFETY: groups are of different channels, so no other piece asks for a part of this row.
        let y = unsafe { y.get(g.start(image), g.width) };
        normalize_row(g.row(x, image), y, g.run, &m, &s, &b);
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
    assert!(x.len() == sizes.volume() && y.len() == x.len() && mean.len() == sizes.c);
    if x.is_empty() {
        return [mean, var, rstd].into_iter().for_each(|v| v.fill(T::ZERO));
    }
    let (per, y) = (sizes.per_group(), Parts::new(y));
    let one_over_n = T::ONE / T::from_usize(sizes.count());
    par::for_chunks3((mean, per), (var, per), (rstd, per), |i, mean, var, rstd| {
        let channels = i * per..i * per + mean.len();
        let g = sizes.group(channels.clone());
        g.sums((x, x), &[T::ZERO; WIDE], [mean], |x, _, _| [x]);
        mean.iter_mut().for_each(|m| *m *= one_over_n);
        g.sums((x, x), &g.spread(mean.iter().copied()), [var], |x, _, m| [(x - m) * (x - m)]);
        var.iter_mut().for_each(|v| *v *= one_over_n);
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
    assert!(x.len() == sizes.volume() && y.len() == x.len() && mean.len() == sizes.c);
    if x.is_empty() {
        return;
    }
    let (per, y) = (sizes.per_group(), Parts::new(y));
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
    assert!(x.len() == sizes.volume() && dy.len() == x.len() && mean.len() == sizes.c);
    if x.is_empty() {
        return [dw, db].into_iter().for_each(|v| v.fill(T::ZERO));
    }
    let (per, dx) = (sizes.per_group(), dx.map(Parts::new));
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
            // SAFETY: groups are of different channels, so no other piece asks for a part of this row.
            let dx = unsafe { dx.get(g.start(image), g.width) };
            gradient_row(g.row(x, image), g.row(dy, image), dx, g.run, &m, &abk);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729 + 13) % 31) as f64 * 0.25 - 3.0).collect()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < 1e-12 * b.abs().max(1.0), "{a} {b}"));
    }

    /// The plain loops that the kernels are compared with.
    #[test]
    fn all_sizes_agree_with_the_naive_loop() {
        for (n, c, l) in
            [(1, 1, 2), (4, 300, 1), (300, 3, 1), (3, 5, 7), (2, 3, 16), (5, 2, 49), (9, 7, 1030)]
        {
            let sizes = Channels { n, c, l };
            let (x, dy) = (numbers(n * c * l, 1), numbers(n * c * l, 2));
            let (w, b) = (numbers(c, 3), numbers(c, 4));
            let affine = Affine { weight: Some(&w), bias: Some(&b) };
            let zeros = vec![0.0; c];
            let [mut mean, mut var, mut rstd, mut dw, mut db] = std::array::from_fn(|_| zeros.clone());
            let [mut y, mut dx, mut y_again, mut dx_fixed] = std::array::from_fn(|_| vec![f64::NAN; x.len()]);
            batch_norm(&x, &mut y, sizes, 1e-5, affine, [&mut mean, &mut var, &mut rstd]);
            let given = (&mean[..], &rstd[..]);
            normalize_channels(&x, &mut y_again, sizes, given, affine);
            assert_eq!(y, y_again);
            for (through, dx) in [(false, &mut dx_fixed), (true, &mut dx)] {
                batch_norm_gradient((&x, &dy), sizes, given, Some(&w), through, [&mut dw, &mut db], Some(dx));
            }
            for ch in 0..c {
                let at: Vec<usize> = (0..n * l).map(|i| (i / l * c + ch) * l + i % l).collect();
                let count = at.len() as f64;
                let mu = at.iter().map(|&i| x[i]).sum::<f64>() / count;
                let sigma2 = at.iter().map(|&i| (x[i] - mu).powi(2)).sum::<f64>() / count;
                let rho = 1.0 / (sigma2 + 1e-5).sqrt();
                close(&[mean[ch], var[ch], rstd[ch]], &[mu, sigma2, rho]);
                let x_hat = |i: usize| (x[i] - mu) * rho;
                let (sum, dot) = at.iter().fold((0.0, 0.0), |(s, d), &i| (s + dy[i], d + dy[i] * x_hat(i)));
                close(&[dw[ch], db[ch]], &[dot, sum]);
                for &i in &at {
                    close(&[y[i]], &[x_hat(i) * w[ch] + b[ch]]);
                    close(&[dx_fixed[i]], &[w[ch] * rho * dy[i]]);
                    close(&[dx[i]], &[w[ch] * rho * (dy[i] - sum / count - x_hat(i) * dot / count)]);
                }
            }
        }
    }

    #[test]
    fn the_variance_of_large_numbers_keeps_its_digits() {
        let sizes = Channels { n: 256, c: 2, l: 64 };
        // 10,000 and 10,001 in turn: the variance is 1/4.
        let x: Vec<f32> = (0..sizes.volume()).map(|i| 1e4 + (i % 2) as f32).collect();
        let (mut y, [mut mean, mut var, mut rstd]) = (vec![0.0; x.len()], [[0.0; 2]; 3]);
        let none = Affine { weight: None, bias: None };
        batch_norm(&x, &mut y, sizes, 1e-5, none, [&mut mean, &mut var, &mut rstd]);
        assert!(var.iter().all(|v| (v - 0.25).abs() < 1e-4), "{mean:?} {var:?}");
    }
}
