//! Learning rates over time, as factors of the optimizer's own rate. Step 0 is the first. Derivations:
//! docs/optimizers/schedules.md.
//!
//! ```
//! use chainrule_core::Schedule;
//! use chainrule_optim::schedule::{Cosine, LinearWarmup};
//! let schedule = LinearWarmup::new(5).from(0.1).then(5, Cosine::new(95));
//! assert!(schedule.factor(0) < schedule.factor(4) && schedule.factor(99) < 0.01);
//! ```

pub(crate) mod constant;
pub(crate) mod cosine;
pub(crate) mod linear_warmup;
pub(crate) mod sequence;
pub(crate) mod step;

pub use chainrule_core::Schedule;
pub use constant::Constant;
pub use cosine::Cosine;
pub use linear_warmup::LinearWarmup;
pub use sequence::Sequence;
pub use step::Step;

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
then!(Constant Cosine LinearWarmup Step);

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
