//! Connectionist temporal classification (Graves and others, 2006), fused with its log-softmax.
//!
//! ```text
//! p = softmax(y) of each frame        l′ = (blank, l₁, blank, l₂, …, blank)
//! α_t(s) = p_t(l′ₛ) (α_t₋₁(s) + α_t₋₁(s−1) + [l′ₛ is a label, other than l′ₛ₋₂] α_t₋₁(s−2))
//! β_t(s) = Σ over the places that s may go to of p_t₊₁ β_t₊₁
//! P = Σₛ α_t(s) β_t(s)                e = −ln P
//! ∂e/∂y_tᶜ = p_tᶜ − 1/P Σ over s with l′ₛ = c of α_t(s) β_t(s)
//! ```
//!
//! The mean divides each e by the length of its sequence first. Derivation: docs/losses/ctc.md.

use crate::{
    elementwise::{check_dloss, not_reduced, reduction},
    rows::Rows,
};
use chainrule_core::{
    Args, Error, Example, Facts, FromSpec, Objective, Reduction, Result, Scalar, Sequences, Shape, Spec,
    Target, Targets, Tensor,
};
use chainrule_tensor::compiled;
use std::marker::PhantomData;

/// −ln of the probability that the frames of a prediction spell a sequence of labels.
///
/// # Shapes
/// y (T, N, C), or (T, C) for a single sample: logits, or what a `LogSoftmax` makes of them. The first target is a sequence of
/// classes for each sample, none of them the blank. A second one may be given: the number of frames of each sample, as classes
/// (N); without it every sample has T. The loss has no axes, or (N) (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Objective, Sequences, Tensor};
/// use chainrule_losses::Ctc;
/// // One frame of a blank and a label, equally likely.
/// let (y, mut e) = (Tensor::<f32>::zeros([1, 1, 2]), Tensor::default());
/// Ctc::new().evaluate(&[&y], &[Sequences::new(&[1], &[1])?.into()], &mut e)?;
/// assert!((e.data()[0] - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ctc<T = f32> {
    blank: usize,
    zero_infinity: bool,
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> Ctc<T> {
    /// The mean over samples, with class 0 for the blank.
    pub fn new() -> Self {
        Self { blank: 0, zero_infinity: false, reduction: Reduction::Mean, scalar: PhantomData }
    }

    /// The class of the blank; 0 by default.
    #[must_use]
    pub fn blank(mut self, blank: usize) -> Self {
        self.blank = blank;
        self
    }

    /// Whether a sequence that its frames cannot spell costs 0 and has no gradient, and not ∞.
    #[must_use]
    pub fn zero_infinity(mut self, zero_infinity: bool) -> Self {
        self.zero_infinity = zero_infinity;
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// The prediction and the target, checked against each other.
    fn sizes<'a>(&self, ys: &[&'a Tensor<T>], targets: &[Target<'a, T>]) -> Result<Sizes<'a, T>> {
        let (&[y], &[first, ref others @ ..]) = (ys, targets) else { return Err(counts(ys, targets)) };
        let (frames, samples, classes) = match y.shape()[..] {
            [frames, classes] => (frames, 1, classes),
            [frames, samples, classes] => (frames, samples, classes),
            _ => {
                return Err(Error::shape(format!(
                    "Ctc: expected a prediction (T, N, C) or (T, C), got {}",
                    y.shape()
                )));
            }
        };
        let (sequences, blank) = (first.sequences()?, self.blank);
        // Owned targets have not been compared with their lengths.
        Sequences::new(&sequences, sequences.lengths())?;
        if sequences.lengths().len() != samples {
            return Err(Error::shape(format!(
                "Ctc: expected a sequence for each of {samples} samples, got {}",
                sequences.lengths().len()
            )));
        }
        if blank >= classes {
            return Err(Error::index(format!("Ctc: expected a blank below {classes} classes, got {blank}")));
        }
        if let Some((i, c)) =
            sequences.iter().flatten().enumerate().find(|&(_, &c)| c >= classes || c == blank)
        {
            return Err(Error::index(format!(
                "Ctc: expected labels below {classes} other than the blank {blank}, got {c} at position {i}"
            )));
        }
        let lengths = match others {
            [] => None,
            [lengths] => Some(lengths.classes()?.indices()),
            _ => return Err(counts(ys, targets)),
        };
        if let Some(lengths) = lengths
            && (lengths.len() != samples || lengths.iter().any(|&n| n > frames))
        {
            return Err(Error::shape(format!(
                "Ctc: expected for each of {samples} samples a number of frames of at most {frames}, got {:?}",
                &lengths[..lengths.len().min(8)]
            )));
        }
        let single = if y.shape().len() == 2 { Shape::default() } else { Shape::from([samples]) };
        Ok(Sizes { y, sequences, lengths, frames, samples, classes, single })
    }

    /// The share of a sample in the reduced loss.
    fn share(&self, samples: usize, length: usize) -> f64 {
        if self.reduction == Reduction::Mean { 1.0 / (length.max(1) as f64 * samples as f64) } else { 1.0 }
    }

    fn loss_shape(&self, sizes: &Sizes<'_, T>) -> Shape {
        if self.reduction == Reduction::None { sizes.single } else { Shape::default() }
    }
}

#[cold]
fn counts<T>(ys: &[&Tensor<T>], targets: &[Target<'_, T>]) -> Error {
    Error::shape(format!(
        "Ctc: expected one prediction, and one or two targets, got {} and {}",
        ys.len(),
        targets.len()
    ))
}

/// What was checked.
struct Sizes<'a, T> {
    y: &'a Tensor<T>,
    sequences: Sequences<'a>,
    lengths: Option<&'a [usize]>,
    frames: usize,
    samples: usize,
    classes: usize,
    /// The shape of the single losses.
    single: Shape,
}

impl<T: Scalar> Default for Ctc<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// ln(eᵃ + eᵇ)
#[inline(always)]
fn add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// Memory of a pass.
#[derive(Default)]
struct Scratch {
    /// ln Σ eʸ as a maximum and a logarithm, of each frame.
    norms: Vec<[f64; 2]>,
    /// ln α (frames, places).
    alpha: Vec<f64>,
    /// ln β of two frames.
    beta: [Vec<f64>; 2],
    /// Σ α β of each class.
    posterior: Vec<f64>,
}

compiled! {
    /// e of each sample; its slopes, times `g`, overwrite `dy`.
    fn pass[T](
        of: &Ctc<T>,
        sizes: &Sizes<'_, T>,
        loss: &mut dyn FnMut(usize, f64),
        dy: Option<&mut [T]>,
        g: &dyn Fn(usize) -> f64,
    ) {
        let (mut dy, mut scratch) = (dy, Scratch::default());
        if let Some(dy) = &mut dy {
            dy.fill(T::ZERO); // frames beyond the sample's
        }
        let (y, classes, samples) = (sizes.y.data(), sizes.classes, sizes.samples);
        let rows = Rows { outer: sizes.frames * samples, classes, inner: 1 };
        for (sample, labels) in sizes.sequences.iter().enumerate() {
            let frames = sizes.lengths.map_or(sizes.frames, |lengths| lengths[sample]);
            let places = 2 * labels.len() + 1;
            // l′: blanks between labels
            let class = |s: usize| if s.is_multiple_of(2) { of.blank } else { labels[s / 2] };
            // Whether the blank before a label may be left out.
            let skips = |s: usize| s % 2 == 1 && s > 1 && labels[s / 2] != labels[s / 2 - 1];
            let Scratch { norms, alpha, beta, posterior } = &mut scratch;
            norms.clear();
            norms.extend((0..frames).map(|t| {
                let (max, log_sum) = rows.row(t * samples + sample).log_sum_exp(y);
                [max.to_f64(), log_sum.to_f64()]
            }));
            // ln p of a class in a frame
            let log_p = |t: usize, c: usize| {
                let [max, log_sum] = norms[t];
                (y[(t * samples + sample) * classes + c].to_f64() - max) - log_sum
            };
            alpha.clear();
            alpha.resize(frames * places, f64::NEG_INFINITY);
            for t in 0..frames {
                let (before, now) = alpha.split_at_mut(t * places);
                let before = before.get((t.max(1) - 1) * places..).unwrap_or_default();
                for s in 0..places {
                    let reached = if t == 0 {
                        if s < 2 { 0.0 } else { f64::NEG_INFINITY }
                    } else {
                        let mut reached = before[s];
                        if s > 0 {
                            reached = add(reached, before[s - 1]);
                        }
                        if skips(s) {
                            reached = add(reached, before[s - 2]);
                        }
                        reached
                    };
                    if reached != f64::NEG_INFINITY {
                        now[s] = reached + log_p(t, class(s));
                    }
                }
            }
            // A sample ends in its last label or in the blank behind it.
            let ends = |s: usize| s + 2 >= places;
            let log_likelihood = match frames {
                0 if labels.is_empty() => 0.0,
                0 => f64::NEG_INFINITY,
                _ => {
                    let last = &alpha[(frames - 1) * places..];
                    (0..places).filter(|&s| ends(s)).fold(f64::NEG_INFINITY, |sum, s| add(sum, last[s]))
                }
            };
            let impossible = log_likelihood == f64::NEG_INFINITY;
            loss(sample, if impossible && of.zero_infinity { 0.0 } else { -log_likelihood });
            let Some(dy) = &mut dy else { continue };
            if impossible {
                if !of.zero_infinity {
                    for t in 0..frames {
                        dy[(t * samples + sample) * classes..][..classes].fill(T::from_f64(f64::NAN));
                    }
                }
                continue;
            }
            let g = g(sample);
            beta.iter_mut().for_each(|beta| beta.resize(places, f64::NEG_INFINITY));
            let [next, now] = beta;
            for t in (0..frames).rev() {
                for s in 0..places {
                    now[s] = if t + 1 == frames {
                        if ends(s) { 0.0 } else { f64::NEG_INFINITY }
                    } else {
                        let to = |s: usize| next[s] + log_p(t + 1, class(s));
                        let mut sum = to(s);
                        if s + 1 < places {
                            sum = add(sum, to(s + 1));
                        }
                        if s + 2 < places && skips(s + 2) {
                            sum = add(sum, to(s + 2));
                        }
                        sum
                    };
                }
                posterior.clear();
                posterior.resize(classes, 0.0);
                for s in 0..places {
                    posterior[class(s)] += (alpha[t * places + s] + now[s] - log_likelihood).exp();
                }
                let dy = &mut dy[(t * samples + sample) * classes..][..classes];
                for (c, dy) in dy.iter_mut().enumerate() {
                    *dy = T::from_f64(g * (log_p(t, c).exp() - posterior[c])); // dy = p − Σ α β/P
                }
                std::mem::swap(now, next);
            }
        }
    }
}

impl<T: Scalar> Objective for Ctc<T> {
    type T = T;

    fn reduced_by(&self) -> Reduction {
        self.reduction
    }

    fn evaluate(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>], loss: &mut Tensor<T>) -> Result<()> {
        let sizes = self.sizes(ys, targets)?;
        let out = loss.reset(self.loss_shape(&sizes));
        if self.reduction == Reduction::None {
            pass(self, &sizes, &mut |i, e| out[i] = T::from_f64(e), None, &|_| 1.0);
            return Ok(());
        }
        let (lengths, mut sum) = (sizes.sequences.lengths(), 0.0);
        pass(self, &sizes, &mut |i, e| sum += e * self.share(sizes.samples, lengths[i]), None, &|_| 1.0);
        let none = sizes.samples == 0 && self.reduction == Reduction::Mean;
        out[0] = T::from_f64(if none { f64::NAN } else { sum }); // the mean of no sample
        Ok(())
    }

    fn differentiate(
        &self,
        ys: &[&Tensor<T>],
        targets: &[Target<'_, T>],
        dloss: &Tensor<T>,
        dys: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let sizes = self.sizes(ys, targets)?;
        check_dloss(dloss, self.loss_shape(&sizes))?;
        let Some(Some(dy)) = dys.first_mut() else { return Ok(()) };
        let lengths = sizes.sequences.lengths();
        let at = |i: usize| if self.reduction == Reduction::None { i } else { 0 };
        let g = |i: usize| dloss.data()[at(i)].to_f64() * self.share(sizes.samples, lengths[i]);
        pass(self, &sizes, &mut |_, _| (), Some(dy.reset(*sizes.y.shape())), &g);
        Ok(())
    }

    fn value_and_gradients(
        &self,
        ys: &[&Tensor<T>],
        targets: &[Target<'_, T>],
        dys: &mut [Tensor<T>],
    ) -> Result<T> {
        let sizes = self.sizes(ys, targets)?;
        if !self.loss_shape(&sizes).is_empty() {
            return Err(not_reduced());
        }
        let [dy] = dys else {
            return Err(Error::shape(format!("Ctc: expected one ∂E/∂y, got {}", dys.len())));
        };
        let (lengths, mut sum) = (sizes.sequences.lengths(), 0.0);
        let share = |i: usize| self.share(sizes.samples, lengths[i]);
        let dy = Some(dy.reset(*sizes.y.shape()));
        pass(self, &sizes, &mut |i, e| sum += e * share(i), dy, &share);
        Ok(T::from_f64(sum))
    }

    fn to_spec(&self) -> Spec {
        Spec::new("Ctc")
            .with("blank", self.blank)
            .with("reduction", self.reduction)
            .with("zero_infinity", self.zero_infinity)
    }
}

impl<T: Scalar> FromSpec<T> for Ctc<T> {
    const FACTS: Facts = Facts::new("Ctc")
        .family("loss")
        .formula("−ln P(sequence | frames)")
        .page("losses/ctc.md")
        .torch("CTCLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new()
            .blank(args.or("blank", 0)?)
            .zero_infinity(args.or("zero_infinity", false)?)
            .reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let plain = || Ctc::<f64>::new();
        let sequences = |indices: &[usize], lengths: &[usize]| Targets::Sequences {
            indices: indices.to_vec(),
            lengths: lengths.to_vec(),
        };
        let labels: Vec<usize> = (0..32 * 12).map(|i| 1 + i % 19).collect();
        let some = sequences(&[1, 1, 2], &[2, 1]);
        vec![
            Example::new(plain().to_spec(), [[4, 2, 3]]).targets([some.clone()]),
            Example::new(plain().reduction(Reduction::Sum).zero_infinity(true).to_spec(), [[4, 2, 3]])
                .targets([some, Targets::classes([2, 4])]),
            Example::new(plain().blank(2).to_spec(), [[3, 3]]).targets([sequences(&[0, 1], &[2])]),
            Example::bench(plain().to_spec(), [[64, 32, 20]]).targets([sequences(&labels, &[12; 32])]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::objective_laws;

    objective_laws! {
        obeys_the_laws(
            frames in 4..8usize, samples in 1..4usize, classes in 2..5usize, longest in 1..3usize, by in 0..3usize,
        ) {
            objective: Ctc::<T>::new().reduction([Reduction::Mean, Reduction::Sum, Reduction::None][by]),
            predictions: [[frames, samples, classes]],
            targets: [TargetKind::Sequences { samples, lengths: 0..longest + 1, classes: 1..classes }],
            wrong_predictions: [[frames, samples + 1, classes]],
            wrong_predictions: [[frames]],
        }
        obeys_the_laws_with_lengths(frames in 4..8usize, samples in 1..4usize, classes in 2..5usize) {
            objective: Ctc::<T>::new().zero_infinity(true).blank(classes - 1),
            predictions: [[frames, samples, classes]],
            targets: [
                TargetKind::Sequences { samples, lengths: 0..3, classes: 0..classes - 1 },
            ],
        }
    }

    fn run(loss: Ctc<f64>, y: &Tensor<f64>, targets: &[Target<'_, f64>]) -> (f64, Vec<f64>) {
        let (mut dys, mut e) = ([Tensor::default()], Tensor::default());
        let value = loss.value_and_gradients(&[y], targets, &mut dys).unwrap();
        loss.evaluate(&[y], targets, &mut e).unwrap();
        assert!((e.data()[0] - value).abs() < 1e-14 || e.data()[0] == value);
        let [dy] = dys;
        (value, dy.into_vec())
    }

    /// Two frames of (blank, a), p(a) = ¼ and ½: "a" is spelled by (a, a), (a, blank), (blank, a): P = ⅛ + ⅛ + ⅜ = ⅝.
    /// a stands in frame 0 with (⅛ + ⅛)/P = ⅖, in frame 1 with (⅛ + ⅜)/P = ⅘: ∂y = p − those.
    #[test]
    pub fn by_hand() {
        let y = Tensor::from([[[0.75f64.ln(), 0.25f64.ln()]], [[0.0, 0.0]]]);
        let target = Sequences::new(&[1], &[1]).unwrap();
        let (e, dy) = run(Ctc::new(), &y, &[target.into()]);
        assert!((e + 0.625f64.ln()).abs() < 1e-14);
        for (got, want) in dy.iter().zip([0.15, -0.15, 0.3, -0.3]) {
            assert!((got - want).abs() < 1e-14, "{got} for {want}");
        }
    }

    /// Every way of n frames is written out, merged and compared with the sequence.
    #[test]
    fn the_sum_over_all_ways_is_that_of_the_definition() {
        let (frames, classes) = (4, 3);
        let y = Tensor::from_fn([frames, classes], |i| (i as f64 * 1.7).sin());
        for labels in [&[][..], &[1], &[1, 1], &[1, 2], &[2, 1, 2]] {
            let mut p = 0.0;
            for way in 0..classes.pow(frames as u32) {
                let path: Vec<usize> = (0..frames).map(|t| way / classes.pow(t as u32) % classes).collect();
                let mut spelled = path.clone();
                spelled.dedup();
                spelled.retain(|&c| c != 0);
                if spelled == labels {
                    let one = |(t, &c): (usize, &usize)| {
                        y.row(t)[c].exp() / y.row(t).iter().map(|v| v.exp()).sum::<f64>()
                    };
                    p += path.iter().enumerate().map(one).product::<f64>();
                }
            }
            let length = [labels.len()];
            let target = Sequences::new(labels, &length).unwrap();
            let (e, _) = run(Ctc::new().reduction(Reduction::Sum), &y, &[target.into()]);
            assert!((e + f64::ln(p)).abs() < 1e-13, "{labels:?}: {e} for {}", -p.ln());
        }
    }

    #[test]
    fn frames_beyond_the_length_have_no_gradient_and_too_few_cannot_spell() {
        let y = Tensor::from_fn([5, 2, 3], |i| (i as f64 * 0.9).cos());
        let target = Sequences::new(&[1, 1, 2], &[2, 1]).unwrap();
        // "1 1" needs three frames.
        let lengths = [2usize, 4];
        let both = [target.into(), (&lengths).into()];
        let (e, dy) = run(Ctc::new(), &y, &both);
        assert!(e == f64::INFINITY && dy[..3].iter().all(|d| d.is_nan()));
        let (e, dy) = run(Ctc::new().zero_infinity(true), &y, &both);
        assert!(e.is_finite() && dy.iter().all(|d| d.is_finite()));
        assert!(dy.chunks(6).all(|frame| frame[..3].iter().all(|&d| d == 0.0)));
        assert!(dy[4 * 6..].iter().all(|&d| d == 0.0) && dy[3 * 6 + 3] != 0.0);
        // The first four frames alone.
        let short = Tensor::from_vec([4, 2, 3], y.data()[..24].to_vec()).unwrap();
        let (alone, _) = run(Ctc::new().zero_infinity(true), &short, &[target.into(), (&[2usize, 4]).into()]);
        assert_eq!(alone, e);
    }

    #[test]
    fn far_logits_and_wrong_labels() {
        let y = Tensor::from([[[1e30f32, -1e30]], [[-1e4, 1e4]]]);
        let (mut e, mut dys) = (Tensor::default(), [Tensor::default()]);
        let target = Sequences::new(&[1], &[1]).unwrap();
        Ctc::new().evaluate(&[&y], &[target.into()], &mut e).unwrap();
        assert_eq!(e.data(), [0.0]);
        Ctc::new().value_and_gradients(&[&y], &[target.into()], &mut dys).unwrap();
        assert_eq!(dys[0].data(), [0.0; 4]);
        for wrong in [0, 2, usize::MAX] {
            let target = Sequences::new(std::slice::from_ref(&wrong), &[1]).unwrap();
            assert!(Ctc::new().evaluate(&[&y], &[target.into()], &mut e).is_err(), "{wrong}");
        }
        let lengths = [3usize];
        assert!(Ctc::new().evaluate(&[&y], &[target.into(), (&lengths).into()], &mut e).is_err());
        let owned = Targets::Sequences { indices: vec![1; 5], lengths: vec![usize::MAX, 6] };
        let pair = Tensor::<f32>::zeros([4, 2, 3]);
        assert!(Ctc::new().evaluate(&[&pair], &[(&owned).into()], &mut e).is_err());
        assert!(Ctc::new().blank(2).evaluate(&[&y], &[target.into()], &mut e).is_err());
    }
}
