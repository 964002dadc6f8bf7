//! The laws of losses can fail: each wrong loss is caught, by the name of the law that it breaks.

use chainrule_core::{Error, Loss, Reduction, Result, Scalar, Shape, Target, Tensor};
use chainrule_gradcheck::{
    check_loss,
    laws::{Law, LossCase, TargetKind, Violation, loss_laws},
};
use std::marker::PhantomData;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    FactorMissing,
    TargetsSignMissing,
    MeanForgottenInBackward,
    SumIsAMean,
    OnePassForgetsTheMean,
    LossAdded,
    DlossIgnored,
    WrongShapeAccepted,
    ClassesHaveGradients,
    CoarseInSinglePrecision,
}

/// Σ (y − t)², or for classes (y − class)².
#[derive(Clone, Copy)]
struct Squares<T>(Fault, Reduction, PhantomData<T>);

impl<T: Scalar> Squares<T> {
    fn new(fault: Fault, reduction: Reduction) -> Self {
        Self(fault, reduction, PhantomData)
    }

    fn values(&self, y: &[usize], target: Target<'_, T>) -> Result<Vec<T>> {
        let t: Vec<T> = match target {
            Target::Values(t) if t.shape()[..] == *y || self.0 == Fault::WrongShapeAccepted => {
                t.data().to_vec()
            }
            Target::Classes(classes) if classes.shape()[..] == *y && classes.iter().all(|&c| c < 3) => {
                classes.iter().map(|&c| T::from_usize(c)).collect()
            }
            _ => return Err(Error::shape("Squares: expected a target of the prediction's shape")),
        };
        Ok(t)
    }

    fn share(&self, n: usize) -> T {
        let mean = self.1 == Reduction::Mean || (self.1 == Reduction::Sum && self.0 == Fault::SumIsAMean);
        if mean { T::ONE / T::from_usize(n) } else { T::ONE }
    }
}

impl<T: Scalar> Loss for Squares<T> {
    type T = T;

    fn reduction(&self) -> Reduction {
        self.1
    }

    fn output_shape(&self, y: &[usize], target: Target<'_, T>) -> Result<Shape> {
        self.values(y, target)?;
        if self.1 == Reduction::None { Shape::new(y) } else { Ok(Shape::default()) }
    }

