//! The negative log-likelihood of values under normal distributions whose means and variances are predicted.
//!
//! ```text
//! v = max(var, ε)        e = ½ (ln v + (y − t)²/v)        full: + ½ ln 2π
//! ∂e/∂y = (y − t)/v      ∂e/∂var = ½ (1/v − ((y − t)/v)²)        ∂e/∂t = −∂e/∂y
//! ```
//!
//! Derivation: docs/losses/gaussian_nll.md.

use crate::{
    elementwise::{positive, reduction},
    several::{Outputs, Several, forward_to_several, same_shape},
};
use chainrule_core::{
    Args, Error, Example, Facts, FromSpec, Objective, Reduction, Result, Scalar, Shape, Spec, Target,
    Targets, Tensor,
};
use chainrule_tensor::{compiled, kernels::math::Elementary};

/// ½ (ln v + (y − t)²/v) of a predicted mean y and a predicted variance v.
///
/// # Shapes
/// Mean and target have one shape. The variance has it too, or 1 in place of an axis, or lacks the last axis: it is shared
/// along what it lacks. The loss has no axes, or the mean's (none).
///
/// # Examples
/// ```
/// use chainrule_core::{Objective, Tensor};
/// use chainrule_losses::GaussianNll;
/// let (y, var, t) = (Tensor::from([[1.0f32]]), Tensor::from([[4.0]]), Tensor::from([[3.0]]));
/// let mut e = Tensor::default();
/// GaussianNll::new().evaluate(&[&y, &var], &[(&t).into()], &mut e)?;
/// assert!((e.data()[0] - 0.5 * (4f32.ln() + 1.0)).abs() < 1e-6);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaussianNll<T = f32> {
    full: bool,
    eps: f64,
    scalar: std::marker::PhantomData<T>,
    reduction: Reduction,
}

impl<T: Scalar> GaussianNll<T> {
    /// The mean over all elements, without the constant.
    pub fn new() -> Self {
        Self { full: false, eps: 1e-6, scalar: std::marker::PhantomData, reduction: Reduction::Mean }
    }

    /// Whether the constant ½ ln 2π is added.
    #[must_use]
    pub fn full(mut self, full: bool) -> Self {
        self.full = full;
        self
    }

    /// The least variance, above 0; 1e-6 by default.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    fn check(&self) -> Result<()> {
        positive::<T>("GaussianNll", "eps", self.eps)
    }

    /// Mean, sum or none.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl<T: Scalar> Default for GaussianNll<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the variance of an element stands: for each axis its length in y, and its stride in the variance (0 where shared).
#[derive(Clone, Copy)]
struct Shared {
    axes: [(usize, usize); Shape::MAX_RANK],
    rank: usize,
    /// Every element has its own.
    none: bool,
}

impl Shared {
    /// `None` if the variance does not fit.
    fn new(y: &[usize], var: &[usize]) -> Option<Self> {
        let lacks_last = var.len() + 1 == y.len() && y.starts_with(var);
        if !lacks_last && var.len() != y.len() {
            return None;
        }
        let (mut axes, mut stride) = ([(1, 0); Shape::MAX_RANK], 1);
        for axis in (0..y.len()).rev() {
            let length = var.get(axis).copied().unwrap_or(1);
            if length != y[axis] && length != 1 {
                return None;
            }
            axes[axis] = (y[axis], if length == y[axis] { stride } else { 0 });
            stride *= length;
        }
        Some(Self { axes, rank: y.len(), none: y == var })
    }

    /// Where the variance of the i-th element stands.
    #[inline(always)]
    fn at(&self, i: usize) -> usize {
        if self.none {
            return i;
        }
        let (mut rest, mut at) = (i, 0);
        for &(length, stride) in self.axes[..self.rank].iter().rev() {
            at += rest % length * stride;
            rest /= length;
        }
        at
    }
}

