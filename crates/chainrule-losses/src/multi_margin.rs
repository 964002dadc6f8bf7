//! The margin by which the score of the class exceeds those of the others (Crammer and Singer, 2001; Weston and Watkins, 1998).
//!
//! ```text
//! zᶜ = m − y_t + yᶜ for c ≠ t        e = w_t/C Σᶜ max(0, zᶜ)ᵖ,  p = 1 or 2
//! ∂e/∂yᶜ = w_t/C p zᶜᵖ⁻¹ [zᶜ > 0],   ∂e/∂y_t = −Σᶜ ∂e/∂yᶜ
//! ```
//!
//! Derivation: docs/losses/multi_margin.md.

use crate::{
    elementwise::{finite, hinge, reduction},
    rows::{Labels, Rows, class_weights, weights_as_attribute},
    rowwise::{Outputs, Rowwise, forward_to_rowwise},
};
use chainrule_core::{
    Args, Classes, Error, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target,
    Tensor,
};
use chainrule_tensor::compiled;

/// w_t/C Σ max(0, m − y_t + yᶜ)ᵖ over the classes c other than t.
///
/// # Shapes
/// y (N, C) with classes (N), or (C) with one. The loss has no axes, or (N) (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::MultiMargin;
/// let y = Tensor::from([[2.0f32, 1.5, -1.0]]);
/// assert_eq!(MultiMargin::new().value(&y, &[0])?.data(), [0.5 / 3.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MultiMargin<T = f32> {
    p: i64,
    margin: f64,
    weights: Option<Vec<T>>,
    reduction: Reduction,
}

impl<T: Scalar> MultiMargin<T> {
    /// The mean over all samples.
    pub fn new() -> Self {
        Self { p: 1, margin: 1.0, weights: None, reduction: Reduction::Mean }
    }

    /// The exponent, 1 or 2; 1 by default.
    #[must_use]
    pub fn p(mut self, p: i64) -> Self {
        self.p = p;
        self
    }

    /// The margin m; 1 by default.
    #[must_use]
    pub fn margin(mut self, margin: f64) -> Self {
        self.margin = margin;
        self
    }

    /// A weight for each class.
    #[must_use]
    pub fn weights(mut self, weights: impl Into<Vec<T>>) -> Self {
        self.weights = Some(weights.into());
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for MultiMargin<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> MultiMargin<T> {
    fn labels(&self) -> Labels<'_, T> {
        Labels { kind: "MultiMargin", weights: self.weights.as_deref(), ignored: None }
    }
}

compiled! {
    fn pass[T](of: &MultiMargin<T>, rows: Rows, y: &[T], classes: Classes<'_>, out: Outputs<'_, T>) {
        let Outputs { mut loss, g, mut dy, .. } = out;
        let (margin, squared, n) = (T::from_f64(of.margin), of.p == 2, rows.classes);
        for ((i, y), &class) in y.chunks_exact(n.max(1)).enumerate().zip(classes.iter()) {
            let scale = of.labels().weight(class) / T::from_usize(n);
            // Of two equal infinities neither is ahead.
            let z = |c: usize| match (margin - y[class]) + y[c] {
                z if z.is_nan() && y[c] == y[class] => T::ZERO,
                z => z,
            };
            if let Some(loss) = &mut loss {
                let others = (0..n).filter(|&c| c != class).map(|c| hinge(z(c)));
                let e: f64 = others.map(|z| (scale * if squared { z * z } else { z }).to_f64()).sum();
                loss(i, e);
            }
            if let Some(dy) = &mut dy {
                let (dy, g, mut sum) = (&mut dy[i * n..][..n], g(i) * scale, 0.0);
                for c in (0..n).filter(|&c| c != class) {
                    let z = z(c);
                    let slope = if squared { z + z } else { T::ONE };
                    dy[c] = if z <= T::ZERO { T::ZERO } else { g * slope }; // dyᶜ = w/C p zᵖ⁻¹
                    sum += dy[c].to_f64();
                }
                dy[class] = T::from_f64(-sum); // dy_t = −Σ dyᶜ
            }
        }
    }
}

impl<T: Scalar> Rowwise<T> for MultiMargin<T> {
    fn singles(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        self.check()?;
        if y.len() > 2 {
            return Err(Error::shape(format!("MultiMargin: expected a prediction (N, C) or (C), got {y:?}")));
        }
        let (rows, labels) = self.labels().rows(y)?;
        self.labels().fit(y, (rows, labels), target.classes()?)?;
        Ok(labels)
    }

