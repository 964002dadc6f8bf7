//! Which of two scores is to be the larger one.
//!
//! ```text
//! z = m − t (y₀ − y₁)        e = max(0, z)
//! ∂e/∂y₀ = −t [z ≥ 0]        ∂e/∂y₁ = t [z ≥ 0]        ∂e/∂t = −(y₀ − y₁) [z ≥ 0]
//! ```
//!
//! Derivation: docs/losses/margin_ranking.md.

use crate::{
    elementwise::{finite, hinge, reduction, times},
    several::{Outputs, Several, forward_to_several, same_shape},
};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Objective, Reduction, Result, Scalar, Shape, Spec, Target, Targets,
    Tensor,
};
use chainrule_tensor::compiled;

/// max(0, m − t (y₀ − y₁)): y₀ is to be the larger score where t = 1, and y₁ where t = −1.
///
/// # Shapes
/// Both predictions and the target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Objective, Tensor};
/// use chainrule_losses::MarginRanking;
/// let (a, b, t) = (Tensor::from([1.0f32, 2.0]), Tensor::from([0.5, 3.0]), Tensor::from([1.0, 1.0]));
/// let mut e = Tensor::default();
/// MarginRanking::new().evaluate(&[&a, &b], &[(&t).into()], &mut e)?;
/// assert_eq!(e.data(), [0.5]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MarginRanking<T = f32> {
    margin: f64,
    scalar: std::marker::PhantomData<T>,
    reduction: Reduction,
}

impl<T: Scalar> MarginRanking<T> {
    /// The mean over all pairs, with a margin of 0.
    pub fn new() -> Self {
        Self { margin: 0.0, scalar: std::marker::PhantomData, reduction: Reduction::Mean }
    }

    /// The margin m; 0 by default.
    #[must_use]
    pub fn margin(mut self, margin: f64) -> Self {
        self.margin = margin;
        self
    }

    fn check(&self) -> Result<()> {
        finite::<T>("MarginRanking", "margin", self.margin)
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for MarginRanking<T> {
    fn default() -> Self {
        Self::new()
    }
}

compiled! {
    fn pass[T](margin: T, ys: [&[T]; 2], t: &[T], out: Outputs<'_, '_, T>) {
        let mut out = out;
        let z = |i: usize| margin - t[i] * (ys[0][i] - ys[1][i]);
        if let Some(loss) = &mut out.loss {
            (0..t.len()).for_each(|i| loss(i, hinge(z(i)).to_f64()));
        }
        let g = |i: usize| if z(i) <= T::ZERO { T::ZERO } else { T::from_f64((out.g)(i)) };
        for (j, sign) in [(0, -T::ONE), (1, T::ONE)] {
            if let Some(dy) = out.dys.get_mut(j).and_then(Option::as_deref_mut) {
                dy.data_mut().iter_mut().enumerate().for_each(|(i, dy)| *dy = g(i) * (sign * t[i])); // dy = ∓t
            }
        }
        if let Some(dt) = &mut out.dt {
            dt.iter_mut().enumerate().for_each(|(i, dt)| *dt = times(g(i), ys[1][i] - ys[0][i])); // dt = y₁ − y₀
        }
    }
}

impl<T: Scalar> Several<T> for MarginRanking<T> {
    const KIND: &'static str = "MarginRanking";
    const COUNTS: [usize; 2] = [2, 1];

    fn singles(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>]) -> Result<Shape> {
        self.check()?;
        same_shape(Self::KIND, "a second prediction", ys[1].shape(), ys[0].shape())?;
        same_shape(Self::KIND, "a target", targets[0].values()?.shape(), ys[0].shape())?;
        Ok(*ys[0].shape())
    }

    fn pass(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>], out: Outputs<'_, '_, T>) {
        if let Target::Values(t) = targets[0] {
            pass(T::from_f64(self.margin), [ys[0].data(), ys[1].data()], t.data(), out);
        }
    }
}

impl<T: Scalar> Objective for MarginRanking<T> {
    forward_to_several!();

    fn to_spec(&self) -> Spec {
        Spec::new("MarginRanking").with("margin", self.margin).with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for MarginRanking<T> {
    const FACTS: Facts = Facts::new("MarginRanking")
        .family("loss")
        .formula("max(0, m − t (y₀ − y₁))")
        .page("losses/margin_ranking.md")
        .torch("MarginRankingLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().margin(args.or("margin", 0.0)?).reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let spec = |reduction| MarginRanking::<f64>::new().margin(0.5).reduction(reduction).to_spec();
        let signs =
            |n: usize| [Targets::Values(Tensor::from_fn([n], |i| if i % 3 == 0 { -1.0 } else { 1.0 }))];
        vec![
            Example::new(spec(Reduction::Mean), [[5], [5]]).targets(signs(5)),
            Example::new(spec(Reduction::Sum), [[3], [3]]).targets(signs(3)),
            Example::bench(spec(Reduction::Mean), [[40960], [40960]]).targets(signs(40960)),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::several::tests::{Given, agrees, compare};
    use chainrule_gradcheck::objective_laws;

    objective_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 1..4), margin in -1.0..1.0, by in 0..3usize) {
            objective: MarginRanking::<T>::new().margin(margin).reduction([Reduction::Mean, Reduction::Sum, Reduction::None][by]),
            predictions: [shape.clone(), shape.clone()],
            targets: [TargetKind::Of { shape: shape.clone(), values: Values::Signs }],
            wrong_predictions: [shape.clone(), [&shape[..], &[2]].concat()],
        }
    }

    /// y₀ − y₁ = (½, −1), t = (1, 1), m = ¼: z = (−¼, 1¼), E = 1¼/2; ∂y₀ = (0, −1)/2, ∂t = (0, 1)/2.
    #[test]
    pub fn by_hand() {
        let (a, b, t) = (Tensor::from([1.0, 2.0]), Tensor::from([0.5, 3.0]), Tensor::from([1.0, 1.0]));
        let given = Given { ys: &[&a, &b], t: Some(&t) };
        compare(&MarginRanking::new().margin(0.25), given, 0.625, &[&[0.0, -0.5], &[0.0, 0.5]], &[0.0, 0.5]);
        agrees(|by| MarginRanking::new().margin(0.25).reduction(by), given);
    }

    #[test]
    fn far_scores_and_wrong_settings() {
        let (a, b) = (Tensor::from([1e30f32, f32::INFINITY, -1e4]), Tensor::from([-1e30, 0.0, 1e4]));
        let (t, mut e) = (Tensor::from([1.0f32, -1.0, 1.0]), Tensor::default());
        let loss = MarginRanking::new().reduction(Reduction::None);
        loss.evaluate(&[&a, &b], &[(&t).into()], &mut e).unwrap();
        assert_eq!(e.data(), [0.0, f32::INFINITY, 2e4]);
        assert!(MarginRanking::<f32>::new().margin(f64::NAN).verify().is_err());
        assert!(loss.evaluate(&[&a, &b], &[(&[1, 0, 1]).into()], &mut e).is_err());
    }
}
