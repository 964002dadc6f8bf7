//! What the losses of several predictions share: the methods of `Objective` made of one pass.

use crate::elementwise::{check_dloss, not_reduced};
use chainrule_core::{Error, Reduction, Result, Scalar, Shape, Target, Tensor};

/// What a pass over single losses hands out.
pub struct Outputs<'a, 'b, T> {
    /// Takes each single loss, by its number.
    pub loss: Option<&'a mut dyn FnMut(usize, f64)>,
    /// ∂E/∂ of a single loss.
    pub g: &'a dyn Fn(usize) -> f64,
    /// ∂E/∂yᵢ, where requested; they have the predictions' shapes.
    pub dys: &'a mut [Option<&'b mut Tensor<T>>],
    /// ∂E/∂t of the one target, where requested; it has the target's shape.
    pub dt: Option<&'a mut [T]>,
}

impl<T: Scalar> Outputs<'_, '_, T> {
    /// The elements of ∂E/∂yᵢ.
    pub fn dy(&mut self, i: usize) -> Option<&mut [T]> {
        self.dys.get_mut(i)?.as_deref_mut().map(Tensor::data_mut)
    }
}

/// A loss of several predictions as one pass over its single losses.
pub trait Several<T: Scalar> {
    /// Its name.
    const KIND: &'static str;

    /// The number of its predictions and of its targets.
    const COUNTS: [usize; 2];

    /// Checks the settings and the shapes, and returns the shape of the single losses.
    fn singles(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>]) -> Result<Shape>;

    /// The pass, over what has been checked.
    fn pass(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>], out: Outputs<'_, '_, T>);

    /// What the mean of single losses divides by.
    fn divisor(&self, count: usize) -> f64 {
        count as f64
    }
}

