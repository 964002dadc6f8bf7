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
    elementwise::reduction,
    rows::{Labels, Row, Rows, class_weights, weights_as_attribute},
    rowwise::{Outputs, Rowwise, forward_to_rowwise},
};
use chainrule_core::{
    Args, Classes, Error, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target,
    Tensor,
};
use chainrule_tensor::{compiled, kernels::layers::loss::softmax_cross_entropy};

/// Cross-entropy of logits against classes or probabilities.
///
/// # Shapes
/// y (N, C) or (N, C, d₁, …), or (C) for a single sample. Classes (N) or (N, d₁, …), one for a single sample. With
/// [`CrossEntropy::classes_last`], y (N, …, C) and classes (N, …).
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
    classes_last: bool,
}

impl<T: Scalar> CrossEntropy<T> {
    /// The mean over all rows, without weights or smoothing.
    pub fn new() -> Self {
        Self {
            weights: None,
            label_smoothing: 0.0,
            ignore_index: None,
            reduction: Reduction::Mean,
            classes_last: false,
        }
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

    /// Whether the classes stand on the last axis, as in the logits (N, T, V) of a model of sequences, and not on axis 1.
    #[must_use]
    pub fn classes_last(mut self, last: bool) -> Self {
        self.classes_last = last;
        self
    }

    /// As [`Labels::rows`], of the axis on which the classes stand.
    fn rows(&self, y: &[usize]) -> Result<(Rows, Shape)> {
        match *y {
            [ref rest @ .., classes] if self.classes_last && rest.len() > 1 => {
                let labels = Shape::new(rest)?;
                self.labels().rows(&[labels.volume(), classes]).map(|(rows, _)| (rows, labels))
            }
            _ => self.labels().rows(y),
        }
    }

    fn labels(&self) -> Labels<'_, T> {
        Labels { kind: "CrossEntropy", weights: self.weights.as_deref(), ignored: self.ignore_index }
    }

    /// Whether there are neither weights nor smoothing nor ignored classes.
    fn is_plain(&self) -> bool {
        self.weights.is_none() && self.label_smoothing == 0.0 && self.ignore_index.is_none()
    }
}

compiled! {
    fn pass[T](of: &CrossEntropy<T>, rows: Rows, y: &[T], target: Kind<'_, T>, out: Outputs<'_, T>) {
        let Outputs { mut loss, g, mut dy, mut dt } = out;
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

impl<T: Scalar> Default for CrossEntropy<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Rowwise<T> for CrossEntropy<T> {
    fn singles(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        self.check()?;
        let (rows, labels) = self.rows(y)?;
        match target {
            Target::Values(t) if t.shape()[..] != *y => Err(Error::shape(format!(
                "CrossEntropy: expected probabilities of the prediction's shape {y:?}, got {}",
                t.shape()
            ))),
            Target::Values(_) => Ok(labels),
            _ => self.labels().fit(y, (rows, labels), target.classes()?).map(|()| labels),
        }
    }

    /// The weights of the rows that are not ignored; the number of rows for probabilities.
    fn divisor(&self, count: usize, target: Target<'_, T>) -> f64 {
        target.classes().map_or(count as f64, |classes| self.labels().sum(classes))
    }

    fn fused(&self, y: &Tensor<T>, target: Target<'_, T>, dy: &mut [T], share: T) -> Option<f64> {
        let rows = |y: &[usize]| self.rows(y).ok().filter(|(rows, _)| rows.inner == 1);
        match target {
            Target::Classes(classes) if self.is_plain() && rows(y.shape()).is_some() => {
                Some(softmax_cross_entropy(y.data(), &classes, dy, share))
            }
            _ => None,
        }
    }

    fn pass(&self, y: &Tensor<T>, target: Target<'_, T>, out: Outputs<'_, T>) {
        let kind = match target {
            Target::Values(t) => Some(Kind::Probabilities(t.data())),
            _ => target.classes().ok().map(Kind::Classes),
        };
        if let (Some(kind), Ok((rows, _))) = (kind, self.rows(y.shape())) {
            pass(self, rows, y.data(), kind, out);
        }
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

    fn weight_of(&self, target: Target<'_, T>) -> f64 {
        let Target::Classes(classes) = target else { return target.samples() as f64 };
        self.labels().sum(classes)
    }

    fn ignored_class(&self) -> Option<usize> {
        self.ignore_index
    }

    forward_to_rowwise!();

    fn spec(&self) -> Spec {
        let spec = Spec::new("CrossEntropy")
            .with("weight", weights_as_attribute(&self.weights))
            .with("ignore_index", self.ignore_index.map(|class| class as i64))
            .with("reduction", self.reduction)
            .with("label_smoothing", self.label_smoothing);
        // PyTorch has no such argument.
        if self.classes_last { spec.with("classes_last", true) } else { spec }
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
            classes_last: args.or("classes_last", false)?,
        })
    }

    fn examples() -> Vec<Example> {
        let plain = || CrossEntropy::<f64>::new();
        vec![
            Example::new(plain().spec(), [[4, 3]]).ids(3),
            Example::new(plain().weights([0.5, 2.0]).label_smoothing(0.25).spec(), [[2, 2, 3, 2]]).ids(2),
            Example::new(plain().ignore_index(1).reduction(Reduction::Sum).spec(), [[4, 3]]).ids(3),
            Example::new(plain().classes_last(true).spec(), [[4, 3]]).ids(3),
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
        obeys_the_laws_with_classes_last(
            samples in 1..5usize, rest in collection::vec(1..4usize, 0..3),
            (classes, weights) in (2..6usize).prop_flat_map(|c| (Just(c), option::of(collection::vec(0.1..3.0f32, c)))),
            smoothing in prop_oneof![Just(0.0), 0.0..1.0], ignored in option::of(prop_oneof![0..2usize, Just(99)]),
        ) {
            loss: |reduction| options::<T>(&weights, smoothing, ignored).classes_last(true).reduction(reduction),
            prediction: [&[samples], &rest[..], &[classes]].concat(),
            target: TargetKind::Classes { shape: [&[samples], &rest[..]].concat(), below: classes, ignored },
            wrong: [&[samples + 1], &rest[..], &[classes]].concat(),
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
    fn classes_last_gives_what_a_transposed_prediction_gives() {
        // (N, T, C) = (2, 3, 4)
        let y = Tensor::from_fn([2, 3, 4], |i| (i * 7 % 11) as f64 * 0.3);
        let transposed = Tensor::from_fn([2, 4, 3], |i| y.data()[(i / 12 * 3 + i % 3) * 4 + i / 3 % 4]);
        let labels = [0, 3, 1, 2, 2, 0];
        let target = Classes::new(&labels, [2, 3]).unwrap();
        let (mut dy, mut dt) = (Tensor::default(), Tensor::default());
        for loss in [CrossEntropy::new(), CrossEntropy::new().label_smoothing(0.1).ignore_index(2)] {
            let last = loss.clone().classes_last(true).gradient(&y, target, &mut dy).unwrap();
            let second = loss.gradient(&transposed, target, &mut dt).unwrap();
            assert!((last - second).abs() < 1e-12);
            for i in 0..24 {
                assert!((dt.data()[i] - dy.data()[(i / 12 * 3 + i % 3) * 4 + i / 3 % 4]).abs() < 1e-12);
            }
        }
    }

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
