//! Binary cross-entropy of probabilities.
//!
//! ```text
//! e = −w (t ln y + (1 − t) ln(1 − y))        each logarithm is at least −100
//! ∂e/∂y = w (y − t)/(y (1 − y))              the divisor is at least 1e-12
//! ∂e/∂t = w (ln(1 − y) − ln y)
//! ```
//!
//! Derivation: docs/losses/bce.md.

use crate::{
    elementwise::{finite_weights, reduction, trailing, values},
    rowwise::{Outputs, Rowwise, forward_to_rowwise},
};
use chainrule_core::{
    Args, Error, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
    Value,
};
use chainrule_tensor::compiled;

/// Binary cross-entropy of probabilities. `BceWithLogits` takes what comes before the sigmoid, and is the better one.
///
/// # Shapes
/// Prediction, of values in [0, 1], and target have one shape; a weight has that shape or its trailing axes.
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::Bce;
/// let loss = Bce::new().value(&Tensor::from([0.5f32]), &Tensor::from([1.0]))?;
/// assert!((loss.data()[0] - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Bce<T = f32> {
    weight: Option<Tensor<T>>,
    reduction: Reduction,
}

impl<T: Scalar> Bce<T> {
    /// The mean over all elements, without weights.
    pub fn new() -> Self {
        Self { weight: None, reduction: Reduction::Mean }
    }

    /// A weight w for each element, or for each position along the trailing axes.
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

impl<T: Scalar> Default for Bce<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// ln y and ln(1 − y), at least −100.
fn logs<T: Scalar>(y: T) -> [T; 2] {
    [y.v_ln::<false>(), (-y).v_ln_1p::<false>()].map(|v| v.max(T::from_f64(-100.0)))
}

compiled! {
    fn pass[T](of: &Bce<T>, y: &[T], t: &[T], out: Outputs<'_, T>) {
        let Outputs { mut loss, g, mut dy, mut dt } = out;
        let least = T::from_f64(1e-12);
        for (i, (&y, &t)) in y.iter().zip(t).enumerate() {
            let w = of.weight.as_ref().map_or(T::ONE, |w| w.data()[i % w.len()]);
            if let Some(loss) = &mut loss {
                let [ln, ln_other] = logs(y);
                loss(i, (-w * (t * ln + (T::ONE - t) * ln_other)).to_f64());
            }
            if let Some(dy) = &mut dy {
                dy[i] = g(i) * w * (y - t) / (y * (T::ONE - y)).max(least); // dy = w (y − t)/(y (1 − y))
            }
            if let Some(dt) = &mut dt {
                let [ln, ln_other] = logs(y);
                dt[i] = g(i) * w * (ln_other - ln); // dt = w (ln(1 − y) − ln y)
            }
        }
    }
}

compiled! {
    /// The first value that is no probability.
    fn improper[T](y: &[T]) -> Option<usize> {
        y.iter().position(|v| !(*v >= T::ZERO && *v <= T::ONE))
    }
}

impl<T: Scalar> Rowwise<T> for Bce<T> {
    fn singles(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        self.check()?;
        values("Bce", y, target)?;
        if let Some(weight) = &self.weight {
            trailing("Bce", "weight", weight, y)?;
        }
        Shape::new(y)
    }

    fn check_values(&self, y: &Tensor<T>) -> Result<()> {
        match improper(y.data()) {
            Some(i) => Err(Error::value(format!(
                "Bce: expected predictions in [0, 1], got {} at position {i}",
                y.data()[i]
            ))),
            None => Ok(()),
        }
    }

    fn pass(&self, y: &Tensor<T>, target: Target<'_, T>, out: Outputs<'_, T>) {
        if let Target::Values(t) = target {
            pass(self, y.data(), t.data(), out);
        }
    }
}

impl<T: Scalar> Loss for Bce<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        finite_weights("Bce", "weight", self.weight.iter().flat_map(Tensor::data))
    }

    forward_to_rowwise!();

    fn spec(&self) -> Spec {
        let weight = self.weight.as_ref().map_or(Value::None, Value::from);
        Spec::new("Bce").with("weight", weight).with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for Bce<T> {
    const FACTS: Facts = Facts::new("Bce")
        .family("loss")
        .formula("−w (t ln y + (1 − t) ln(1 − y))")
        .page("losses/bce.md")
        .torch("BCELoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self { weight: args.optional("weight")?, reduction: reduction(args)? })
    }

    fn examples() -> Vec<Example> {
        let plain = || Bce::<f64>::new();
        vec![
            Example::new(plain().reduction(Reduction::Sum).spec(), [[5]]).within(0.0, 1.0),
            Example::new(plain().weight(Tensor::from([[0.5, 2.0]])).spec(), [[3, 2]]).within(0.0, 1.0),
            Example::bench(plain().spec(), [[4096, 10]]).within(0.0, 1.0),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4), weight in option::of(0..4usize)) {
            loss: |reduction| {
                let loss = Bce::<T>::new().reduction(reduction);
                match weight {
                    Some(axes) => {
                        let axes = &shape[shape.len() - axes.min(shape.len())..];
                        loss.weight(Tensor::from_fn(axes, |i| T::from_f64(0.25 * (1 + i % 5) as f64)))
                    }
                    None => loss,
                }
            },
            prediction: shape.clone(),
            target: TargetKind::Probabilities,
            values: Values::Uniform(0.05..0.95),
        }
    }

    /// y = (½, ¼), t = (1, 0): e = ln 2 and ln 4/3; ∂y = (−½·4, ¼·16/3)/2, ∂t = (0, ln 3)/2.
    #[test]
    pub fn by_hand() {
        let want = [[-1.0, 2.0 / 3.0], [0.0, 0.5 * 3f64.ln()]];
        compare(&Bce::new(), [[0.5, 0.25], [1.0, 0.0]], (8.0f64 / 3.0).ln() / 2.0, want);
        let weighted = Bce::new().weight(Tensor::from([3.0]));
        compare(&weighted, [[0.5], [1.0]], 3.0 * 2f64.ln(), [[-6.0], [0.0]]);
    }

    #[test]
    fn certain_answers_are_clamped_and_no_others_are_taken() {
        let (y, t) = (Tensor::from([0.0f32, 1.0, 0.0, 1.0]), Tensor::from([0.0, 1.0, 1.0, 0.0]));
        let loss = Bce::new().reduction(Reduction::None);
        assert_eq!(loss.value(&y, &t).unwrap().data(), [0.0, 0.0, 100.0, 100.0]);
        let mut dy = Tensor::default();
        Bce::new().reduction(Reduction::Sum).gradient(&y, &t, &mut dy).unwrap();
        assert_eq!(dy.data(), [0.0, 0.0, -1e12, 1e12]);
        for wrong in [-0.1, 1.5, f32::NAN, f32::INFINITY] {
            let y = Tensor::from([0.5, wrong]);
            assert!(Bce::new().gradient(&y, &Tensor::from([1.0, 1.0]), &mut dy).is_err(), "{wrong}");
        }
    }
}