fn checked<T: Scalar, S: Several<T>>(of: &S, ys: &[&Tensor<T>], targets: &[Target<'_, T>]) -> Result<Shape> {
    let [predictions, wanted] = S::COUNTS;
    if ys.len() != predictions || targets.len() != wanted {
        return Err(Error::shape(format!(
            "{}: expected {predictions} predictions and {wanted} targets, got {} and {}",
            S::KIND,
            ys.len(),
            targets.len()
        )));
    }
    of.singles(ys, targets)
}

/// What the sum of single losses is divided by.
fn divided_by<T: Scalar>(of: &impl Several<T>, by: Reduction, count: usize) -> f64 {
    if by == Reduction::Mean { of.divisor(count) } else { 1.0 }
}

/// loss = reduction of the single losses
pub fn evaluate<T: Scalar>(
    of: &impl Several<T>,
    by: Reduction,
    ys: &[&Tensor<T>],
    targets: &[Target<'_, T>],
    loss: &mut Tensor<T>,
) -> Result<()> {
    let singles = checked(of, ys, targets)?;
    let pass = |loss: &mut dyn FnMut(usize, f64)| {
        of.pass(ys, targets, Outputs { loss: Some(loss), g: &|_| 1.0, dys: &mut [], dt: None });
    };
    if by == Reduction::None {
        let out = loss.reset(singles);
        if ys.iter().any(|y| y.is_empty()) {
            out.fill(T::ZERO); // rows without an element are not walked
        }
        pass(&mut |i, e| out[i] = T::from_f64(e));
    } else {
        let mut sum = 0.0;
        pass(&mut |_, e| sum += e);
        loss.reset([])[0] = T::from_f64(sum / divided_by(of, by, singles.volume()));
    }
    Ok(())
}

/// dyᵢ = ∂/∂loss · ∂e/∂yᵢ, dt = ∂/∂loss · ∂e/∂t
pub fn differentiate<T: Scalar, S: Several<T>>(
    of: &S,
    by: Reduction,
    (ys, targets): (&[&Tensor<T>], &[Target<'_, T>]),
    dloss: &Tensor<T>,
    dys: &mut [Option<&mut Tensor<T>>],
    dts: &mut [Option<&mut Tensor<T>>],
) -> Result<()> {
    let singles = checked(of, ys, targets)?;
    check_dloss(dloss, if by == Reduction::None { singles } else { Shape::default() })?;
    for (what, got, expected) in [("predictions", dys.len(), ys.len()), ("targets", dts.len(), targets.len())]
    {
        if got != expected && got != 0 {
            return Err(Error::shape(format!(
                "{}: expected {expected} gradients of {what}, got {got}",
                S::KIND
            )));
        }
    }
    for (dy, y) in dys.iter_mut().zip(ys) {
        if let Some(dy) = dy {
            dy.reset(*y.shape());
        }
    }
    let dt = match (dts.first_mut(), targets.first()) {
        (Some(Some(dt)), Some(target)) => Some(dt.reset(*target.values()?.shape())),
        _ => None,
    };
    let divisor = divided_by(of, by, singles.volume());
    let at = |i: usize| if by == Reduction::None { i } else { 0 };
    let g = |i: usize| dloss.data()[at(i)].to_f64() / divisor;
    of.pass(ys, targets, Outputs { loss: None, g: &g, dys, dt });
    Ok(())
}

/// The loss and every ∂E/∂yᵢ in one pass.
pub fn value_and_gradients<T: Scalar, S: Several<T>>(
    of: &S,
    by: Reduction,
    ys: &[&Tensor<T>],
    targets: &[Target<'_, T>],
    dys: &mut [Tensor<T>],
) -> Result<T> {
    let singles = checked(of, ys, targets)?;
    if by == Reduction::None && !singles.is_empty() {
        return Err(not_reduced());
    }
    if dys.len() != ys.len() {
        return Err(Error::shape(format!(
            "{}: expected {} gradients of predictions, got {}",
            S::KIND,
            ys.len(),
            dys.len()
        )));
    }
    for (dy, y) in dys.iter_mut().zip(ys) {
        dy.reset(*y.shape());
    }
    let (mut sum, divisor) = (0.0, divided_by(of, by, singles.volume()));
    let share = 1.0 / divisor;
    // At most three predictions: on the stack.
    let mut requested = [const { None }; 3];
    requested.iter_mut().zip(dys.iter_mut()).for_each(|(slot, dy)| *slot = Some(dy));
    let dys = &mut requested[..ys.len()];
    of.pass(ys, targets, Outputs { loss: Some(&mut |_, e| sum += e), g: &|_| share, dys, dt: None });
    Ok(T::from_f64(sum / divisor))
}

/// Hands the methods of `Objective` to those of this module.
macro_rules! forward_to_several {
    () => {
        type T = T;

        fn verify(&self) -> Result<()> {
            self.check()
        }

        fn predictions(&self) -> usize {
            <Self as crate::several::Several<T>>::COUNTS[0]
        }

        fn targets(&self) -> usize {
            <Self as crate::several::Several<T>>::COUNTS[1]
        }

        fn reduced_by(&self) -> Reduction {
            self.reduction
        }

        fn evaluate(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>], loss: &mut Tensor<T>) -> Result<()> {
            crate::several::evaluate(self, self.reduction, ys, targets, loss)
        }

        fn differentiate(
            &self,
            ys: &[&Tensor<T>],
            targets: &[Target<'_, T>],
            dloss: &Tensor<T>,
            dys: &mut [Option<&mut Tensor<T>>],
        ) -> Result<()> {
            crate::several::differentiate(self, self.reduction, (ys, targets), dloss, dys, &mut [])
        }

        fn differentiate_targets(
            &self,
            ys: &[&Tensor<T>],
            targets: &[Target<'_, T>],
            dloss: &Tensor<T>,
            dts: &mut [Option<&mut Tensor<T>>],
        ) -> Result<()> {
            crate::several::differentiate(self, self.reduction, (ys, targets), dloss, &mut [], dts)
        }

        fn value_and_gradients(
            &self,
            ys: &[&Tensor<T>],
            targets: &[Target<'_, T>],
            dys: &mut [Tensor<T>],
        ) -> Result<T> {
            crate::several::value_and_gradients(self, self.reduction, ys, targets, dys)
        }
    };
}
pub(crate) use forward_to_several;

/// An error unless two shapes are the same.
pub fn same_shape(kind: &str, what: &str, got: &Shape, expected: &[usize]) -> Result<()> {
    if got[..] != *expected {
        return Err(Error::shape(format!("{kind}: expected {what} of shape {expected:?}, got {got}")));
    }
    Ok(())
}

/// (.., D) as rows: their number, and the shape of their losses, (..).
pub fn rows(kind: &str, shape: &[usize]) -> Result<Shape> {
    match shape {
        [] => Err(Error::shape(format!("{kind}: expected a prediction (N, D) or (D), got []"))),
        [rows @ .., _] => Shape::new(rows),
    }
}

/// Σ aᵢ bᵢ in f64, where no product of f32 overflows.
#[inline(always)]
pub fn dot<T: Scalar>(a: &[T], b: &[T]) -> f64 {
    const LANES: usize = 8;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += a[i].to_f64() * b[i].to_f64();
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a.to_f64() * b.to_f64()).sum();
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use chainrule_core::Objective;

    /// Predictions, and a target if there is one.
    #[derive(Clone, Copy)]
    pub struct Given<'a> {
        pub ys: &'a [&'a Tensor<f64>],
        pub t: Option<&'a Tensor<f64>>,
    }

    impl<'a> Given<'a> {
        fn targets(self) -> Vec<Target<'a, f64>> {
            self.t.into_iter().map(Target::from).collect()
        }
    }

    /// Compares the loss, every ∂E/∂yᵢ and ∂E/∂t with values worked out on paper.
    pub fn compare(loss: &impl Objective<T = f64>, given: Given<'_>, value: f64, dys: &[&[f64]], dt: &[f64]) {
        let (targets, mut e) = (given.targets(), Tensor::default());
        let near = |what: &str, got: &[f64], want: &[f64]| {
            assert_eq!(got.len(), want.len(), "{what}");
            // What an ε of 1e-12 in a loss does is allowed for.
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-11), "{what}: {got:?} for {want:?}");
        };
        loss.evaluate(given.ys, &targets, &mut e).unwrap();
        near("loss", e.data(), &[value]);
        let mut got = vec![Tensor::default(); dys.len()];
        let fused = loss.value_and_gradients(given.ys, &targets, &mut got).unwrap();
        near("loss of one pass", &[fused], &[value]);
        let mut twice = vec![Tensor::default(); dys.len()];
        let mut requested: Vec<_> = twice.iter_mut().map(Some).collect();
        loss.differentiate(given.ys, &targets, &Tensor::from(2.0), &mut requested).unwrap();
        for (i, want) in dys.iter().enumerate() {
            near(&format!("dy{i}"), got[i].data(), want);
            let half: Vec<f64> = twice[i].data().iter().map(|d| d / 2.0).collect();
            near(&format!("half of dy{i} of twice the loss"), &half, want);
        }
        if given.t.is_some() {
            let mut got = Tensor::default();
            loss.differentiate_targets(given.ys, &targets, &Tensor::from(1.0), &mut [Some(&mut got)])
                .unwrap();
            near("dt", got.data(), dt);
        }
    }

    /// Mean, sum and none belong to the same single losses.
    pub fn agrees<O: Objective<T = f64>>(build: impl Fn(Reduction) -> O, given: Given<'_>) {
        let targets = given.targets();
        let [mean, sum, none] = [Reduction::Mean, Reduction::Sum, Reduction::None].map(|by| {
            let (loss, mut e) = (build(by), Tensor::default());
            loss.verify().unwrap();
            assert_eq!(loss.reduced_by(), by);
            loss.evaluate(given.ys, &targets, &mut e).unwrap();
            e
        });
        let total: f64 = none.data().iter().sum();
        assert!((sum.data()[0] - total).abs() < 1e-13 * total.abs().max(1.0));
        assert!((mean.data()[0] - total / none.len() as f64).abs() < 1e-13 * total.abs().max(1.0));
    }
}
