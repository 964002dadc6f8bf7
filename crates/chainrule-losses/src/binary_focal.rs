//! Binary cross-entropy in which what is classified well weighs little (Lin and others, 2017), fused with its sigmoid.
//!
//! ```text
//! p = σ(y)    s(y) = ln(1 + eʸ)    so that 1 − p = e^−s(y),  p = e^−s(−y)
//! e = α t (1 − p)ᵞ s(−y) + (1 − α) (1 − t) pᵞ s(y)
//! ∂e/∂y = −α t (1 − p)ᵞ (γ p s(−y) + 1 − p) + (1 − α) (1 − t) pᵞ (γ (1 − p) s(y) + p)
//! ∂e/∂t = α (1 − p)ᵞ s(−y) − (1 − α) pᵞ s(y)
//! ```
//!
//! reduced by mean, sum or not at all. Derivation: docs/losses/binary_focal.md.

use crate::elementwise::{
    Element, Elementwise, examples, forward_to_elementwise, not_negative, reduction, softplus, times,
};
use chainrule_core::{
    Args, Error, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor,
};
use std::marker::PhantomData;

/// −α t (1 − p)ᵞ ln p − (1 − α) (1 − t) pᵞ ln(1 − p) of logits, p = σ(y).
///
/// # Shapes
/// Prediction and target (probabilities, usually 0 or 1) have one shape; the loss has none (mean, sum) or that shape (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::BinaryFocal;
/// let loss = BinaryFocal::new().value(&Tensor::from([0.0f32]), &Tensor::from([1.0]))?;
/// assert!((loss.data()[0] - 0.25 * 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BinaryFocal<T = f32> {
    gamma: f64,
    alpha: Option<f64>,
    reduction: Reduction,
    scalar: PhantomData<T>,
}

impl<T: Scalar> BinaryFocal<T> {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self { gamma: 2.0, alpha: None, reduction: Reduction::Mean, scalar: PhantomData }
    }

    /// How fast the weight falls with the probability of the right answer: γ from 0; 2 by default. With 0 the loss is binary
    /// cross-entropy.
    #[must_use]
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.gamma = gamma;
        self
    }

    /// The weight α of the positive class, in [0, 1], with 1 − α for the negative one; both are 1 unless it is given.
    #[must_use]
    pub fn alpha(mut self, alpha: impl Into<Option<f64>>) -> Self {
        self.alpha = alpha.into();
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    fn elementwise(&self) -> Result<Elementwise<Focused<T>>> {
        self.check()?;
        Ok(Elementwise::new(
            "BinaryFocal",
            Focused {
                weights: self.alpha.map_or([1.0, 1.0], |a| [a, 1.0 - a]).map(T::from_f64),
                gamma: T::from_f64(self.gamma),
            },
            self.reduction,
        ))
    }
}

impl<T: Scalar> Default for BinaryFocal<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Weights of the positive and of the negative class, and γ.
#[derive(Clone, Copy)]
struct Focused<T> {
    weights: [T; 2],
    gamma: T,
}

impl<T: Scalar> Focused<T> {
    /// (1 − p)ᵞ s(−y) and pᵞ s(y)
    #[inline(always)]
    fn terms(self, y: T) -> [T; 2] {
        let [negative, positive] = [softplus(-y), softplus(y)];
        let focus = |s: T| times(self.gamma, s).v_exp_neg::<false>();
        [times(focus(positive), negative), times(focus(negative), positive)]
    }

    /// Their slopes: −(1 − p)ᵞ (γ p s(−y) + 1 − p) and pᵞ (γ (1 − p) s(y) + p)
    #[inline(always)]
    fn slopes(self, y: T) -> [T; 2] {
        let [negative, positive] = [softplus(-y), softplus(y)];
        let focus = |s: T| times(self.gamma, s).v_exp_neg::<false>();
        let [other, p] = [-y, y].map(|y| y.v_sigmoid::<false>());
        [
            -(focus(positive) * (self.gamma * times(p, negative) + other)),
            focus(negative) * (self.gamma * times(other, positive) + p),
        ]
    }
}

impl<T: Scalar> Element<T> for Focused<T> {
    #[inline(always)]
    fn e(self, y: T, t: T) -> T {
        let ([a, b], [one, zero]) = (self.weights, self.terms(y));
        times(a * t, one) + times(b * (T::ONE - t), zero)
    }

