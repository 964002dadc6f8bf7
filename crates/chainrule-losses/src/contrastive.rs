//! Pairs that belong together are pulled together, others are pushed apart up to a margin (Hadsell and others, 2006).
//!
//! ```text
//! δ = a − b    d = ‖δ‖    h = max(0, m − d)        e = ½ (t d² + (1 − t) h²)
//! ∂e/∂a = (t − (1 − t) h/d) δ,   ∂e/∂b = −∂e/∂a        ∂e/∂t = ½ (d² − h²)
//! ```
//!
//! Derivation: docs/losses/contrastive.md.

use crate::{
    elementwise::{positive, reduction},
    several::{Outputs, Several, forward_to_several, rows, same_shape},
};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Objective, Reduction, Result, Scalar, Shape, Spec, Target, Targets,
    Tensor,
};
use chainrule_tensor::compiled;

/// ½ (t d² + (1 − t) max(0, m − d)²) of the distance d of two embeddings; t is 1 for pairs that belong together, 0 for others.
///
/// # Shapes
/// Both predictions (.., D) of one shape, the target without the last axis. The loss has no axes, or the target's (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Objective, Tensor};
/// use chainrule_losses::Contrastive;
/// let (a, b, t) = (Tensor::from([[0.0f32, 0.0]]), Tensor::from([[3.0, 4.0]]), Tensor::from([1.0]));
/// let mut e = Tensor::default();
/// Contrastive::new().evaluate(&[&a, &b], &[(&t).into()], &mut e)?;
/// assert_eq!(e.data(), [12.5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contrastive<T = f32> {
    margin: f64,
    scalar: std::marker::PhantomData<T>,
    reduction: Reduction,
}

impl<T: Scalar> Contrastive<T> {
    /// The mean over all pairs, with a margin of 1.
    pub fn new() -> Self {
        Self { margin: 1.0, scalar: std::marker::PhantomData, reduction: Reduction::Mean }
    }

    /// The margin m, above 0; 1 by default.
    #[must_use]
    pub fn margin(mut self, margin: f64) -> Self {
        self.margin = margin;
        self
    }

    fn check(&self) -> Result<()> {
        positive::<T>("Contrastive", "margin", self.margin)
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for Contrastive<T> {
    fn default() -> Self {
        Self::new()
    }
}

compiled! {
    fn pass[T](margin: f64, ys: [&[T]; 2], t: &[T], out: Outputs<'_, '_, T>) {
        let mut out = out;
        let n = if t.is_empty() { 1 } else { (ys[0].len() / t.len()).max(1) };
        for (row, t) in t.iter().map(|t| t.to_f64()).enumerate() {
            let at = row * n..(row + 1) * n;
            let [a, b] = ys.map(|y| y.get(at.clone()).unwrap_or_default());
            let difference = |(a, b): (&T, &T)| a.to_f64() - b.to_f64();
            let squared: f64 = a.iter().zip(b).map(difference).map(|d| d * d).sum();
            let d = squared.sqrt();
            let h = if d > margin { 0.0 } else { margin - d };
            if let Some(loss) = &mut out.loss {
                let near = if t == 0.0 { 0.0 } else { t * squared };
                loss(row, 0.5 * (near + (1.0 - t) * (h * h)));
            }
            let g = (out.g)(row);
            // Of two equal embeddings neither knows where to go.
            let slope = g * (t - if d == 0.0 || h == 0.0 { 0.0 } else { (1.0 - t) * h / d });
            for (j, sign) in [(0, 1.0), (1, -1.0)] {
                let Some(dy) = out.dy(j).and_then(|dy| dy.get_mut(at.clone())) else { continue };
                if slope == 0.0 {
                    dy.fill(T::ZERO);
                    continue;
                }
                for (dy, pair) in dy.iter_mut().zip(a.iter().zip(b)) {
                    *dy = T::from_f64(sign * slope * difference(pair)); // da = (t − (1 − t) h/d) δ
                }
            }
            if let Some(dt) = &mut out.dt {
                dt[row] = T::from_f64(g * 0.5 * (squared - h * h)); // dt = ½ (d² − h²)
            }
        }
    }
}

impl<T: Scalar> Several<T> for Contrastive<T> {
    const KIND: &'static str = "Contrastive";
    const COUNTS: [usize; 2] = [2, 1];

    fn singles(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>]) -> Result<Shape> {
        self.check()?;
        let singles = rows(Self::KIND, ys[0].shape())?;
        same_shape(Self::KIND, "a second prediction", ys[1].shape(), ys[0].shape())?;
        same_shape(Self::KIND, "a target", targets[0].values()?.shape(), &singles)?;
        Ok(singles)
    }

    fn pass(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>], out: Outputs<'_, '_, T>) {
        if let Target::Values(t) = targets[0] {
            pass(self.margin, [ys[0].data(), ys[1].data()], t.data(), out);
        }
    }
}

