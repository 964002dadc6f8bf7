//! Binary cross-entropy fused with its sigmoid.
//!
//! ```text
//! e = −w (p t ln σ(y) + (1 − t) ln(1 − σ(y)))
//!   =  w (p t s(−y) + (1 − t) s(y)),      s(y) = ln(1 + eʸ)
//! ∂e/∂y = w ((1 − t) σ(y) − p t σ(−y))
//! ∂e/∂t = w (p s(−y) − s(y))
//! ```
//!
//! with a weight w and a weight p of the positive class. Derivation: docs/losses/bce_with_logits.md.

use crate::elementwise::{
    check_dloss, finite_weights, reduced, reduction, share, share_of_one, times, trailing, values,
};
use chainrule_core::{
    Args, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target, Tensor, Value,
};
use chainrule_tensor::compiled;

/// Binary cross-entropy of logits: any number of independent yes-or-no questions.
///
/// # Shapes
/// Prediction and target (probabilities, usually 0 or 1) have one shape; a weight has that shape or its trailing axes.
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::BceWithLogits;
/// let loss = BceWithLogits::new().value(&Tensor::from([0.0f32]), &Tensor::from([1.0]))?;
/// assert!((loss.data()[0] - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BceWithLogits<T = f32> {
    weight: Option<Tensor<T>>,
    pos_weight: Option<Tensor<T>>,
    reduction: Reduction,
}

impl<T: Scalar> BceWithLogits<T> {
    /// The mean over all elements, without weights.
    pub fn new() -> Self {
        Self { weight: None, pos_weight: None, reduction: Reduction::Mean }
    }

    /// A weight w for each element, or for each position along the trailing axes.
    #[must_use]
    pub fn weight(mut self, weight: Tensor<T>) -> Self {
        self.weight = Some(weight);
        self
    }

    /// A weight p of the positive class for each position along the trailing axes.
    #[must_use]
    pub fn pos_weight(mut self, weight: Tensor<T>) -> Self {
        self.pos_weight = Some(weight);
        self
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for BceWithLogits<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// One element: logit, target, weight, weight of the positive class.
#[derive(Clone, Copy)]
struct Element<T> {
    y: T,
    t: T,
    w: T,
    p: T,
}

impl<T: Scalar> Element<T> {
    /// s(−y) and s(y): max(±y, 0) + ln(1 + e^−|y|)
    fn s(self) -> [T; 2] {
        let both = self.y.abs().v_exp_neg::<false>().v_ln_1p::<false>();
        if self.y < T::ZERO { [both - self.y, both] } else { [both, both + self.y] }
    }

    fn e(self) -> T {
        let [negative, positive] = self.s();
        self.w * (times(self.p * self.t, negative) + times(T::ONE - self.t, positive))
    }

    fn dy(self) -> T {
        let [negative, positive] = [-self.y, self.y].map(|y| y.v_sigmoid::<false>());
        self.w * ((T::ONE - self.t) * positive - self.p * self.t * negative)
    }

    fn dt(self) -> T {
        let [negative, positive] = self.s();
        self.w * (self.p * negative - positive)
    }
}

compiled! {
    /// Σ e, and e of each element where there is room, if they are wanted, or else 0; ∂e/∂y and g ∂e/∂t of each element, where requested.
    fn pass[T](
        of: &BceWithLogits<T>,
        y: &Tensor<T>,
        t: &Tensor<T>,
        g: &dyn Fn(usize) -> T,
        wanted: bool,
        outputs: [Option<&mut [T]>; 3],
    ) -> f64 {
        let ([mut e, mut dy, mut dt], mut sum) = (outputs, 0.0);
        let at = |w: &Option<Tensor<T>>, i: usize| w.as_ref().map_or(T::ONE, |w| w.data()[i % w.len()]);
        for (i, (&y, &t)) in y.data().iter().zip(t.data()).enumerate() {
            let v = Element { y, t, w: at(&of.weight, i), p: at(&of.pos_weight, i) };
            if wanted {
                let loss = v.e();
                sum += loss.to_f64();
                if let Some(e) = &mut e {
                    e[i] = loss;
                }
            }
            if let Some(dy) = &mut dy {
                dy[i] = g(i) * v.dy();
            }
            if let Some(dt) = &mut dt {
                dt[i] = g(i) * v.dt();
            }
        }
        sum
    }
}

impl<T: Scalar> Loss for BceWithLogits<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        for (name, weight) in [("weight", &self.weight), ("pos_weight", &self.pos_weight)] {
            finite_weights("BceWithLogits", name, weight.iter().flat_map(Tensor::data))?;
        }
        Ok(())
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }

