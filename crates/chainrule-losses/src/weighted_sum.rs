//! A weighted sum of losses, one for each output of a model with several heads.
//!
//! ```text
//! E = Σⱼ λⱼ Eⱼ(yⱼ, tⱼ)        ∂E/∂yⱼ = λⱼ ∂Eⱼ/∂yⱼ
//! ```
//!
//! Derivation: docs/losses/weighted_sum.md.

use chainrule_core::{
    Args, Error, Example, Facts, FromSpec, Objective, Reduction, Result, Scalar, Spec, Target, Tensor,
};
use chainrule_tensor::kernels::elementwise;
use std::{fmt, sync::Arc};

/// Σⱼ λⱼ Eⱼ(yⱼ, tⱼ): the j-th loss compares the j-th output with the j-th target. A loss without a target, such as
/// [`ActivityPenalty`](crate::ActivityPenalty), takes none of them: the targets are those of the other losses, in order.
///
/// All losses are reduced by the mean, or all by the sum.
///
/// # Shapes
/// Each prediction and target as its loss takes them. The loss has no axes.
///
/// # Examples
/// ```
/// use chainrule_core::{Objective, Tensor};
/// use chainrule_losses::{CrossEntropy, Mse, WeightedSum};
/// let loss = WeightedSum::new().add(1.0, CrossEntropy::new()).add(0.5, Mse::new());
/// let (logits, ink, target) = (Tensor::from([[0.0f32, 0.0]]), Tensor::from([3.0]), Tensor::from([1.0]));
/// let mut e = Tensor::default();
/// loss.evaluate(&[&logits, &ink], &[(&[1]).into(), (&target).into()], &mut e)?;
/// assert!((e.data()[0] - (2f32.ln() + 0.5 * 4.0)).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone)]
pub struct WeightedSum<T: Scalar = f32> {
    /// (λ, E)
    parts: Vec<(f64, Part<T>)>,
}

type Part<T> = Arc<dyn Objective<T = T>>;

impl<T: Scalar> WeightedSum<T> {
    /// No loss yet.
    pub fn new() -> Self {
        Self { parts: Vec::new() }
    }

    /// With the loss of the next output, of weight λ.
    #[must_use]
    pub fn add(mut self, weight: f64, loss: impl Objective<T = T> + 'static) -> Self {
        self.parts.push((weight, Arc::new(loss)));
        self
    }

    /// Every part with its prediction and its target.
    fn each<'a>(
        &'a self,
        ys: &'a [&'a Tensor<T>],
        targets: &'a [Target<'a, T>],
    ) -> Result<impl Iterator<Item = (T, &'a Part<T>, &'a [&'a Tensor<T>], &'a [Target<'a, T>])>> {
        let (n, m) = (self.parts.len(), Objective::targets(self));
        if ys.len() != n || targets.len() != m {
            return Err(Error::shape(format!(
                "WeightedSum: expected {n} predictions and {m} targets, got {} and {}",
                ys.len(),
                targets.len()
            )));
        }
        self.parts_agree()?;
        let mut rest = targets;
        Ok(self.parts.iter().zip(ys.chunks(1)).map(move |((w, part), y)| {
            let (target, others) = rest.split_at(part.targets().min(rest.len()));
            rest = others;
            (T::from_f64(*w), part, y, target)
        }))
    }

    /// Whether the parts are of one reduction to one element.
    fn parts_agree(&self) -> Result<()> {
        let Some((_, first)) = self.parts.first() else {
            return Err(Error::value("WeightedSum: expected at least one loss, got none"));
        };
        for (i, (weight, part)) in self.parts.iter().enumerate() {
            if !T::from_f64(*weight).is_finite() {
                return Err(Error::value(format!("WeightedSum: expected finite weights, got {weight}")));
            }
            if part.predictions() != 1 || part.targets() > 1 {
                return Err(Error::value(format!(
                    "WeightedSum: part {i}: expected a loss of one prediction and at most one target, got {} and {}",
                    part.predictions(),
                    part.targets()
                )));
            }
            let (reduction, first) = (part.reduced_by(), first.reduced_by());
            if reduction != first || reduction == Reduction::None {
                return Err(Error::value(format!(
                    "WeightedSum: expected losses that are all reduced by mean or all by sum, got {first:?} and {reduction:?}"
                )));
            }
        }
        Ok(())
    }
}

impl<T: Scalar> Default for WeightedSum<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> fmt::Debug for WeightedSum<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_spec().fmt(f)
    }
}

/// Names the part in which an error happened.
fn in_part(i: usize) -> impl Fn(Error) -> Error {
    move |e| e.in_layer(format!("loss {i}"))
}

impl<T: Scalar> Objective for WeightedSum<T> {
    type T = T;

