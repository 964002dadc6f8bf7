//! Runs a test over random cases.

use super::Violation;
use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner},
};

/// The cases of a test, unless it says otherwise.
const CASES: u32 = 24;
/// The most attempts at a smaller case that fails too.
const SHRINKS: u32 = 1_000;
/// The cases are the same ones in every run, so that a test that passes does not fail tomorrow.
const SEED: u64 = 0x5eed;

/// Draws cases and panics with the first, made small, in which a law is broken. The macros call this.
///
/// # Panics
/// A law is broken.
pub fn run<S: Strategy>(
    (file, name): (&'static str, &'static str),
    cases: Option<u32>,
    strategy: &S,
    test: impl Fn(S::Value) -> Vec<Violation>,
) {
    let mut config = Config { source_file: Some(file), test_name: Some(name), ..Config::default() };
    config.max_shrink_iters = SHRINKS;
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases.unwrap_or(CASES);
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(SEED);
    }
    let result = TestRunner::new(config).run(strategy, |value| {
        let violations = test(value);
        if violations.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> = violations.iter().map(Violation::to_string).collect();
        Err(TestCaseError::fail(texts.join("\n")))
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, value)) => panic!("{name}: {reason}\n  in the case {value:?}"),
        Err(TestError::Abort(reason)) => panic!("{name}: no cases: {reason}"),
    }
}
