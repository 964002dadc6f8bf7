//! The cosine between two embeddings: 1 for pairs that belong together, below a margin for others.
//!
//! ```text
//! s = a·b    A = a·a + ε    B = b·b + ε    cos = s/√(AB),  ε = 1e-12
//! t = 1:     e = 1 − cos                  t = −1:   e = max(0, cos − m)
//! ∂cos/∂a = (b − a s/A)/√(AB)             ∂cos/∂b = (a − b s/B)/√(AB)
//! ```
//!
//! Derivation: docs/losses/cosine_embedding.md.

use crate::{
    elementwise::reduction,
    several::{Outputs, Several, dot, forward_to_several, rows, same_shape},
};
use chainrule_core::{
    Args, Error, Example, Facts, FromSpec, Objective, Reduction, Result, Scalar, Shape, Spec, Target,
    Targets, Tensor,
};
use chainrule_tensor::compiled;

/// 1 − cos for a label of 1 and max(0, cos − m) for −1, of the cosine between two embeddings; 0 for any other label.
///
/// # Shapes
/// Both predictions (N, D) or (D), the target (N) or none. The loss has no axes, or the target's (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Objective, Tensor};
/// use chainrule_losses::CosineEmbedding;
/// let (a, b, t) = (Tensor::from([[1.0f32, 0.0]]), Tensor::from([[0.0, 2.0]]), Tensor::from([1.0]));
/// let mut e = Tensor::default();
/// CosineEmbedding::new().evaluate(&[&a, &b], &[(&t).into()], &mut e)?;
/// assert_eq!(e.data(), [1.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineEmbedding<T = f32> {
    margin: f64,
    scalar: std::marker::PhantomData<T>,
    reduction: Reduction,
}

impl<T: Scalar> CosineEmbedding<T> {
    /// The mean over all pairs, with a margin of 0.
    pub fn new() -> Self {
        Self { margin: 0.0, scalar: std::marker::PhantomData, reduction: Reduction::Mean }
    }

    /// The margin m in [−1, 1]; 0 by default.
    #[must_use]
    pub fn margin(mut self, margin: f64) -> Self {
        self.margin = margin;
        self
    }

