//! The margin by which the scores of all classes of a sample exceed those of the others.
//!
//! ```text
//! J = the classes of the sample        zⱼᵢ = 1 − yⱼ + yᵢ for j ∈ J, i ∉ J
//! e = 1/C Σⱼ Σᵢ max(0, zⱼᵢ)
//! ∂e/∂yᵢ = 1/C Σⱼ [zⱼᵢ > 0],   ∂e/∂yⱼ = −1/C Σᵢ [zⱼᵢ > 0]
//! ```
//!
//! Derivation: docs/losses/multi_label_margin.md.

use crate::{
    elementwise::reduction,
    rowwise::{Outputs, Rowwise, forward_to_rowwise},
    several::rows,
};
use chainrule_core::{
    Args, Classes, Error, Example, Facts, FromSpec, Loss, Reduction, Result, Scalar, Shape, Spec, Target,
    Targets, Tensor,
};
use chainrule_tensor::compiled;

/// 1/C Σ max(0, 1 − yⱼ + yᵢ) over the classes j of a sample and those i that are not.
///
/// # Shapes
/// y (N, C) or (C), and classes of the same shape: those of a sample come first, and the first
/// `Classes::IGNORED` ends them. The loss has no axes, or (N) (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Loss, Tensor};
/// use chainrule_losses::MultiLabelMargin;
/// use chainrule_core::Classes;
/// let (y, end) = (Tensor::from([[0.25f32, 0.5, 1.0]]), Classes::IGNORED);
/// let loss = MultiLabelMargin::new().value(&y, Classes::new(&[2, end, end], [1, 3])?)?;
/// assert_eq!(loss.data(), [(0.25 + 0.5) / 3.0]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MultiLabelMargin<T = f32> {
    scalar: std::marker::PhantomData<T>,
    reduction: Reduction,
}