    fn verify(&self) -> Result<()> {
        self.parts_agree()?;
        self.parts.iter().enumerate().try_for_each(|(i, (_, part))| part.verify().map_err(in_part(i)))
    }

    fn predictions(&self) -> usize {
        self.parts.len()
    }

    fn targets(&self) -> usize {
        self.parts.iter().map(|(_, part)| part.targets()).fold(0, usize::saturating_add)
    }

    fn reduced_by(&self) -> Reduction {
        self.parts.first().map_or(Reduction::Mean, |(_, part)| part.reduced_by())
    }

    /// The samples of the first target; 0 if every loss ignores all that it has.
    fn weight_of_all(&self, targets: &[Target<'_, T>]) -> f64 {
        let mut with_target = self.parts.iter().filter(|(_, part)| part.targets() > 0).zip(targets.chunks(1));
        let any = with_target.any(|((_, part), t)| part.weight_of_all(t) != 0.0);
        if any { targets.first().map_or(1.0, |target| target.samples() as f64) } else { 0.0 }
    }

    fn ignored_class_of(&self, target: usize) -> Option<usize> {
        self.parts.iter().filter(|(_, part)| part.targets() > 0).nth(target)?.1.ignored_class_of(0)
    }

    fn evaluate(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>], loss: &mut Tensor<T>) -> Result<()> {
        let (mut sum, mut e) = (T::ZERO, Tensor::default());
        for (i, (weight, part, y, target)) in self.each(ys, targets)?.enumerate() {
            if part.weight_of_all(target) == 0.0 {
                continue; // all ignored
            }
            part.evaluate(y, target, &mut e).map_err(in_part(i))?;
            sum += weight * e.data()[0]; // E += λ Eⱼ
        }
        loss.reset([])[0] = sum;
        Ok(())
    }