    fn pass(&self, y: &Tensor<T>, target: Target<'_, T>, out: Outputs<'_, T>) {
        if let (Target::Classes(classes), Ok((rows, _))) = (target, self.labels().rows(y.shape())) {
            pass(self, rows, y.data(), classes, out);
        }
    }
}

impl<T: Scalar> Loss for MultiMargin<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        if self.p != 1 && self.p != 2 {
            return Err(Error::value(format!("MultiMargin: expected p = 1 or 2, got {}", self.p)));
        }
        finite::<T>("MultiMargin", "margin", self.margin)?;
        self.labels().check()
    }

    forward_to_rowwise!();

    fn spec(&self) -> Spec {
        Spec::new("MultiMargin")
            .with("p", self.p)
            .with("margin", self.margin)
            .with("weight", weights_as_attribute(&self.weights))
            .with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for MultiMargin<T> {
    const FACTS: Facts = Facts::new("MultiMargin")
        .family("loss")
        .formula("w_t/C Σ max(0, m − y_t + yᶜ)ᵖ")
        .page("losses/multi_margin.md")
        .torch("MultiMarginLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self {
            p: args.or("p", 1)?,
            margin: args.or("margin", 1.0)?,
            weights: class_weights(args)?,
            reduction: reduction(args)?,
        })
    }

    fn examples() -> Vec<Example> {
        let plain = || MultiMargin::<f64>::new();
        vec![
            Example::new(plain().spec(), [[4, 3]]).ids(3),
            Example::new(plain().p(2).margin(0.5).weights([0.5, 2.0, 1.0]).spec(), [[4, 3]]).ids(3),
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
            samples in 1..5usize, p in 1..3i64, margin in 0.1..2.0,
            (classes, weights) in (2..6usize).prop_flat_map(|c| (Just(c), option::of(collection::vec(0.1..3.0f32, c)))),
        ) {
            loss: |reduction| {
                let mut loss = MultiMargin::<T>::new().p(p).margin(margin).reduction(reduction);
                loss.weights = weights.as_ref().map(|w| w.iter().map(|&w| T::from_f64(f64::from(w))).collect());
                loss
            },
            prediction: [samples, classes],
            target: TargetKind::Classes { shape: vec![samples], below: classes, ignored: None },
            wrong: [samples + 1, classes],
            wrong: [samples, classes, 2],
            wrong: [],
        }
        obeys_the_laws_with_a_single_sample(classes in 2..6usize) {
            loss: |reduction| MultiMargin::<T>::new().reduction(reduction),
            prediction: [classes],
            target: TargetKind::Classes { shape: vec![1], below: classes, ignored: None },
        }
    }

    /// y = (2, 1½, −1), class 0, m = 1: z = (½, −2), e = ½/3, ∂y = (−1, 1, 0)/3. p = 2, w₀ = 6: e = 6 ¼/3, ∂y = (−2, 2, 0).
    #[test]
    pub fn by_hand() {
        let (y, mut dy) = (Tensor::from([[2.0, 1.5, -1.0]]), Tensor::default());
        let e = MultiMargin::new().gradient(&y, &[0], &mut dy).unwrap();
        let third = 1.0 / 3.0;
        assert_eq!((e, dy.data()), (0.5 * third, &[-third, third, 0.0][..]));
        let loss = MultiMargin::new().p(2).weights([6.0, 1.0, 1.0]);
        let e = loss.gradient(&y, &[0], &mut dy).unwrap();
        assert_eq!((e, dy.data()), (0.5, &[-2.0, 2.0, 0.0][..]));
        assert_eq!(loss.value(&y, &[0]).unwrap().data(), [0.5]);
    }

    #[test]
    fn far_scores_and_wrong_settings() {
        let y = Tensor::from([[1e30f32, -1e30, 0.0], [f32::NEG_INFINITY, 1.0, 1e4]]);
        let each = MultiMargin::new().reduction(Reduction::None).value(&y, &[0, 2]).unwrap();
        assert_eq!(each.data(), [0.0, 0.0]);
        for p in [0, 3, -1] {
            assert!(MultiMargin::<f32>::new().p(p).check().is_err());
        }
        assert!(MultiMargin::<f32>::new().margin(f64::INFINITY).check().is_err());
        assert!(MultiMargin::<f32>::new().weights([f32::INFINITY]).check().is_err());
    }
}
