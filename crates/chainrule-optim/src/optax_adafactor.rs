//! Adafactor (Shazeer and Stern, 2018), as optax has it.
//!
//! ```text
//! ω = t^−c                        q = g² + ε
//! R ← R + ω (mean q − R)          along the largest axis
//! C ← C + ω (mean q − C)          along the second largest; u = g/(√(R/mean R) √C)
//! V ← V + ω (q − V)               where an axis is short, or there is one alone; u = g/√V
//! u ← η max(1e-3, rms(w)) u/max(1, rms(u)/d)
//! m ← β m + (1 − β) u
//! w ← w − m − λ w
//! ```
//!
//! Derivation: docs/optimizers/optax_adafactor.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Update,
    check::{above_zero, below_one, not_negative, representable},
    rule::settings,
};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{Matrices, ScaledStep, root_mean_square};

/// The smallest root mean square of the weights that a step is measured by.
const LEAST: f64 = 1e-3;

/// Adafactor with the settings of the package optax: a second moment without a smallest root, factors along the two largest axes, a
/// first moment on demand, a rate that need not fall by itself, and a decay that does not depend on the rate.
///
/// Defaults: factors for axes from 128 on, c = 0.8, d = 1, ε = 1e-30, steps in units of the weights, no momentum, no decay.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::OptaxAdafactor;
/// let adafactor: OptaxAdafactor = OptaxAdafactor::new(1e-2).momentum(Some(0.9));
/// assert!(adafactor.check().is_ok());
/// ```
pub type OptaxAdafactor<T = f32> = Driver<OptaxAdafactorRule, T>;

/// The rule of [`OptaxAdafactor`]; keeps `v_row` R and `v_col` C, or `v` V, and `m` if there is a momentum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptaxAdafactorRule {
    min_dim_size_to_factor: usize,
    decay_rate: f64,
    multiply_by_parameter_scale: bool,
    clipping_threshold: Option<f64>,
    momentum: Option<f64>,
    weight_decay_rate: f64,
    eps: f64,
    factored: bool,
}

impl Default for OptaxAdafactorRule {
    fn default() -> Self {
        Self {
            min_dim_size_to_factor: 128,
            decay_rate: 0.8,
            multiply_by_parameter_scale: true,
            clipping_threshold: Some(1.0),
            momentum: None,
            weight_decay_rate: 0.0,
            eps: 1e-30,
            factored: true,
        }
    }
}

impl<T: Scalar> Driver<OptaxAdafactorRule, T> {
    /// A learning rate η, 1 where optax is given none, and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(OptaxAdafactorRule::default(), learning_rate)
    }
}

settings! { OptaxAdafactorRule {
    /// The length from which on the second largest axis is factored.
    min_dim_size_to_factor: usize,
    /// The power c by which the weight of the newest squares falls.
    decay_rate: f64,
    /// Whether steps are measured in units of the weights' root mean square.
    multiply_by_parameter_scale: bool,
    /// The largest root mean square d of an update, if there is one.
    clipping_threshold: Option<f64>,
    /// How much of the mean of the updates stays, if it is kept.
    momentum: Option<f64>,
    /// The part λ of a weight that goes at each step, whatever the rate.
    weight_decay_rate: f64,
    /// What is added to every square.
    eps: f64,
    /// Whether second moments are factored at all.
    factored: bool,
} }

impl OptaxAdafactorRule {
    /// The matrices of the two largest axes, of equal ones the later first, and whether the largest is the second of the two: then the
    /// rows' means run along it.
    fn matrices(&self, shape: &[usize]) -> Option<(Matrices, bool)> {
        let mut axes: Vec<usize> = (0..shape.len()).collect();
        axes.sort_by_key(|&axis| shape[axis]);
        let [.., second, largest] = axes[..] else { return None };
        if !self.factored || shape[second] < self.min_dim_size_to_factor {
            return None;
        }
        let (a, b) = (second.min(largest), second.max(largest));
        let volume = |axes: &[usize]| axes.iter().product();
        let of = Matrices {
            outer: volume(&shape[..a]),
            m: shape[a],
            between: volume(&shape[a + 1..b]),
            n: shape[b],
            inner: volume(&shape[b + 1..]),
        };
        Some((of, largest == b))
    }
}

