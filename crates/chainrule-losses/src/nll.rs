//! The negative log-likelihood of classes, for predictions that are logarithms of probabilities.
//!
//! ```text
//! e = −w_t y_t        ∂e/∂yᶜ = −w_t [c = t]
//! ```
//!
//! The mean divides by Σ w_t over the rows that are not ignored. Derivation: docs/losses/nll.md.

use crate::{
    elementwise::reduction,
    rows::{Labels, Rows, class_weights, weights_as_attribute},
    rowwise::{Outputs, Rowwise, forward_to_rowwise},
};
use chainrule_core::{
    Args, Classes, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use chainrule_tensor::compiled;

/// −w_t y_t: what `CrossEntropy` is after a LogSoftmax.
///
/// # Shapes
/// y (N, C) or (N, C, d₁, …), or (C) for a single sample. Classes (N) or (N, d₁, …), one for a single sample. The loss has
/// no axes, or the shape of the classes (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::Nll;
/// let y = Tensor::from([[0.25f32.ln(), 0.75f32.ln()]]);
/// assert!((Nll::new().value(&y, &[1])?.data()[0] + 0.75f32.ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Nll<T = f32> {
    weights: Option<Vec<T>>,
    ignore_index: Option<usize>,
    reduction: Reduction,
}

impl<T: Scalar> Nll<T> {
    /// The mean over all rows, without weights.
    pub fn new() -> Self {
        Self { weights: None, ignore_index: None, reduction: Reduction::Mean }
    }

    /// A weight for each class.
    #[must_use]
    pub fn weights(mut self, weights: impl Into<Vec<T>>) -> Self {
        self.weights = Some(weights.into());
        self
    }

    /// Rows of this class are ignored; it need not be a class that the prediction has.
    #[must_use]
    pub fn ignore_index(mut self, class: usize) -> Self {
        self.ignore_index = Some(class);
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for Nll<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Nll<T> {
    fn labels(&self) -> Labels<'_, T> {
        Labels { kind: "Nll", weights: self.weights.as_deref(), ignored: self.ignore_index }
    }
}

compiled! {
    fn pass[T](labels: Labels<'_, T>, rows: Rows, y: &[T], classes: Classes<'_>, out: Outputs<'_, T>) {
        let Outputs { mut loss, g, mut dy, .. } = out;
        if let Some(dy) = &mut dy {
            dy.fill(T::ZERO);
        }
        for row in rows.each() {
            let class = classes[row.index];
            let e = if Some(class) == labels.ignored {
                T::ZERO
            } else {
                let (w, at) = (labels.weight(class), row.at(class));
                if let Some(dy) = &mut dy {
                    dy[at] = -g(row.index) * w; // dy_t = −w_t
                }
                -w * y[at]
            };
            if let Some(loss) = &mut loss {
                loss(row.index, e.to_f64());
            }
        }
    }
}

impl<T: Scalar> Rowwise<T> for Nll<T> {
    fn singles(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        self.check()?;
        let (rows, labels) = self.labels().rows(y)?;
        self.labels().fit(y, (rows, labels), target.classes()?)?;
        Ok(labels)
    }

    fn divisor(&self, _: usize, target: Target<'_, T>) -> f64 {
        self.weight_of(target)
    }

