//! Runs reference cases computed by PyTorch through chainrule's layers, losses, optimizers, schedules and whole networks.
//!
//! A case names a class and its constructor's arguments; the runner finds the kind of that name in the registry, builds it
//! from the arguments alone, sets the parameters, and compares outputs, buffers after the pass, and the gradients of inputs
//! and parameters.

mod args;
mod attention;
mod case;
mod compare;
mod lbfgs;
mod models;
mod module;
mod more;
mod optimizers;
mod recurrent;
mod report;
mod schedules;

pub use report::Report;

use case::{File, text};
use chainrule_core::{Error, Registry, Result};
use chainrule_tensor::compiled;
use serde_json::Value;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

compiled! {
    /// Everything that the runner can build. It is compiled here for both types: the tests that walk the catalogue call it, and need
    /// not compile every layer each.
    pub fn registry[T]() -> Registry<T> {
        chainrule_layers::registry().merge(chainrule_losses::registry()).merge(chainrule_optim::registry())
    }
}

/// How one case ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Everything agrees.
    Passed,
    /// The first thing that differs.
    Failed(String),
    /// The library does not have the module or the argument that is named.
    Skipped(String),
}

/// A module or an argument that the library does not have, or an error while the case was run.
enum Stop {
    Skip(String),
    Fail(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Fail(error.to_string())
    }
}

/// What a step of a case gives.
type Step<V> = std::result::Result<V, Stop>;

/// Runs one case. A panic in it is a failure of this case.
fn outcome(case: impl FnOnce() -> Step<()>) -> Outcome {
    let panicked = |_| Err(Stop::Fail("it panicked".into()));
    match catch_unwind(AssertUnwindSafe(case)).unwrap_or_else(panicked) {
        Ok(()) => Outcome::Passed,
        Err(Stop::Fail(why)) => Outcome::Failed(why),
        Err(Stop::Skip(why)) => Outcome::Skipped(why),
    }
}

/// Runs those cases of a file that are wanted, by what each names under `kind`.
fn each_case(
    file: &File<'_>,
    kind: &str,
    wanted: &dyn Fn(&str) -> bool,
    report: &mut Report,
    run: &dyn Fn(&str, &Value) -> Step<()>,
) -> Result<()> {
    for case in &file.cases {
        let (name, id) = (text(case, kind)?, text(case, "id")?);
        if wanted(name) {
            report.add(name, id, outcome(|| run(name, case)));
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|e| Error::io(e, format!("read {}", file.display())))
}

compiled! {
    /// Runs every case of a folder, or those of one module.
    ///
    /// # Errors
    /// The folder or one of its files cannot be read, or there is no case.
    pub fn run[T](folder: &Path, only: Option<&str>) -> Result<Report> {
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
            .map_err(|e| Error::io(e, format!("read {}", folder.display())))?
            .into_iter()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        let (registry, mut report) = (registry::<T>(), Report::default());
        for file in files {
            let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let in_file = |e: Error| Error::format(format!("{name}: {e}"));
            let wanted = |module: &str| only.is_none_or(|only| only == module);
            if name == "schedules.json" {
                schedules::run(&read(&file)?, &registry, &wanted, &mut report).map_err(in_file)?;
            } else if name == "optimizers.safetensors" {
                optimizers::run(&read(&file)?, &registry, &wanted, &mut report).map_err(in_file)?;
            } else if name == "optimizers_more.safetensors" {
                more::run(&read(&file)?, &registry, &wanted, &mut report).map_err(in_file)?;
            } else if name == "lbfgs.safetensors" {
                lbfgs::run(&read(&file)?, &registry, &wanted, &mut report).map_err(in_file)?;
            } else if file.is_dir() {
                let case = file.join("case.safetensors");
                if case.is_file() {
                    let (case, weights) = (read(&case)?, read(&file.join("weights.safetensors"))?);
                    models::run((&case, &weights), &registry, &wanted, &mut report).map_err(in_file)?;
                }
            } else if name.ends_with(".safetensors") {
                let bytes = read(&file)?;
                for case in case::read(&bytes).map_err(in_file)? {
                    if wanted(&case.module) {
                        report.add(&case.module, &case.id, outcome(|| module::run(&registry, &case)));
                    }
                }
            }
        }
        if report.is_empty() {
            return Err(Error::value(format!("expected reference cases in {}, found none", folder.display())));
        }
        Ok(report)
    }
}