    fn check(&self) -> Result<()> {
        if !(-1.0..=1.0).contains(&self.margin) {
            return Err(Error::value(format!(
                "CosineEmbedding: expected a margin in [-1, 1], got {}",
                self.margin
            )));
        }
        Ok(())
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for CosineEmbedding<T> {
    fn default() -> Self {
        Self::new()
    }
}

const EPSILON: f64 = 1e-12;

compiled! {
    fn pass[T](margin: f64, ys: [&[T]; 2], t: &[T], out: Outputs<'_, '_, T>) {
        let mut out = out;
        let n = if t.is_empty() { 1 } else { (ys[0].len() / t.len()).max(1) };
        for (row, &t) in t.iter().enumerate() {
            let [a, b] = ys.map(|y| y.get(row * n..(row + 1) * n).unwrap_or_default());
            let (s, squares) = (dot(a, b), [dot(a, a) + EPSILON, dot(b, b) + EPSILON]);
            let norm = squares[0].sqrt() * squares[1].sqrt();
            let cos = s / norm;
            // e, and ∂e/∂cos
            let (e, slope) = if t == T::ONE {
                (1.0 - cos, -1.0)
            } else if t == -T::ONE {
                if cos <= margin { (0.0, 0.0) } else { (cos - margin, 1.0) }
            } else {
                (0.0, 0.0)
            };
            if let Some(loss) = &mut out.loss {
                loss(row, e);
            }
            let g = (out.g)(row) * slope / norm;
            for (j, (own, other)) in [(a, b), (b, a)].into_iter().enumerate() {
                let Some(dy) = out.dy(j) else { continue };
                let Some(dy) = dy.get_mut(row * n..(row + 1) * n) else { continue };
                let along = s / squares[j];
                for ((dy, own), other) in dy.iter_mut().zip(own).zip(other) {
                    *dy = T::from_f64(g * (other.to_f64() - along * own.to_f64())); // da = (b − a s/A)/√(AB)
                }
            }
        }
        if let Some(dt) = &mut out.dt {
            dt.fill(T::ZERO); // a label is constant
        }
    }
}

impl<T: Scalar> Several<T> for CosineEmbedding<T> {
    const KIND: &'static str = "CosineEmbedding";
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

impl<T: Scalar> Objective for CosineEmbedding<T> {
    forward_to_several!();

    fn to_spec(&self) -> Spec {
        Spec::new("CosineEmbedding").with("margin", self.margin).with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for CosineEmbedding<T> {
    const FACTS: Facts = Facts::new("CosineEmbedding")
        .family("loss")
        .formula("1 − cos(y₀, y₁), or max(0, cos − m)")
        .page("losses/cosine_embedding.md")
        .torch("CosineEmbeddingLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().margin(args.or("margin", 0.0)?).reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let spec = |reduction| CosineEmbedding::<f64>::new().margin(0.25).reduction(reduction).to_spec();
        let signs =
            |n: usize| [Targets::Values(Tensor::from_fn([n], |i| if i % 3 == 0 { -1.0 } else { 1.0 }))];
        vec![
            Example::new(spec(Reduction::Mean), [[5, 3], [5, 3]]).targets(signs(5)),
            Example::new(spec(Reduction::Sum), [[3, 2], [3, 2]]).targets(signs(3)),
            Example::bench(spec(Reduction::Mean), [[512, 64], [512, 64]]).targets(signs(512)),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::several::tests::{Given, agrees, compare};
    use chainrule_gradcheck::objective_laws;

    objective_laws! {
        obeys_the_laws(n in 1..5usize, d in 1..7usize, margin in -0.9..0.9, by in 0..3usize) {
            objective: CosineEmbedding::<T>::new().margin(margin).reduction([Reduction::Mean, Reduction::Sum, Reduction::None][by]),
            predictions: [[n, d + 1], [n, d + 1]],
            targets: [TargetKind::Of { shape: vec![n], values: Values::Signs }],
            wrong_predictions: [[n, d + 1], [n, d + 2]],
            wrong_predictions: [[n + 1, d + 1], [n + 1, d + 1]],
            wrong_predictions: [[], []],
        }
    }

    /// a = (3, 4), b = (1, 0): cos = 3/5; ∂cos/∂a = ((1, 0) − (3, 4) 3/25)/5 = (16, −12)/125, ∂cos/∂b = ((3, 4) − (3, 0))/5 = (0, ⅘).
    /// t = 1: e = 2/5 and the slopes' opposites; t = −1, m = ½: e = 1/10 and the slopes. Means of two.
    #[test]
    pub fn by_hand() {
        let (a, b) = (Tensor::from([[3.0, 4.0], [3.0, 4.0]]), Tensor::from([[1.0, 0.0], [1.0, 0.0]]));
        let t = Tensor::from([1.0, -1.0]);
        let (da, db) = ([-0.064, 0.048, 0.064, -0.048], [0.0, -0.4, 0.0, 0.4]);
        let (loss, given) = (CosineEmbedding::new().margin(0.5), Given { ys: &[&a, &b], t: Some(&t) });
        compare(&loss, given, 0.25, &[&da, &db], &[0.0, 0.0]);
        agrees(|by| CosineEmbedding::new().margin(0.5).reduction(by), given);
    }

    #[test]
    fn far_and_zero_embeddings_have_a_cosine() {
        let a = Tensor::from([[1e30f32, 1e30], [0.0, 0.0], [1e-20, 0.0]]);
        let (t, mut e) = (Tensor::from([1.0f32, 1.0, 0.0]), Tensor::default());
        let loss = CosineEmbedding::new().reduction(Reduction::None);
        loss.evaluate(&[&a, &a], &[(&t).into()], &mut e).unwrap();
        assert!(e.data()[0].abs() < 1e-15 && e.data()[1..] == [1.0, 0.0]);
        let mut dys = [Tensor::default(), Tensor::default()];
        let sum = CosineEmbedding::new().reduction(Reduction::Sum);
        sum.value_and_gradients(&[&a, &a], &[(&t).into()], &mut dys).unwrap();
        assert!(dys.iter().all(|dy| dy.data().iter().all(|v| v.is_finite())));
        for margin in [1.5, -2.0, f64::NAN] {
            assert!(CosineEmbedding::<f32>::new().margin(margin).verify().is_err());
        }
    }
}
