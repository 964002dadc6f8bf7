//! Which learning rates a model can be trained at.

use crate::{
    Trainer,
    history::number,
    metric::Panel,
    pictures::{Plot, Svg},
    snapshot::Snapshot,
};
use chainrule_core::{Error, Module, Objective, Optimizer, OptimizerState, Result, Scalar};
use chainrule_data::{Loader, Source};
use std::fmt;

/// The learning-rate range test (Smith, "Cyclical learning rates for training neural networks", 2017): some steps at rates that
/// grow from one to the next by a constant factor, and the loss of each.
///
/// Defaults and the stop are those of fastai (Howard and Gugger, 2020): 100 steps from 10⁻⁷ to 10, until the smoothed loss is
/// four times its least. The running mean has β = 0.9 and not 0.98, with which it would lag by half of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangeTest {
    low: f64,
    high: f64,
    steps: usize,
}

/// What a [`RangeTest`] found: [`RangeTested::suggestion`], and the curve to look at.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RangeTested {
    /// The learning rate of each step that was taken.
    pub rates: Vec<f64>,
    /// The loss of each, that of the weights before it.
    pub losses: Vec<f64>,
    /// The smoothed losses.
    pub smoothed: Vec<f64>,
    /// Whether the loss exploded before the highest rate.
    pub exploded: bool,
}

/// How much of the running mean stays.
const BETA: f64 = 0.9;
/// So many times its least, the loss has exploded.
const EXPLODED: f64 = 4.0;
/// The share of its whole fall after which the loss has begun to fall.
const BEGUN: f64 = 0.05;
/// The fewest steps that make a curve.
const FEWEST: usize = 10;

impl Default for RangeTest {
    fn default() -> Self {
        Self { low: 1e-7, high: 10.0, steps: 100 }
    }
}

impl RangeTest {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The rates of the first and of the last step.
    #[must_use]
    pub fn rates(self, low: f64, high: f64) -> Self {
        Self { low, high, ..self }
    }

    /// How many steps.
    #[must_use]
    pub fn steps(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    fn check(&self) -> Result<()> {
        let Self { low, high, steps } = *self;
        if !(low > 0.0 && low < high && high.is_finite()) {
            return Err(Error::value(format!(
                "range test: expected rates 0 < low < high, got {low} and {high}"
            )));
        }
        if steps < FEWEST {
            return Err(Error::value(format!("range test: expected {FEWEST} steps or more, got {steps}")));
        }
        Ok(())
    }

    /// low (high/low)^(i/(n − 1))
    fn rate(&self, i: usize) -> f64 {
        let share = i as f64 / (self.steps - 1) as f64;
        self.low * ((self.high / self.low).ln() * share).exp()
    }
}

impl RangeTested {
    fn new() -> Self {
        Self { rates: Vec::new(), losses: Vec::new(), smoothed: Vec::new(), exploded: false }
    }

    fn add(&mut self, rate: f64, loss: f64) {
        let (n, before) = (self.losses.len() as i32, self.smoothed.last().copied().unwrap_or(0.0));
        let mean = BETA * before * (1.0 - BETA.powi(n)) + (1.0 - BETA) * loss;
        self.rates.push(rate);
        self.losses.push(loss);
        self.smoothed.push(mean / (1.0 - BETA.powi(n + 1)));
    }

    /// The place of the least smoothed loss.
    fn least(&self) -> usize {
        (0..self.smoothed.len()).min_by(|&a, &b| self.smoothed[a].total_cmp(&self.smoothed[b])).unwrap_or(0)
    }

    /// Whether the smoothed loss is far above its least: by as much again where that is not positive.
    fn explodes(&self) -> bool {
        let (Some(first), Some(last)) = (self.smoothed.first(), self.smoothed.last()) else { return false };
        let least = self.smoothed[self.least()];
        let size = if least > 0.0 { least } else { first.abs().max(-least) };
        last.is_nan() || *last > least + (EXPLODED - 1.0) * size
    }

