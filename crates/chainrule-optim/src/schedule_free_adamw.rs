//! AdamW without a schedule (Defazio and others, 2024).
//!
//! ```text
//! ηₜ = η min(1, t/n)             z ← z − ηₜ (g/(√v̂ + ε) + λ y)
//! c = wₜ/Σw                      wₜ = tʳ (max ηₜ)^p
//! x ← (1 − c) x + c z            y ← β x + (1 − β) z
//! ```
//!
//! Derivation: docs/optimizers/schedule_free.md.

use crate::{
    Driver, Rule, Settings, StateTensor, Terms, Update,
    check::{above_zero, below_one, bias, not_negative, not_zero},
    rule::{beta, betas, settings},
    schedule_free::Warmup,
};
use chainrule_core::{Args, Example, Facts, FromSpec, Parameters, Result, Scalar, Shape, Spec};
use chainrule_tensor::kernels::layers::optim::{ScheduleFreeStep, averaged, schedule_free_adamw};

/// AdamW at a constant rate, whose average of weights is as good as a falling rate would have made them. No other schedule is needed.
///
/// The model holds y, where gradients are taken; [`ScheduleFreeAdamW::to_average`] puts x in its place for evaluation.
///
/// Defaults: β = (0.9, 0.999), ε = 1e-8, no warm-up, r = 0, a power of 2, λ = 0.
///
/// # Examples
/// ```
/// use chainrule_core::Optimizer;
/// use chainrule_optim::ScheduleFreeAdamW;
/// let optimizer: ScheduleFreeAdamW = ScheduleFreeAdamW::new(1e-2).warmup_steps(100);
/// assert!(optimizer.check().is_ok());
/// ```
pub type ScheduleFreeAdamW<T = f32> = Driver<ScheduleFreeAdamWRule, T>;

/// The rule of [`ScheduleFreeAdamW`]; keeps `z`, `exp_avg_sq` v, and the numbers `weight_sum` and `lr_max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleFreeAdamWRule {
    betas: [f64; 2],
    eps: f64,
    warmup_steps: u64,
    r: f64,
    weight_lr_power: f64,
    from_zero: bool,
}

impl Default for ScheduleFreeAdamWRule {
    fn default() -> Self {
        Self {
            betas: [0.9, 0.999],
            eps: 1e-8,
            warmup_steps: 0,
            r: 0.0,
            weight_lr_power: 2.0,
            from_zero: false,
        }
    }
}

impl<T: Scalar> Driver<ScheduleFreeAdamWRule, T> {
    /// A learning rate η and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self::from_rule(ScheduleFreeAdamWRule::default(), learning_rate)
    }
}

betas!(ScheduleFreeAdamWRule);

settings! { ScheduleFreeAdamWRule {
    /// What is added to the root in the denominator.
    eps: f64,
    /// Over how many steps the rate rises to η in a line.
    warmup_steps: u64,
    /// The power of t in the weight of a step.
    r: f64,
    /// The power of the largest rate so far in the weight of a step.
    weight_lr_power: f64,
    /// Whether the first step of the warm-up has the rate 0, as optax has it, rather than η/n.
    from_zero: bool,
} }

impl<T: Scalar> ScheduleFreeAdamW<T> {
    /// Replaces the weights y by their average x, to be evaluated or saved.
    ///
    /// # Errors
    /// The state is of another model.
    pub fn to_average(&self, model: &mut dyn Parameters<T = T>) -> Result<()> {
        let beta = self.rule().betas[0];
        self.each_stepped(model, &mut |w, state| {
            averaged(w, state[0].data(), T::from_f64(1.0 / beta), T::from_f64((beta - 1.0) / beta));
        })
    }

    /// Goes back from the average to the weights that are trained.
    ///
    /// # Errors
    /// As [`ScheduleFreeAdamW::to_average`].
    pub fn to_training(&self, model: &mut dyn Parameters<T = T>) -> Result<()> {
        let beta = self.rule().betas[0];
        self.each_stepped(model, &mut |w, state| {
            averaged(w, state[0].data(), T::from_f64(beta), T::from_f64(1.0 - beta));
        })
    }
}

impl<T: Scalar> Rule<T> for ScheduleFreeAdamWRule {
    const KIND: &'static str = "ScheduleFreeAdamW";
    const FUSED: bool = true;

    fn setting(&mut self, name: &str) -> Option<&mut f64> {
        beta(&mut self.betas, name)
    }

    fn check(&self) -> Result<()> {
        below_one("ScheduleFreeAdamW", "β₁", self.betas[0])?;
        below_one("ScheduleFreeAdamW", "β₂", self.betas[1])?;
        not_negative::<T>("ScheduleFreeAdamW", "ε", self.eps)?;
        above_zero("ScheduleFreeAdamW", "β₁", self.betas[0])?;

        for (name, power) in [("r", self.r), ("weight_lr_power", self.weight_lr_power)] {
            not_negative::<T>("ScheduleFreeAdamW", name, power)?;
        }
        Ok(())
    }

    fn state(&self, shape: &Shape) -> Vec<StateTensor> {
        let mut state = vec![StateTensor::new("z", *shape)];
        state.push(StateTensor::new("exp_avg_sq", *shape));
        state.extend(["weight_sum", "lr_max"].map(|name| StateTensor::new(name, [])));
        state
    }

