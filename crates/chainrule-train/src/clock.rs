//! Time, where there is a clock.

use std::time::{Duration, Instant};

/// A moment. `wasm32-unknown-unknown` has no clock, and asking for the time there would panic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(Option<Instant>);

impl Moment {
    pub(crate) fn now() -> Self {
        let clock = !cfg!(all(target_family = "wasm", target_os = "unknown"));
        Self(clock.then(Instant::now))
    }

    /// The time since then; `None` without a clock.
    pub(crate) fn elapsed(self) -> Option<Duration> {
        self.0.map(|then| then.elapsed())
    }

    /// Seconds since then; 0 without a clock.
    pub(crate) fn seconds(self) -> f64 {
        self.elapsed().map_or(0.0, |time| time.as_secs_f64())
    }
}