impl<T: Scalar> Rule<T> for OptaxAdafactorRule {
    const KIND: &'static str = "OptaxAdafactor";
    const DECOUPLED: bool = true;
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        match name {
            "momentum" => self.momentum.as_mut(),
            "weight_decay_rate" => Some(&mut self.weight_decay_rate),
            _ => None,
        }
    }

    fn check(&self) -> Result<()> {
        const NAME: &str = "OptaxAdafactor";
        if self.min_dim_size_to_factor == 0 {
            return Err(Error::value("OptaxAdafactor: expected min_dim_size_to_factor from 1, got 0"));
        }
        not_negative::<T>(NAME, "decay_rate", self.decay_rate)?;
        not_negative::<T>(NAME, "weight_decay_rate", self.weight_decay_rate)?;
        if let Some(d) = self.clipping_threshold {
            above_zero(NAME, "clipping_threshold", d)?;
            representable::<T>(NAME, "clipping_threshold", d)?;
        }
        if let Some(beta) = self.momentum {
            below_one(NAME, "momentum", beta)?;
        }
        // Squares of 0 alone have the root ε.
        if !(self.eps >= f64::from(f32::MIN_POSITIVE) && self.eps.is_finite()) {
            return Err(Error::value(format!(
                "OptaxAdafactor: expected eps from {:e}, got {}",
                f32::MIN_POSITIVE,
                self.eps
            )));
        }
        representable::<T>(NAME, "eps", self.eps)
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        let mut state = match self.matrices(shape) {
            Some((of, _)) => {
                let Matrices { outer, m, between, n, inner } = of;
                vec![
                    StateTensor::new("v_row", [outer, m, between, inner]),
                    StateTensor::new("v_col", [outer, between, n, inner]),
                ]
            }
            None => vec![StateTensor::new("v", *shape)],
        };
        if self.momentum.is_some() {
            state.push(StateTensor::new("m", *shape));
        }
        state
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, shape, t, rate, terms, .. } = update;
        let scale = if self.multiply_by_parameter_scale { root_mean_square(w).max(LEAST) } else { 1.0 };
        let step = ScaledStep {
            rate: terms.sign * rate * scale,
            newest: (t as f64).powf(-self.decay_rate),
            eps: self.eps,
            clip: self.clipping_threshold.unwrap_or(f64::INFINITY),
            momentum: self.momentum.unwrap_or(0.0),
            keep: terms.shrink - self.weight_decay_rate,
        };
        match (state, self.matrices(shape)) {
            ([r, c, rest @ ..], Some((of, by_rows))) => {
                let m = rest.first_mut().map(|m| m.data_mut());
                step.matrices(w, g, [r.data_mut(), c.data_mut()], m, of, by_rows);
            }
            ([v, rest @ ..], _) => {
                step.whole(w, g, v.data_mut(), rest.first_mut().map(|m| m.data_mut()));
            }
            _ => unreachable!("the driver lays out the state that the rule names"),
        }
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("OptaxAdafactor")
            .with("lr", settings.rate)
            .with("min_dim_size_to_factor", self.min_dim_size_to_factor)
            .with("decay_rate", self.decay_rate)
            .with("multiply_by_parameter_scale", self.multiply_by_parameter_scale)
            .with("clipping_threshold", self.clipping_threshold)
            .with("momentum", self.momentum)
            .with("weight_decay_rate", self.weight_decay_rate)
            .with("eps", self.eps)
            .with("factored", self.factored)
            .with("weight_decay", settings.weight_decay)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for OptaxAdafactor<T> {
    const FACTS: Facts = Facts::new("OptaxAdafactor")
        .family("optimizer")
        .formula("w ← w − η rms(w) u − λ w, u = g/(√(R/mean R) √C)")
        .page("optimizers/optax_adafactor.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = OptaxAdafactorRule::default();
        Self::new(1.0)
            .min_dim_size_to_factor(args.or("min_dim_size_to_factor", rule.min_dim_size_to_factor)?)
            .decay_rate(args.or("decay_rate", rule.decay_rate)?)
            .multiply_by_parameter_scale(
                args.or("multiply_by_parameter_scale", rule.multiply_by_parameter_scale)?,
            )
            .clipping_threshold(args.or("clipping_threshold", rule.clipping_threshold)?)
            .momentum(args.or("momentum", rule.momentum)?)
            .weight_decay_rate(args.or("weight_decay_rate", rule.weight_decay_rate)?)
            .eps(args.or("eps", rule.eps)?)
            .factored(args.or("factored", rule.factored)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let adafactor = || Spec::new("OptaxAdafactor").with("lr", 0.03);
        vec![
            Example::new(
                adafactor().with("min_dim_size_to_factor", 2).with("momentum", 0.9),
                [[3, 2], [2, 5]],
            ),
            Example::new(adafactor().with("weight_decay_rate", 0.01).with("maximize", true), [[7]]),
            Example::bench(Spec::new("OptaxAdafactor").with("lr", 1e-3), [[1024, 1024]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare_whole, descends, norm};
    use chainrule_core::{Grads, Optimizer};

    /// ω = 1 on the first step. G = [1 1; 1 7]: R = C = (1, 25), mean R = 13, so u = [√13, √13/5; √13/5, 7 √13/25], whose rms is
    /// √(13 (1 + 2/25 + 49/625)/4) < 2 = d. rms(w) = 1, so w = 1 − ½ u − 0.1.
    #[test]
    pub fn by_hand() {
        let mut bag = Bag::<f64>::of(&[("weight", &[2, 2])]);
        bag.0[0].value_mut().unwrap().fill(1.0);
        let want = [1.0, 0.2, 0.2, 0.28].map(|u| 0.9 - 0.5 * 13f64.sqrt() * u);
        let adafactor = OptaxAdafactor::new(0.5).min_dim_size_to_factor(2).clipping_threshold(Some(2.0));
        descends(adafactor.weight_decay_rate(0.1), &[1.0, 1.0, 1.0, 7.0], &mut bag, &[want]);
    }

    #[test]
    pub fn agrees_with_reference() {
        for (momentum, maximize) in [(None, false), (Some(0.9), true)] {
            let adafactor =
                OptaxAdafactor::new(0.3).min_dim_size_to_factor(2).eps(1e-3).weight_decay_rate(0.1);
            let adafactor = adafactor.momentum(momentum).maximize(maximize);
            // The state is R with C behind it, V, and m.
            compare_whole(adafactor, |w, g, [rc, v, m], t| {
                let newest = f64::from(t).powf(-0.8);
                let q = |i: usize| g[i] * g[i] + 1e-3;
                let mut u = g.to_vec();
                if w.len() == 6 {
                    for i in 0..2 {
                        rc[i] += newest * ((0..3).map(|j| q(3 * i + j)).sum::<f64>() / 3.0 - rc[i]);
                    }
                    for j in 0..3 {
                        rc[2 + j] += newest * ((0..2).map(|i| q(3 * i + j)).sum::<f64>() / 2.0 - rc[2 + j]);
                    }
                    let mean = (rc[0] + rc[1]) / 2.0;
                    u.iter_mut()
                        .enumerate()
                        .for_each(|(i, u)| *u /= (rc[i / 3] / mean * rc[2 + i % 3]).sqrt());
                } else {
                    for (i, u) in u.iter_mut().enumerate() {
                        v[i] += newest * (q(i) - v[i]);
                        *u /= v[i].sqrt();
                    }
                }
                let rms = |v: &[f64]| norm(v) / (v.len() as f64).sqrt();
                let sign = if maximize { -1.0 } else { 1.0 };
                let scale = sign * 0.3 * rms(w).max(1e-3) / rms(&u).max(1.0);
                for ((w, u), m) in w.iter_mut().zip(u).zip(m) {
                    let beta = momentum.unwrap_or(0.0);
                    *m = beta * *m + (1.0 - beta) * scale * u;
                    *w = *w - *m - 0.1 * *w;
                }
            });
        }
    }

    /// Axes 0 and 2 of (4, 2, 3) are the largest; a matrix of them for each place on axis 1. The same tensor with the axes in another
    /// order takes the same steps.
    #[test]
    fn the_two_largest_axes_are_factored_wherever_they_stand() {
        let order = |shape: [usize; 3], perm: [usize; 3]| {
            let mut bag = Bag::<f64>::of(&[("weight", &shape)]);
            let mut grads = Grads::new(&bag);
            let mut adafactor = OptaxAdafactor::new(0.1).min_dim_size_to_factor(2).momentum(Some(0.5));
            // The place of an element of the (4, 2, 3) tensor in this one.
            let place = |at: [usize; 3]| perm.iter().fold(0, |sum, &axis| sum * [4, 2, 3][axis] + at[axis]);
            let all = || (0..24).map(|i| [i / 6, i / 3 % 2, i % 3]);
            let value = |at: [usize; 3]| ((at[0] * 7 + at[1] * 3 + at[2] * 5) % 11) as f64 * 0.3 - 1.4;
            all().for_each(|at| bag.0[0].value_mut().unwrap()[place(at)] = value(at));
            for t in 1..4 {
                all().for_each(|at| grads.values_mut()[place(at)] = value(at) * f64::from(t) - 0.5);
                adafactor.step(&mut bag, &grads).unwrap();
            }
            let w = bag.0[0].value().unwrap().to_vec();
            all().map(|at| w[place(at)]).collect::<Vec<_>>()
        };
        let want = order([4, 2, 3], [0, 1, 2]);
        for perm in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let got = order(perm.map(|axis| [4, 2, 3][axis]), perm);
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() < 1e-13, "{perm:?}: {got} for {want}");
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        let adafactor = || OptaxAdafactor::<f32>::new(0.1);
        assert!(adafactor().min_dim_size_to_factor(0).check().is_err());
        assert!(adafactor().decay_rate(f64::NAN).check().is_err());
        assert!(adafactor().clipping_threshold(Some(0.0)).check().is_err());
        assert!(adafactor().clipping_threshold(Some(f64::NAN)).check().is_err());
        assert!(adafactor().momentum(Some(1.0)).check().is_err());
        assert!(adafactor().weight_decay_rate(-1.0).check().is_err());
        assert!(adafactor().eps(0.0).check().is_err());
        assert!(adafactor().eps(f64::INFINITY).check().is_err());
    }
}
