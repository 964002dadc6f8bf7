//! Gradient descent without a schedule (Defazio and others, 2024).
//!
//! ```text
//! ηₜ = η min(1, t/n)             z ← z − ηₜ (g + λ y)
//! c = wₜ/Σw                      wₜ = tʳ (max ηₜ)^p
//! x ← (1 − c) x + c z            y ← β x + (1 − β) z
//! ```
//!
//! Derivation: docs/optimizers/schedule_free.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Terms, Update,
    check::{above_zero, not_negative},
    rule::settings,
    schedule_free::Warmup,
};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Parameters, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{ScheduleFreeStep, averaged, schedule_free_sgd};

/// Gradient descent at a constant rate, whose average of weights is as good as a falling rate would have made them. No other schedule is needed.
///
/// The model holds y, where gradients are taken; [`ScheduleFreeSgd::to_average`] puts x in its place for evaluation.
///
/// Defaults: momentum β = 0.9, no warm-up, r = 0, a power of 2, λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::ScheduleFreeSgd;
/// let optimizer: ScheduleFreeSgd = ScheduleFreeSgd::new(1e-2).warmup_steps(100);
/// assert!(optimizer.check().is_ok());
/// ```
pub type ScheduleFreeSgd<T = f32> = Driver<ScheduleFreeSgdRule, T>;

/// The rule of [`ScheduleFreeSgd`]; keeps `z`, and the numbers `weight_sum` and `lr_max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleFreeSgdRule {
    momentum: f64,
    warmup_steps: u64,
    r: f64,
    weight_lr_power: f64,
    from_zero: bool,
}

impl Default for ScheduleFreeSgdRule {
    fn default() -> Self {
        Self { momentum: 0.9, warmup_steps: 0, r: 0.0, weight_lr_power: 2.0, from_zero: false }
    }
}

impl<T: Scalar> Driver<ScheduleFreeSgdRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(ScheduleFreeSgdRule::default(), learning_rate)
    }
}

settings! { ScheduleFreeSgdRule {
    /// The share β of the average x in the weights y that are trained; above 0.
    momentum: f64,
    /// Over how many steps the rate rises to η in a line.
    warmup_steps: u64,
    /// The power of t in the weight of a step.
    r: f64,
    /// The power of the largest rate so far in the weight of a step.
    weight_lr_power: f64,
    /// Whether the first step of the warm-up has the rate 0, as optax has it, rather than η/n.
    from_zero: bool,
} }

impl<T: Scalar> ScheduleFreeSgd<T> {
    /// Replaces the weights y by their average x, to be evaluated or saved.
    ///
    /// # Errors
    /// The state is of another model.
    pub fn to_average(&self, model: &mut dyn Parameters<T = T>) -> Result<()> {
        let beta = self.rule().momentum;
        self.each_stepped(model, &mut |w, state| {
            averaged(w, state[0].data(), T::from_f64(1.0 / beta), T::from_f64((beta - 1.0) / beta));
        })
    }

    /// Goes back from the average to the weights that are trained.
    ///
    /// # Errors
    /// As [`ScheduleFreeSgd::to_average`].
    pub fn to_training(&self, model: &mut dyn Parameters<T = T>) -> Result<()> {
        let beta = self.rule().momentum;
        self.each_stepped(model, &mut |w, state| {
            averaged(w, state[0].data(), T::from_f64(beta), T::from_f64(1.0 - beta));
        })
    }
}