    fn forward(&self, y: &Tensor<T>, target: Target<'_, T>, loss: &mut Tensor<T>) -> Result<()> {
        let t = self.values(y.shape(), target)?;
        let before = loss.data().first().copied().unwrap_or_default();
        let out = loss.reset(self.output_shape(y.shape(), target)?);
        let mut each: Vec<T> = y.data().iter().zip(&t).map(|(&y, &t)| (y - t) * (y - t)).collect();
        if self.0 == Fault::CoarseInSinglePrecision {
            each.iter_mut().for_each(|e| *e += T::EPSILON.sqrt());
        }
        if self.1 == Reduction::None {
            out.copy_from_slice(&each);
        } else {
            out[0] = each.iter().copied().sum::<T>() * self.share(y.len());
        }
        if self.0 == Fault::LossAdded {
            out[0] += before;
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
        let t = self.values(y.shape(), target)?;
        if *dloss.shape() != self.output_shape(y.shape(), target)? {
            return Err(Error::shape("Squares: expected a gradient of the loss's shape"));
        }
        let share = if self.0 == Fault::MeanForgottenInBackward { T::ONE } else { self.share(y.len()) };
        let two = if self.0 == Fault::FactorMissing { share } else { share + share };
        let g = |i: usize| match (self.0, self.1) {
            (Fault::DlossIgnored, _) => T::ONE,
            (_, Reduction::None) => dloss.data()[i],
            _ => dloss.data()[0],
        };
        let slope = |i: usize| two * (y.data()[i] - t[i]) * g(i);
        if let Some(dy) = dy {
            dy.reset(*y.shape()).iter_mut().enumerate().for_each(|(i, d)| *d = slope(i));
        }
        if let Some(dt) = dt {
            if self.0 != Fault::ClassesHaveGradients {
                target.values()?;
            }
            let sign = if self.0 == Fault::TargetsSignMissing { T::ONE } else { -T::ONE };
            dt.reset(*y.shape()).iter_mut().enumerate().for_each(|(i, d)| *d = sign * slope(i));
        }
        Ok(())
    }

    fn value_and_gradient(&self, y: &Tensor<T>, target: Target<'_, T>, dy: &mut Tensor<T>) -> Result<T> {
        if self.1 == Reduction::None {
            return Err(Error::value("Squares: expected a loss of one element"));
        }
        let mut loss = Tensor::default();
        self.forward(y, target, &mut loss)?;
        self.backward(y, target, &Tensor::from(T::ONE), Some(dy), None)?;
        let forgets = self.0 == Fault::OnePassForgetsTheMean;
        Ok(if forgets { loss.data()[0] * T::from_usize(y.len()) } else { loss.data()[0] })
    }
}

fn broken(fault: Fault, targets: &TargetKind) -> Vec<Violation> {
    let run = |seed| {
        let case = LossCase::new(seed, [3, 4], targets.clone()).wrong([4, 4]);
        loss_laws(
            &case,
            |reduction| Squares::new(fault, reduction),
            |reduction| Squares::new(fault, reduction),
        )
    };
    (0..8).flat_map(run).collect()
}

fn classes() -> TargetKind {
    TargetKind::Classes { shape: vec![3, 4], below: 3, ignored: None }
}

#[test]
fn the_right_loss_breaks_no_law() {
    for targets in [TargetKind::Values, TargetKind::Probabilities, classes()] {
        let broken: Vec<String> = broken(Fault::Nothing, &targets).iter().map(Violation::to_string).collect();
        assert!(broken.is_empty(), "{broken:#?}");
    }
}

#[test]
fn each_wrong_loss_is_caught() {
    for (fault, law, targets) in [
        (Fault::FactorMissing, Law::InputGradient, TargetKind::Values),
        (Fault::TargetsSignMissing, Law::TargetGradient, TargetKind::Values),
        (Fault::MeanForgottenInBackward, Law::InputGradient, classes()),
        (Fault::SumIsAMean, Law::Reductions, TargetKind::Values),
        (Fault::OnePassForgetsTheMean, Law::OnePass, TargetKind::Values),
        (Fault::LossAdded, Law::SameBits, TargetKind::Values),
        (Fault::DlossIgnored, Law::Linearity, TargetKind::Values),
        (Fault::WrongShapeAccepted, Law::Shapes, TargetKind::Values),
        (Fault::ClassesHaveGradients, Law::TargetGradient, classes()),
        (Fault::CoarseInSinglePrecision, Law::SinglePrecision, TargetKind::Values),
    ] {
        let broken = broken(fault, &targets);
        let laws: Vec<String> = broken.iter().map(|v| v.law.to_string()).collect();
        assert!(broken.iter().any(|v| v.law == law), "{fault:?}: expected `{law}`, got {laws:?}");
    }
}

#[test]
fn the_checker_names_the_wrong_tensor() {
    let (y, t) = (Tensor::from([0.5, -1.5, 2.0]), Tensor::from([1.0, 0.0, 3.0]));
    assert_eq!(check_loss(&Squares::new(Fault::Nothing, Reduction::Mean), &y, &t).unwrap().checked(), 6);
    assert_eq!(
        check_loss(&Squares::new(Fault::Nothing, Reduction::None), &y, &[0, 1, 2]).unwrap().checked(),
        3
    );
    let text =
        check_loss(&Squares::new(Fault::TargetsSignMissing, Reduction::Sum), &y, &t).unwrap_err().to_string();
    assert!(
        text.contains("3 of 6 derivatives disagree")
            && text.contains("\n  t: 3 of 3 wrong, numeric = -1 × analytic\n"),
        "{text}"
    );
}
