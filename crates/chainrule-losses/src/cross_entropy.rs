//! Cross-entropy fused with its softmax.
//!
//! ```text
//! p = softmax(y) along the axis of classes        qᶜ = weight of class c in the target of a line
//! e = −Σᶜ qᶜ ln pᶜ        ∂e/∂yᶜ = pᶜ Σₖ qₖ − qᶜ
//!
//! a class t, smoothed by ε:        qᶜ = wᶜ ((1 − ε) [c = t] + ε/C)
//! probabilities t, smoothed by ε:  qᶜ = wᶜ ((1 − ε) tᶜ + ε/C)        ∂e/∂tᶜ = −(1 − ε) wᶜ ln pᶜ
//! ```
//!
//! The mean divides by Σ w_t over the lines for classes, and by the number of lines for probabilities.
//! Derivation: docs/losses/cross_entropy.md.

use crate::{elementwise::check_dloss, lines::Lines};
use chainrule_core::{Error, Loss, Reduction, Result, Scalar, Shape, Target, Tensor};
use chainrule_tensor::kernels::loss::softmax_cross_entropy;

/// Cross-entropy of logits against classes or probabilities.
///
/// # Shapes
/// y (N, C) or (N, C, d₁, …), or (C) for a single line. Classes: one for each line, (N, d₁, …) row-major. Probabilities: y's shape. The loss
/// has none, or one number a line.
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::CrossEntropy;
/// let loss = CrossEntropy::new().value(&Tensor::from([[0.0f32, 0.0]]), &[1])?;
/// assert!((loss.data()[0] - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CrossEntropy<T = f32> {
    weights: Option<Vec<T>>,
    label_smoothing: f64,
    ignore_index: Option<usize>,
    reduction: Reduction,
}

impl<T: Scalar> CrossEntropy<T> {
    /// The mean over all lines, without weights or smoothing.
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

    /// Lines of this class count for nothing; it need not be a class that the prediction has.
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

    fn weight(&self, class: usize) -> T {
        self.weights.as_ref().map_or(T::ONE, |w| w[class])
    }

    /// What the mean divides by: the weights of the lines that count, or the number of lines.
    fn divisor(&self, lines: Lines, target: Target<'_, T>) -> T {
        match (self.reduction, target) {
            (Reduction::Mean, Target::Classes(classes))
                if self.weights.is_some() || self.ignore_index.is_some() =>
            {
                classes.iter().filter(|&&t| Some(t) != self.ignore_index).map(|&t| self.weight(t)).sum()
            }
            (Reduction::Mean, _) => T::from_usize(lines.count()),
            _ => T::ONE,
        }
    }

    /// Whether neither weights nor smoothing nor ignored classes are asked for.
    fn is_plain(&self) -> bool {
        self.weights.is_none() && self.label_smoothing == 0.0 && self.ignore_index.is_none()
    }

    /// qᶜ of a line, before the class's weight.
    fn q(&self, lines: Lines, target: Target<'_, T>, line: usize, c: usize) -> T {
        let epsilon = T::from_f64(self.label_smoothing);
        let t = match target {
            Target::Classes(classes) if classes[line] == c => T::ONE,
            Target::Classes(_) => T::ZERO,
            Target::Values(t) => t.data()[lines.at(line, c)],
        };
        self.weight(c) * ((T::ONE - epsilon) * t + epsilon / T::from_usize(lines.classes))
    }

    fn ignored(&self, target: Target<'_, T>, line: usize) -> bool {
        matches!(target, Target::Classes(classes) if Some(classes[line]) == self.ignore_index)
    }