    /// The rates between which a model is trained well: where the smoothed loss begins to fall (by a twentieth of its whole fall),
    /// and where it falls most steeply over ln η; `None` if it does not fall. A cyclic schedule takes both (Smith, 2017).
    pub fn bounds(&self) -> Option<[f64; 2]> {
        // The first means are of few losses.
        let (first, least) = ((self.smoothed.len() / 10).max(1), self.least());
        let slope = |&i: &usize| self.smoothed[i + 1] - self.smoothed[i - 1]; // the rates are at one distance in ln η
        let within = (first..least.min(self.smoothed.len().saturating_sub(1))).filter(|i| slope(i) < 0.0);
        let steepest = within.min_by(|a, b| slope(a).total_cmp(&slope(b)))?;
        let level = self.smoothed[first] - BEGUN * (self.smoothed[first] - self.smoothed[least]);
        let begun = (first..=steepest).rev().take_while(|&i| self.smoothed[i] < level).last();
        Some([begun.unwrap_or(steepest), steepest].map(|i| self.rates[i]))
    }

    /// The geometric mean of the [bounds](Self::bounds): an order of magnitude to begin with. Look at the curve.
    pub fn suggestion(&self) -> Option<f64> {
        self.bounds().map(|[low, high]| (low * high).sqrt())
    }

    /// The loss over the rate, in powers of ten, with the suggestion marked.
    pub fn picture(&self) -> Svg {
        let of = |losses: &[f64]| {
            let points: Vec<_> =
                self.rates.iter().map(|rate| rate.log10()).zip(losses.iter().copied()).collect();
            points
        };
        // An explosion would leave the rest flat.
        let top = EXPLODED * self.smoothed.iter().copied().fold(0.0f64, |top, loss| top.max(loss.abs()));
        let losses: Vec<f64> =
            self.losses.iter().map(|loss| if *loss <= top { *loss } else { f64::NAN }).collect();
        let plot = Plot::new("learning-rate range test")
            .axes("log₁₀ of the learning rate", "loss")
            .line("loss", of(&losses))
            .line("smoothed", of(&self.smoothed));
        match self.suggestion() {
            Some(rate) => plot.mark(rate.log10(), format!("suggested: {rate:.1e}")).svg(),
            None => plot.svg(),
        }
    }
}

impl fmt::Display for RangeTested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) =
            (self.rates.first().copied().unwrap_or(0.0), self.rates.last().copied().unwrap_or(0.0));
        write!(f, "{} steps at learning rates from {low:.1e} to {high:.1e}", self.rates.len())?;
        if self.exploded {
            f.write_str(", where the loss exploded")?;
        }
        match self.bounds().zip(self.suggestion()) {
            Some(([low, high], rate)) => write!(
                f,
                "; it began to fall at {low:.1e} and fell most steeply at {high:.1e}: {rate:.1e} may serve; least, {}, at {:.1e}",
                number(self.smoothed[self.least()]),
                self.rates[self.least()]
            ),
            None => f.write_str("; it did not fall"),
        }
    }
}

impl<T: Scalar, M: Module<T = T>, L: Objective<T = T>, O: Optimizer<T>> Trainer<M, L, O> {
    /// Takes steps at learning rates that grow until the loss explodes: a [`RangeTest`]. Weights, buffers, the optimizer and the
    /// counts of steps are then as they were, bit for bit. Schedules rest meanwhile, and of callbacks only those that change
    /// gradients are called.
    ///
    /// ```
    /// # use chainrule_train::Trainer;
    /// # use chainrule_core::Parameters;
    /// # use chainrule_data::iris;
    /// # use chainrule_layers::Linear;
    /// # use chainrule_losses::CrossEntropy;
    /// # use chainrule_optim::Adam;
    /// use chainrule_train::RangeTest;
    /// # let model = Linear::<f32>::new(4, 3).init(1)?;
    /// let mut trainer = Trainer::new(model, CrossEntropy::new(), Adam::new(1e-3));
    /// let tested = trainer.range_test(&iris(), RangeTest::new())?;
    /// println!("{tested}"); // and tested.picture().save("rates.svg")?
    /// # Ok::<(), chainrule_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::fit`] before its first step, and if the first step fails.
    pub fn range_test(&mut self, train: impl Source<T>, test: RangeTest) -> Result<RangeTested> {
        test.check()?;
        let mut train = train;
        self.check(&train)?;
        let learner = &mut self.learner;
        let mut before = Snapshot::default();
        before.take(&learner.model)?;
        let state = OptimizerState::of(&learner.optimizer, &learner.model)?;
        let rate = learner.optimizer.learning_rate();
        let counts = (learner.run.passes, learner.run.steps);
        let aside = (learner.rate.take(), std::mem::take(&mut learner.others));
        let result = self.at_growing_rates(&mut train, test);
        let learner = &mut self.learner;
        (learner.rate, learner.others) = aside;
        (learner.run.passes, learner.run.steps) = counts;
        before.restore(&mut learner.model)?;
        learner.optimizer.reset();
        if !state.is_empty() {
            learner.optimizer.restore_state(&learner.model, state)?;
        }
        learner.optimizer.set_learning_rate(rate);
        result
    }