    fn differentiate(
        &self,
        ys: &[&Tensor<T>],
        targets: &[Target<'_, T>],
        dloss: &Tensor<T>,
        dys: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let parts = self.each(ys, targets)?;
        if dys.len() != ys.len() {
            return Err(wrong_gradients(ys.len(), dys.len()));
        }
        if !dloss.shape().is_empty() {
            return Err(Error::shape(format!(
                "WeightedSum: expected a gradient of the loss's shape [], got {}",
                dloss.shape()
            )));
        }
        for (i, ((weight, part, y, target), dy)) in parts.zip(dys.chunks_mut(1)).enumerate() {
            if part.weight_of_all(target) == 0.0 {
                if let Some(dy) = &mut dy[0] {
                    dy.reset(*y[0].shape()).fill(T::ZERO); // all ignored
                }
                continue;
            }
            let share = Tensor::from(weight * dloss.data()[0]);
            part.differentiate(y, target, &share, dy).map_err(in_part(i))?; // ∂E/∂yⱼ = λ ∂Eⱼ/∂yⱼ
        }
        Ok(())
    }

    fn value_and_gradients(
        &self,
        ys: &[&Tensor<T>],
        targets: &[Target<'_, T>],
        dys: &mut [Tensor<T>],
    ) -> Result<T> {
        let (parts, mut sum) = (self.each(ys, targets)?, T::ZERO);
        if dys.len() != ys.len() {
            return Err(wrong_gradients(ys.len(), dys.len()));
        }
        for (i, ((weight, part, y, target), dy)) in parts.zip(dys.chunks_mut(1)).enumerate() {
            if part.weight_of_all(target) == 0.0 {
                dy[0].reset(*y[0].shape()).fill(T::ZERO); // all ignored
                continue;
            }
            sum += weight * part.value_and_gradients(y, target, dy).map_err(in_part(i))?;
            elementwise::scale(dy[0].data_mut(), weight); // ∂E/∂yⱼ = λ ∂Eⱼ/∂yⱼ
        }
        Ok(sum)
    }

    fn to_spec(&self) -> Spec {
        let weights: Vec<f64> = self.parts.iter().map(|(weight, _)| *weight).collect();
        let spec = Spec::new("WeightedSum").with("weights", weights);
        let parts = self.parts.iter().enumerate();
        parts.fold(spec, |spec, (i, (_, part))| spec.child(i.to_string(), part.to_spec()))
    }
}

#[cold]
fn wrong_gradients(expected: usize, got: usize) -> Error {
    Error::shape(format!("WeightedSum: expected {expected} gradients of predictions, got {got}"))
}

impl<T: Scalar> FromSpec<T> for WeightedSum<T> {
    const FACTS: Facts =
        Facts::new("WeightedSum").family("loss").formula("Σ λⱼ Eⱼ(yⱼ, tⱼ)").page("losses/weighted_sum.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let (weights, parts) = (args.get::<Vec<f64>>("weights")?, args.spec().children());
        if weights.len() != parts.len() {
            return Err(Error::value(format!(
                "WeightedSum: expected a weight for each of {} losses, got {}",
                parts.len(),
                weights.len()
            )));
        }
        let mut sum = Self::new();
        for (weight, (name, spec)) in weights.into_iter().zip(parts) {
            let part = args.registry().build_loss(spec).map_err(|e| e.in_layer(name.as_str()))?;
            sum.parts.push((weight, part.into()));
        }
        Ok(sum)
    }

    fn examples() -> Vec<Example> {
        use crate::{Huber, Mae, Mse};
        let sum = WeightedSum::<f64>::new().add(1.0, Mse::new()).add(0.25, Huber::new().delta(2.0));
        let single = WeightedSum::<f64>::new().add(-2.0, Mae::new().reduction(Reduction::Sum));
        vec![
            Example::new(sum.to_spec(), [[3, 2], [3, 1]]),
            Example::new(single.to_spec(), [[5]]),
            Example::bench(sum.to_spec(), [[4096, 10], [4096, 1]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{CrossEntropy, Huber, Mse};
    use chainrule_core::{Rng, Shape, Targets};
    use chainrule_gradcheck::Check;

    fn build<T: Scalar>(reduction: Reduction, weights: [f64; 3]) -> WeightedSum<T> {
        WeightedSum::new()
            .add(weights[0], CrossEntropy::new().label_smoothing(0.1).reduction(reduction))
            .add(weights[1], Mse::new().reduction(reduction))
            .add(weights[2], Huber::new().delta(0.5).reduction(reduction))
    }

    /// Predictions and targets of a classification and of two regressions.
    fn heads(samples: usize, classes: usize, width: usize) -> (Vec<Tensor<f64>>, Vec<Targets<f64>>) {
        let mut rng = Rng::new((samples * 100 + classes * 10 + width) as u64);
        let mut normal = |shape: [usize; 2]| Tensor::from_fn(Shape::from(shape), |_| rng.normal());
        let ys = vec![normal([samples, classes]), normal([samples, width]), normal([samples, 1])];
        let values = [normal([samples, width]), normal([samples, 1])].map(Targets::Values);
        let indices: Vec<usize> = (0..samples).map(|i| (i * 5 + 1) % classes).collect();
        (ys, [Targets::classes(indices)].into_iter().chain(values).collect())
    }

    #[test]
    pub fn obeys_the_laws() {
        for (samples, classes, width, reduction, weights) in [
            (1, 2, 1, Reduction::Mean, [1.0, 0.3, 2.0]),
            (3, 4, 2, Reduction::Sum, [0.5, -1.0, 0.0]),
            (5, 3, 4, Reduction::Mean, [0.0, 1.5, 1.0]),
        ] {
            let loss = build::<f64>(reduction, weights);
            loss.verify().unwrap();
            assert_eq!((loss.predictions(), loss.targets(), loss.reduced_by()), (3, 3, reduction));
            let (ys, owned) = heads(samples, classes, width);
            let report = Check::new().objective(&loss, &ys, &owned).unwrap();
            assert!(report.passed(), "{report}");

            let (ys, targets): (Vec<_>, Vec<Target<'_, f64>>) =
                (ys.iter().collect(), owned.iter().map(Target::from).collect());
            let differentiate = |which: [bool; 3]| {
                let mut dys: [Tensor<f64>; 3] = std::array::from_fn(|_| Tensor::full([7], f64::NAN));
                let mut requested: Vec<_> =
                    dys.iter_mut().zip(which).map(|(dy, w)| w.then_some(dy)).collect();
                loss.differentiate(&ys, &targets, &Tensor::from(1.0), &mut requested).unwrap();
                dys
            };
            // One pass gives what two give, and each gradient may be requested alone.
            let (mut value, mut once) = (Tensor::full([2], 9.0), vec![Tensor::full([5], f64::NAN); 3]);
            loss.evaluate(&ys, &targets, &mut value).unwrap();
            let e = loss.value_and_gradients(&ys, &targets, &mut once).unwrap();
            assert!((e - value.data()[0]).abs() < 1e-12 && value.shape().is_empty());
            let all = differentiate([true; 3]);
            for j in 0..3 {
                let alone = &differentiate(std::array::from_fn(|i| i == j))[j];
                assert_eq!(alone, &all[j]);
                assert_eq!(once[j].shape(), all[j].shape());
                let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
                assert!(once[j].data().iter().zip(all[j].data()).all(close));
            }
            // In single precision the same, nearly.
            let single: Vec<Tensor<f32>> = ys.iter().map(|y| y.cast()).collect();
            let cast: Vec<Targets<f32>> = owned
                .iter()
                .map(|t| match t {
                    Targets::Values(values) => Targets::Values(values.cast()),
                    other => Targets::classes(Target::from(other).classes().unwrap().indices()),
                })
                .collect();
            let cast: Vec<Target<'_, f32>> = cast.iter().map(Target::from).collect();
            let mut e32 = Tensor::default();
            build::<f32>(reduction, weights)
                .evaluate(&single.iter().collect::<Vec<_>>(), &cast, &mut e32)
                .unwrap();
            assert!((f64::from(e32.data()[0]) - e).abs() < 1e-4 * e.abs().max(1.0));
            // What does not fit is refused.
            let (zero, mut one) = (Tensor::from(0.0), [Tensor::default()]);
            assert!(loss.evaluate(&ys[..2], &targets, &mut value).is_err());
            assert!(loss.evaluate(&ys, &targets[1..], &mut value).is_err());
            assert!(loss.evaluate(&[ys[1], ys[0], ys[2]], &targets, &mut value).is_err());
            assert!(loss.value_and_gradients(&ys, &targets, &mut one).is_err());
            assert!(loss.differentiate(&ys, &targets, &zero, &mut [None]).is_err());
            assert!(loss.differentiate(&ys, &targets, &Tensor::zeros([2]), &mut [None, None, None]).is_err());
        }
    }

    /// Mse: y − t = (1, −3), E = 5, ∂y = (1, −3). Huber of δ = 1: y − t = 2, E = 1½, ∂y = 1. E = 2 · 5 + ½ · 1½ = 10¾.
    #[test]
    pub fn by_hand() {
        let loss = WeightedSum::new().add(2.0, Mse::new()).add(0.5, Huber::new());
        let (ys, ts) = (
            [Tensor::from([1.0, 2.0]), Tensor::from([3.0])],
            [Tensor::from([0.0, 5.0]), Tensor::from([1.0])],
        );
        let mut dys = vec![Tensor::default(); 2];
        let targets = [Target::from(&ts[0]), Target::from(&ts[1])];
        assert_eq!(loss.value_and_gradients(&[&ys[0], &ys[1]], &targets, &mut dys).unwrap(), 10.75);
        assert_eq!((dys[0].data(), dys[1].data()), (&[2.0, -6.0][..], &[0.5][..]));
    }

    /// Mse: y − t = 2, E = 4, ∂y = 4. Penalty ½ · 3 y² of y = (1, −2), a sum: ½ · 15, ∂y = 3 (1, −2).
    #[test]
    fn a_part_without_a_target_takes_none() {
        let penalty = crate::ActivityPenalty::new().l2(3.0).reduction(Reduction::Sum);
        let sum = Reduction::Sum;
        let loss = WeightedSum::new().add(0.5, penalty).add(1.0, Mse::new().reduction(sum));
        loss.verify().unwrap();
        assert_eq!((loss.predictions(), loss.targets()), (2, 1));
        let (a, b, t) = (Tensor::from([1.0, -2.0]), Tensor::from([3.0]), Tensor::from([1.0]));
        let mut dys = vec![Tensor::default(); 2];
        assert_eq!(loss.value_and_gradients(&[&a, &b], &[(&t).into()], &mut dys).unwrap(), 11.5);
        assert_eq!((dys[0].data(), dys[1].data()), (&[3.0, -6.0][..], &[4.0][..]));
        assert!(loss.value_and_gradients(&[&a, &b], &[(&a).into(), (&t).into()], &mut dys).is_err());
        let report = Check::new().objective(&loss, [&a, &b], [Target::from(&t)]).unwrap();
        assert!(report.passed(), "{report}");
    }

    #[test]
    fn the_parts_agree_on_their_reduction() {
        use Reduction::{Mean, None, Sum};
        let two = |a, b| {
            WeightedSum::<f32>::new().add(1.0, Mse::new().reduction(a)).add(1.0, Huber::new().reduction(b))
        };
        assert!(two(Mean, Mean).verify().is_ok() && two(Sum, Sum).verify().is_ok());
        for (a, b) in [(Mean, Sum), (Sum, Mean), (None, None), (Mean, None)] {
            assert!(two(a, b).verify().is_err(), "{a:?} and {b:?}");
        }
        assert!(WeightedSum::<f32>::new().verify().is_err());
        assert!(WeightedSum::<f32>::new().add(f64::NAN, Mse::new()).verify().is_err());
        assert!(WeightedSum::<f32>::new().add(1e60, Mse::new()).verify().is_err());
        let text =
            WeightedSum::<f32>::new().add(1.0, Huber::new().delta(0.0)).verify().unwrap_err().to_string();
        assert!(text.contains("loss 0") && text.contains("delta"), "{text}");
        let nested = WeightedSum::<f32>::new().add(1.0, two(Mean, Mean));
        assert!(nested.verify().is_err());
    }
}
