//! Cross-entropy fused with its softmax.
//!
//! ```text
//! p = softmax(y) along the axis of classes        qᶜ = weight of class c in the target of a row
//! e = −Σᶜ qᶜ ln pᶜ        ∂e/∂yᶜ = pᶜ Σₖ qₖ − qᶜ
//!
//! a class t, smoothed by ε:        qᶜ = wᶜ ((1 − ε) [c = t] + ε/C)
//! probabilities t, smoothed by ε:  qᶜ = wᶜ ((1 − ε) tᶜ + ε/C)        ∂e/∂tᶜ = −(1 − ε) wᶜ ln pᶜ
//! ```
//!
//! The mean divides by Σ w_t over the rows for classes, and by the number of rows for probabilities.
//! Derivation: docs/losses/cross_entropy.md.

use crate::{
    elementwise::{check_dloss, not_reduced, reduction},
    rows::{Labels, Row, Rows, class_weights, weights_as_attribute},
};
use chainrule_core::{
    Args, Classes, Error, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target,
    Tensor,
};
use chainrule_tensor::{compiled, kernels::layers::loss::softmax_cross_entropy};

/// Cross-entropy of logits against classes or probabilities.
///
/// # Shapes
/// y (N, C) or (N, C, d₁, …), or (C) for a single sample. Classes (N) or (N, d₁, …), one for a single sample.
/// Probabilities: y's shape. The loss has no axes, or the shape of the classes (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::CrossEntropy;
/// let loss = CrossEntropy::new().value(&Tensor::from([[0.0f32, 0.0]]), &[1])?;
/// assert!((loss.data()[0] - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropy<T = f32> {
    weights: Option<Vec<T>>,
    label_smoothing: f64,
    ignore_index: Option<usize>,
    reduction: Reduction,
}

impl<T: Scalar> CrossEntropy<T> {
    /// The mean over all rows, without weights or smoothing.
    pub fn new() -> Self {
        Self { weights: None, label_smoothing: 0.0, ignore_index: None, reduction: Reduction::Mean }
    }

    /// A weight for each class.
    #[must_use]
    pub fn weights(mut self, weights: impl Into<Vec<T>>) -> Self {
        self.weights = Some(weights.into());
        self
    }

    /// Mixes the target with ε of the uniform distribution, ε in [0, 1].
    #[must_use]
    pub fn label_smoothing(mut self, epsilon: f64) -> Self {
        self.label_smoothing = epsilon;
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

    fn labels(&self) -> Labels<'_, T> {
        Labels { kind: "CrossEntropy", weights: self.weights.as_deref(), ignored: self.ignore_index }
    }

    /// What the mean divides by: the weights of the rows that are not ignored, or the number of rows.
    fn divisor(&self, rows: Rows, target: Kind<'_, T>) -> f64 {
        match (self.reduction, target) {
            (Reduction::Mean, Kind::Classes(classes)) => self.labels().sum(classes),
            (Reduction::Mean, _) => rows.count() as f64,
            _ => 1.0,
        }
    }

    /// Whether there are neither weights nor smoothing nor ignored classes.
    fn is_plain(&self) -> bool {
        self.weights.is_none() && self.label_smoothing == 0.0 && self.ignore_index.is_none()
    }

    /// The rows of a prediction and its target, which are checked against each other.
    fn rows<'t>(&self, y: &[usize], target: Target<'t, T>) -> Result<(Rows, Kind<'t, T>)> {
        self.check()?;
        let (rows, labels) = self.labels().rows(y)?;
        if let Target::Values(t) = target {
            if t.shape()[..] != *y {
                return Err(Error::shape(format!(
                    "CrossEntropy: expected probabilities of the prediction's shape {y:?}, got {}",
                    t.shape()
                )));
            }
            return Ok((rows, Kind::Probabilities(t.data())));
        }
        let classes = target.classes()?;
        self.labels().fit(y, (rows, labels), classes)?;
        Ok((rows, Kind::Classes(classes)))
    }
}