impl<T: Scalar> Objective for Contrastive<T> {
    forward_to_several!();

    fn to_spec(&self) -> Spec {
        Spec::new("Contrastive").with("margin", self.margin).with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for Contrastive<T> {
    const FACTS: Facts = Facts::new("Contrastive")
        .family("loss")
        .formula("½ (t d² + (1 − t) max(0, m − d)²)")
        .page("losses/contrastive.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().margin(args.or("margin", 1.0)?).reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let spec = |reduction| Contrastive::<f64>::new().margin(2.0).reduction(reduction).to_spec();
        let labels = |n: usize| [Targets::Values(Tensor::from_fn([n], |i| (i % 2) as f64))];
        vec![
            Example::new(spec(Reduction::Mean), [[5, 3], [5, 3]]).targets(labels(5)),
            Example::new(spec(Reduction::Sum), [[3, 2], [3, 2]]).targets(labels(3)),
            Example::bench(spec(Reduction::Mean), [[512, 64], [512, 64]]).targets(labels(512)),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::several::tests::{Given, agrees, compare};
    use chainrule_gradcheck::objective_laws;

    objective_laws! {
        obeys_the_laws(n in 1..5usize, d in 1..7usize, margin in 0.5..4.0, by in 0..3usize) {
            objective: Contrastive::<T>::new().margin(margin).reduction([Reduction::Mean, Reduction::Sum, Reduction::None][by]),
            predictions: [[n, d], [n, d]],
            targets: [TargetKind::Of { shape: vec![n], values: Values::Uniform(0.0..1.0) }],
            wrong_predictions: [[n, d], [n, d + 1]],
            wrong_predictions: [[n + 1, d], [n + 1, d]],
        }
    }

    /// δ = (−3, −4), d = 5, m = 6: t = 1: e = 12½, ∂a = δ; t = 0: h = 1, e = ½, ∂a = −δ/5. ∂t = 12 each. Means of two.
    #[test]
    pub fn by_hand() {
        let (a, b) = (Tensor::zeros([2, 2]), Tensor::from([[3.0, 4.0], [3.0, 4.0]]));
        let t = Tensor::from([1.0, 0.0]);
        let (da, db) = ([-1.5, -2.0, 0.3, 0.4], [1.5, 2.0, -0.3, -0.4]);
        let given = Given { ys: &[&a, &b], t: Some(&t) };
        compare(&Contrastive::new().margin(6.0), given, 6.5, &[&da, &db], &[6.0, 6.0]);
        agrees(|by| Contrastive::new().margin(6.0).reduction(by), given);
    }

    #[test]
    fn far_and_equal_embeddings_and_wrong_settings() {
        let (far, zero) = (Tensor::from([[1e30f32, -1e30], [0.0, 0.0]]), Tensor::zeros([2, 2]));
        let (t, mut dys) = (Tensor::from([0.0f32, 0.0]), [Tensor::default(), Tensor::default()]);
        let e = Contrastive::new().value_and_gradients(&[&far, &zero], &[(&t).into()], &mut dys).unwrap();
        assert_eq!(e, 0.25);
        assert!(dys.iter().all(|dy| dy.data() == [0.0; 4]));
        for margin in [0.0, -1.0, f64::NAN, 1e300] {
            assert!(Contrastive::<f32>::new().margin(margin).verify().is_err());
        }
    }
}