    fn at_growing_rates(&mut self, train: &mut dyn Source<T>, test: RangeTest) -> Result<RangeTested> {
        let Self { learner, callbacks, .. } = self;
        let mut loader =
            Loader::new(train, learner.settings.batch_size)?.drop_last(learner.settings.drop_last);
        if learner.settings.shuffle {
            loader = loader.shuffle(learner.settings.seed);
        }
        if loader.batches() == Some(0) {
            return Err(Error::value("range test: expected at least one whole batch, got none"));
        }
        let (mut tested, mut panel, mut empty) = (RangeTested::new(), Panel::new(), false);
        while tested.rates.len() < test.steps {
            let rate = test.rate(tested.rates.len());
            learner.optimizer.set_learning_rate(rate);
            match learner.step_from(&mut loader, &mut panel, callbacks) {
                Ok(step) if step.weight > 0.0 => {
                    empty = false;
                    tested.add(rate, step.loss(learner.loss.reduced_by()));
                }
                // Between two epochs, or a batch that the loss ignores.
                Ok(_) if std::mem::replace(&mut empty, true) => {
                    return Err(Error::value("range test: expected batches with targets, got none"));
                }
                Ok(_) => {}
                Err(error) if tested.rates.is_empty() => return Err(error),
                Err(_) => tested.exploded = true, // a value that is not finite
            }
            tested.exploded |= tested.explodes();
            if tested.exploded {
                break;
            }
        }
        Ok(tested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Means of 4, 4, 1, with weights β², β, 1 over their sum.
    #[test]
    fn the_mean_is_corrected_for_its_start() {
        let mut tested = RangeTested::new();
        [4.0, 4.0, 1.0].into_iter().for_each(|loss| tested.add(1.0, loss));
        let mean = (4.0 * BETA * BETA + 4.0 * BETA + 1.0) / (BETA * BETA + BETA + 1.0);
        assert!((tested.smoothed[1] - 4.0).abs() < 1e-12 && (tested.smoothed[2] - mean).abs() < 1e-12);
        assert!(!tested.explodes());
        tested.add(1.0, f64::INFINITY);
        assert!(tested.explodes());
    }

    #[test]
    fn a_loss_that_goes_below_zero_has_not_exploded() {
        let mut tested = RangeTested::new();
        for i in 0..60 {
            tested.add(f64::from(i), 1.0 - 0.1 * f64::from(i.min(40)));
            assert!(!tested.explodes(), "{i}");
        }
        tested.add(60.0, 1e4);
        assert!(tested.explodes() && tested.suggestion().is_some());
    }

    #[test]
    fn settings_that_make_no_sense_are_errors() {
        let test = RangeTest::new();
        assert!(
            (test.rate(0), test.rate(99)) == (1e-7, test.rate(99)) && (test.rate(99) - 10.0).abs() < 1e-12
        );
        for (low, high) in [(0.0, 1.0), (1.0, 1.0), (1.0, f64::INFINITY), (f64::NAN, 1.0), (-1.0, 1.0)] {
            assert!(test.rates(low, high).check().is_err());
        }
        assert!(test.steps(9).check().is_err() && test.steps(10).check().is_ok());
    }
}