impl<T: Scalar> Rule<T> for ScheduleFreeSgdRule {
    const KIND: &'static str = "ScheduleFreeSgd";
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        match name {
            "momentum" => Some(&mut self.momentum),
            _ => None,
        }
    }

    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.momentum) {
            return Err(Error::value(format!(
                "ScheduleFreeSgd: expected momentum in (0, 1], got {}",
                self.momentum
            )));
        }
        above_zero("ScheduleFreeSgd", "momentum", self.momentum)?;

        for (name, power) in [("r", self.r), ("weight_lr_power", self.weight_lr_power)] {
            not_negative::<T>("ScheduleFreeSgd", name, power)?;
        }
        Ok(())
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        let mut state = vec![StateTensor::new("z", *shape)];
        state.extend(["weight_sum", "lr_max"].map(|name| StateTensor::new(name, [])));
        state
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [z, sum, largest] = state else {
            unreachable!("the driver lays out the state that the rule names")
        };
        if t == 1 {
            z.data_mut().copy_from_slice(w); // z = y before the first step
        }
        let warmup = Warmup { steps: self.warmup_steps, from_zero: self.from_zero };
        let [rate, c] = warmup.step(rate, t, [self.r, self.weight_lr_power], sum, largest);
        let beta = self.momentum;
        let step = ScheduleFreeStep {
            rate: T::from_f64(rate),
            beta: T::from_f64(beta),
            one_minus_beta: T::from_f64(1.0 - beta),
            c: T::from_f64(c),
            one_minus_c: T::from_f64(1.0 - c),
            decay: T::from_f64(terms.decay),
            beta2: T::ZERO,
            one_minus_beta2: T::ZERO,
            root: T::ZERO,
            eps: T::ZERO,
        };
        let terms = Terms { decay: 0.0, ..terms }; // it is part of the step of z
        schedule_free_sgd(w, g, z.data_mut(), terms.cast(), step);
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("ScheduleFreeSgd")
            .with("lr", settings.rate)
            .with("momentum", self.momentum)
            .with("weight_decay", settings.weight_decay)
            .with("warmup_steps", self.warmup_steps)
            .with("r", self.r)
            .with("weight_lr_power", self.weight_lr_power)
            .with("from_zero", self.from_zero)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for ScheduleFreeSgd<T> {
    const FACTS: Facts = Facts::new("ScheduleFreeSgd")
        .family("optimizer")
        .formula("z ← z − η u, y ← β x + (1 − β) z, x the mean of z")
        .page("optimizers/schedule_free.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = ScheduleFreeSgdRule::default();
        Self::new(1.0)
            .momentum(args.or("momentum", rule.momentum)?)
            .warmup_steps(args.or("warmup_steps", rule.warmup_steps)?)
            .r(args.or("r", rule.r)?)
            .weight_lr_power(args.or("weight_lr_power", rule.weight_lr_power)?)
            .from_zero(args.or("from_zero", rule.from_zero)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let schedule_free_sgd = || Spec::new("ScheduleFreeSgd").with("lr", 0.03);
        vec![
            Example::new(
                schedule_free_sgd().with("warmup_steps", 3).with("r", 1.0).with("weight_decay", 0.1),
                [[3, 2], [2, 5]],
            ),
            Example::new(
                schedule_free_sgd().with("momentum", 0.5).with("weight_lr_power", 0.0).with("maximize", true),
                [[7]],
            ),
            Example::new(schedule_free_sgd().with("warmup_steps", 3).with("from_zero", true), [[7]]),
            Example::bench(Spec::new("ScheduleFreeSgd").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// η g = 1: z = 9, 8; x = 9, 8.5; β = ½: y = 9, ½ (8.5 + 8).
    #[test]
    pub fn by_hand() {
        let optimizer = ScheduleFreeSgd::new(0.5).momentum(0.5);
        descends(optimizer, &[2.0], &mut Bag::new(&[10.0]), &[[9.0], [8.25]]);
    }

    #[test]
    fn the_average_and_back() {
        let (mut bag, mut optimizer) =
            (Bag::<f64>::new(&[1.0, -2.0]), ScheduleFreeSgd::new(0.1).momentum(0.5));
        let mut grads = chainrule_core::Grads::new(&bag);
        let mut values = Vec::new();
        for t in 1..=3 {
            crate::testing::fill(&mut grads, t);
            optimizer.step(&mut bag, &grads).unwrap();
            let state = chainrule_core::OptimizerState::of(&optimizer, &bag).unwrap();
            let Some(chainrule_core::StateValue::Values(z)) = state.get("weight", "z") else { panic!() };
            values.push(z.data().to_vec());
        }
        // Without a warm-up all steps weigh the same: x is the mean of the z.
        let y = bag.0[0].value().unwrap().to_vec();
        optimizer.to_average(&mut bag).unwrap();
        for (i, x) in bag.0[0].value().unwrap().iter().enumerate() {
            assert!((x - values.iter().map(|z| z[i]).sum::<f64>() / 3.0).abs() < 1e-14);
        }
        optimizer.to_training(&mut bag).unwrap();
        assert!(bag.0[0].value().unwrap().iter().zip(y).all(|(got, want)| (got - want).abs() < 1e-14));
    }

    #[test]
    pub fn agrees_with_reference() {
        for maximize in [false, true] {
            let optimizer = ScheduleFreeSgd::new(0.3).momentum(0.8).warmup_steps(3).r(1.0).weight_decay(0.1);
            compare(optimizer.maximize(maximize), |w, g, s: &mut [f64; 4], t| {
                if t == 1 {
                    s[0] = *w;
                }
                let d = if maximize { -g } else { g };
                let rate = 0.3 * (f64::from(t) / 3.0).min(1.0);
                let weight = f64::from(t) * rate * rate;
                s[1] += weight;
                let c = weight / s[1];
                let x = (*w - 0.2 * s[0]) / 0.8;
                s[0] -= rate * (d + 0.1 * *w);
                *w = 0.8 * ((1.0 - c) * x + c * s[0]) + 0.2 * s[0];
            });
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(ScheduleFreeSgd::<f32>::new(0.1).momentum(0.0).check().is_err());
        assert!(ScheduleFreeSgd::<f32>::new(0.1).r(-1.0).check().is_err());
        assert!(ScheduleFreeSgd::<f32>::new(0.1).weight_lr_power(f64::NAN).check().is_err());
    }
}
