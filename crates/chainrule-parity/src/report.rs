//! The table by module.

use crate::Outcome;
use std::{collections::BTreeMap, fmt};

/// The outcomes of a run, by module. Displays as a table whose last line is `N passed, M failed, K skipped`.
#[derive(Clone, Debug, Default)]
pub struct Report(BTreeMap<String, Vec<(String, Outcome)>>);

impl Report {
    pub(crate) fn add(&mut self, module: &str, id: &str, outcome: Outcome) {
        self.0.entry(module.to_owned()).or_default().push((id.to_owned(), outcome));
    }

    /// Whether no case was run.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All outcomes as (module, case, outcome).
    pub fn cases(&self) -> impl Iterator<Item = (&str, &str, &Outcome)> {
        self.0.iter().flat_map(|(module, cases)| {
            cases.iter().map(move |(id, outcome)| (module.as_str(), id.as_str(), outcome))
        })
    }

    /// (passed, failed, skipped) over all modules.
    pub fn totals(&self) -> [usize; 3] {
        self.0.values().fold([0; 3], |sum, cases| {
            let c = counts(cases);
            [sum[0] + c[0], sum[1] + c[1], sum[2] + c[2]]
        })
    }
}

fn counts(cases: &[(String, Outcome)]) -> [usize; 3] {
    let mut c = [0; 3];
    for (_, outcome) in cases {
        c[match outcome {
            Outcome::Passed => 0,
            Outcome::Failed(_) => 1,
            Outcome::Skipped(_) => 2,
        }] += 1;
    }
    c
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:28} {:>7} {:>7} {:>12}", "module", "passed", "failed", "not covered")?;
        for (module, cases) in &self.0 {
            let [passed, failed, skipped] = counts(cases);
            write!(f, "{module:28} {passed:7} {failed:7} {skipped:12}")?;
            let mut reasons: Vec<&str> = cases
                .iter()
                .filter_map(|(_, o)| if let Outcome::Skipped(why) = o { Some(why.as_str()) } else { None })
                .collect();
            reasons.sort_unstable();
            reasons.dedup();
            if !reasons.is_empty() {
                write!(f, "   {}", reasons.join("; "))?;
            }
            writeln!(f)?;
            for (id, outcome) in cases {
                if let Outcome::Failed(why) = outcome {
                    writeln!(f, "    {id}: {why}")?;
                }
            }
        }
        let [passed, failed, skipped] = self.totals();
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}
