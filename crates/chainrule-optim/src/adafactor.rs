//! Adafactor (Shazeer and Stern, 2018), as PyTorch has it.
//!
//! ```text
//! ω = t^κ                         q = g²; κ is below 0
//! R ← R + ω (meanⱼ q − R)         C ← C + ω (meanᵢ q − C)
//! V = R Cᵀ/max(mean R, ε₁)        for vectors V ← V + ω (q − V)
//! u = g/√max(V, ε₁²)
//! α = max(ε₂, rms(w)) min(η, 1/√t)
//! w ← (1 − η λ) w − α u/max(1, rms(u)/d)
//! ```
//!
//! Derivation: docs/optimizers/adafactor.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{not_negative, representable},
    rule::settings,
};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Shape, Spec, Value};
use chainrule_tensor::kernels::layers::optim::{
    AdafactorStep, adafactor_matrices, adafactor_whole, root_mean_square,
};

/// Adam without a first moment, whose second moment of a matrix takes the memory of a row and a column.
///
/// Defaults: κ = −0.8, ε₁ = the distance from 1 to the next value, ε₂ = 0.001, d = 1, λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::Adafactor;
/// let adafactor: Adafactor = Adafactor::new(1e-2).weight_decay(0.01);
/// assert!(adafactor.check().is_ok());
/// ```
pub type Adafactor<T = f32> = Driver<AdafactorRule, T>;

/// The rule of [`Adafactor`]; keeps `row_var` R and `col_var` C of the last two axes, or `variance` V of a vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdafactorRule {
    eps: (Option<f64>, f64),
    beta2_decay: f64,
    d: f64,
}

impl Default for AdafactorRule {
    fn default() -> Self {
        Self { eps: (None, 1e-3), beta2_decay: -0.8, d: 1.0 }
    }
}

impl<T: Scalar> Driver<AdafactorRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(AdafactorRule::default(), learning_rate)
    }
}

settings! { AdafactorRule {
    /// The power κ, 0 at most, by which the weight of the newest squares falls.
    beta2_decay: f64,
    /// The largest root mean square d of an update.
    d: f64,
} }

impl<T: Scalar> Driver<AdafactorRule, T> {
    /// The smallest root ε₁ of a second moment, by default the distance from 1 to the next value of the parameters' type,
    /// and the smallest root mean square ε₂ of the weights that a step is measured by.
    #[must_use]
    pub fn eps(self, eps1: Option<f64>, eps2: f64) -> Self {
        self.set(|rule| rule.eps = (eps1, eps2))
    }
}

impl<T: Scalar> Rule<T> for AdafactorRule {
    const KIND: &'static str = "Adafactor";
    const DECOUPLED: bool = true;
    const FUSED: bool = true;

