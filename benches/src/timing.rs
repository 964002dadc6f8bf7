//! The timing protocol, the same for every peer: at least 0.3 s and 3 calls of warm-up; samples of as many calls as last
//! 20 µs; at least 10 samples within the budget.

use std::time::Instant;

/// Microseconds per call.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The median of the samples.
    pub median_us: f64,
    /// The fastest sample.
    pub min_us: f64,
    /// The 90th percentile.
    pub p90_us: f64,
    /// Calls that were timed.
    pub iterations: usize,
}

/// Times a function for about `seconds`.
pub fn time(seconds: f64, f: &mut dyn FnMut()) -> Timing {
    let start = Instant::now();
    let mut calls = 0u32;
    while start.elapsed().as_secs_f64() < 0.3 || calls < 3 {
        f();
        calls += 1;
    }
    let each = start.elapsed().as_secs_f64() / f64::from(calls);
    let per_sample = ((20e-6 / each).ceil() as usize).max(1);
    let mut samples = Vec::new();
    let start = Instant::now();
    while samples.len() < 10 || (start.elapsed().as_secs_f64() < seconds && samples.len() < 20_000) {
        let t = Instant::now();
        (0..per_sample).for_each(|_| f());
        samples.push(t.elapsed().as_secs_f64() * 1e6 / per_sample as f64);
    }
    samples.sort_by(f64::total_cmp);
    Timing {
        median_us: samples[samples.len() / 2],
        min_us: samples[0],
        p90_us: samples[samples.len() * 9 / 10],
        iterations: samples.len() * per_sample,
    }
}

/// The middle one of some samples, of which there is at least one.
pub fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// The largest resident memory of this process so far, in MB; 0 where the system does not tell.
pub fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