    /// Checks everything that `forward` and `backward` rely on.
    fn lines(&self, y: &[usize], target: Target<'_, T>) -> Result<Lines> {
        Loss::<T>::check(self)?;
        let lines = match *y {
            [] => return Err(Error::shape("CrossEntropy: expected a prediction (N, C, ..) or (C), got []")),
            [classes] => Lines { outer: 1, classes, inner: 1 },
            [outer, classes, ref rest @ ..] => Lines { outer, classes, inner: rest.iter().product() },
        };
        if let Some(weights) = self.weights.as_ref().filter(|w| w.len() != lines.classes) {
            return Err(Error::shape(format!(
                "CrossEntropy: expected {} class weights for a prediction {y:?}, got {}",
                lines.classes,
                weights.len()
            )));
        }
        match target {
            Target::Values(t) if t.shape()[..] != *y => Err(Error::shape(format!(
                "CrossEntropy: expected probabilities of the prediction's shape {y:?}, got {}",
                t.shape()
            ))),
            Target::Classes(classes) if classes.len() != lines.count() => Err(Error::shape(format!(
                "CrossEntropy: expected {} classes for a prediction {y:?}, got {}",
                lines.count(),
                classes.len()
            ))),
            Target::Classes(classes) => {
                let wrong = |&(_, &t): &(usize, &usize)| t >= lines.classes && Some(t) != self.ignore_index;
                match classes.iter().enumerate().find(wrong) {
                    Some((i, t)) => Err(Error::index(format!(
                        "CrossEntropy: expected classes below {}, got {t} at position {i}",
                        lines.classes
                    ))),
                    None => Ok(lines),
                }
            }
            Target::Values(_) => Ok(lines),
        }
    }
}

impl<T: Scalar> Default for CrossEntropy<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Scalar> Loss<T> for CrossEntropy<T> {
    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            return Err(Error::value(format!(
                "CrossEntropy: expected label smoothing in [0, 1], got {}",
                self.label_smoothing
            )));
        }
        match self.weights.iter().flatten().find(|w| !w.is_finite()) {
            Some(w) => Err(Error::value(format!("CrossEntropy: expected finite class weights, got {w}"))),
            None => Ok(()),
        }
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }

    fn output_shape(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        self.lines(y, target)?;
        match (self.reduction, y) {
            (Reduction::None, [outer, _, rest @ ..]) => {
                rest.iter().try_fold(Shape::from([*outer]), |shape, &n| shape.push(n))
            }
            _ => Ok(Shape::default()),
        }
    }

    fn forward(&self, y: &Tensor<T>, target: Target<'_, T>, loss: &mut Tensor<T>) -> Result<()> {
        let lines = self.lines(y.shape(), target)?;
        let out = loss.reset(self.output_shape(y.shape(), target)?);
        let divisor = self.divisor(lines, target);
        let mut sum = T::ZERO;
        for line in 0..lines.count() {
            let mut e = T::ZERO;
            if !self.ignored(target, line) {
                let log_sum = lines.log_sum_exp(y.data(), line);
                for c in 0..lines.classes {
                    let q = self.q(lines, target, line, c);
                    if q != T::ZERO {
                        e += q * (log_sum - y.data()[lines.at(line, c)]); // e −= q ln p
                    }
                }
            }
            match (self.reduction, out.get_mut(line)) {
                (Reduction::None, Some(out)) => *out = e,
                _ => sum += e,
            }
        }
        if self.reduction != Reduction::None {
            out[0] = sum / divisor;
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
        let lines = self.lines(y.shape(), target)?;
        check_dloss(dloss, self.output_shape(y.shape(), target)?)?;
        let divisor = self.divisor(lines, target);
        let g =
            |line: usize| dloss.data()[if self.reduction == Reduction::None { line } else { 0 }] / divisor;
        if let Some(dt) = dt {
            target.values()?; // a class has no gradient
            let (dt, epsilon) = (dt.reset(*y.shape()), T::from_f64(self.label_smoothing));
            for line in 0..lines.count() {
                let log_sum = lines.log_sum_exp(y.data(), line);
                for c in 0..lines.classes {
                    let at = lines.at(line, c);
                    // dt = −(1 − ε) w ln p
                    dt[at] = g(line) * (T::ONE - epsilon) * self.weight(c) * (log_sum - y.data()[at]);
                }
            }
        }
        let Some(dy) = dy else { return Ok(()) };
        let dy = dy.reset(*y.shape());
        for line in 0..lines.count() {
            if self.ignored(target, line) {
                (0..lines.classes).for_each(|c| dy[lines.at(line, c)] = T::ZERO);
                continue;
            }
            let log_sum = lines.log_sum_exp(y.data(), line);
            let total: T = (0..lines.classes).map(|c| self.q(lines, target, line, c)).sum();
            for c in 0..lines.classes {
                let at = lines.at(line, c);
                let p = (log_sum - y.data()[at]).v_exp_neg();
                dy[at] = g(line) * (p * total - self.q(lines, target, line, c)); // dy = p Σ q − q
            }
        }
        Ok(())
    }

    fn value_and_gradient(&self, y: &Tensor<T>, target: Target<'_, T>, dy: &mut Tensor<T>) -> Result<T> {
        let lines = self.lines(y.shape(), target)?;
        if self.reduction == Reduction::None {
            return Err(Error::value(
                "expected a loss reduced to one number (mean or sum), got reduction none",
            ));
        }
        let divisor = self.divisor(lines, target);
        if let (Target::Classes(classes), true, 1) = (target, self.is_plain(), lines.inner) {
            let dy = dy.reset(*y.shape());
            return Ok(softmax_cross_entropy(y.data(), classes, dy, T::ONE / divisor) / divisor);
        }
        let dy = dy.reset(*y.shape());
        let mut sum = T::ZERO;
        for line in 0..lines.count() {
            if self.ignored(target, line) {
                (0..lines.classes).for_each(|c| dy[lines.at(line, c)] = T::ZERO);
                continue;
            }
            let log_sum = lines.log_sum_exp(y.data(), line);
            let total: T = (0..lines.classes).map(|c| self.q(lines, target, line, c)).sum();
            for c in 0..lines.classes {
                let (at, q) = (lines.at(line, c), self.q(lines, target, line, c));
                let log_p = y.data()[at] - log_sum;
                if q != T::ZERO {
                    sum += -q * log_p; // e −= q ln p
                }
                dy[at] = ((-log_p).v_exp_neg() * total - q) / divisor; // dy = p Σ q − q
            }
        }
        Ok(sum / divisor)
    }
}