impl<T: Scalar> MultiLabelMargin<T> {
    /// The mean over all samples.
    pub fn new() -> Self {
        Self { scalar: std::marker::PhantomData, reduction: Reduction::Mean }
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for MultiLabelMargin<T> {
    fn default() -> Self {
        Self::new()
    }
}

compiled! {
    fn pass[T](classes_of_a_sample: usize, y: &[T], classes: Classes<'_>, out: Outputs<'_, T>) {
        let (Outputs { mut loss, g, mut dy, .. }, n) = (out, classes_of_a_sample.max(1));
        for (i, (y, all)) in y.chunks_exact(n).zip(classes.chunks_exact(n)).enumerate() {
            let end = all.iter().position(|&c| c == Classes::IGNORED).unwrap_or(n);
            let own = &all[..end];
            let share = T::ONE / T::from_usize(n);
            let mut slopes = dy.as_mut().map(|dy| (&mut dy[i * n..][..n], g(i) * share));
            if let Some((dy, _)) = &mut slopes {
                dy.fill(T::ZERO);
            }
            let mut e = 0.0;
            for other in (0..n).filter(|c| !own.contains(c)) {
                for &class in own {
                    let z = (T::ONE - y[class]) + y[other];
                    // Of two equal infinities neither is ahead.
                    if z <= T::ZERO || (z.is_nan() && y[class] == y[other]) {
                        continue;
                    }
                    e += (share * z).to_f64();
                    if let Some((dy, g)) = &mut slopes {
                        dy[other] += *g;
                        dy[class] -= *g;
                    }
                }
            }
            if let Some(loss) = &mut loss {
                loss(i, e);
            }
        }
    }
}

impl<T: Scalar> Rowwise<T> for MultiLabelMargin<T> {
    fn singles(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        let (classes, singles) = (target.classes()?, rows("MultiLabelMargin", y)?);
        if y.len() > 2 || classes.shape()[..] != *y {
            return Err(Error::shape(format!(
                "MultiLabelMargin: expected a prediction (N, C) or (C) and classes of its shape, got {y:?} and {}",
                classes.shape()
            )));
        }
        let n = y.last().copied().unwrap_or(0);
        match classes.iter().enumerate().find(|(_, c)| **c >= n && **c != Classes::IGNORED) {
            Some((i, c)) => Err(Error::index(format!(
                "MultiLabelMargin: expected classes below {n}, got {c} at position {i}"
            ))),
            None => Ok(singles),
        }
    }

    fn pass(&self, y: &Tensor<T>, target: Target<'_, T>, out: Outputs<'_, T>) {
        if let Target::Classes(classes) = target {
            pass(y.shape().last().copied().unwrap_or(0), y.data(), classes, out);
        }
    }
}

impl<T: Scalar> Loss for MultiLabelMargin<T> {
    type T = T;

    forward_to_rowwise!();

    fn spec(&self) -> Spec {
        Spec::new("MultiLabelMargin").with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for MultiLabelMargin<T> {
    const FACTS: Facts = Facts::new("MultiLabelMargin")
        .family("loss")
        .formula("1/C Σ max(0, 1 − yⱼ + yᵢ)")
        .page("losses/multi_label_margin.md")
        .torch("MultiLabelMarginLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let end = Classes::IGNORED;
        let plain = || MultiLabelMargin::<f64>::new();
        let classes = |indices: Vec<usize>, shape: &[usize]| {
            [Targets::Classes { indices, shape: Shape::new(shape).unwrap_or_default() }]
        };
        let many = (0..4096).flat_map(|i| [i % 10, (i + 3) % 10, end, 0, 0, 0, 0, 0, 0, 0]).collect();
        vec![
            Example::new(plain().spec(), [[2, 3]]).targets(classes(vec![0, 2, end, 1, end, end], &[2, 3])),
            Example::new(plain().reduction(Reduction::Sum).spec(), [[3]])
                .targets(classes(vec![2, end, 0], &[3])),
            Example::bench(plain().spec(), [[4096, 10]]).targets(classes(many, &[4096, 10])),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chainrule_gradcheck::loss_laws;

    loss_laws! {
        obeys_the_laws(samples in 1..5usize, classes in 2..6usize) {
            loss: |reduction| MultiLabelMargin::<T>::new().reduction(reduction),
            prediction: [samples, classes],
            target: TargetKind::Classes {
                shape: vec![samples, classes], below: classes, ignored: Some(Classes::IGNORED),
            },
            wrong: [samples + 1, classes],
            wrong: [samples, classes, 1],
            wrong: [],
        }
    }

    /// y = (0.25, 0.5, 1), classes {2, 1}, the rest is not read: z₂₀ = 0.25, z₁₀ = 0.75, e = 1/3, ∂y = (2, −1, −1)/3.
    #[test]
    pub fn by_hand() {
        let (y, mut dy) = (Tensor::from([0.25, 0.5, 1.0]), Tensor::default());
        let loss = MultiLabelMargin::new();
        let target = [2, 1, Classes::IGNORED];
        let e: f64 = loss.gradient(&y, &target, &mut dy).unwrap();
        let third = 1.0 / 3.0;
        assert!((e - third).abs() < 1e-15);
        assert_eq!(dy.data(), [2.0 * third, -third, -third]);
        let none = loss.reduction(Reduction::None).value(&y, &target).unwrap();
        assert!(none.shape().is_empty() && (none.data()[0] - e).abs() < 1e-15);
    }

    #[test]
    fn classes_end_at_the_first_that_is_none() {
        let (y, end) = (Tensor::from([0.0f32, 3.0, 0.5]), Classes::IGNORED);
        let value = |classes: &[usize]| MultiLabelMargin::new().value(&y, classes).unwrap().data()[0];
        assert_eq!(value(&[end, 0, 1]), 0.0);
        assert_eq!(value(&[1, end, 0]), value(&[1, end, end]));
        let far = Tensor::from([1e30f32, -1e30, f32::NEG_INFINITY]);
        assert_eq!(MultiLabelMargin::new().value(&far, &[0, end, end]).unwrap().data(), [0.0]);
        assert!(MultiLabelMargin::new().value(&y, &[0, end, 3]).is_err());
    }
}
