//! Up and down, again and again (Smith, 2017).

use super::{PAGE, Schedule, finite, from_one};
use chainrule_core::{Args, Error, Example, Facts, FromSpec, Result, Scalar, Spec};

/// b + (M − b) h s: h rises from 0 to 1 in u steps and falls to 0 in d steps; s shrinks the peaks as [`Peaks`] says.
///
/// PyTorch gives b and M as rates; here they are factors of the optimizer's, as every schedule is.
///
/// ```
/// use chainrule_optim::schedule::{Cyclic, Schedule};
/// let schedule = Cyclic::new(0.1, 1.0, 4);
/// assert_eq!([0, 4, 8].map(|t| schedule.factor(t)), [0.1, 1.0, 0.1]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cyclic {
    base: f64,
    peak: f64,
    up: u64,
    down: u64,
    peaks: Peaks,
    gamma: f64,
}

impl Cyclic {
    /// From b to M in `up` steps, at least one, and down in as many.
    pub fn new(base: f64, peak: f64, up: u64) -> Self {
        Self { base, peak, up, down: up, peaks: Peaks::Equal, gamma: 1.0 }
    }

    /// Falls in another number of steps, at least one.
    #[must_use]
    pub fn down(mut self, steps: u64) -> Self {
        self.down = steps;
        self
    }

    /// How the peaks shrink.
    #[must_use]
    pub fn peaks(mut self, peaks: Peaks) -> Self {
        self.peaks = peaks;
        self
    }

    /// The factor γ of [`Peaks::Exponential`].
    #[must_use]
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.gamma = gamma;
        self
    }
}

/// How the peaks of a [`Cyclic`] schedule shrink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peaks {
    /// Not at all: PyTorch's `triangular`.
    Equal,
    /// By ½ from cycle to cycle: PyTorch's `triangular2`.
    Halved,
    /// By γᵗ: PyTorch's `exp_range`.
    Exponential,
}

impl Peaks {
    fn name(self) -> &'static str {
        match self {
            Self::Equal => "triangular",
            Self::Halved => "triangular2",
            Self::Exponential => "exp_range",
        }
    }
}

impl Schedule for Cyclic {
    fn factor(&self, step: u64) -> f64 {
        let (up, down) = (self.up.max(1), self.down.max(1));
        let (length, at) = (u128::from(up) + u128::from(down), u128::from(step));
        let (cycle, since) = (at / length, (at % length) as f64);
        let height =
            if since <= up as f64 { since / up as f64 } else { (length as f64 - since) / down as f64 };
        let scale = match self.peaks {
            Peaks::Equal => 1.0,
            Peaks::Halved => 0.5f64.powf(cycle as f64),
            Peaks::Exponential => self.gamma.powf(step as f64),
        };
        self.base + (self.peak - self.base) * height * scale
    }

    fn check(&self) -> Result<()> {
        from_one("Cyclic", "step_size_up", self.up)?;
        from_one("Cyclic", "step_size_down", self.down)?;
        finite("Cyclic", "base_lr", self.base)?;
        finite("Cyclic", "max_lr", self.peak)?;
        finite("Cyclic", "difference of max_lr and base_lr", self.peak - self.base)?;
        if !(0.0..=1.0).contains(&self.gamma) {
            return Err(Error::value(format!("Cyclic: expected gamma in [0, 1], got {}", self.gamma)));
        }
        Ok(())
    }

    fn spec(&self) -> Spec {
        Spec::new("Cyclic")
            .with("base_lr", self.base)
            .with("max_lr", self.peak)
            .with("step_size_up", self.up)
            .with("step_size_down", self.down)
            .with("mode", self.peaks.name())
            .with("gamma", self.gamma)
    }
}

impl<T: Scalar> FromSpec<T> for Cyclic {
    const FACTS: Facts = Facts::new("Cyclic")
        .family("schedule")
        .formula("b + (M − b) h s, h a triangle")
        .page(PAGE)
        .torch("CyclicLR");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let up = args.or("step_size_up", 2000)?;
        let mode = args.or("mode", "triangular".to_owned())?;
        let peaks =
            [Peaks::Equal, Peaks::Halved, Peaks::Exponential].into_iter().find(|peaks| peaks.name() == mode);
        let peaks = peaks.ok_or_else(|| {
            let mode = chainrule_core::text::quote(&mode);
            Error::value(format!("Cyclic: expected mode triangular, triangular2 or exp_range, got {mode}"))
        })?;
        let cyclic = Self::new(args.get("base_lr")?, args.get("max_lr")?, up).peaks(peaks);
        let down = args.optional("step_size_down")?.unwrap_or(up);
        Ok(cyclic.down(down).gamma(args.or("gamma", 1.0)?))
    }

    fn examples() -> Vec<Example> {
        let cyclic = Cyclic::new(0.1, 1.0, 3);
        let all = [cyclic.down(5), cyclic.peaks(Peaks::Halved), cyclic.peaks(Peaks::Exponential).gamma(0.97)];
        all.map(|schedule| Example::new(schedule.spec(), [[0; 0]; 0])).to_vec()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Up in 2 and down in 4 steps from 0 to 1: 0, ½, 1, ¾, ½, ¼, 0; the second peak is ½ where peaks are halved.
    #[test]
    pub fn by_hand() {
        let schedule = Cyclic::new(0.0, 1.0, 2).down(4);
        let want = [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.5, 1.0];
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 8].map(|t| schedule.factor(t)), want);
        assert_eq!(schedule.peaks(Peaks::Halved).factor(8), 0.5);
        assert_eq!(schedule.peaks(Peaks::Exponential).gamma(0.5).factor(2), 0.25);
        for wrong in
            [Cyclic::new(0.0, 1.0, 0), schedule.down(0), schedule.gamma(2.0), Cyclic::new(f64::NAN, 1.0, 1)]
        {
            assert!(wrong.check().is_err());
        }
    }
}
