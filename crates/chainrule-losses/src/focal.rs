//! Cross-entropy in which rows that are classified well weigh little (Lin and others, 2017), fused with its softmax.
//!
//! ```text
//! p = softmax(y)    L = −ln p_t    u = 1 − p_t        e = α_t uᵞ L
//! ∂e/∂yᶜ = α_t (uᵞ + γ uᵞ⁻¹ p_t L) (pᶜ − [c = t])
//! ```
//!
//! The mean divides by the number of rows that are not ignored. Derivation: docs/losses/focal.md.

use crate::{
    elementwise::{not_negative, reduction, times},
    rows::{Labels, Rows, class_weights, weights_as_attribute},
    rowwise::{Outputs, Rowwise, forward_to_rowwise},
};
use chainrule_core::{
    Args, Classes, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use chainrule_tensor::compiled;

/// −α_t (1 − p_t)ᵞ ln p_t of logits, p = softmax(y).
///
/// # Shapes
/// y (N, C) or (N, C, d₁, …), or (C) for a single sample. Classes (N) or (N, d₁, …), one for a single sample. The loss has
/// no axes, or the shape of the classes (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::Focal;
/// let loss = Focal::new().value(&Tensor::from([[0.0f32, 0.0]]), &[1])?;
/// assert!((loss.data()[0] - 0.25 * 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Focal<T = f32> {
    gamma: f64,
    weights: Option<Vec<T>>,
    ignore_index: Option<usize>,
    reduction: Reduction,
}

impl<T: Scalar> Focal<T> {
    /// The mean over all rows, with γ = 2 and without weights.
    pub fn new() -> Self {
        Self { gamma: 2.0, weights: None, ignore_index: None, reduction: Reduction::Mean }
    }

    /// How fast the weight falls with the probability of the class: γ from 0; 2 by default.
    #[must_use]
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.gamma = gamma;
        self
    }

    /// A weight α for each class.
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

impl<T: Scalar> Default for Focal<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Focal<T> {
    fn labels(&self) -> Labels<'_, T> {
        Labels { kind: "Focal", weights: self.weights.as_deref(), ignored: self.ignore_index }
    }
}

compiled! {
    fn pass[T](of: &Focal<T>, rows: Rows, y: &[T], classes: Classes<'_>, out: Outputs<'_, T>) {
        let Outputs { mut loss, g, mut dy, .. } = out;
        let gamma = T::from_f64(of.gamma);
        for row in rows.each() {
            let class = classes[row.index];
            if Some(class) == of.ignore_index {
                if let Some(loss) = &mut loss {
                    loss(row.index, 0.0);
                }
                if let Some(dy) = &mut dy {
                    (0..rows.classes).for_each(|c| dy[row.at(c)] = T::ZERO);
                }
                continue;
            }
            let (max, log_sum) = row.log_sum_exp(y);
            let minus_log_p = |c: usize| (max - y[row.at(c)]) + log_sum;
            let (l, w) = (minus_log_p(class), of.labels().weight(class));
            let (p, u) = (l.v_exp_neg::<false>(), -l.v_exp_m1_neg::<false>());
            let focus = u.powf(gamma); // uᵞ
            if let Some(loss) = &mut loss {
                loss(row.index, (w * times(focus, l)).to_f64()); // e = α uᵞ L
            }
            if let Some(dy) = &mut dy {
                let inner = if u == T::ZERO || gamma == T::ZERO {
                    T::ZERO
                } else {
                    gamma * (focus / u) * times(p, l)
                };
                let slope = g(row.index) * w * (focus + inner); // ∂e/∂L = α (uᵞ + γ uᵞ⁻¹ p L)
                for c in 0..rows.classes {
                    let own = if c == class { -u } else { minus_log_p(c).v_exp_neg::<false>() };
                    dy[row.at(c)] = slope * own; // ∂L/∂yᶜ = pᶜ − [c = t]
                }
            }
        }
    }
}

impl<T: Scalar> Rowwise<T> for Focal<T> {
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
            pass(self, rows, y.data(), classes, out);
        }
    }
}

