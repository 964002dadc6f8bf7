//! How cases are drawn. The macros run them by the caller's own proptest.

use super::Violation;

/// The cases of a test, unless it says otherwise.
pub const CASES: u32 = 24;
/// The most attempts at a smaller case that fails too.
pub const SHRINKS: u32 = 1_000;
/// The cases are the same ones in every run, so that a test that passes does not fail tomorrow.
pub const SEED: u64 = 0x5eed;

/// Whether the environment sets this option of proptest.
pub fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some()
}

/// All violations as one text; `None` if there are none.
pub fn verdict(violations: &[Violation]) -> Option<String> {
    let texts: Vec<String> = violations.iter().map(Violation::to_string).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}