    fn output_shape(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        self.check()?;
        values("BceWithLogits", y, target)?;
        for (name, weight) in [("weight", &self.weight), ("pos_weight", &self.pos_weight)] {
            if let Some(weight) = weight {
                trailing("BceWithLogits", name, weight, y)?;
            }
        }
        reduced(self.reduction, y)
    }

    fn forward(&self, y: &Tensor<T>, target: Target<'_, T>, loss: &mut Tensor<T>) -> Result<()> {
        let out = loss.reset(self.output_shape(y.shape(), target)?);
        let t = target.values()?;
        if self.reduction == Reduction::None {
            pass(self, y, t, &|_| T::ONE, true, [Some(out), None, None]);
        } else {
            let sum = pass(self, y, t, &|_| T::ONE, true, [None, None, None]);
            out[0] = T::from_f64(sum * share(self.reduction, y.len()));
        }
        Ok(())
    }

    fn backward(
        &self,
        y: &Tensor<T>,
        target: Target<'_, T>,
        dloss: &Tensor<T>,
        dy: Option<&mut Tensor<T>>,
        dt: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        check_dloss(dloss, self.output_shape(y.shape(), target)?)?;
        let share = T::from_f64(share(self.reduction, y.len()));
        let g = |i: usize| dloss.data()[if self.reduction == Reduction::None { i } else { 0 }] * share;
        let [dy, dt] = [dy, dt].map(|d| d.map(|d| d.reset(*y.shape())));
        pass(self, y, target.values()?, &g, false, [None, dy, dt]);
        Ok(())
    }

    fn value_and_gradient(&self, y: &Tensor<T>, target: Target<'_, T>, dy: &mut Tensor<T>) -> Result<T> {
        let share = share_of_one(self.reduction, y.len())?;
        self.output_shape(y.shape(), target)?;
        let (dy, g) = (dy.reset(*y.shape()), T::from_f64(share));
        Ok(T::from_f64(pass(self, y, target.values()?, &|_| g, true, [None, Some(dy), None]) * share))
    }

    fn spec(&self) -> Spec {
        let weight = |weight: &Option<Tensor<T>>| weight.as_ref().map_or(Value::None, Value::from);
        Spec::new("BceWithLogits")
            .with("weight", weight(&self.weight))
            .with("reduction", self.reduction)
            .with("pos_weight", weight(&self.pos_weight))
    }
}