impl<T: Scalar> Loss for Focal<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        not_negative::<T>("Focal", "gamma", self.gamma)?;
        self.labels().check()
    }

    /// The number of rows that are not ignored.
    fn weight_of(&self, target: Target<'_, T>) -> f64 {
        let plain = Labels { weights: None, ..self.labels() };
        target.classes().map_or(0.0, |classes| plain.sum(classes))
    }

    fn ignored_class(&self) -> Option<usize> {
        self.ignore_index
    }

    forward_to_rowwise!();

    fn spec(&self) -> Spec {
        Spec::new("Focal")
            .with("gamma", self.gamma)
            .with("weight", weights_as_attribute(&self.weights))
            .with("ignore_index", self.ignore_index.map(|class| class as i64))
            .with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for Focal<T> {
    const FACTS: Facts =
        Facts::new("Focal").family("loss").formula("−α_t (1 − p_t)ᵞ ln p_t").page("losses/focal.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self {
            gamma: args.or("gamma", 2.0)?,
            weights: class_weights(args)?,
            ignore_index: args.optional::<i64>("ignore_index")?.map(|class| class as usize),
            reduction: reduction(args)?,
        })
    }

    fn examples() -> Vec<Example> {
        let plain = || Focal::<f64>::new();
        vec![
            Example::new(plain().spec(), [[4, 3]]).ids(3),
            Example::new(plain().weights([0.5, 2.0]).gamma(0.5).spec(), [[2, 2, 3, 2]]).ids(2),
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
            gamma in prop_oneof![Just(0.0), Just(2.0), 0.2..4.0], ignored in option::of(prop_oneof![0..2usize, Just(99)]),
        ) {
            loss: |reduction| {
                let mut loss = Focal::<T>::new().gamma(gamma).reduction(reduction);
                loss.weights = weights.as_ref().map(|w| w.iter().map(|&w| T::from_f64(f64::from(w))).collect());
                loss.ignore_index = ignored;
                loss
            },
            prediction: [&[samples, classes], &rest[..]].concat(),
            target: TargetKind::Classes { shape: [&[samples], &rest[..]].concat(), below: classes, ignored },
            wrong: [&[samples + 1, classes], &rest[..]].concat(),
            wrong: [],
        }
    }

    /// γ = 2, y = (0, ln 3), p = (¼, ¾). Class 1: u = ¼, L = ln 4/3, e = L/16, ∂e/∂L = 1/16 + 2·¼·¾ L, ∂y = that times (¼, −¼).
    #[test]
    pub fn by_hand() {
        let (y, mut dy) = (Tensor::from([[0.0, 3f64.ln()]]), Tensor::default());
        let l = (4.0f64 / 3.0).ln();
        let e = Focal::new().gradient(&y, &[1], &mut dy).unwrap();
        let slope = 0.25 * (0.0625 + 0.375 * l);
        assert!((e - l / 16.0).abs() < 1e-15);
        assert!((dy.data()[0] - slope).abs() < 1e-15 && (dy.data()[1] + slope).abs() < 1e-15);
        assert!((Focal::new().value(&y, &[1]).unwrap().data()[0] - e).abs() < 1e-15);
    }

    #[test]
    fn without_focus_it_is_cross_entropy_and_far_logits_stay_finite() {
        let y = Tensor::from([[0.3, -2.0, 5.0], [1.0, 0.0, -1.0]]);
        let want = crate::CrossEntropy::new().value(&y, &[1, 0]).unwrap().data()[0];
        assert!((Focal::new().gamma(0.0).value(&y, &[1, 0]).unwrap().data()[0] - want).abs() < 1e-14);
        let far = Tensor::from([[1e4f32, -1e4], [-1e4, 1e4], [1e30, f32::NEG_INFINITY]]);
        for gamma in [0.0, 0.5, 2.0] {
            let (loss, mut dy) = (Focal::new().gamma(gamma), Tensor::default());
            let each = loss.clone().reduction(Reduction::None).value(&far, &[0, 0, 0]).unwrap();
            assert_eq!(each.data(), [0.0, 2e4, 0.0]);
            loss.reduction(Reduction::Sum).gradient(&far, &[0, 0, 0], &mut dy).unwrap();
            assert_eq!(dy.data(), [0.0, 0.0, -1.0, 1.0, 0.0, 0.0]);
        }
        for gamma in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(Focal::<f32>::new().gamma(gamma).check().is_err());
        }
    }
}