    fn update(&self, update: Update<'_, T>) {
        let Update { w, g, state, t, rate, terms, .. } = update;
        let [z, v, sum, largest] = state else {
            unreachable!("the driver lays out the state that the rule names")
        };
        if t == 1 {
            z.data_mut().copy_from_slice(w); // z = y before the first step
        }
        let warmup = Warmup { steps: self.warmup_steps, from_zero: self.from_zero };
        let [rate, c] = warmup.step(rate, t, [self.r, self.weight_lr_power], sum, largest);
        let beta = self.betas[0];
        let step = ScheduleFreeStep {
            rate: T::from_f64(rate),
            beta: T::from_f64(beta),
            one_minus_beta: T::from_f64(1.0 - beta),
            c: T::from_f64(c),
            one_minus_c: T::from_f64(1.0 - c),
            decay: T::from_f64(terms.decay),
            beta2: T::from_f64(self.betas[1]),
            one_minus_beta2: T::from_f64(1.0 - self.betas[1]),
            root: T::from_f64(1.0 / bias(self.betas[1], t).sqrt()),
            eps: not_zero(self.eps),
        };
        let terms = Terms { decay: 0.0, ..terms }; // it is part of the step of z
        schedule_free_adamw(w, g, z.data_mut(), v.data_mut(), terms.cast(), step);
    }

    fn spec(&self, settings: &Settings) -> Spec {
        Spec::new("ScheduleFreeAdamW")
            .with("lr", settings.rate)
            .with("betas", self.betas)
            .with("eps", self.eps)
            .with("weight_decay", settings.weight_decay)
            .with("warmup_steps", self.warmup_steps)
            .with("r", self.r)
            .with("weight_lr_power", self.weight_lr_power)
            .with("from_zero", self.from_zero)
            .with("maximize", settings.maximize)
    }
}

impl<T: Scalar> FromSpec<T> for ScheduleFreeAdamW<T> {
    const FACTS: Facts = Facts::new("ScheduleFreeAdamW")
        .family("optimizer")
        .formula("z ← z − η u, y ← β x + (1 − β) z, x the mean of z")
        .page("optimizers/schedule_free.md");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let rule = ScheduleFreeAdamWRule::default();
        let [beta1, beta2] = args.or("betas", rule.betas)?;
        Self::new(25e-4)
            .betas(beta1, beta2)
            .eps(args.or("eps", rule.eps)?)
            .warmup_steps(args.or("warmup_steps", rule.warmup_steps)?)
            .r(args.or("r", rule.r)?)
            .weight_lr_power(args.or("weight_lr_power", rule.weight_lr_power)?)
            .from_zero(args.or("from_zero", rule.from_zero)?)
            .with_args(args)
    }

    fn examples() -> Vec<Example> {
        let schedule_free_adamw = || Spec::new("ScheduleFreeAdamW").with("lr", 0.03);
        vec![
            Example::new(
                schedule_free_adamw().with("warmup_steps", 3).with("r", 1.0).with("weight_decay", 0.1),
                [[3, 2], [2, 5]],
            ),
            Example::new(
                schedule_free_adamw()
                    .with("betas", [0.5, 0.9])
                    .with("eps", 1e-4)
                    .with("weight_lr_power", 0.0)
                    .with("maximize", true),
                [[7]],
            ),
            Example::new(schedule_free_adamw().with("warmup_steps", 3).with("from_zero", true), [[7]]),
            Example::bench(Spec::new("ScheduleFreeAdamW").with("lr", 1e-3), [[1, 1 << 20]]),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Bag, compare, descends};
    use chainrule_core::Optimizer;

    /// While g stays the same, v̂ = g²: z = 0.9, 0.8; x = 0.9, 0.85; β₁ = ½: y = 0.9, ½ (0.85 + 0.8).
    #[test]
    pub fn by_hand() {
        let optimizer = ScheduleFreeAdamW::new(0.1).betas(0.5, 0.9).eps(0.0);
        descends(optimizer, &[4.0], &mut Bag::new(&[1.0]), &[[0.9], [0.825]]);
    }

    #[test]
    fn the_average_and_back() {
        let (mut bag, mut optimizer) =
            (Bag::<f64>::new(&[1.0, -2.0]), ScheduleFreeAdamW::new(0.1).betas(0.5, 0.9));
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
            let optimizer = ScheduleFreeAdamW::new(0.3)
                .betas(0.8, 0.9)
                .eps(1e-4)
                .warmup_steps(3)
                .r(1.0)
                .weight_decay(0.1);
            compare(optimizer.maximize(maximize), |w, g, s: &mut [f64; 4], t| {
                if t == 1 {
                    s[0] = *w;
                }
                let d = if maximize { -g } else { g };
                s[2] = 0.9 * s[2] + 0.1 * d * d;
                let d = d / ((s[2] / (1.0 - 0.9f64.powi(t))).sqrt() + 1e-4);
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
        assert!(ScheduleFreeAdamW::<f32>::new(0.1).betas(0.0, 0.9).check().is_err());
        assert!(ScheduleFreeAdamW::<f32>::new(0.1).r(-1.0).check().is_err());
        assert!(ScheduleFreeAdamW::<f32>::new(0.1).weight_lr_power(f64::NAN).check().is_err());
    }
}
