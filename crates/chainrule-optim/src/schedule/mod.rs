//! Learning rates over time, as factors of the optimizer's own rate. Step 0 is the first. Derivations:
//! docs/optimizers/schedules.md.
//!
//! ```
//! use chainrule_core::Schedule;
//! use chainrule_optim::schedule::{Cosine, LinearWarmup};
//! let schedule = LinearWarmup::new(5).from(0.1).then(5, Cosine::new(95));
//! assert!(schedule.factor(0) < schedule.factor(4) && schedule.factor(99) < 0.01);
//! ```

pub(crate) mod chained;
pub(crate) mod constant;
pub(crate) mod cosine;
pub(crate) mod cyclic;
pub(crate) mod exponential;
pub(crate) mod inverse_time;
mod lambda;
pub(crate) mod linear_warmup;
pub(crate) mod multi_step;
pub(crate) mod noam;
pub(crate) mod one_cycle;
pub(crate) mod piecewise;
mod plateau;
pub(crate) mod polynomial;
pub(crate) mod sequence;
pub(crate) mod step;
pub(crate) mod trapezoid;
pub(crate) mod warm_restarts;

pub use chained::Chained;
pub use chainrule_core::Schedule;
pub use constant::Constant;
pub use cosine::Cosine;
pub use cyclic::{Cyclic, Peaks};
pub use exponential::Exponential;
pub use inverse_time::InverseTime;
pub use lambda::{Lambda, Multiplicative};
pub use linear_warmup::LinearWarmup;
pub use multi_step::MultiStep;
pub use noam::Noam;
pub use one_cycle::OneCycle;
pub use piecewise::Piecewise;
pub use plateau::{Goal, Plateau, PlateauState, Threshold};
pub use polynomial::Polynomial;
pub use sequence::Sequence;
pub use step::Step;
pub use trapezoid::Trapezoid;
pub use warm_restarts::WarmRestarts;

use chainrule_core::{Error, Result};

/// Where the derivations of all schedules stand.
const PAGE: &str = "optimizers/schedules.md";

/// Gives a schedule the method that begins a [`Sequence`].
macro_rules! then {
    ($($schedule:ident)*) => {$(
        impl $schedule {
            /// This schedule until `step`, then `next`, which counts from 0 again.
            #[must_use]
            pub fn then(self, step: u64, next: impl Schedule + 'static) -> Sequence {
                Sequence::new(self).then(step, next)
            }
        }
    )*};
}
then!(
    Chained Constant Cosine Cyclic Exponential InverseTime Lambda LinearWarmup MultiStep Multiplicative Noam OneCycle
    Piecewise Polynomial Step Trapezoid WarmRestarts
);

fn finite(schedule: &str, name: &str, value: f64) -> Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::value(format!("{schedule}: expected finite {name}, got {value}")))
}

fn from_one(schedule: &str, name: &str, value: u64) -> Result<()> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::value(format!("{schedule}: expected {name} from 1, got 0")))
}