    fn check(&self) -> Result<()> {
        if !(self.beta2_decay <= 0.0 && self.beta2_decay.is_finite()) {
            return Err(Error::value(format!(
                "Adafactor: expected beta2_decay up to 0, got {}",
                self.beta2_decay
            )));
        }
        if let Some(eps) = self.eps.0 {
            not_negative::<T>("Adafactor", "ε₁", eps)?;
        }
        not_negative::<T>("Adafactor", "ε₂", self.eps.1)?;
        if self.d < 1.0 {
            return Err(Error::value(format!("Adafactor: expected d from 1, got {}", self.d)));
        }
        representable::<T>("Adafactor", "d", self.d)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        let [.., rows, columns] = shape[..] else { return vec![StateTensor::new("variance", *shape)] };
        let leading = &shape[..shape.len() - 2];
        let of = |name, last: [usize; 2]| {
            let axes = [leading, &last].concat();
            StateTensor::new(
                name,
                Shape::new(&axes).expect("no more axes or elements than the parameter has"),
            )
        };
        vec![of("row_var", [rows, 1]), of("col_var", [1, columns])]
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, shape, t, rate, terms, .. } = update;
        let (at, least) = (t as f64, if T::NAME == "F64" { f64::EPSILON } else { f32::EPSILON.into() });
        let step = AdafactorStep {
            rate: root_mean_square(w).max(self.eps.1) * rate.min(1.0 / at.sqrt()),
            newest: at.powf(self.beta2_decay),
            eps: self.eps.0.unwrap_or(least).max(f64::from(f32::MIN_POSITIVE).sqrt()),
            clip: self.d,
            sign: terms.sign,
            shrink: terms.shrink,
        };
        match (state, &shape[..]) {
            ([r, c], [.., columns]) => adafactor_matrices(w, g, r.data_mut(), c.data_mut(), *columns, step),
            ([v], _) => adafactor_whole(w, g, v.data_mut(), step),
            _ => unreachable!("the driver lays out the state that the rule names"),
        }
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("Adafactor")
            .with("lr", settings.rate)
            .with("beta2_decay", self.beta2_decay)
            .with("eps", Value::List(vec![self.eps.0.into(), self.eps.1.into()]))
            .with("d", self.d)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for Adafactor<T> {
    const FACTS: Facts = Facts::new("Adafactor")
        .family("optimizer")
        .formula("w ← w − α g/√V, V = R Cᵀ/mean R")
        .page("optimizers/adafactor.md")
        .torch("Adafactor");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = AdafactorRule::default();
        let eps = args.or("eps", vec![rule.eps.0, Some(rule.eps.1)])?;
        let [eps1, Some(eps2)] = eps[..] else {
            return Err(Error::value(
                "Adafactor: expected eps of two numbers, of which the first may be none",
            ));
        };
        Self::new(1e-2)
            .eps(eps1, eps2)
            .beta2_decay(args.or("beta2_decay", rule.beta2_decay)?)
            .d(args.or("d", rule.d)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let adafactor = || Spec::new("Adafactor").with("lr", 0.03);
        vec![
            Example::new(adafactor().with("beta2_decay", -0.5).with("weight_decay", 0.1), [[3, 2], [2, 5]]),
            Example::new(
                adafactor().with("eps", vec![1e-3, 1e-2]).with("d", 2.0).with("maximize", true),
                [[7]],
            ),
            Example::bench(Spec::new("Adafactor").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, descends};
    use crate::testing::{compare_whole, norm};
    use chainrule_core::Optimizer;

    /// ω = 1 on the first step. G = [1 1; 1 7]: R = C = (1, 25), mean R = 13, V = [1 25; 25 625]/13,
    /// u = √13 [1, 1/5; 1/5, 7/25]; rms(u) = √(13 (1 + 2/25 + 49/625)/4) < 2 = d. α = ½ as rms(w) = 1.
    #[test]
    pub fn by_hand() {
        let mut bag = Bag::<f64>::of(&[("weight", &[2, 2])]);
        bag.0[0].value_mut().unwrap().fill(1.0);
        let want = [1.0, 0.2, 0.2, 0.28].map(|u| 1.0 - 0.5 * 13f64.sqrt() * u);
        descends(Adafactor::new(0.5).d(2.0), &[1.0, 1.0, 1.0, 7.0], &mut bag, &[want]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for maximize in [false, true] {
            let adafactor = Adafactor::new(0.3).eps(Some(1e-2), 1e-3).weight_decay(0.1).maximize(maximize);
            compare_whole(adafactor, |w, g, [r, c, v], t| {
                let (rows, columns) = if w.len() == 6 { (2, 3) } else { (1, w.len()) };
                let newest = f64::from(t).powf(-0.8);
                let q = |i: usize, j: usize| g[i * columns + j] * g[i * columns + j];
                let mut u = g.to_vec();
                if rows == 1 {
                    for j in 0..columns {
                        v[j] += newest * (q(0, j) - v[j]);
                        u[j] /= v[j].max(1e-4).sqrt();
                    }
                } else {
                    for i in 0..rows {
                        r[i] += newest * ((0..columns).map(|j| q(i, j)).sum::<f64>() / columns as f64 - r[i]);
                    }
                    for j in 0..columns {
                        c[j] += newest * ((0..rows).map(|i| q(i, j)).sum::<f64>() / rows as f64 - c[j]);
                    }
                    let mean = (r[..rows].iter().sum::<f64>() / rows as f64).max(1e-2);
                    for i in 0..rows {
                        for j in 0..columns {
                            u[i * columns + j] /= (r[i] * c[j] / mean).max(1e-4).sqrt();
                        }
                    }
                }
                let rms = |v: &[f64]| norm(v) / (v.len() as f64).sqrt();
                let alpha = rms(w).max(1e-3) * 0.3f64.min(1.0 / f64::from(t).sqrt()) / rms(&u).max(1.0);
                let sign = if maximize { -1.0 } else { 1.0 };
                w.iter_mut().zip(u).for_each(|(w, u)| *w = (1.0 - 0.3 * 0.1) * *w - sign * alpha * u);
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(Adafactor::<f32>::new(0.1).beta2_decay(0.5).check().is_err());
        assert!(Adafactor::<f32>::new(0.1).beta2_decay(f64::NAN).check().is_err());
        assert!(Adafactor::<f32>::new(0.1).d(0.5).check().is_err());
        assert!(Adafactor::<f32>::new(0.1).d(f64::NAN).check().is_err());
        assert!(Adafactor::<f32>::new(0.1).eps(Some(-1.0), 0.0).check().is_err());
        assert!(Adafactor::<f32>::new(0.1).eps(None, f64::NAN).check().is_err());
    }
}
