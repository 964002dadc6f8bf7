//! Group norm. A piece takes some groups through all its passes, so that they are read from memory once.

use super::{
    batch::{gradient_group, gradient_sums, normalize_group, part, statistics},
    channels::{Affine, Channels, WIDE},
    mean::Mean,
};
use crate::{compiled, disjoint::Disjoint, par};
use std::ops::Range;

/// The channels of all images, and the groups of all images as one channel each.
fn of_groups(channels: Channels, each: usize) -> Channels {
    assert!(
        channels.n == 1 && each > 0 && channels.c.is_multiple_of(each),
        "expected groups of {each} of all images' channels, got {channels:?}"
    );
    Channels { n: 1, c: channels.c / each, l: each * channels.l }
}

/// `at` in parts of at most `per`.
fn parts(at: Range<usize>, per: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    at.clone().step_by(per).map(move |start| start..at.end.min(start + per))
}

compiled! {
    /// y = x̂ γ + β with x̂ = (x − μ) ρ, where μ and σ² are the mean and the biased variance of a group of `each` channels,
    /// ρ = 1/√(σ² + ε). `channels` are those of all images, N · C of one. Fills `mean` and `rstd`, one value a channel.
    ///
    /// # Panics
    /// If the lengths do not fit the sizes.
    pub fn group_norm[T](
        x: &[T],
        y: &mut [T],
        channels: Channels,
        each: usize,
        eps: T,
        affine: Affine<'_, T>,
        mean_and_rstd: (&mut [Mean<T>], &mut [T]),
    ) {
        let (groups, (mean, rstd)) = (of_groups(channels, each), mean_and_rstd);
        assert!(x.len() == channels.volume() && y.len() == x.len(), "x and y are as long as {channels:?} says");
        assert!([mean.len(), rstd.len()] == [channels.c; 2], "statistics have one element a channel");
        if x.is_empty() {
            mean.fill([T::ZERO; 2]);
            return rstd.fill(T::ZERO);
        }
        let (per, y) = (groups.per_group(), Disjoint::new(y));
        let one_over_n = T::ONE / T::from_usize(groups.l);
        par::for_chunks2((mean, per * each), (rstd, per * each), |i, mean, rstd| {
            let (first, n) = (i * per, mean.len() / each);
            let (mut means, mut vars) = ([[T::ZERO; 2]; WIDE], [T::ZERO; WIDE]);
            let (means, vars) = (&mut means[..n], &mut vars[..n]);
            statistics(x, &groups.group(first..first + n), one_over_n, means, vars);
            let all = mean.chunks_exact_mut(each).zip(rstd.chunks_exact_mut(each));
            for ((mean, rstd), (&group, &var)) in all.zip(means.iter().zip(&*vars)) {
                mean.fill(group);
                rstd.fill(T::ONE / (var + eps).sqrt());
            }
            for at in parts(0..mean.len(), channels.per_group()) {
                let all = first * each + at.start..first * each + at.end;
                let g = channels.group(all.clone());
                normalize_group(x, &y, &g, (&mean[at.clone()], &rstd[at]), affine, &all);
            }
        });
    }
}

compiled! {
    /// The gradients of y = x̂ γ + β: fills `dw` with Σ dy x̂ and `db` with Σ dy, one value a channel, and `dx` with
    /// ρ (h − mean(h) − x̂ mean(h x̂)), h = γ dy, means over a group.
    ///
    /// # Panics
    /// If the lengths do not fit the sizes.
    pub fn group_norm_gradient[T](
        x_and_dy: (&[T], &[T]),
        channels: Channels,
        each: usize,
        statistics: (&[Mean<T>], &[T]),
        weight: Option<&[T]>,
        sums: [&mut [T]; 2],
        dx: Option<&mut [T]>,
    ) {
        let ((x, dy), (mean, rstd), [dw, db]) = (x_and_dy, statistics, sums);
        let groups = of_groups(channels, each);
        let dx_len = dx.as_ref().map_or(x.len(), |dx| dx.len());
        let fit = x.len() == channels.volume() && dy.len() == x.len() && dx_len == x.len();
        assert!(fit, "x, dy and dx are as long as {channels:?} says");
        assert!(
            [mean.len(), rstd.len(), dw.len(), db.len()] == [channels.c; 4],
            "statistics have one element a channel"
        );
        if x.is_empty() {
            return [dw, db].into_iter().for_each(|v| v.fill(T::ZERO));
        }
        let (per, dx) = (groups.per_group(), dx.map(Disjoint::new));
        let by = 1.0 / groups.l as f64;
        par::for_chunks2((dw, per * each), (db, per * each), |i, dw, db| {
            let base = i * per * each;
            let all = parts(base..base + dw.len(), channels.per_group());
            for at in all.clone() {
                let (g, own) = (channels.group(at.clone()), at.start - base..at.end - base);
                let statistics = (&mean[at.clone()], &rstd[at]);
                gradient_sums((x, dy), &g, statistics, &mut dw[own.clone()], &mut db[own]);
            }
            let Some(dx) = &dx else { return };
            let (mut mean_h, mut mean_hx) = ([T::ZERO; WIDE], [T::ZERO; WIDE]);
            for (sums, means) in [(&*db, &mut mean_h), (&*dw, &mut mean_hx)] {
                for (group, mean) in means[..sums.len() / each].iter_mut().enumerate() {
                    let own = group * each..(group + 1) * each;
                    let at = base + own.start..base + own.end;
                    let gamma = part(weight, &at, T::ONE);
                    let sum: f64 = gamma.zip(&sums[own]).map(|(w, sum)| w.to_f64() * sum.to_f64()).sum();
                    *mean = T::from_f64(sum * by);
                }
            }
            // dx = a dy + b (x − high) + k with a = γ ρ, b = −ρ² mean(h x̂), k = −ρ mean(h) − b low
            for at in all {
                let g = channels.group(at.clone());
                let (mean, rstd) = (&mean[at.clone()], &rstd[at.clone()]);
                let group = |c: usize| (at.start - base + c) / each;
                let b = |c: usize| -rstd[c] * rstd[c] * mean_hx[group(c)];
                let k = |c: usize| -rstd[c] * mean_h[group(c)] - b(c) * mean[c][1];
                let a = part(weight, &at, T::ONE).zip(rstd).map(|(w, &r)| w * r);
                let (b, k) = ((0..mean.len()).map(b), (0..mean.len()).map(k));
                gradient_group((x, dy), dx, &g, mean, [g.spread(a), g.spread(b), g.spread(k)]);
            }
        });
    }
}
