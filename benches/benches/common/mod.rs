//! A filter that has no case, and the names of the registry's examples.

use chainrule::core::{Entry, Example, Spec};
use criterion::{BenchmarkFilter, Criterion};
use std::{cell::Cell, process::ExitCode};

/// Options of criterion that take no value.
const SWITCHES: &[&str] =
    &["--bench", "--test", "--list", "--exact", "--quick", "--quiet", "--verbose", "--noplot"];

/// The benches whose name contains the first argument that is no option, whatever its case; all without one.
pub struct Benches {
    criterion: Criterion,
    filter: String,
    found: Cell<usize>,
}

impl Benches {
    /// As the command line says.
    pub fn new() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let value = |i: usize| i > 0 && args[i - 1].starts_with("--") && !SWITCHES.contains(&&*args[i - 1]);
        let filter = (0..args.len()).find(|&i| !args[i].starts_with('-') && !value(i));
        let filter = filter.map_or("", |i| &args[i]);
        // Criterion's own filter minds the case.
        let criterion =
            Criterion::default().configure_from_args().with_benchmark_filter(BenchmarkFilter::AcceptAll);
        Self { criterion, filter: filter.to_lowercase(), found: Cell::new(0) }
    }

    /// Criterion, if the name is wanted.
    pub fn wanted(&mut self, name: &str) -> Option<&mut Criterion> {
        let wanted = name.to_lowercase().contains(&self.filter);
        self.found.set(self.found.get() + usize::from(wanted));
        wanted.then_some(&mut self.criterion)
    }

    /// The summary; an error if no name matched.
    pub fn finish(self) -> ExitCode {
        if self.found.get() == 0 {
            eprintln!("no bench matches `{}`", self.filter);
            return ExitCode::FAILURE;
        }
        self.criterion.final_summary();
        ExitCode::SUCCESS
    }
}

/// The examples of a kind that are for benches, named by the kind, and by the attributes in which several differ.
pub fn examples<V>(entry: &Entry<f32, V>) -> Vec<(String, Example)> {
    let all: Vec<Example> = (entry.examples)().into_iter().filter(|example| example.bench).collect();
    let differs = |name: &str| all.iter().any(|other| other.spec.get(name) != all[0].spec.get(name));
    let named = |spec: &Spec| {
        let shown = spec.attributes().iter().filter(|(name, _)| differs(name));
        shown.fold(entry.facts.kind.to_owned(), |text, (name, value)| format!("{text} {name}={value}"))
    };
    all.iter().map(|example| (named(&example.spec), example.clone())).collect()
}