compiled! {
    fn pass[T](of: &GaussianNll<T>, shared: &Shared, ys: [&[T]; 2], t: &[T], out: Outputs<'_, '_, T>) {
        let (mut out, [y, var]) = (out, ys);
        let eps = T::from_f64(of.eps).to_f64();
        let constant = if of.full { 0.5 * std::f64::consts::TAU.ln() } else { 0.0 };
        // y − t and v of an element
        let both = |i: usize| {
            let v = var[shared.at(i)].to_f64();
            (y[i].to_f64() - t[i].to_f64(), if v < eps { eps } else { v })
        };
        if let Some(loss) = &mut out.loss {
            for i in 0..y.len() {
                let (d, v) = both(i);
                loss(i, 0.5 * (v.v_ln::<false>() + d * d / v) + constant);
            }
        }
        let g = out.g;
        if let Some(dy) = out.dy(0) {
            for (i, dy) in dy.iter_mut().enumerate() {
                let (d, v) = both(i);
                *dy = T::from_f64(g(i) * (d / v)); // dy = (y − t)/v
            }
        }
        if let Some(dt) = &mut out.dt {
            for (i, dt) in dt.iter_mut().enumerate() {
                let (d, v) = both(i);
                *dt = T::from_f64(-g(i) * (d / v)); // dt = −dy
            }
        }
        if let Some(dvar) = out.dy(1) {
            let slope = |i: usize| {
                let (d, v) = both(i);
                g(i) * (0.5 * (1.0 - d * (d / v)) / v) // dvar = ½ (1/v − (y − t)²/v²)
            };
            if shared.none {
                dvar.iter_mut().enumerate().for_each(|(i, dvar)| *dvar = T::from_f64(slope(i)));
                return;
            }
            // Σ over the elements that share a variance, in f64.
            let mut sums = vec![0.0; dvar.len()];
            (0..y.len()).for_each(|i| sums[shared.at(i)] += slope(i));
            dvar.iter_mut().zip(sums).for_each(|(dvar, sum)| *dvar = T::from_f64(sum));
        }
    }
}

compiled! {
    /// The first negative variance.
    fn negative[T](var: &[T]) -> Option<usize> {
        var.iter().position(|&v| v < T::ZERO)
    }
}

impl<T: Scalar> Several<T> for GaussianNll<T> {
    const KIND: &'static str = "GaussianNll";
    const COUNTS: [usize; 2] = [2, 1];

    fn singles(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>]) -> Result<Shape> {
        self.check()?;
        same_shape(Self::KIND, "a target", targets[0].values()?.shape(), ys[0].shape())?;
        if Shared::new(ys[0].shape(), ys[1].shape()).is_none() {
            return Err(Error::shape(format!(
                "GaussianNll: expected a variance of the shape of the mean {}, with 1 in place of an axis or without the last, got {}",
                ys[0].shape(),
                ys[1].shape()
            )));
        }
        match negative(ys[1].data()) {
            Some(i) => Err(Error::value(format!(
                "GaussianNll: expected variances from 0, got {} at position {i}",
                ys[1].data()[i]
            ))),
            None => Ok(*ys[0].shape()),
        }
    }

    fn pass(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>], out: Outputs<'_, '_, T>) {
        if let (Target::Values(t), Some(shared)) = (targets[0], Shared::new(ys[0].shape(), ys[1].shape())) {
            pass(self, &shared, [ys[0].data(), ys[1].data()], t.data(), out);
        }
    }
}

impl<T: Scalar> Objective for GaussianNll<T> {
    forward_to_several!();

    fn to_spec(&self) -> Spec {
        Spec::new("GaussianNll")
            .with("full", self.full)
            .with("eps", self.eps)
            .with("reduction", self.reduction)
    }
}

