//! Binary cross-entropy of logits, averaged over the classes of each sample.
//!
//! ```text
//! e = 1/C Σᶜ w (t s(−y) + (1 − t) s(y)),     s(y) = ln(1 + eʸ)
//! ∂e/∂y = w/C ((1 − t) σ(y) − t σ(−y))        ∂e/∂t = −w y/C
//! ```
//!
//! Derivation: docs/losses/multi_label_soft_margin.md.

use crate::{
    elementwise::{finite_weights, reduction, softplus, times, trailing, values},
    rowwise::{Outputs, Rowwise, forward_to_rowwise},
    several::rows,
};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor, Value,
};
use chainrule_tensor::compiled;

/// The mean over the classes of a sample of the binary cross-entropy of its logits.
///
/// # Shapes
/// y (N, C), (.., C) or (C), and a target of that shape; a weight has its trailing axes. The loss has no axes, or those
/// before the last (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::MultiLabelSoftMargin;
/// let (y, t) = (Tensor::from([[0.0f32, 0.0]]), Tensor::from([[1.0, 0.0]]));
/// assert!((MultiLabelSoftMargin::new().value(&y, &t)?.data()[0] - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MultiLabelSoftMargin<T = f32> {
    weight: Option<Tensor<T>>,
    reduction: Reduction,
}

impl<T: Scalar> MultiLabelSoftMargin<T> {
    /// The mean over all samples.
    pub fn new() -> Self {
        Self { weight: None, reduction: Reduction::Mean }
    }

    /// A weight w for each class, or for each position along the trailing axes.
    #[must_use]
    pub fn weight(mut self, weight: Tensor<T>) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for MultiLabelSoftMargin<T> {
    fn default() -> Self {
        Self::new()
    }
}

compiled! {
    fn pass[T](of: &MultiLabelSoftMargin<T>, n: usize, y: &[T], t: &[T], out: Outputs<'_, T>) {
        let (Outputs { mut loss, g, mut dy, mut dt }, n) = (out, n.max(1));
        for (row, (y, t)) in y.chunks_exact(n).zip(t.chunks_exact(n)).enumerate() {
            let (g, mut e) = (g(row) / T::from_usize(n), 0.0);
            for (c, (&y, &t)) in y.iter().zip(t).enumerate() {
                let i = row * n + c;
                let w = of.weight.as_ref().map_or(T::ONE, |w| w.data()[i % w.len()]);
                if loss.is_some() {
                    e += (w * (times(t, softplus(-y)) + times(T::ONE - t, softplus(y)))).to_f64();
                }
                if let Some(dy) = &mut dy {
                    let [negative, positive] = [-y, y].map(|y| y.v_sigmoid::<false>());
                    dy[i] = g * w * ((T::ONE - t) * positive - t * negative); // dy = w/C ((1 − t) σ(y) − t σ(−y))
                }
                if let Some(dt) = &mut dt {
                    dt[i] = -g * w * y; // dt = −w y/C
                }
            }
            if let Some(loss) = &mut loss {
                loss(row, e / n as f64);
            }
        }
    }
}

impl<T: Scalar> Rowwise<T> for MultiLabelSoftMargin<T> {
    fn singles(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        self.check()?;
        values("MultiLabelSoftMargin", y, target)?;
        if let Some(weight) = &self.weight {
            trailing("MultiLabelSoftMargin", "weight", weight, y)?;
        }
        rows("MultiLabelSoftMargin", y)
    }

    fn pass(&self, y: &Tensor<T>, target: Target<'_, T>, out: Outputs<'_, T>) {
        if let Target::Values(t) = target {
            pass(self, y.shape().last().copied().unwrap_or(0), y.data(), t.data(), out);
        }
    }
}

impl<T: Scalar> Loss for MultiLabelSoftMargin<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        finite_weights("MultiLabelSoftMargin", "weight", self.weight.iter().flat_map(Tensor::data))
    }

    forward_to_rowwise!();

    fn spec(&self) -> Spec {
        let weight = self.weight.as_ref().map_or(Value::None, Value::from);
        Spec::new("MultiLabelSoftMargin").with("weight", weight).with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for MultiLabelSoftMargin<T> {
    const FACTS: Facts = Facts::new("MultiLabelSoftMargin")
        .family("loss")
        .formula("−1/C Σ w (t ln σ(y) + (1 − t) ln(1 − σ(y)))")
        .page("losses/multi_label_soft_margin.md")
        .torch("MultiLabelSoftMarginLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self { weight: args.optional("weight")?, reduction: reduction(args)? })
    }

    fn examples() -> Vec<Example> {
        let plain = || MultiLabelSoftMargin::<f64>::new();
        vec![
            Example::new(plain().weight(Tensor::from([0.5, 2.0])).spec(), [[3, 2]]),
            Example::new(plain().reduction(Reduction::Sum).spec(), [[5]]),
            Example::bench(plain().spec(), [[4096, 10]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 1..4), weighted in any::<bool>()) {
            loss: |reduction| {
                let loss = MultiLabelSoftMargin::<T>::new().reduction(reduction);
                let weight = || Tensor::from_fn([shape[shape.len() - 1]], |i| T::from_f64(0.25 * (1 + i % 5) as f64));
                if weighted { loss.weight(weight()) } else { loss }
            },
            prediction: shape.clone(),
            target: TargetKind::Probabilities,
            wrong: [],
        }
    }

    /// y = (0, ln 3), t = (1, 0): s = ln 2 and ln 4, e = 1½ ln 2; ∂y = (−½, ¾)/2, ∂t = (0, −ln 3)/2.
    #[test]
    pub fn by_hand() {
        let (l2, l3) = (2f64.ln(), 3f64.ln());
        let want = [[-0.25, 0.375], [0.0, -0.5 * l3]];
        compare(&MultiLabelSoftMargin::new(), [[0.0, l3], [1.0, 0.0]], 1.5 * l2, want);
    }

    #[test]
    fn far_logits_have_their_limits() {
        let inf = f32::INFINITY;
        let y = Tensor::from([[inf, -inf], [1e4, -1e4], [1e30, 1e4]]);
        let t = Tensor::from([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]);
        let each = MultiLabelSoftMargin::new().reduction(Reduction::None).value(&y, &t).unwrap();
        assert_eq!(each.data(), [0.0, 1e4, 5e3]);
        assert!(MultiLabelSoftMargin::new().weight(Tensor::from([f32::NAN])).check().is_err());
    }
}