compiled! {
    /// The loop of all passes: each row's e is handed to `loss`, and its slopes, times `g` of the row, overwrite `dy`
    /// and `dt` where requested.
    fn each_row[T](
        of: &CrossEntropy<T>,
        rows: Rows,
        y: &[T],
        target: Kind<'_, T>,
        loss: Option<&mut dyn FnMut(usize, f64)>,
        slopes: [Option<&mut [T]>; 2],
        g: &dyn Fn(usize) -> T,
    ) {
        let (mut loss, [mut dy, mut dt]) = (loss, slopes);
        let epsilon = T::from_f64(of.label_smoothing);
        let (keep, uniform) = (T::ONE - epsilon, epsilon / T::from_usize(rows.classes));
        // qᶜ of a row
        let q = |row: Row, c: usize| {
            let t = match target {
                Kind::Classes(classes) if classes[row.index] == c => T::ONE,
                Kind::Classes(_) => T::ZERO,
                Kind::Probabilities(t) => t[row.at(c)],
            };
            of.labels().weight(c) * (keep * t + uniform)
        };
        for row in rows.each() {
            if matches!(target, Kind::Classes(classes) if Some(classes[row.index]) == of.ignore_index) {
                if let Some(dy) = &mut dy {
                    (0..rows.classes).for_each(|c| dy[row.at(c)] = T::ZERO);
                }
                if let Some(loss) = &mut loss {
                    loss(row.index, 0.0);
                }
                continue;
            }
            let (max, log_sum) = row.log_sum_exp(y);
            let minus_log_p = |c: usize| (max - y[row.at(c)]) + log_sum;
            if let Some(loss) = &mut loss {
                let mut e = 0.0;
                for c in 0..rows.classes {
                    let q = q(row, c);
                    if q != T::ZERO {
                        e += (q * minus_log_p(c)).to_f64(); // e −= q ln p
                    }
                }
                loss(row.index, e);
            }
            if let Some(dy) = &mut dy {
                let total = T::from_f64((0..rows.classes).map(|c| q(row, c).to_f64()).sum());
                let g = g(row.index);
                for c in 0..rows.classes {
                    dy[row.at(c)] = g * (minus_log_p(c).v_exp_neg::<false>() * total - q(row, c)); // dy = p Σ q − q
                }
            }
            if let Some(dt) = &mut dt {
                let g = g(row.index) * keep;
                for c in 0..rows.classes {
                    dt[row.at(c)] = g * of.labels().weight(c) * minus_log_p(c); // dt = −(1 − ε) w ln p
                }
            }
        }
    }
}

/// The target of a cross-entropy.
#[derive(Clone, Copy)]
enum Kind<'t, T> {
    Classes(Classes<'t>),
    Probabilities(&'t [T]),
}

/// (N, d₁, …) of (N, C, d₁, …): the shape of the classes, and of the losses of single rows.
fn without_classes(y: &[usize]) -> Result<Shape> {
    y[2..].iter().try_fold(Shape::from([y[0]]), |shape, &n| shape.push(n))
}

impl<T: Scalar> Default for CrossEntropy<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Loss for CrossEntropy<T> {
    type T = T;

    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            return Err(Error::value(format!(
                "CrossEntropy: expected label smoothing in [0, 1], got {}",
                self.label_smoothing
            )));
        }
        self.labels().check()
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }

    fn weight_of(&self, target: Target<'_, T>) -> f64 {
        let Target::Classes(classes) = target else { return target.samples() as f64 };
        self.labels().sum(classes)
    }

    fn ignored_class(&self) -> Option<usize> {
        self.ignore_index
    }

    fn output_shape(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        self.rows(y, target)?;
        self.reduced(y)
    }

    fn forward(&self, y: &Tensor<T>, target: Target<'_, T>, loss: &mut Tensor<T>) -> Result<()> {
        let (rows, target) = self.rows(y.shape(), target)?;
        let out = loss.reset(self.reduced(y.shape())?);
        if self.reduction == Reduction::None {
            let mut each = |row: usize, e| out[row] = T::from_f64(e);
            each_row(self, rows, y.data(), target, Some(&mut each), [None, None], &|_| T::ONE);
            return Ok(());
        }
        let mut sum = 0.0;
        each_row(self, rows, y.data(), target, Some(&mut |_, e| sum += e), [None, None], &|_| T::ONE);
        out[0] = T::from_f64(sum / self.divisor(rows, target));
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
        let (rows, kind) = self.rows(y.shape(), target)?;
        check_dloss(dloss, self.reduced(y.shape())?)?;
        if dt.is_some() {
            target.values()?; // a class has no gradient
        }
        let (divisor, each) = (self.divisor(rows, kind), self.reduction == Reduction::None);
        let g = |row: usize| T::from_f64(dloss.data()[if each { row } else { 0 }].to_f64() / divisor);
        let [dy, dt] = [dy, dt].map(|d| d.map(|d| d.reset(*y.shape())));
        each_row(self, rows, y.data(), kind, None, [dy, dt], &g);
        Ok(())
    }

    fn value_and_gradient(&self, y: &Tensor<T>, target: Target<'_, T>, dy: &mut Tensor<T>) -> Result<T> {
        let (rows, target) = self.rows(y.shape(), target)?;
        if self.reduction == Reduction::None {
            return Err(not_reduced());
        }
        let divisor = self.divisor(rows, target);
        let dy = dy.reset(*y.shape());
        if let (Kind::Classes(classes), true, 1) = (target, self.is_plain(), rows.inner) {
            let share = T::from_f64(1.0 / divisor);
            return Ok(T::from_f64(softmax_cross_entropy(y.data(), &classes, dy, share) / divisor));
        }
        let (mut sum, share) = (0.0, T::from_f64(1.0 / divisor));
        each_row(self, rows, y.data(), target, Some(&mut |_, e| sum += e), [Some(dy), None], &|_| share);
        Ok(T::from_f64(sum / divisor))
    }

    fn spec(&self) -> Spec {
        Spec::new("CrossEntropy")
            .with("weight", weights_as_attribute(&self.weights))
            .with("ignore_index", self.ignore_index.map(|class| class as i64))
            .with("reduction", self.reduction)
            .with("label_smoothing", self.label_smoothing)
    }
}