impl<T: Scalar> FromSpec<T> for GaussianNll<T> {
    const FACTS: Facts = Facts::new("GaussianNll")
        .family("loss")
        .formula("½ (ln v + (y − t)²/v)")
        .page("losses/gaussian_nll.md")
        .torch("GaussianNLLLoss");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self::new().full(args.or("full", false)?).eps(args.or("eps", 1e-6)?).reduction(reduction(args)?))
    }

    fn examples() -> Vec<Example> {
        let plain = || GaussianNll::<f64>::new();
        let values = |shape: [usize; 2]| [Targets::Values(Tensor::from_fn(shape, |i| (i % 7) as f64 - 3.0))];
        vec![
            Example::new(plain().to_spec(), [[3, 2], [3, 2]]).within(0.1, 2.0).targets(values([3, 2])),
            Example::new(plain().full(true).to_spec(), [[3, 2], [3, 1]])
                .within(0.1, 2.0)
                .targets(values([3, 2])),
            Example::bench(plain().to_spec(), [[4096, 10], [4096, 10]])
                .within(0.1, 2.0)
                .targets(values([4096, 10])),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::several::tests::{Given, agrees, compare};
    use chainrule_gradcheck::objective_laws;

    objective_laws! {
        obeys_the_laws(
            shape in collection::vec(1..5usize, 1..4), shared in option::of(0..3usize), full in any::<bool>(), by in 0..3usize,
        ) {
            objective: GaussianNll::<T>::new().full(full).eps(1e-3).reduction([Reduction::Mean, Reduction::Sum, Reduction::None][by]),
            predictions: [shape.clone(), variance(&shape, shared)],
            targets: [TargetKind::Values],
            values: Values::Normal,
            values: Values::Uniform(0.3..2.0),
            wrong_predictions: [shape.clone(), [&shape[..], &[1]].concat()],
        }
    }

    /// The shape of a variance that is shared along an axis, or lacks the last one.
    fn variance(shape: &[usize], shared: Option<usize>) -> Vec<usize> {
        match shared {
            None => shape.to_vec(),
            Some(2) => shape[..shape.len() - 1].to_vec(),
            Some(axis) => shape.iter().enumerate().map(|(i, &n)| if i == axis { 1 } else { n }).collect(),
        }
    }

    /// y − t = (−2, 1), v = (4, 4): e = ½ (ln 4 + 1), ½ (ln 4 + ¼); ∂y = (−½, ¼)/2, ∂var = ½ (¼ − ¼, ¼ − 1/16)/2.
    #[test]
    pub fn by_hand() {
        let (y, t) = (Tensor::from([[1.0, 2.0]]), Tensor::from([[3.0, 1.0]]));
        let (own, one) = (Tensor::from([[4.0, 4.0]]), Tensor::from([[4.0]]));
        let (l4, dvar) = (4f64.ln(), [0.0, 0.046875]);
        let e = 0.5 * l4 + 0.3125;
        let given = Given { ys: &[&y, &own], t: Some(&t) };
        compare(&GaussianNll::new(), given, e, &[&[-0.25, 0.125], &dvar], &[0.25, -0.125]);
        // One variance for both: the sum of the slopes.
        let given = Given { ys: &[&y, &one], t: Some(&t) };
        compare(&GaussianNll::new(), given, e, &[&[-0.25, 0.125], &[0.046875]], &[0.25, -0.125]);
        agrees(|by| GaussianNll::new().full(true).reduction(by), given);
    }

    #[test]
    fn far_means_small_variances_and_wrong_settings() {
        let (y, t) = (Tensor::from([[1e30f32, 1.0]]), Tensor::from([[-1e30f32, 1.0]]));
        let (var, mut e) = (Tensor::from([[1e30f32, 0.0]]), Tensor::default());
        let loss = GaussianNll::new().reduction(Reduction::None);
        loss.evaluate(&[&y, &var], &[(&t).into()], &mut e).unwrap();
        assert!((e.data()[0] / 2e30 - 1.0).abs() < 1e-6 && (e.data()[1] - 0.5 * 1e-6f32.ln()).abs() < 1e-5);
        let below = Tensor::from([[1.0f32, -1e-3]]);
        let text = loss.evaluate(&[&y, &below], &[(&t).into()], &mut e).unwrap_err().to_string();
        assert_eq!(text, "GaussianNll: expected variances from 0, got -0.001 at position 1");
        for eps in [0.0, -1.0, f64::NAN, 1e300] {
            assert!(GaussianNll::<f32>::new().eps(eps).verify().is_err());
        }
    }
}
