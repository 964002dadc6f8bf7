//! The laws of losses of several predictions and targets, and of targets that are no vector.

use chainrule_core::{Error, Objective, Reduction, Result, Scalar, Target, Tensor};
use chainrule_gradcheck::{
    Check,
    laws::{Law, LossCase, objective_laws},
    objective_laws,
};
use std::marker::PhantomData;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    NegativeForgotten,
    GradientsNeedEachOther,
    OnePassForgetsAHead,
    AnotherCountAccepted,
}

/// mean over n of |a − p|² − |a − q|² + ½ |q|², of an anchor a, a positive p and a negative q.
struct Triplet<T>(Fault, PhantomData<T>);

fn triplet<T>(fault: Fault) -> Triplet<T> {
    Triplet(fault, PhantomData)
}

fn three<'a, T: Scalar>(ys: &[&'a Tensor<T>], targets: usize, fault: Fault) -> Result<[&'a Tensor<T>; 3]> {
    match *ys {
        [a, p, q, ..] if (ys.len() == 3 && targets == 0) || fault == Fault::AnotherCountAccepted => {
            if a.shape() == p.shape() && p.shape() == q.shape() {
                return Ok([a, p, q]);
            }
            Err(Error::shape("Triplet: expected three predictions of one shape"))
        }
        _ => Err(Error::shape(format!("Triplet: expected 3 predictions and no target, got {}", ys.len()))),
    }
}

impl<T: Scalar> Objective for Triplet<T> {
    type T = T;

    fn predictions(&self) -> usize {
        3
    }

    fn targets(&self) -> usize {
        0
    }

    fn evaluate(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>], loss: &mut Tensor<T>) -> Result<()> {
        let ([a, p, q], half) = (three(ys, targets.len(), self.0)?, T::from_f64(0.5));
        let square = |v: T| v * v;
        let terms = (0..a.len()).map(|i| {
            let (a, p, q) = (a.data()[i], p.data()[i], q.data()[i]);
            square(a - p) - square(a - q) + half * square(q)
        });
        loss.reset([])[0] = terms.sum::<T>() / T::from_usize(a.shape()[0]);
        Ok(())
    }

    fn differentiate(
        &self,
        ys: &[&Tensor<T>],
        targets: &[Target<'_, T>],
        dloss: &Tensor<T>,
        dys: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let [a, p, q] = three(ys, targets.len(), self.0)?;
        if !dloss.shape().is_empty() {
            return Err(Error::shape(format!(
                "Triplet: expected dloss of one element, got {}",
                dloss.shape()
            )));
        }
        let g = dloss.data()[0] / T::from_usize(a.shape()[0]);
        let all = dys.iter().all(Option::is_some) || self.0 != Fault::GradientsNeedEachOther;
        for (k, dy) in dys.iter_mut().enumerate() {
            let Some(dy) = dy else { continue };
            for (i, dy) in dy.reset(*a.shape()).iter_mut().enumerate() {
                let (a, p, q) = (a.data()[i], p.data()[i], q.data()[i]);
                let (two, half) = (T::from_f64(2.0) * g, T::from_f64(0.5) * g);
                *dy = match k {
                    0 => two * (q - p), // da = 2 (q − p) g
                    1 => two * (p - a), // dp = 2 (p − a) g
                    _ if self.0 == Fault::NegativeForgotten => two * (a - q),
                    _ => two * (a - q) + (half + half) * q, // dq = (2 (a − q) + q) g
                };
                if !all {
                    *dy = T::ZERO;
                }
            }
        }
        Ok(())
    }

    fn value_and_gradients(
        &self,
        ys: &[&Tensor<T>],
        targets: &[Target<'_, T>],
        dys: &mut [Tensor<T>],
    ) -> Result<T> {
        let mut loss = Tensor::default();
        self.evaluate(ys, targets, &mut loss)?;
        let mut requested: Vec<_> = dys.iter_mut().map(Some).collect();
        self.differentiate(ys, targets, &Tensor::from(T::ONE), &mut requested)?;
        if self.0 == Fault::OnePassForgetsAHead {
            dys[1].fill(T::ZERO);
        }
        Ok(loss.data()[0])
    }
}

/// w₀ Σ (y₀ − t₀)² + w₁ Σ (y₁ − class)² + w₂ Σ (y₂ − Σ sequence)²: values, dense classes and sequences.
struct Heads<T>([f64; 3], PhantomData<T>);

impl<T: Scalar> Heads<T> {
    /// The value that each element of each prediction is compared with.
    fn aims(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>]) -> Result<[Vec<T>; 3]> {
        let ([y0, y1, y2], [t0, t1, t2]) = (ys, targets) else {
            return Err(Error::shape("Heads: expected three predictions and three targets"));
        };
        let (values, classes, sequences) = (t0.values()?, t1.classes()?, t2.sequences()?);
        if values.shape() != y0.shape()
            || classes.shape() != y1.shape()
            || y2.shape()[..] != [sequences.lengths().len()]
        {
            return Err(Error::shape("Heads: expected targets that fit the predictions"));
        }
        let sums = sequences.iter().map(|s| T::from_usize(s.iter().sum()));
        Ok([values.data().to_vec(), classes.iter().map(|&c| T::from_usize(c)).collect(), sums.collect()])
    }
}