impl<T: Scalar> CrossEntropy<T> {
    /// The shape of the loss of a prediction that was checked.
    fn reduced(&self, y: &[usize]) -> Result<Shape> {
        match (self.reduction, y) {
            (Reduction::None, [_, _, ..]) => without_classes(y),
            _ => Ok(Shape::default()),
        }
    }
}

impl<T: Scalar> FromSpec<T> for CrossEntropy<T> {
    const FACTS: Facts = Facts::new("CrossEntropy")
        .family("loss")
        .formula("−Σ q ln softmax(y)")
        .page("losses/cross_entropy.md")
        .torch("CrossEntropyLoss");

    /// A negative class, such as PyTorch's −100, is ignored as the unsigned value of the same bits.
    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self {
            weights: class_weights(args)?,
            label_smoothing: args.or("label_smoothing", 0.0)?,
            ignore_index: args.optional::<i64>("ignore_index")?.map(|class| class as usize),
            reduction: reduction(args)?,
        })
    }

    fn examples() -> Vec<Example> {
        let plain = || CrossEntropy::<f64>::new();
        vec![
            Example::new(plain().spec(), [[4, 3]]).ids(3),
            Example::new(plain().weights([0.5, 2.0]).label_smoothing(0.25).spec(), [[2, 2, 3, 2]]).ids(2),
            Example::new(plain().ignore_index(1).reduction(Reduction::Sum).spec(), [[4, 3]]).ids(3),
            Example::bench(plain().spec(), [[4096, 10]]).ids(10),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::loss_laws;

    /// Every option that makes sense with every target.
    fn options<T: Scalar>(
        weights: &Option<Vec<f32>>,
        smoothing: f64,
        ignored: Option<usize>,
    ) -> CrossEntropy<T> {
        let mut loss = CrossEntropy::new().label_smoothing(smoothing);
        if let Some(weights) = weights {
            loss = loss.weights(weights.iter().map(|&w| T::from_f64(f64::from(w))).collect::<Vec<T>>());
        }
        match ignored {
            Some(class) => loss.ignore_index(class),
            None => loss,
        }
    }

    loss_laws! {
        obeys_the_laws(
            samples in 1..5usize, rest in collection::vec(1..4usize, 0..3),
            (classes, weights) in (2..6usize).prop_flat_map(|c| (Just(c), option::of(collection::vec(0.1..3.0f32, c)))),
            smoothing in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0], ignored in option::of(prop_oneof![0..2usize, Just(99)]),
        ) {
            loss: |reduction| options::<T>(&weights, smoothing, ignored).reduction(reduction),
            prediction: [&[samples, classes], &rest[..]].concat(),
            target: TargetKind::Classes { shape: [&[samples], &rest[..]].concat(), below: classes, ignored },
            wrong: [&[samples + 1, classes], &rest[..]].concat(),
            wrong: [],
        }
        obeys_the_laws_with_probabilities(
            samples in 1..5usize, rest in collection::vec(1..4usize, 0..3),
            (classes, weights) in (1..6usize).prop_flat_map(|c| (Just(c), option::of(collection::vec(0.1..3.0f32, c)))),
            smoothing in prop_oneof![Just(0.0), 0.0..1.0],
        ) {
            loss: |reduction| options::<T>(&weights, smoothing, None).reduction(reduction),
            prediction: [&[samples, classes], &rest[..]].concat(),
            target: TargetKind::Probabilities,
            wrong: [&[samples + 1, classes], &rest[..]].concat(),
        }
        obeys_the_laws_with_a_single_sample(classes in 2..6usize, smoothing in 0.0..1.0) {
            loss: |reduction| CrossEntropy::<T>::new().label_smoothing(smoothing).reduction(reduction),
            prediction: [classes],
            target: TargetKind::Classes { shape: vec![1], below: classes, ignored: None },
        }
    }

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-14), "{got:?} for {want:?}");
    }

    /// y = (0, ln 3): p = (¼, ¾). Class 0: e = ln 4, ∂y = (¼ − 1, ¾). Class 1: e = ln 4/3, ∂y = (¼, −¼).
    /// The mean over both rows is (ln 4 + ln 4/3)/2, with half of each slope.
    #[test]
    pub fn by_hand() {
        let l3 = 3f64.ln();
        let y = Tensor::from([[0.0, l3], [0.0, l3]]);
        let (loss, mut dy, mut again) = (CrossEntropy::new(), Tensor::default(), Tensor::default());
        let e = loss.gradient(&y, &[0, 1], &mut dy).unwrap();
        close(
            &[e, loss.value(&y, &[0, 1]).unwrap().data()[0]],
            &[(4f64.ln() + (4.0f64 / 3.0).ln()) / 2.0; 2],
        );
        close(dy.data(), &[-0.375, 0.375, 0.125, -0.125]);
        let one = Tensor::from(1.0);
        loss.backward(&y, (&[0, 1]).into(), &one, Some(&mut again), None).unwrap();
        close(again.data(), dy.data());
    }

    /// Weights (2, 6), classes 0 and 1 of the rows above: (2 ln 4 + 6 ln 4/3)/8; likewise with −6. Smoothing ½ of class 0: q = (¾, ¼),
    /// e = ¾ ln 4 + ¼ ln 4/3. Probabilities (½, ½): e = ½ ln 4 + ½ ln 4/3.
    #[test]
    fn weights_smoothing_and_probabilities_by_hand() {
        let (l4, l43) = (4f64.ln(), (4.0f64 / 3.0).ln());
        let row = [0.0, 3f64.ln()];
        let value = |loss: CrossEntropy<f64>, classes: &[usize]| {
            let y = Tensor::from([row, row]).rows(0, classes.len());
            let mut dy = Tensor::default();
            let fused = loss.gradient(&y, classes, &mut dy).unwrap();
            close(&[fused], loss.value(&y, classes).unwrap().data());
            fused
        };
        close(&[value(CrossEntropy::new().weights([2.0, 6.0]), &[0, 1])], &[(2.0 * l4 + 6.0 * l43) / 8.0]);
        close(&[value(CrossEntropy::new().weights([2.0, -6.0]), &[0, 1])], &[(2.0 * l4 - 6.0 * l43) / -4.0]);
        close(&[value(CrossEntropy::new().label_smoothing(0.5), &[0])], &[0.75 * l4 + 0.25 * l43]);
        close(&[value(CrossEntropy::new().ignore_index(7), &[7, 1])], &[l43]);
        let t = Tensor::from([[0.5, 0.5]]);
        let e = CrossEntropy::new().value(&Tensor::from([row]), &t).unwrap();
        close(e.data(), &[0.5 * l4 + 0.5 * l43]);
    }

    #[test]
    fn a_class_out_of_range_names_its_position() {
        let y = Tensor::<f32>::zeros([3, 10]);
        let text = CrossEntropy::new().value(&y, &[1, 10, 2]).unwrap_err().to_string();
        assert_eq!(text, "CrossEntropy: expected classes below 10, got 10 at position 1");
        assert!(CrossEntropy::new().value(&y, &[1, 2]).is_err());
        assert!(CrossEntropy::new().weights([1.0]).value(&y, &[1, 2, 3]).is_err());
        assert!(CrossEntropy::new().weights([f32::NAN; 10]).value(&y, &[1, 2, 3]).is_err());
        assert!(CrossEntropy::new().label_smoothing(1.5).value(&y, &[1, 2, 3]).is_err());
    }

    /// Two pixels of two classes, y (1, 2, 1, 2): the rows of `by_hand` lie across the axis of classes.
    #[test]
    fn dense_classes_have_the_shape_of_the_prediction_without_its_classes() {
        let l3 = 3f64.ln();
        let y = Tensor::from_vec([1, 2, 1, 2], vec![0.0, 0.0, l3, l3]).unwrap();
        let mut dy = Tensor::default();
        let classes = Classes::new(&[0, 1], [1, 1, 2]).unwrap();
        let e = CrossEntropy::new().gradient(&y, classes, &mut dy).unwrap();
        close(&[e], &[(4f64.ln() + (4.0f64 / 3.0).ln()) / 2.0]);
        close(dy.data(), &[-0.375, 0.125, 0.375, -0.125]);
        let text = CrossEntropy::new().value(&y, &[0, 1]).unwrap_err().to_string();
        assert_eq!(
            text,
            "CrossEntropy: expected classes of shape [1, 1, 2] for a prediction [1, 2, 1, 2], got [2]"
        );
    }

    #[test]
    fn pytorchs_ignored_class_is_built_as_it_is_read() {
        let spec = CrossEntropy::<f32>::new().spec();
        assert_eq!(spec.get("ignore_index"), Some(&chainrule_core::Value::None));
        let ignored = CrossEntropy::<f32>::new().ignore_index(-100i64 as usize);
        assert_eq!(ignored.spec().get("ignore_index"), Some(&(-100i64).into()));
    }
}