impl<T: Scalar> FromSpec<T> for BceWithLogits<T> {
    const FACTS: Facts = Facts::new("BceWithLogits")
        .family("loss")
        .formula("−w (p t ln σ(y) + (1 − t) ln(1 − σ(y)))")
        .page("losses/bce_with_logits.md")
        .torch("BCEWithLogitsLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self {
            weight: args.optional("weight")?,
            pos_weight: args.optional("pos_weight")?,
            reduction: reduction(args)?,
        })
    }

    fn examples() -> Vec<Example> {
        let plain = || BceWithLogits::<f64>::new();
        let weighted = plain().weight(Tensor::from([[0.5, 2.0]])).pos_weight(Tensor::from([2.0, 0.25]));
        vec![
            Example::new(plain().reduction(Reduction::Sum).spec(), [[5]]),
            Example::new(weighted.spec(), [[3, 2]]),
            Example::bench(plain().spec(), [[4096, 10]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elementwise::tests::compare;
    use chainrule_gradcheck::loss_laws;

    /// Positive values as a tensor of the last `axes` axes of a shape.
    fn last_axes<T: Scalar>(shape: &[usize], axes: usize, scale: f64) -> Tensor<T> {
        let shape = Shape::new(&shape[shape.len() - axes.min(shape.len())..]).unwrap();
        Tensor::from_fn(shape, |i| T::from_f64(scale * (1 + i % 5) as f64))
    }

    loss_laws! {
        obeys_the_laws(
            shape in collection::vec(1..5usize, 0..4), weight in option::of(0..4usize),
            positive in option::of(0..4usize),
        ) {
            loss: |reduction| {
                let mut loss = BceWithLogits::<T>::new().reduction(reduction);
                if let Some(axes) = weight {
                    loss = loss.weight(last_axes(&shape, axes, 0.25));
                }
                if let Some(axes) = positive {
                    loss = loss.pos_weight(last_axes(&shape, axes, 0.5));
                }
                loss
            },
            prediction: shape.clone(),
            target: TargetKind::Probabilities,
        }
    }

    /// At y = 0: σ = ½, s = ln 2. t = 1: e = ln 2, ∂y = 0 − ½, ∂t = −y = 0.
    /// At y = ln 3: σ(−y) = ¼, s = ln 4/3. t = 0: e = ln 3 + ln 4/3 = ln 4, ∂y = 1 − ¼ = ¾, ∂t = −ln 3.
    /// Means: (ln 2 + ln 4)/2 = 1.5 ln 2, and halves of the slopes.
    #[test]
    pub fn by_hand() {
        let (l2, l3) = (2f64.ln(), 3f64.ln());
        let want = [[-0.25, 0.375], [0.0, -0.5 * l3]];
        compare(&BceWithLogits::new(), [[0.0, l3], [1.0, 0.0]], 1.5 * l2, want);
    }

    /// w = 3 and p = 2 at y = 0, t = 1: l = 2, e = 3·2 ln 2, ∂y = 3 (0 − 2·½) = −3, ∂t = 3 ln 2.
    #[test]
    fn weights_by_hand() {
        let loss = BceWithLogits::new().weight(Tensor::from([3.0])).pos_weight(Tensor::from([2.0]));
        compare(&loss, [[0.0], [1.0]], 6.0 * 2f64.ln(), [[-3.0], [3.0 * 2f64.ln()]]);
        let y = Tensor::<f64>::zeros([2, 3]);
        assert!(loss.value(&y, &y).is_ok());
        assert!(BceWithLogits::new().pos_weight(Tensor::zeros([2])).value(&y, &y).is_err());
    }

    /// At ±∞ the right answer costs nothing and the wrong one everything; at y = −20, t = 0: e ≈ ∂e/∂y ≈ e⁻²⁰ = 2.06e-9.
    #[test]
    fn certain_answers_have_their_limits() {
        let inf = f32::INFINITY;
        let (y, t) = (Tensor::from([inf, -inf, inf, -20.0]), Tensor::from([1.0, 0.0, 0.0, 0.0]));
        let mut dy = Tensor::default();
        let each = BceWithLogits::new().reduction(Reduction::None).value(&y, &t).unwrap();
        assert_eq!(each.data()[..3], [0.0, 0.0, inf]);
        BceWithLogits::new().reduction(Reduction::Sum).gradient(&y, &t, &mut dy).unwrap();
        assert_eq!(dy.data()[..3], [0.0, 0.0, 1.0]);
        for v in [each.data()[3], dy.data()[3]] {
            assert!((v - (-20f32).exp()).abs() < 1e-14, "{v}");
        }
    }

    #[test]
    fn far_logits_stay_finite() {
        let (y, t) = (Tensor::from([-1e4f32, 1e4]), Tensor::from([1.0, 0.0]));
        assert_eq!(BceWithLogits::new().value(&y, &t).unwrap().data(), [1e4]);
    }
}