    #[inline(always)]
    fn dy(self, y: T, t: T) -> T {
        let ([a, b], [one, zero]) = (self.weights, self.slopes(y));
        a * t * one + b * (T::ONE - t) * zero
    }

    #[inline(always)]
    fn dt(self, y: T, t: T) -> T {
        let ([a, b], [one, zero]) = (self.weights, self.terms(y));
        let _ = t;
        times(a, one) - times(b, zero)
    }
}

impl<T: Scalar> Loss for BinaryFocal<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        not_negative::<T>("BinaryFocal", "gamma", self.gamma)?;
        match self.alpha {
            Some(alpha) if !(0.0..=1.0).contains(&alpha) => {
                Err(Error::value(format!("BinaryFocal: expected alpha in [0, 1], got {alpha}")))
            }
            _ => Ok(()),
        }
    }

    forward_to_elementwise!(Focused<T>);

    fn spec(&self) -> Spec {
        Spec::new("BinaryFocal")
            .with("gamma", self.gamma)
            .with("alpha", self.alpha)
            .with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for BinaryFocal<T> {
    const FACTS: Facts = Facts::new("BinaryFocal")
        .family("loss")
        .formula("−α t (1 − p)ᵞ ln p − (1 − α) (1 − t) pᵞ ln(1 − p)")
        .page("losses/binary_focal.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new()
            .gamma(args.or("gamma", 2.0)?)
            .alpha(args.optional::<f64>("alpha")?)
            .reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        examples(|reduction| Self::new().gamma(1.5).alpha(0.25).reduction(reduction).spec())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(
            shape in collection::vec(1..5usize, 0..4), gamma in prop_oneof![Just(0.0), Just(2.0), 0.2..4.0],
            alpha in option::of(0.0..1.0f64),
        ) {
            loss: |reduction| BinaryFocal::<T>::new().gamma(gamma).alpha(alpha).reduction(reduction),
            prediction: shape,
            target: TargetKind::Probabilities,
        }
    }

    /// γ = 2, y = (0, ln 3), t = (1, 0): p = (½, ¾), e = ¼ ln 2 and 9/16 ln 4 = 9/8 ln 2.
    /// ∂y = −¼ (2·½ ln 2 + ½) and 9/16 (2·¼ ln 4 + ¾); ∂t = ¼ ln 2 − ¼ ln 2 and 1/16 ln 4/3 − 9/16 ln 4. Halves of them.
    #[test]
    pub fn by_hand() {
        let (l2, l3) = (2f64.ln(), 3f64.ln());
        let dy = [-0.125 * (l2 + 0.5), 9.0 / 32.0 * (l2 + 0.75)];
        let dt = [0.0, ((4.0f64 / 3.0).ln() - 9.0 * 4f64.ln()) / 32.0];
        compare(&BinaryFocal::new(), [[0.0, l3], [1.0, 0.0]], 11.0 / 16.0 * l2, [dy, dt]);
    }

    #[test]
    fn without_focus_it_is_binary_cross_entropy() {
        let (y, t) = (Tensor::from([0.3, -2.0, 5.0]), Tensor::from([1.0, 0.25, 0.0]));
        let want = crate::BceWithLogits::new().value(&y, &t).unwrap().data()[0];
        let got: f64 = BinaryFocal::new().gamma(0.0).value(&y, &t).unwrap().data()[0];
        assert!((got - want).abs() < 1e-14);
    }

    #[test]
    fn far_logits_and_wrong_settings() {
        let inf = f32::INFINITY;
        let (y, t) = (Tensor::from([inf, -inf, 1e4, -1e30, inf]), Tensor::from([1.0, 0.0, 0.0, 1.0, 0.0]));
        for gamma in [0.0, 0.5, 2.0] {
            let loss = BinaryFocal::new().gamma(gamma);
            let each = loss.reduction(Reduction::None).value(&y, &t).unwrap();
            assert_eq!(each.data(), [0.0, 0.0, 1e4, 1e30, inf]);
            let mut dy = Tensor::default();
            loss.reduction(Reduction::Sum).gradient(&y, &t, &mut dy).unwrap();
            assert_eq!(dy.data(), [0.0, 0.0, 1.0, -1.0, 1.0]);
        }
        for gamma in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(BinaryFocal::<f32>::new().gamma(gamma).check().is_err());
        }
        assert!(BinaryFocal::<f32>::new().alpha(1.5).check().is_err());
        assert!(BinaryFocal::<f32>::new().alpha(f64::NAN).check().is_err());
    }
}