impl<T: Scalar> Objective for Heads<T> {
    type T = T;

    fn predictions(&self) -> usize {
        3
    }

    fn targets(&self) -> usize {
        3
    }

    fn reduced_by(&self) -> Reduction {
        Reduction::Sum
    }

    fn evaluate(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>], loss: &mut Tensor<T>) -> Result<()> {
        let mut sum = T::ZERO;
        for ((y, aims), w) in ys.iter().zip(self.aims(ys, targets)?).zip(self.0) {
            sum += T::from_f64(w) * y.data().iter().zip(&aims).map(|(&y, &t)| (y - t) * (y - t)).sum::<T>();
        }
        loss.reset([])[0] = sum;
        Ok(())
    }

    fn differentiate(
        &self,
        ys: &[&Tensor<T>],
        targets: &[Target<'_, T>],
        dloss: &Tensor<T>,
        dys: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let aims = self.aims(ys, targets)?;
        if !dloss.shape().is_empty() {
            return Err(Error::shape(format!("Heads: expected dloss of one element, got {}", dloss.shape())));
        }
        for (((y, aims), w), dy) in ys.iter().zip(&aims).zip(self.0).zip(dys) {
            let Some(dy) = dy else { continue };
            let g = T::from_f64(2.0 * w) * dloss.data()[0];
            let pairs = y.data().iter().zip(aims);
            dy.reset(*y.shape()).iter_mut().zip(pairs).for_each(|(dy, (&y, &t))| *dy = g * (y - t)); // dy = 2 w g (y − t)
        }
        Ok(())
    }
}

objective_laws! {
    three_predictions_obey_the_laws(rows in 1..4usize, width in 1..4usize) {
        objective: triplet::<T>(Fault::Nothing),
        predictions: [[rows, width]; 3],
        targets: [],
        wrong_predictions: [[rows, width], [rows, width], [rows, width + 1]],
    }

    a_weighted_sum_of_every_kind_of_target_obeys_the_laws(rows in 1..4usize, w in 0.1..2.0) {
        objective: Heads::<T>([w, 0.5, 1.5], PhantomData),
        predictions: vec![vec![rows, 2], vec![rows, 2, 3], vec![rows]],
        targets: [
            TargetKind::Values,
            TargetKind::Classes { shape: vec![rows, 2, 3], below: 4, ignored: None },
            TargetKind::Sequences { samples: rows, lengths: 0..4, classes: 1..5 },
        ],
        wrong_predictions: vec![vec![rows, 2], vec![rows, 3, 2], vec![rows]],
    }
}

#[test]
fn each_wrong_objective_is_caught_by_its_law_alone() {
    for (fault, law) in [
        (Fault::NegativeForgotten, Law::InputGradient),
        (Fault::GradientsNeedEachOther, Law::SameBits),
        (Fault::OnePassForgetsAHead, Law::OnePass),
        (Fault::AnotherCountAccepted, Law::Shapes),
    ] {
        let case = LossCase::several(1, [[3, 4]; 3], []);
        let broken = objective_laws(&case, || triplet(fault), || triplet(fault));
        let laws: Vec<Law> = broken.iter().map(|v| v.law).collect();
        assert_eq!(laws, [law], "{fault:?}");
    }
}

#[test]
fn the_checker_names_the_wrong_prediction() {
    let ys = [[0.5, -1.0], [2.0, 0.25], [-0.75, 1.5]].map(|row| Tensor::from([row]));
    let none: [Target<'_, f64>; 0] = [];
    let check = |fault| Check::new().objective(&triplet::<f64>(fault), &ys[..], none);
    assert_eq!(check(Fault::Nothing).unwrap().checked(), 6);
    let text = check(Fault::NegativeForgotten).unwrap().to_string();
    assert!(
        text.starts_with("2 of 6 derivatives disagree with central differences\n  y2: 2 of 2 wrong"),
        "{text}"
    );
}