#[cfg(test)]
mod tests {
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
        obeys_the_laws_with_classes(
            lines in 1..5usize, rest in collection::vec(1..4usize, 0..3),
            (classes, weights) in (2..6usize).prop_flat_map(|c| (Just(c), option::of(collection::vec(0.1..3.0f32, c)))),
            smoothing in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0], ignored in option::of(prop_oneof![0..2usize, Just(99)]),
        ) {
            loss: |reduction| options::<T>(&weights, smoothing, ignored).reduction(reduction),
            prediction: [&[lines, classes], &rest[..]].concat(),
            target: Targets::Classes { count: lines * rest.iter().product::<usize>(), below: classes, ignored },
            wrong: [&[lines + 1, classes], &rest[..]].concat(),
            wrong: [],
        }
        obeys_the_laws_with_probabilities(
            lines in 1..5usize, rest in collection::vec(1..4usize, 0..3),
            (classes, weights) in (1..6usize).prop_flat_map(|c| (Just(c), option::of(collection::vec(0.1..3.0f32, c)))),
            smoothing in prop_oneof![Just(0.0), 0.0..1.0],
        ) {
            loss: |reduction| options::<T>(&weights, smoothing, None).reduction(reduction),
            prediction: [&[lines, classes], &rest[..]].concat(),
            target: Targets::Probabilities,
            wrong: [&[lines + 1, classes], &rest[..]].concat(),
        }
        obeys_the_laws_with_a_single_line(classes in 2..6usize, smoothing in 0.0..1.0) {
            loss: |reduction| CrossEntropy::new().label_smoothing(smoothing).reduction(reduction),
            prediction: [classes],
            target: Targets::Classes { count: 1, below: classes, ignored: None },
        }
    }

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-14), "{got:?} for {want:?}");
    }

    /// y = (0, ln 3): p = (¼, ¾). Class 0: e = ln 4, ∂y = (¼ − 1, ¾). Class 1: e = ln 4/3, ∂y = (¼, −¼).
    /// The mean over both lines is (ln 4 + ln 4/3)/2, with half of each slope.
    #[test]
    fn by_hand() {
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

    /// Weights (2, 6), classes 0 and 1 of the lines above: (2 ln 4 + 6 ln 4/3)/8; likewise with −6. Smoothing ½ of class 0: q = (¾, ¼),
    /// e = ¾ ln 4 + ¼ ln 4/3. Probabilities (½, ½): e = ½ ln 4 + ½ ln 4/3.
    #[test]
    fn weights_smoothing_and_probabilities_by_hand() {
        let (l4, l43) = (4f64.ln(), (4.0f64 / 3.0).ln());
        let line = [0.0, 3f64.ln()];
        let value = |loss: CrossEntropy<f64>, classes: &[usize]| {
            let y = Tensor::from([line, line]).rows(0, classes.len());
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
        let e = CrossEntropy::new().value(&Tensor::from([line]), &t).unwrap();
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
}
