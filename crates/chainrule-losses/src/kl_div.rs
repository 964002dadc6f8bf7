//! The divergence of Kullback and Leibler of a target from a prediction that is given as logarithms.
//!
//! ```text
//! e = t (ln t − y)            ∂e/∂y = −t       ∂e/∂t = ln t + 1 − y
//! target ln t:  e = eᵗ (t − y)    ∂e/∂y = −eᵗ      ∂e/∂t = eᵗ (t − y + 1)
//! ```
//!
//! reduced by mean over elements or over samples, by sum or not at all. Derivation: docs/losses/kl_div.md.

use crate::elementwise::{Element, Elementwise, examples, forward_to_elementwise, reduction, times};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor, Value,
};
use std::marker::PhantomData;

/// t (ln t − y): Σ over a row is the divergence of probabilities t from e^y.
///
/// # Shapes
/// Prediction (logarithms) and target have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::KlDiv;
/// let (y, t) = (Tensor::from([[0.5f32.ln(), 0.5f32.ln()]]), Tensor::from([[1.0, 0.0]]));
/// assert!((KlDiv::new().batch_mean().value(&y, &t)?.data()[0] - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlDiv<T = f32> {
    log_target: bool,
    reduction: Reduction,
    batch_mean: bool,
    scalar: PhantomData<T>,
}

impl<T: Scalar> KlDiv<T> {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self { log_target: false, reduction: Reduction::Mean, batch_mean: false, scalar: PhantomData }
    }

    /// Whether the target holds logarithms too.
    #[must_use]
    pub fn log_target(mut self, log_target: bool) -> Self {
        self.log_target = log_target;
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        (self.reduction, self.batch_mean) = (reduction, false);
        self
    }

    /// The sum divided by the number of samples, which is the mathematical divergence.
    #[must_use]
    pub fn batch_mean(mut self) -> Self {
        (self.reduction, self.batch_mean) = (Reduction::Mean, true);
        self
    }

    fn elementwise(&self) -> Result<Elementwise<Divergence>> {
        let of = Elementwise::new("KlDiv", Divergence { log_target: self.log_target }, self.reduction);
        Ok(Elementwise { batch_mean: self.batch_mean, ..of })
    }
}

impl<T: Scalar> Default for KlDiv<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// t (ln t − y), or eᵗ (t − y)
#[derive(Clone, Copy)]
struct Divergence {
    log_target: bool,
}

impl<T: Scalar> Element<T> for Divergence {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        if self.log_target { times(t.v_exp::<false>(), t - y) } else { times(t, t.v_ln::<false>() - y) }
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        let _ = y;
        if self.log_target { -t.v_exp::<false>() } else { -t }
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        if self.log_target {
            times(t.v_exp::<false>(), (t - y) + T::ONE)
        } else {
            t.v_ln::<false>() + T::ONE - y
        }
    }
}

impl<T: Scalar> Loss for KlDiv<T> {
    type T = T;

    forward_to_elementwise!(Divergence);

    fn spec(&self) -> Spec {
        Spec::new("KlDiv")
            .with("reduction", if self.batch_mean { Value::from("batchmean") } else { self.reduction.into() })
            .with("log_target", self.log_target)
    }
}

impl<T: Scalar> FromSpec<T> for KlDiv<T> {
    const FACTS: Facts = Facts::new("KlDiv")
        .family("loss")
        .formula("t (ln t − y)")
        .page("losses/kl_div.md")
        .torch("KLDivLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let loss = Self::new().log_target(args.or("log_target", false)?);
        Ok(match args.value("reduction") {
            Some(Value::Text(name)) if name == "batchmean" => loss.batch_mean(),
            _ => loss.reduction(reduction(args)?),
        })
    }

    fn examples() -> Vec<Example> {
        let mut all = examples(|reduction| Self::new().reduction(reduction).spec());
        all.push(Example::new(Self::new().log_target(true).batch_mean().spec(), [[3, 2]]));
        all
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(shape in collection::vec(1..5usize, 0..4), samples in any::<bool>()) {
            loss: |reduction| build::<T>(false, samples, reduction),
            prediction: shape.clone(),
            target: TargetKind::Of { shape, values: Values::Uniform(0.05..1.0) },
        }
        obeys_the_laws_with_logarithms(shape in collection::vec(1..5usize, 0..4), samples in any::<bool>()) {
            loss: |reduction| build::<T>(true, samples, reduction),
            prediction: shape,
            target: TargetKind::Values,
        }
    }

    fn build<T: Scalar>(log_target: bool, samples: bool, reduction: Reduction) -> KlDiv<T> {
        let loss = KlDiv::new().log_target(log_target).reduction(reduction);
        if samples && reduction == Reduction::Mean { loss.batch_mean() } else { loss }
    }

    /// y = (0, −1), t = (1, ½): e = 1 (0 − 0), ½ (1 − ln 2), mean of half; ∂y = −t/2, ∂t = (1, ln ½ + 2)/2.
    #[test]
    pub fn by_hand() {
        let l2 = 2f64.ln();
        let want = [[-0.5, -0.25], [0.5, 1.0 - 0.5 * l2]];
        compare(&KlDiv::new(), [[0.0, -1.0], [1.0, 0.5]], 0.25 * (1.0 - l2), want);
        // The same with ln t; a batch of one axis has as many samples as elements.
        let logs = KlDiv::new().log_target(true).batch_mean();
        let want = [[-0.5, -0.25], [0.5, 0.25 * (2.0 - l2)]];
        compare(&logs, [[0.0, -1.0], [0.0, -l2]], 0.25 * (1.0 - l2), want);
    }

    /// Two rows of two: the sum is divided by 2 and not by 4.
    #[test]
    fn the_batch_mean_divides_by_samples() {
        let (y, t) = (Tensor::<f64>::zeros([2, 2]), Tensor::full([2, 2], 2.0));
        let sum = KlDiv::new().reduction(Reduction::Sum).value(&y, &t).unwrap().data()[0];
        let (loss, mut dy) = (KlDiv::new().batch_mean(), Tensor::default());
        assert_eq!(loss.gradient(&y, &t, &mut dy).unwrap(), sum / 2.0);
        assert_eq!(dy.data(), [-1.0; 4]);
        assert_eq!(loss.spec().get("reduction"), Some(&"batchmean".into()));
    }

    #[test]
    fn what_has_no_probability_costs_nothing() {
        let inf = f32::INFINITY;
        let (y, t) = (Tensor::from([-inf, -1e30, -inf, -1e4]), Tensor::from([0.0, 0.0, 1.0, 1.0]));
        let loss = KlDiv::new().reduction(Reduction::None);
        assert_eq!(loss.value(&y, &t).unwrap().data(), [0.0, 0.0, inf, 1e4]);
        let logs = loss.log_target(true).value(&y, &Tensor::from([-inf, -1e30, 0.0, 0.0])).unwrap();
        assert_eq!(logs.data(), [0.0, 0.0, inf, 1e4]);
    }
}