    fn pass(&self, y: &Tensor<T>, target: Target<'_, T>, out: Outputs<'_, T>) {
        if let (Target::Classes(classes), Ok((rows, _))) = (target, self.labels().rows(y.shape())) {
            pass(self.labels(), rows, y.data(), classes, out);
        }
    }
}

impl<T: Scalar> Loss for Nll<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        self.labels().check()
    }

    fn weight_of(&self, target: Target<'_, T>) -> f64 {
        target.classes().map_or(0.0, |classes| self.labels().sum(classes))
    }

    fn ignored_class(&self) -> Option<usize> {
        self.ignore_index
    }

    forward_to_rowwise!();

    fn spec(&self) -> Spec {
        Spec::new("Nll")
            .with("weight", weights_as_attribute(&self.weights))
            .with("ignore_index", self.ignore_index.map(|class| class as i64))
            .with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for Nll<T> {
    const FACTS: Facts =
        Facts::new("Nll").family("loss").formula("−w_t y_t").page("losses/nll.md").torch("NLLLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self {
            weights: class_weights(args)?,
            ignore_index: args.optional::<i64>("ignore_index")?.map(|class| class as usize),
            reduction: reduction(args)?,
        })
    }

    fn examples() -> Vec<Example> {
        let plain = || Nll::<f64>::new();
        vec![
            Example::new(plain().spec(), [[4, 3]]).ids(3),
            Example::new(plain().weights([0.5, 2.0]).spec(), [[2, 2, 3, 2]]).ids(2),
            Example::new(plain().ignore_index(1).reduction(Reduction::Sum).spec(), [[4, 3]]).ids(3),
            Example::bench(plain().spec(), [[4096, 10]]).ids(10),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(
            samples in 1..5usize, rest in collection::vec(1..4usize, 0..3),
            (classes, weights) in (2..6usize).prop_flat_map(|c| (Just(c), option::of(collection::vec(0.1..3.0f32, c)))),
            ignored in option::of(prop_oneof![0..2usize, Just(99)]),
        ) {
            loss: |reduction| {
                let mut loss = Nll::<T>::new().reduction(reduction);
                loss.weights = weights.as_ref().map(|w| w.iter().map(|&w| T::from_f64(f64::from(w))).collect());
                loss.ignore_index = ignored;
                loss
            },
            prediction: [&[samples, classes], &rest[..]].concat(),
            target: TargetKind::Classes { shape: [&[samples], &rest[..]].concat(), below: classes, ignored },
            wrong: [&[samples + 1, classes], &rest[..]].concat(),
            wrong: [],
            values: Values::Uniform(-3.0..-0.1),
        }
        obeys_the_laws_with_a_single_sample(classes in 2..6usize) {
            loss: |reduction| Nll::<T>::new().reduction(reduction),
            prediction: [classes],
            target: TargetKind::Classes { shape: vec![1], below: classes, ignored: None },
            values: Values::Uniform(-3.0..-0.1),
        }
    }

    /// Classes 1, 0 and 2, of which 2 is ignored, weights (2, 6, 1): (6·3 + 2·1)/8 = 2½; ∂y = −w/8 at the classes.
    #[test]
    pub fn by_hand() {
        let y = Tensor::from([[-9.0f64, -3.0, -9.0], [-1.0, -9.0, -9.0], [-9.0, -9.0, -9.0]]);
        let (loss, mut dy) = (Nll::new().weights([2.0, 6.0, 1.0]).ignore_index(2), Tensor::default());
        assert_eq!(loss.gradient(&y, &[1, 0, 2], &mut dy).unwrap(), 2.5);
        assert_eq!(loss.value(&y, &[1, 0, 2]).unwrap().data(), [2.5]);
        assert_eq!(dy.data(), [0.0, -0.75, 0.0, -0.25, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(loss.value(&y, &[2, 2, 2]).unwrap().data()[0].is_nan());
    }

    #[test]
    fn far_predictions_and_wrong_settings() {
        let y = Tensor::from([[-1e30f32, 0.0], [f32::NEG_INFINITY, -1.0]]);
        let each = Nll::new().reduction(Reduction::None).value(&y, &[0, 0]).unwrap();
        assert_eq!(each.data(), [1e30, f32::INFINITY]);
        let text = Nll::new().value(&y, &[0, 2]).unwrap_err().to_string();
        assert_eq!(text, "Nll: expected classes below 2, got 2 at position 1");
        assert!(Nll::new().weights([f32::NAN, 1.0]).check().is_err());
        assert!(Nll::new().weights([1.0]).value(&y, &[0, 0]).is_err());
    }
}
